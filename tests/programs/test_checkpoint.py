"""A training that was interrupted ends with the same bits as one that was not."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch

import mrviz
from mrviz import mappings
from mrviz.programs.training import SPSA, train
from tests.ntk.common import uniform
from tests.programs.test_stopping import Majority, single, validated
from tests.programs.test_training import CANVAS, IMAGE, QUIET, make, parameters, task

ROOT = Path(__file__).parents[2]
CASES = {
    "gd": {"optimizer": "gd", "lr": 0.3},
    "momentum": {"optimizer": "momentum", "lr": 0.3, "schedule": "cosine"},
    "sgd": {"optimizer": "sgd", "lr": 0.3, "batch_size": 5, "keep": "val_accuracy"},
    "adam": {"batch_size": 5, "schedule": "cosine"},
    "kept": {"batch_size": 5, "keep": "val_loss", "patience": 40},
    "spsa": {"optimizer": SPSA(average=2), "lr": 0.3, "batch_size": 5},
}
STEPS = 20


def interrupted(model, at, path, **options):
    """Trains until it is cancelled after so many steps."""
    stop = threading.Event()

    def halt(done, total, label):
        if done >= at:
            stop.set()

    with pytest.raises(mrviz.Cancelled):
        train(model, validated(), checkpoint=path, cancel=stop, progress=halt, **options)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("at", [1, 7, 13])
def test_the_same_bits_after_an_interruption(case, at, tmp_path):
    options = {"steps": STEPS, "record_every": 3, "chunk_size": 4, **CASES[case]}
    whole, broken, fresh = make(head=True), make(head=True), make(head=True)
    expected = train(whole, validated(), **options, **QUIET)
    path = tmp_path / "state.safetensors"
    interrupted(broken, at, path, **options)
    seen = []
    fit = train(fresh, validated(), checkpoint=path, on_step=seen.append, **options, **QUIET)
    assert torch.equal(parameters(fresh), parameters(whole))
    assert fit.history == expected.history and fit.kept == expected.kept
    assert fit.settings == expected.settings
    assert f"went on from {path} after {at} of {STEPS} steps" in fit.notes[-1]
    assert seen == [m for m in expected.history if m.step > at or (m.step == at and at % 3)]


def test_the_model_that_was_cancelled_goes_on_itself(tmp_path):
    options = {"steps": STEPS, "batch_size": 5, "keep": "val_loss"}
    whole, model = make(), make()
    expected = train(whole, validated(), **options, **QUIET)
    for at in (4, 9):
        interrupted(model, at, tmp_path / "state", **options)
    fit = train(model, validated(), checkpoint=tmp_path / "state", **options, **QUIET)
    assert torch.equal(parameters(model), parameters(whole))
    assert fit.history == expected.history


def test_a_finished_training_is_not_repeated(tmp_path):
    options = {"steps": 6, "checkpoint": tmp_path / "state", **QUIET}
    first, second = make(), make()
    fit = train(first, validated(), **options)
    again = train(second, validated(), on_step=pytest.fail, **options)
    assert torch.equal(parameters(first), parameters(second))
    assert again.history == fit.history and again.seconds > fit.seconds / 2


@pytest.mark.parametrize("keep", ["last", "val_loss"])
def test_iterative_mappings_go_on_too(keep, tmp_path):
    def build():
        source = make().source
        return mrviz.ReprogrammedModel(source, mrviz.programs.Linear(CANVAS, IMAGE), Majority())

    options = {"optimizer": "sgd", "lr": 2.0, "steps": 14, "batch_size": 5, "keep": keep}
    whole, broken, fresh = build(), build(), build()
    expected = train(whole, validated(), **options, **QUIET)
    interrupted(broken, 8, tmp_path / "state", **options)
    fit = train(fresh, validated(), checkpoint=tmp_path / "state", **options, **QUIET)
    assert torch.equal(parameters(fresh), parameters(whole)) and torch.equal(fresh.b, whole.b)
    assert fresh.mapping.chosen == whole.mapping.chosen and fit.history == expected.history


def test_mixed_precision_goes_on_too(tmp_path):
    options = {"steps": 9, "amp": True}
    whole, broken, fresh = single(), single(), single()
    train(whole, validated(), **options, **QUIET)
    interrupted(broken, 4, tmp_path / "state", **options)
    train(fresh, validated(), checkpoint=tmp_path / "state", **options, **QUIET)
    assert torch.equal(parameters(fresh), parameters(whole))


SCRIPT = """
    import os, signal, sys, threading
    import torch
    torch.set_num_threads(1)
    import mrviz
    from mrviz import _cache
    from mrviz.programs.training import train
    from tests.programs.test_stopping import validated
    from tests.programs.test_training import make, parameters
    path, when, result = sys.argv[1:]
    model, steps = make(head=True), []

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    def on_step(measured):
        steps.append(measured.step)
        if when == "step" and measured.step == 11:
            kill()

    replace = os.replace
    def replaced(*args):
        if when == "write" and len(steps) > 12:
            kill()
        replace(*args)
    os.replace = replaced
    train(model, validated(), batch_size=5, steps=20, keep="val_loss", checkpoint=path or None,
          checkpoint_every=2 if path else None, on_step=on_step, progress=False)
    torch.save({"theta": parameters(model), "seen": steps}, result)
