"""The workbench: what it keeps, and that what it keeps is right."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import mrviz
from mrviz.errors import Cancelled, InputError
from mrviz.experiment import Experiment
from mrviz.workbench import Workbench
from mrviz.workbench import bench as module

SMALL = Experiment(source="dnn", depth=2, width=16, input_size=16, target="digits", n=20)


@pytest.fixture
def bench():
    return Workbench()


@pytest.fixture
def gathered(monkeypatch):
    """Arguments of every call that measured evidence."""
    calls = []
    original = module.gather_evidence

    def counting(model, x, targets, **options):
        calls.append((len(x), options["dtype"]))
        return original(model, x, targets, **options)

    monkeypatch.setattr(module, "gather_evidence", counting)
    return calls


def run(bench, experiment, **options):
    return bench.run(experiment, progress=False, **options)


def same(a, b, tolerance=1e-6):
    scale = a.spectrum.largest
    difference = (a.spectrum.eigenvalues - b.spectrum.eigenvalues).abs().max()
    return (
        float(difference) <= tolerance * scale
        and [c.status for c in a.conditions] == [c.status for c in b.conditions]
        and a.info.n_parameters == b.info.n_parameters
        and a.description == b.description
    )


def test_a_run_is_kept(bench):
    assert bench.cached(SMALL) is None
    first = run(bench, SMALL)
    assert first.exact and first.n == 20 and first.experiment.capacity == 4
    assert run(bench, SMALL) is first is bench.cached(first.experiment)
    assert bench.cached(SMALL) is first  # no capacity chosen: the largest
    assert bench.cached(replace(SMALL, capacity=3)) is None
    assert bench.cached(replace(SMALL, reduce="trace")) is None


def test_a_run_agrees_with_the_public_functions(bench):
    experiment = replace(SMALL, capacity=2, reduce="trace", dtype="float64")
    result = run(bench, experiment)
    source = mrviz.load_source("dnn", depth=2, width=16, input_size=16)
    target = mrviz.load_target("digits", n_train=20)
    model = mrviz.reprogram(source, target, width=2)
    gram = mrviz.ntk_gram(model, target.x_train, reduce="trace", dtype=torch.float64)
    spec = mrviz.spectrum(gram)
    assert torch.allclose(spec.eigenvalues, result.spectrum.eigenvalues)
    assert torch.allclose(bench.gram(experiment).matrix, gram.matrix)
    assert float(result.energy.sum()) == pytest.approx(1)
    assert result.spectrum.eigenvectors is None


@pytest.mark.parametrize("reduce", ["full", "trace", 4])
@pytest.mark.parametrize("program", ["border", "linear_border"])
def test_a_sweep_equals_runs(bench, program, reduce):
    experiment = replace(SMALL, program=program, reduce=reduce, dtype="float64")
    swept = list(bench.sweep(experiment, progress=False))
    assert [r.experiment.capacity for r in swept] == [1, 2, 3, 4]
    other = Workbench()
    for result in swept:
        assert result.exact and bench.cached(result.experiment) is result
        assert same(result, run(other, result.experiment))
    assert len({r.info.n_parameters for r in swept}) == 4


def test_a_run_after_a_sweep_has_its_own_capacity(bench):
    list(bench.sweep(SMALL, progress=False))
    fresh = replace(SMALL, capacity=2, reduce="sum")
    assert same(run(bench, fresh), run(Workbench(), fresh))


@pytest.mark.parametrize("program", ["linear", "overlay"])
def test_nothing_to_sweep_without_capacity(bench, program):
    assert list(bench.sweep(replace(SMALL, program=program), progress=False)) == []


def test_a_sketch_is_not_taken_for_the_exact_result(bench):
    mrviz.ntk.cache.clear()
    (sketch,) = bench.sketches(SMALL, progress=False)
    assert (sketch.n, sketch.exact, sketch.spectrum.order) == (12, False, 120)
    assert "12 of 20 samples" in sketch.sketch and "%" in sketch.sketch
    assert bench.cached(SMALL) is bench.cached(sketch.experiment) is None
    exact = run(bench, SMALL)
    assert exact.exact and exact.spectrum.order == 200
    assert exact.info.cached == 12  # the sketch's Jacobians were used
    assert bench.cached(SMALL) is exact


def test_sketches_get_better_and_leave_small_sets_alone(bench):
    sizes = [s.n for s in bench.sketches(replace(SMALL, n=80), progress=False)]
    assert sizes == [12, 48]
    assert list(bench.sketches(replace(SMALL, n=17), progress=False)) == []


def test_sketches_of_many_classes_look_at_some_directions(bench):
    y = np.arange(60) % 30
    x = np.random.default_rng(0).random((60, 1, 4, 4))
    target = mrviz.Target(x, y, x, y, name="thirty")
    source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 30)), (1, 8, 8))
    many = Experiment(source=source, target=target, n=60, program="border", mapping="identity")
    first, *_ = bench.sketches(many, progress=False)
    assert first.spectrum.order == 12 * 16 and "16 of 30 output directions" in first.sketch
    exact = run(bench, many)
    assert first.spectrum.largest <= exact.spectrum.largest
    assert {c.id for c in first.conditions} == {c.id for c in exact.conditions}


def test_evidence_is_measured_once_for_all_capacities_and_reductions(bench, gathered):
    run(bench, SMALL)
    run(bench, replace(SMALL, capacity=1))
    run(bench, replace(SMALL, reduce="trace"))
    list(bench.sweep(SMALL, progress=False))
    assert gathered == [(20, torch.float32)]
    run(bench, replace(SMALL, dtype="float64"))
    list(bench.sketches(SMALL, progress=False))
    assert gathered[1:] == [(20, torch.float64), (12, torch.float32)]


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"capacity": 0}, "1 to 4"),
        ({"capacity": 5}, "1 to 4"),
        ({"program": "linear", "capacity": 2}, "leave capacity out"),
        ({"program": "overlay", "image_size": 8}, "image_size"),
        ({"image_size": 16}, "no frame"),
        ({"n": 9}, "at least 10"),
        ({"reduce": 10}, "0 to 9"),
    ],
)
def test_what_is_not_possible_is_said_and_the_bench_stays_usable(bench, choices, words):
    with pytest.raises(InputError, match=words):
        run(bench, replace(SMALL, **choices))
    assert same(run(bench, SMALL), run(Workbench(), SMALL))


def test_source_strength_is_decided_for_a_trained_source_only(bench):
    trained = run(bench, replace(SMALL, trained_on="digits", input_size=12)).conditions["T8"]
    assert trained.status == "holds" and trained.value > 0.5
    assert run(bench, SMALL).conditions["T8"].status == "undecided"


def test_a_set_flag_stops_the_run(bench):
    class Set:
        def is_set(self):
            return True

    with pytest.raises(Cancelled):
        run(bench, SMALL, cancel=Set())
    assert bench.cached(SMALL) is None
    assert run(bench, SMALL).exact


def test_a_module_of_ones_own_as_program(bench):
    experiment = replace(
        SMALL, input_size=8, program=nn.Conv2d(1, 1, 3, padding=1), dtype="float64"
    )
    result = run(bench, experiment)
    assert (result.capacity_range, result.info.n_parameters) == (None, 10)
    assert result.spectrum.rank <= 10


def test_results_as_plain_values(bench):
    result = run(bench, replace(SMALL, program="linear"))
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert found["spectrum"]["eigenvalues"] == result.spectrum.eigenvalues.tolist()
    assert found["conditions"]["T1"]["status"] == result.conditions["T1"].status
    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert [int(row["index"]) for row in rows] == list(range(1, 201))
    assert [float(row["eigenvalue"]) for row in rows] == result.spectrum.eigenvalues.tolist()
