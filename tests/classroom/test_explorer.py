"""Checks of notebooks/01-explorer: right readings, and the mistakes that are told apart."""

from dataclasses import replace

import pytest
import torch

import mrviz
from mrviz.classroom import check
from mrviz.experiment import Experiment
from mrviz.workbench import Workbench

pytest.importorskip("sklearn")

SMALL = Experiment().changed(source="dnn", depth=2, width=64, input_size=12, target="digits", n=20)


@pytest.fixture(scope="module")
def result():
    """200 rows, 80 parameters at the largest frame: T1 fails."""
    return Workbench().run(SMALL, progress=False)


def with_eigenvalues(result, *values, parameters=3):
    """The same result with another spectrum, of which what is below 1e-3 is not resolved."""
    matrix = torch.diag(torch.tensor(values, dtype=torch.float64))
    spec = mrviz.spectrum(matrix, epsilon=1e-3 / (len(values) * max(values)))
    return replace(result, spectrum=spec, info=replace(result.info, n_parameters=parameters))


def says(verdict, outcome, *words):
    assert verdict.outcome == outcome, verdict
    assert all(word in verdict.message for word in words), verdict


# --- 01.1 -----------------------------------------------------------------------------------


def test_what_lies_below_the_floor_is_not_resolved(result):
    hidden = with_eigenvalues(result, 5.0, 2.0, 4e-4)
    assert hidden.spectrum.floor == pytest.approx(1e-3)
    for answer in ("not resolved", "Not resolved "):
        says(check("01.1", answer, results=hidden), "right", "1 of 3", "0.001")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (4e-4, "computer returned it"),
        (1e-3, "That is the noise floor"),
        (2.0, "smallest of the 2 *resolved*"),
        (0, "That it is zero is not known"),
        ("zero", "That it is zero is not known"),
        (7.0, "1 eigenvalues lie below"),
        ("small", "none of a number"),
    ],
)
def test_a_wrong_reading_below_the_floor_is_told_its_mistake(result, answer, words):
    hidden = with_eigenvalues(result, 5.0, 2.0, 4e-4)
    says(check("01.1", answer, results=hidden), "wrong", words)


def test_a_resolved_eigenvalue_is_read(result):
    full = with_eigenvalues(result, 5.0, 2.0, 0.5)
    for answer in (0.5, 0.499, torch.tensor(0.5)):
        says(check("01.1", answer, results=full), "right", "above the noise floor")
    says(check("01.1", "not resolved", results=full), "wrong", "All 3 eigenvalues")
    says(check("01.1", 2.0, results=full), "wrong", "too large")


def test_too_few_parameters_make_it_zero(result):
    assert result.info.n_parameters < result.spectrum.order == 200
    for answer in ("zero", 0, 0.0):
        says(check("01.1", answer, results=result), "right", "exactly zero")
    says(check("01.1", "not resolved", results=result), "wrong", "More is known")
    says(check("01.1", 1.0, results=result), "wrong", "T1 fails")


def test_an_explorer_without_a_result_is_waited_for():
    says(check("01.1", 3.0, results=None), "open", "wait")


# --- 01.2 -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def larger():
    found = {}
    for name in ("border", "linear"):
        result = Workbench().run(SMALL.changed(program=name), progress=False)
        spec = result.spectrum
        found[name] = {
            "rank": spec.rank,
            "effective rank": spec.effective_rank,
            "largest eigenvalue": spec.largest,
            "first energy": float(result.energy[0]),
        }
    return {key: max(found, key=lambda p: found[p][key]) for key in found["border"]}


def compare(answer):
    return check("01.2", answer, experiment=SMALL, programs=("border", "linear"))


def test_the_comparison_is_that_of_both_spectra(larger):
    says(compare(larger), "right", "border: effective rank", "of the residual in the first mode")
    says(compare({name: value.upper() for name, value in larger.items()}), "right")


@pytest.mark.parametrize("name", ["rank", "effective rank", "largest eigenvalue", "first energy"])
def test_each_wrong_comparison_is_named(larger, name):
    other = {"border": "linear", "linear": "border"}[larger[name]]
    says(compare({**larger, name: other}), "wrong", f"{other} has the smaller {name}", "DNN")
    says(compare({**larger, name: ...}), "open", "is still missing")
    says(compare({**larger, name: "both"}), "wrong", "one of 'border', 'linear'")


