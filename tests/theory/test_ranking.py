"""Rankings: the prediction they sort by, what fails, ties, and the tables."""

import json
import threading

import pytest
import torch
from torch import nn

import mrviz
from mrviz.theory.prediction import predict_training
from mrviz.theory.ranking import rank_programs, rank_sources
from mrviz.theory.ranking.rank import _tied
from mrviz.theory.ranking.table import CONDITIONS
from mrviz.theory.statistics import wilson_interval
from tests.ntk.common import uniform

QUIET = {"progress": False}


def task(n=12, m=9, size=2):
    x = uniform(n + m, 1, size, size)
    y = torch.arange(n + m) % 3
    return mrviz.Target(x[:n], y[:n], x[n:], y[n:])


def linear_source(seed=0, size=4):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 3))
    return mrviz.SourceModel(net, (1, size, size), name=f"net {seed}")


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("no such thing")


def test_rows_hold_the_matched_prediction_and_are_sorted():
    source, target = linear_source(), task()
    names = ["border", "linear", ("low_rank", {"rank": 1})]
    ranking = rank_programs(source, target, names, steps=30, n_test=8, **QUIET)
    assert {row.name for row in ranking} == {"border", "linear", "low_rank (rank=1)"}
    accuracies = [row.accuracy for row in ranking]
    assert accuracies == sorted(accuracies, reverse=True)
    row = next(row for row in ranking if row.name == "linear")
    model = mrviz.reprogram(source, target, program="linear")
    expected = predict_training(model, target, steps=30, n_test=8, **QUIET)
    assert row.accuracy == expected.accuracy and row.lr == expected.lr
    assert row.loss == expected.trajectory.test_loss[-1]
    assert row.interval == wilson_interval(round(8 * row.accuracy), 8)
    assert row.parameters == model.n_parameters and row.passes == 3 * (12 + 8)
    assert set(row.conditions) == set(CONDITIONS) and row.conditions["T1"] == "holds"
    assert row.source_accuracy is None and row.seconds > 0


def test_a_candidate_that_fails_is_kept_last_and_stops_no_other():
    source, target = linear_source(size=2), task()  # the image fills the source's input
    ranking = rank_programs(source, target, ["border", "overlay", Broken(), "nothing"], **QUIET)
    assert ranking[0].name == "overlay" and ranking[0].tied and ranking[0].error is None
    assert [row.name for row in ranking][1:] == ["border", "Broken", "nothing"]
    assert "leaves no frame" in ranking[1].error
    assert ranking[2].error == "RuntimeError: no such thing"
    assert "program must be one of" in ranking[3].error
    assert ranking.best == (ranking[0],)
    alone = rank_programs(source, target, ["border"], **QUIET)
    assert alone.best == () and "failed" in repr(alone) and "failed" in alone._repr_html_()


def test_divergence_is_a_failure_not_an_accuracy():
    options = {"lr": 1e6, "loss": "squared", "steps": 200}
    (row,) = rank_programs(linear_source(), task(), ["linear"], **options, **QUIET)
    assert row.accuracy is None and "diverges at step" in row.error


def test_all_programs_by_default_and_a_program_of_ones_own_is_not_changed():
    source, target = linear_source(), task()
    ranking = rank_programs(source, target, steps=5, **QUIET)
    assert {row.name for row in ranking} == {
        name for name, spec in mrviz.programs.PROGRAMS.items() if spec.fits(target.shape)
    }
    own = mrviz.programs.Overlay((1, 4, 4), (1, 2, 2))
    (row,) = rank_programs(source, target, [own], steps=5, **QUIET)
    assert row.name == "Overlay" and not own.delta.any() and row.error is None


def test_ties_are_told_by_the_samples_on_which_two_predictions_differ():
    best = torch.tensor([True] * 20 + [False] * 5)
    assert _tied(best, best)
    five, six = best.clone(), best.clone()
    five[:5], six[:6] = False, False
    assert _tied(best, five)  # 5 : 0, p = 1/16
    assert not _tied(best, six)  # 6 : 0, p = 1/32


def test_sources_by_name_with_options_and_as_objects():
    target = mrviz.load_target("digits", n_train=20, n_test=30)
    trained = mrviz.load_source(
        "dnn", depth=2, width=32, trained_on="digits", epochs=2, progress=False
    )
    other = ("dnn", {"depth": 2, "width": 16, "input_size": 8})
    strange = ("dnn", {"depth": -1})
    ranking = rank_sources([other, trained, strange], target, "linear", steps=20, **QUIET)
    by_name = {row.name: row for row in ranking}
    assert ranking[0].name == trained.name  # the task is the source's own
    report = trained.training_report
    assert by_name[trained.name].source_accuracy == pytest.approx(report.test_accuracy)
    assert by_name["dnn (depth=2, width=16, input_size=8)"].source_accuracy is None
    assert "depth" in ranking[2].error


def test_tables_and_plain_values():
    ranking = rank_programs(linear_source(), task(), ["border", Broken()], steps=5, **QUIET)
    kept = json.loads(json.dumps(ranking.to_dict()))
    assert kept["kind"] == "program" and kept["n"] == 12 and kept["rows"][1]["error"]
    frame = ranking.to_frame()
    assert list(frame["program"]) == ["border", "Broken"]
    assert {"accuracy", "low", "high", "leep", "T2", "passes"} <= set(frame.columns)
    assert "border" in repr(ranking) and "tied" in ranking._repr_html_()
    assert len(ranking) == 2 and len({ranking, *ranking}) == 3


def test_settings_that_no_candidate_meets_are_errors_at_once():
    source, target = linear_source(), task()
    x = uniform(6, 1, 2, 2)
    real = mrviz.Target(x, uniform(6, 3), x, uniform(6, 3))
    for arguments, options, match in (
        ((source, target, []), {}, "no program to rank"),
        ((source, real), {"loss": "squared"}, "real-valued"),
        ((source, target), {"n": 99}, "n=99"),
        ((source, target), {"lr": -1.0}, "lr"),
        ((source, target), {"steps": 0}, "steps"),
        ((source, target), {"loss": "hinge"}, "loss"),
        ((nn.Linear(2, 2), target), {}, "SourceModel"),
    ):
        with pytest.raises(mrviz.InputError, match=match):
            rank_programs(*arguments, **options, **QUIET)


def test_cancel_and_progress():
    stop, seen = threading.Event(), []
    source, target = linear_source(), task()

    def report(done, total, label):
        seen.append((done, total, label))
        if done == 1:
            stop.set()

    with pytest.raises(mrviz.Cancelled):
        rank_programs(source, target, ["border", "linear"], progress=report, cancel=stop)
    assert seen == [(0, 2, "ranking programs"), (1, 2, "ranking programs")]