"""


def run_script(path, when, result):
    code = textwrap.dedent(SCRIPT)
    return subprocess.run(
        [sys.executable, "-c", code, str(path), when, str(result)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_process_goes_on_with_the_same_bits(tmp_path):
    done = run_script("", "never", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    whole = torch.load(tmp_path / "whole", weights_only=True)
    for when in ("step", "write"):
        path = tmp_path / f"{when}.safetensors"
        assert run_script(path, when, tmp_path / "none").returncode == -signal.SIGKILL
        assert not (tmp_path / "none").exists() and path.exists()
        done = run_script(path, "never", tmp_path / when)
        assert done.returncode == 0, done.stderr
        found = torch.load(tmp_path / when, weights_only=True)
        assert torch.equal(found["theta"], whole["theta"])
        assert len(found["seen"]) < len(whole["seen"])


def other_target():
    base = validated()
    return mrviz.Target(
        base.x_train, base.y_train, base.x_test, base.y_test, x_val=base.x_val, y_val=base.y_val * 0
    )


def other_source():
    source = mrviz.SourceModel(make().source.module, CANVAS, normalize=((0.5,), (0.5,)))
    return mrviz.reprogram(source, task(), program="linear_border", mapping=mappings.Identity(3))


OTHERS = {
    "steps was 9 and is 12": {"steps": 12},
    "optimizer was 'adam' and is 'sgd'": {"optimizer": "sgd", "lr": 0.1},
    "lr was": {"lr": 0.2},
    "seed was 0 and is 1": {"seed": 1},
    "loss was": {"loss": "squared"},
    "record_every was": {"record_every": 2},
    "another program": {"model": lambda: make("linear")},
    "another source": {"model": other_source},
    "another mapping": {
        "model": lambda: mrviz.ReprogrammedModel(
            make().source, make().program, mappings.Matrix(uniform(3, 5))
        )
    },
    "another target": {"target": other_target},
}


@pytest.mark.parametrize("message", OTHERS)
def test_a_checkpoint_of_another_training_is_refused(message, tmp_path):
    path = tmp_path / "state"
    train(make(), validated(), steps=9, checkpoint=path, **QUIET)
    before = path.read_bytes()
    options = {"steps": 9, **OTHERS[message]}
    model = options.pop("model", make)()
    target = options.pop("target", validated)()
    start = parameters(model).clone()
    with pytest.raises(mrviz.InputError, match=message) as caught:
        train(model, target, checkpoint=path, **options, **QUIET)
    assert "delete this one" in str(caught.value)
    assert path.read_bytes() == before and torch.equal(parameters(model), start)


def test_a_program_of_another_seed_is_another_program(tmp_path):
    for seed, expected in ((0, None), (1, "another program")):
        model = mrviz.reprogram(
            make().source, task(), program="linear", mapping=mappings.Identity(3), seed=seed
        )
        options = {"steps": 3, "checkpoint": tmp_path / "state", **QUIET}
        if expected is None:
            train(model, validated(), **options)
        else:
            with pytest.raises(mrviz.InputError, match=expected):
                train(model, validated(), **options)


def damaged(path, kind):
    content = path.read_bytes()
    if kind == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "another file":
        path.write_text("steps: 12")
    elif kind == "altered":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif kind == "altered card":
        position = content.index(b"patience")
        path.write_bytes(content[:position] + b"Patience" + content[position + 8 :])
    else:
        position = content.index(b'\\"format\\": 1')
        path.write_bytes(content.replace(b'\\"format\\": 1', b'\\"format\\": 9', 1))
        assert position


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut short", "not a sound safetensors file"),
        ("empty", "not a sound safetensors file"),
        ("another file", "not a sound safetensors file"),
        ("altered", "altered or damaged"),
        ("altered card", "altered or damaged"),
        ("newer", "update mrviz"),
    ],
)
def test_damaged_and_foreign_files_are_refused(kind, message, tmp_path):
    path = tmp_path / "state"
    train(make(), validated(), steps=3, checkpoint=path, **QUIET)
    damaged(path, kind)
    with pytest.raises(mrviz.InputError, match=message):
        train(make(), validated(), steps=3, checkpoint=path, **QUIET)


def test_other_safetensors_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, tmp_path / "state")
    with pytest.raises(mrviz.InputError, match="is not an mrviz training checkpoint"):
        train(make(), validated(), steps=3, checkpoint=tmp_path / "state", **QUIET)


def test_places_that_cannot_be_written_to(tmp_path):
    for path, message in ((tmp_path / "no" / "state", "no folder"), (tmp_path, "is a folder")):
        with pytest.raises(mrviz.InputError, match=message):
            train(make(), validated(), steps=3, checkpoint=path, **QUIET)


def test_the_card_is_json_that_says_what_was_run(tmp_path):
    from safetensors import safe_open

    path = tmp_path / "state"
    train(make(), validated(), steps=8, checkpoint=path, checkpoint_every=3, **QUIET)
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["mrviz"])
    assert card["content"]["settings"]["optimizer"] == "adam"
    assert card["content"]["state"]["step"] == 8 and card["format"] == 1


def test_how_often_it_is_written(tmp_path, monkeypatch):
    from mrviz.programs.training import checkpoint

    seen = []
    monkeypatch.setattr(checkpoint, "write_record", lambda *args: seen.append(args[3]))
    train(make(), validated(), steps=8, checkpoint=tmp_path / "a", checkpoint_every=3, **QUIET)
    train(make(), validated(), steps=61, checkpoint=tmp_path / "b", **QUIET)
    steps = [record["state"]["step"] for record in seen]
    assert steps == [3, 6, 8, *range(4, 61, 4), 61]