def test_a_comparison_is_a_dictionary():
    says(compare("linear"), "wrong", "dictionary")


# --- 01.3 -----------------------------------------------------------------------------------


def test_the_largest_frame_with_too_few_parameters_is_counted():
    experiment = replace(SMALL, n=10)  # nC = 100; p = 44, 80 of a 12 × 12 canvas around 8 × 8
    says(check("01.3", 2, experiment=experiment), "right", "p = 80", "nC = 100", "20 eigenvalues")
    says(check("01.3", 1, experiment=experiment), "wrong", "at a larger capacity too")
    says(check("01.3", 3, experiment=experiment), "wrong", "1 to 2")
    says(check("01.3", 1.5, experiment=experiment), "wrong", "whole number")


def test_a_capacity_at_which_t1_holds_is_told_apart():
    experiment = SMALL.changed(input_size=16, n=10)  # p = 60, 112, 156, 192
    says(check("01.3", 1, experiment=experiment), "right", "p = 60")
    says(check("01.3", 2, experiment=experiment), "wrong", "p = 112", "T1 holds there")


def test_where_t1_never_fails_or_there_is_no_capacity_nothing_is_judged():
    plenty = SMALL.changed(program="low_rank", n=10)
    says(check("01.3", 1, experiment=plenty), "open", "more samples")
    linear = SMALL.changed(program="linear")
    says(check("01.3", 1, experiment=linear), "open", "no capacity")


# --- 01.4 -----------------------------------------------------------------------------------

FINE = Experiment().changed(source="dnn", depth=3, target="digits")  # 640 rows, p = 960


@pytest.fixture(scope="module")
def ranks():
    bench = Workbench()
    return {
        dtype: bench.run(replace(FINE, dtype=dtype), progress=False).spectrum.rank
        for dtype in ("float32", "float64")
    }


def test_the_rank_in_double_precision_is_right(ranks):
    single, double = ranks.values()
    assert single < double < 640
    for dtype in ranks:  # whatever the Explorer shows at the moment
        at = replace(FINE, dtype=dtype)
        says(check("01.4", double, experiment=at), "right", f"instead of {single}")
        says(check("01.4", single, experiment=at), "wrong", "in float32", "DNN depth 3")


def test_other_numbers_are_told_apart(ranks):
    double = ranks["float64"]
    for answer, words in (
        (640, "order of the matrix"),
        (960, "number of parameters"),
        (640 - double, "not resolved"),
        (double + 1, "too large"),
    ):
        says(check("01.4", answer, experiment=FINE), "wrong", words)


# --- 01.5 -----------------------------------------------------------------------------------


def test_the_best_predicted_capacity_is_that_of_the_explorer():
    choices = {"source": "dnn", "width": 128, "input_size": 20, "target": "digits", "n": 20}
    explorer = mrviz.explore(view="capacity", **choices)
    try:
        assert explorer.wait(timeout=120)
        predicted = explorer.details["predicted_accuracy"]
        experiment = explorer.experiment
    finally:
        explorer.close()
    assert len(predicted) == 6
    best, worst = max(predicted.values()), min(predicted, key=predicted.get)
    assert predicted[worst] < best
    for capacity, accuracy in predicted.items():
        outcome = "right" if accuracy == best else "wrong"
        said = f"{best:.1%}" if accuracy == best else f"is {accuracy:.1%}"
        says(check("01.5", capacity, experiment=experiment), outcome, said)
    says(check("01.5", 9, experiment=experiment), "wrong", "1 to 6")


def test_nothing_is_best_without_a_capacity():
    linear = SMALL.changed(program="linear")
    says(check("01.5", 1, experiment=linear), "open", "no capacity")


# --- 01.6 -----------------------------------------------------------------------------------


def test_the_trace_kernel_bounds_from_above():
    for answer in ("b", " B "):
        says(check("01.6", answer, experiment=SMALL), "right", "order 20", "order 200")
    says(check("01.6", "a", experiment=SMALL), "wrong", "averages")
    says(check("01.6", "c", experiment=SMALL), "wrong", "Something is known")
    says(check("01.6", "d", experiment=SMALL), "wrong", "one of 'a', 'b', 'c'")
    says(check("01.6", ..., experiment=SMALL), "open")
