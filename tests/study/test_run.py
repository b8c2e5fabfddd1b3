"""Studies that are run: their rows, failures, and going on after every way of being stopped."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import mrviz
from mrviz.programs.training import train
from mrviz.study import correlate, load, run, runner
from mrviz.study import measure as module
from mrviz.theory.prediction import predict_training

GRID = {
    "source": "dnn",
    "depth": [1, 2],
    "input_size": 10,
    "target": "digits",
    "n": 10,
    "n_test": 20,
    "program": "border",
    "optimizer": "gd",
    "steps": 4,
    "seed": [0, 1],
}
QUIET = {"progress": False}


def test_rows_are_what_the_parts_give_by_hand(tmp_path):
    path = tmp_path / "study.sqlite"
    study = run(GRID, path, **QUIET)
    assert (study.total, study.known, study.done, study.failed) == (4, 0, 4, 0)
    rows = load(path)
    row = next(r for r in rows if (r["depth"], r["seed"]) == (2, 1))
    source = mrviz.load_source("dnn", depth=2, input_size=10, seed=1, progress=False)
    target = mrviz.load_target("digits", n_train=10, n_test=20, seed=1)
    model = mrviz.reprogram(source, target, program="border", seed=1)
    predicted = predict_training(model, target, steps=4, **QUIET)
    fit = train(model, target, **predicted.train_options, **QUIET)
    assert row["predicted_accuracy"] == predicted.accuracy
    assert row["lr_used"] == pytest.approx(predicted.lr)
    assert row["test_accuracy"] == fit.test_accuracy[-1]
    assert row["test_loss"] == pytest.approx(fit.test_loss[-1], rel=1e-5)
    assert row["start_accuracy"] == fit.test_accuracy[0]
    assert row["T1_status"] == "fails" and row["status"] == "done" and row["error"] is None
    assert row["versions"]["mrviz"] == mrviz.__version__ and row["seconds"] > 0
    assert {"logme", "h_score", "leep", "nce", "T2_value", "lambda_max"} <= set(row)
    assert row["source_accuracy"] is None  # random weights
    found = correlate(rows, ["predicted_loss", "source_accuracy"], ["test_loss"], bootstrap=20)
    assert found["predicted_loss", "test_loss"].n == 4
    assert found["source_accuracy", "test_loss"].coefficient is None
    again = run({**GRID, "seed": [1, 2]}, path, **QUIET)
    assert (again.known, again.done) == (2, 2) and len(load(path)) == 6
    assert load(path)[:4] == rows


def test_indicators_and_the_source_kernel_are_choices(tmp_path):
    path = tmp_path / "study.sqlite"
    small = {"seed": 0, "depth": 2, "width": 16, "optimizer": "adam", "indicators": False}
    trained = {"input_size": None, "trained_on": "digits", "program": "linear"}
    run([GRID | small, GRID | small | trained | {"source_kernel": "infinite-width"}], path, **QUIET)
    bare, kernel = load(path)
    assert bare["test_accuracy"] is not None and "leep" not in bare
    assert bare["lr_used"] == {"delta": 0.1} and kernel["lr_used"] == {"other": 1e-3}
    assert bare["source_lambda_min"] is None and kernel["source_lambda_min"] > 0


def test_validation_samples_choose_the_step(tmp_path):
    path = tmp_path / "study.sqlite"
    grid = {"source": "dnn", "depth": 1, "input_size": 16, "target": "digits", "program": "linear"}
    grid |= {"n": 20, "n_val": 30, "n_test": 50, "lr": 0.2, "steps": 12, "indicators": False}
    kept = {**grid, "keep": "val_loss", "record_every": 3}
    run([grid, kept], path, **QUIET)
    last, best = load(path)
    source = mrviz.load_source("dnn", depth=1, input_size=16, progress=False)
    target = mrviz.load_target("digits", n_train=20, n_val=30, n_test=50)
    model = mrviz.reprogram(source, target, program="linear")
    fit = train(model, target, lr=0.2, steps=12, keep="val_loss", record_every=3, progress=False)
    assert fit.steps == (0, 3, 6, 9, 12) and fit.kept != 12
    assert best["kept"] == fit.kept and last["kept"] == 12
    for name in ("train_accuracy", "val_accuracy", "test_accuracy", "val_loss"):
        assert best[name] == getattr(fit.outcome, name)
    assert last["test_loss"] == pytest.approx(fit.test_loss[-1], rel=1e-5)
    assert last["val_accuracy"] == fit.val_accuracy[-1] and last["cpu_seconds"] > 0


def test_samples_of_the_publishers_own_split(tmp_path):
    pytest.importorskip("aeon")
    path = tmp_path / "study.sqlite"
    grid = {"source": "fcn", "width": 4, "input_size": 32, "target": "ucr:ItalyPowerDemand"}
    grid |= {"program": "linear", "mapping": "identity", "n": 40, "n_val": 10, "n_test": 100}
    run({**grid, "split": "own", "steps": 2, "indicators": False}, path, **QUIET)
    (row,) = load(path)
    assert row["error"] is None and row["split"] == "own"
    source = mrviz.load_source("fcn", width=4, input_size=32, progress=False)
    target = mrviz.load_target(grid["target"], n_train=40, n_val=10, n_test=100, split="own")
    model = mrviz.reprogram(source, target, program="linear", mapping="identity")
    fit = train(model, target, steps=2, progress=False)
    assert row["val_loss"] == pytest.approx(fit.val_loss[-1])
    assert row["test_loss"] == pytest.approx(fit.test_loss[-1])


def test_a_failed_run_is_kept_and_repeated_only_when_asked(tmp_path, monkeypatch):
    path = tmp_path / "study.sqlite"
    grid = {**GRID, "seed": 0}
    real, calls = module.train, []

    def fails(model, target, **options):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("out of luck")
        return real(model, target, **options)

    monkeypatch.setattr(module, "train", fails)
    study = run(grid, path, **QUIET)
    assert (study.done, study.failed) == (1, 1)
    failed, good = load(path)
    assert failed["error"] == "RuntimeError: out of luck" and failed["status"] == "failed"
    assert failed["test_accuracy"] is None and failed["predicted_accuracy"] is not None
    assert run(grid, path, **QUIET).known == 2 and len(calls) == 2
    again = run(grid, path, retry_failed=True, **QUIET)
    assert (again.known, again.done, again.failed) == (1, 1, 0) and len(calls) == 3
    repaired, same = load(path)
    assert repaired["error"] is None and repaired["test_accuracy"] is not None and same == good


def test_choices_that_do_not_fit_and_divergence(tmp_path):
    path = tmp_path / "study.sqlite"
    full = {**GRID, "input_size": 8, "seed": 0, "depth": 1}  # leaves no frame
    wild = {**GRID, "seed": 0, "depth": 2, "program": "linear", "loss": "squared", "lr": 1e9}
    wild["steps"] = 60
    study = run([full, wild], path, **QUIET)
    assert (study.done, study.failed) == (1, 1)
    framed, diverged = load(path)
    assert "leaves no frame" in framed["error"]
    assert diverged["diverged"] is not None and diverged["test_accuracy"] is None
    assert any("diverged" in note for note in diverged["notes"])


def test_cancel_keeps_the_rows_and_loses_only_the_run_it_is_in(tmp_path):
    path, stop, seen = tmp_path / "study.sqlite", threading.Event(), []

    def report(done, total, label):
        seen.append((done, total, label))
        if done == 2:
            stop.set()

    with pytest.raises(mrviz.Cancelled):
        run(GRID, path, progress=report, cancel=stop)
    assert len(load(path)) == 2 and seen[-1][:2] == (2, 4) and "left" in seen[-1][2]
    assert (run(GRID, path, **QUIET).known, len(load(path))) == (2, 4)


def test_kill_and_resume(tmp_path):
    """Killed without a chance to clean up, and started again: every row once, none redone."""
    path = tmp_path / "study.sqlite"
    grid = {**GRID, "seed": list(range(30)), "depth": 2, "indicators": False}
    code = f"import mrviz.study; mrviz.study.run({grid!r}, {str(path)!r}, progress=False)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(mrviz.__file__).parents[1])
    try:
        deadline = time.monotonic() + 60
        while not path.exists() or len(load(path)) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = load(path)
    assert 3 <= len(before) < 30
    study = run(grid, path, **QUIET)
    after = load(path)
    assert study.known == len(before) and study.done == 30 - len(before)
    assert after[: len(before)] == before
    assert sorted(r["seed"] for r in after) == list(range(30))
    assert all(r["status"] == "done" for r in after)


def test_on_a_cluster_rows_are_the_same_and_written_here(tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        bad = {**GRID, "input_size": 8, "seed": 0, "depth": 1}
        study = run([GRID, bad], tmp_path / "there.sqlite", client=client, **QUIET)
        assert (study.done, study.failed) == (4, 1)
        stop = threading.Event()
        stop.set()
        with pytest.raises(mrviz.Cancelled):
            run({**GRID, "seed": 9}, tmp_path / "there.sqlite", client=client, cancel=stop, **QUIET)
    with pytest.raises(mrviz.InputError, match="closed"):
        run(GRID, tmp_path / "there.sqlite", client=client, **QUIET)
    run([GRID, bad], tmp_path / "here.sqlite", **QUIET)
    there, here = ({r["key"]: r for r in load(tmp_path / f"{p}.sqlite")} for p in ("there", "here"))
    for key, row in here.items():
        assert there[key]["test_accuracy"] == row["test_accuracy"]
        assert there[key]["error"] == row["error"]
    with pytest.raises(mrviz.InputError, match=r"must be a dask\.distributed\.Client"):
        run(GRID, tmp_path / "here.sqlite", client="tcp://somewhere", **QUIET)


class GoneClient:
    """A client whose scheduler goes away after the first run."""

    status = "running"

    def __init__(self):
        self.asked = 0

    def nthreads(self):
        self.asked += 1
        if self.asked > 2:
            raise OSError("gone")
        return {"worker": 1}

    def submit(self, function, values, pure):
        client = self

        class Done:
            status = "finished" if client.asked == 1 else "pending"

            def add_done_callback(self, put):
                if not client.__dict__.setdefault("given", False):
                    client.given = True
                    put(self)

            def result(self):
                return function(values)

        return Done()

    def cancel(self, futures):
        self.cancelled = len(futures)


def test_a_cluster_that_goes_away_loses_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_check_client", lambda client: None)
    client, path = GoneClient(), tmp_path / "study.sqlite"
    with pytest.raises(mrviz.errors.ClusterError, match="after 1 of 4 runs"):
        run(GRID, path, client=client, **QUIET)
    assert len(load(path)) == 1 and client.cancelled == 3


def test_a_run_that_ends_its_worker_failed_and_the_study_goes_on(tmp_path, monkeypatch):
    """What Dask reports of a task after several workers died under it."""
    monkeypatch.setattr(runner, "_check_client", lambda client: None)

    class Client(GoneClient):
        def nthreads(self):
            return {"worker": 1}

        def submit(self, function, values, pure):
            class Future:
                status = "error" if values["seed"] else "finished"

                def add_done_callback(self, put):
                    put(self)

                def result(self):
                    if values["seed"]:
                        raise MemoryError("worker died")
                    return function(values)

            return Future()

    path = tmp_path / "study.sqlite"
    study = run(GRID, path, client=Client(), **QUIET)
    assert (study.done, study.failed) == (2, 2)
    assert {r["error"] for r in load(path)} == {None, "MemoryError: worker died"}


def test_a_cluster_without_workers_is_not_waited_for_without_end(tmp_path, monkeypatch):
    class Client(GoneClient):
        given = True  # no run is ever finished

        def nthreads(self):
            return {}

    monkeypatch.setattr(runner, "_check_client", lambda client: None)
    monkeypatch.setattr(runner, "NO_WORKER_SECONDS", 0.0)
    with pytest.raises(mrviz.errors.ClusterError, match="no worker"):
        run(GRID, tmp_path / "study.sqlite", client=Client(), **QUIET)


def test_the_summary_in_words(tmp_path):
    study = run({**GRID, "seed": 0, "depth": 1, "indicators": False}, tmp_path / "s.db", **QUIET)
    assert "1 done now" in repr(study) and "<table>" in study._repr_html_()
    assert study.to_dict()["total"] == 1
