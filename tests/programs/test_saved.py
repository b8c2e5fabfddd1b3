"""Reprogrammed models that are saved and loaded are the same; anything else is refused."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mrviz
from mrviz import mappings, programs
from tests.ntk.common import conv_net, fill, uniform
from tests.programs.test_stopping import Majority
from tests.programs.test_training import CANVAS, IMAGE, QUIET, make, parameters, task

ROOT = Path(__file__).parents[2]
COLOUR = (3, 12, 12)


def source(shape=CANVAS, outputs=5):
    return mrviz.SourceModel(conv_net(shape, outputs, 1), shape)


def trained(program, mapping, shape=COLOUR, small=IMAGE):
    """A model away from its start values."""
    model = mrviz.ReprogrammedModel(source(shape), program, mapping)
    trainable = nn.ParameterList([p for p in model.parameters() if p.requires_grad])
    fill(trainable, 3, 0.3)
    return model


PROGRAMS = {
    "border": lambda: programs.Border(COLOUR, IMAGE, width=2, activation="identity"),
    "resized border": lambda: programs.Border(COLOUR, IMAGE, image_size=8),
    "overlay": lambda: programs.Overlay(COLOUR, IMAGE),
    "linear": lambda: programs.Linear(COLOUR, IMAGE, bias=False),
    "linear_border": lambda: programs.linear_border(COLOUR, IMAGE, width=1),
    "low_rank": lambda: programs.LowRankLinear(COLOUR, IMAGE, rank=np.int64(3), seed=4),
    "convolution": lambda: programs.Convolution(COLOUR, IMAGE, size=2),
    "scale": lambda: programs.Scale(COLOUR, IMAGE, scale=1.5),
}
MAPPINGS = {
    "identity": lambda: mappings.Identity(3),
    "all": lambda: mappings.Identity(),
    "frequency": lambda: mappings.Frequency((4, 0, 2)),
    "matrix": lambda: mappings.Matrix(uniform(3, 5, seed=2)),
    "head": lambda: mappings.LinearHead(mappings.Frequency((4, 0, 2)), bias=False),
    "head on a matrix": lambda: mappings.LinearHead(uniform(3, 5, seed=2)),
}


def same(model, other):
    x = uniform(4, *IMAGE, seed=9)
    assert torch.equal(model.predict(x), other.predict(x))
    assert torch.equal(parameters(model), parameters(other))
    assert model.capacity == other.capacity and model.n_parameters == other.n_parameters
    assert type(model.program) is type(other.program) and model.outputs == other.outputs
    assert repr(model.mapping) == repr(other.mapping) and model.mapping.label == other.mapping.label


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_comes_back(program, tmp_path):
    model = trained(PROGRAMS[program](), mappings.Identity(3))
    assert model.save(tmp_path / "model") == tmp_path / "model"
    same(model, mrviz.load(tmp_path / "model", source(COLOUR)))
    assert {p.name for p in tmp_path.iterdir()} == {"model"}
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"card.json", "model.safetensors"}


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_every_mapping_comes_back(mapping, tmp_path):
    model = trained(PROGRAMS["border"](), MAPPINGS[mapping]())
    model.save(tmp_path / "model")
    same(model, mrviz.load(str(tmp_path / "model"), source=source(COLOUR)))


def test_a_capacity_set_later_and_frozen_parameters_come_back(tmp_path):
    model = trained(programs.linear_border(COLOUR, IMAGE), mappings.Identity(3))
    model.capacity = 2
    model.program.first.bias.requires_grad_(False)
    model.save(tmp_path / "model")
    other = mrviz.load(tmp_path / "model", source(COLOUR))
    same(model, other)
    assert other.capacity == 2 and not other.program.first.bias.requires_grad


def test_programs_say_the_options_that_make_them_again():
    made = programs.Scale((3, 8, 8), (1, 4, 4))
    assert made.options == {"source_shape": (3, 8, 8), "target_shape": (1, 4, 4)}
    border = copy.deepcopy(programs.Border((3, 8, 8), (1, 4, 4), activation="identity"))
    border.capacity = 1
    assert border.options["width"] == 1 and border.options["activation"] == "identity"
    with pytest.raises(TypeError, match="unexpected keyword"):
        programs.Border((3, 8, 8), (1, 4, 4), colour=3)


def test_a_source_is_built_again_by_its_name(tmp_path):
    original = mrviz.load_source("cnn", depth=2, width=4, input_size=8, seed=3, progress=False)
    assert original.spec == {"name": "cnn", "depth": 2, "width": 4, "input_size": 8, "seed": 3}
    x, y = uniform(6, *IMAGE), torch.arange(6) % 3
    target = mrviz.Target(x, y, x, y, classes=["a", "b", "c"], name="mine")
    model = mrviz.reprogram(original, target, program="border")
    fit = mrviz.train(model, target, steps=3, **QUIET)
    model.save(tmp_path / "model", target=target, metrics=fit)
    loaded = mrviz.load(tmp_path / "model", progress=False)
    same(model, loaded)
    assert loaded.source.spec == original.spec and model.card is None
    assert loaded.card["target"]["classes"] == ["a", "b", "c"]
    assert loaded.card["target"]["name"] == "mine"
    assert loaded.card["metrics"]["test_accuracy"] == fit.outcome.test_accuracy
    assert loaded.card["metrics"]["optimizer"] == "adam"
    assert loaded.card["versions"]["mrviz"] == mrviz.__version__
    fresh = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, mrviz, torch\n"
            "m = mrviz.load(sys.argv[1], progress=False)\n"
            "print(m.predict(torch.linspace(0, 1, 32).view(2, 1, 4, 4)).tolist())",
            str(tmp_path / "model"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert fresh.returncode == 0, fresh.stderr
    expected = model.predict(torch.linspace(0, 1, 32).view(2, 1, 4, 4))
    assert torch.allclose(torch.tensor(json.loads(fresh.stdout)).double(), expected, atol=1e-5)


def test_a_source_in_float64_is_built_again_in_float64(tmp_path):
    original = mrviz.load_source("dnn", depth=2, width=8, input_size=6, progress=False).double()
    model = mrviz.ReprogrammedModel(original, programs.Linear(CANVAS, IMAGE), mappings.Identity(3))
    model.save(tmp_path / "model")
    loaded = mrviz.load(tmp_path / "model", progress=False)
    assert loaded.source.dtype == torch.float64
    same(model, loaded)


def test_a_source_that_was_changed_after_it_was_built_has_to_be_passed(tmp_path):
    original = mrviz.load_source("dnn", depth=2, width=8, input_size=6, progress=False)
    with torch.no_grad():
        next(original.parameters()).mul_(2)
    model = mrviz.ReprogrammedModel(original, programs.Linear(CANVAS, IMAGE), mappings.Identity(3))
    model.save(tmp_path / "model")
    with pytest.raises(mrviz.InputError, match="pass the original as source"):
        mrviz.load(tmp_path / "model", progress=False)
    same(model, mrviz.load(tmp_path / "model", original))


def test_loading_is_the_way_back_into_training(tmp_path):
    model, target = make("linear"), task()
    mrviz.train(model, target, optimizer="gd", lr=0.3, steps=3, **QUIET)
    model.save(tmp_path / "model", metrics={"note": 1})
    loaded = mrviz.load(tmp_path / "model", make().source)
    for each in (model, loaded):
        mrviz.train(each, target, optimizer="gd", lr=0.3, steps=3, **QUIET)
    assert torch.equal(parameters(model), parameters(loaded))
    assert loaded.card["metrics"] == {"note": 1}


class Padding(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return F.pad(x + self.shift, (1, 1, 1, 1))


def test_programs_and_mappings_of_ones_own_are_passed(tmp_path):
    model = mrviz.ReprogrammedModel(source(), Padding(), Majority((4, 1, 0)))
    with torch.no_grad():
        model.program.shift.fill_(0.25)
    model.save(tmp_path / "model")
    with pytest.raises(mrviz.InputError, match=r"a Padding, a module of your own: pass program"):
        mrviz.load(tmp_path / "model", source())
    with pytest.raises(mrviz.InputError, match=r"a Majority.*pass mapping"):
        mrviz.load(tmp_path / "model", source(), program=Padding())
    loaded = mrviz.load(
        tmp_path / "model", source(), program=Padding(), mapping=Majority((4, 1, 0))
    )
    x = uniform(4, *IMAGE)
    assert torch.equal(loaded.predict(x), model.predict(x))
    with pytest.raises(mrviz.InputError, match="program does not fit the parameters"):
        mrviz.load(
            tmp_path / "model", source(), program=programs.Linear(CANVAS, IMAGE), mapping=Majority()
        )


def test_another_source_is_refused(tmp_path):
    make("linear").save(tmp_path / "model")
    others = {
        "weights are others": mrviz.SourceModel(conv_net(CANVAS, 5, 2), CANVAS),
        "outputs are others": mrviz.SourceModel(
            make().source.module, CANVAS, normalize=lambda u: 2 * u
        ),
    }
    for message, other in others.items():
        with pytest.raises(mrviz.InputError, match=message):
            mrviz.load(tmp_path / "model", other)
    with pytest.raises(mrviz.InputError, match=r"did not come from mrviz\.load_source"):
        mrviz.load(tmp_path / "model")
    with pytest.raises(mrviz.InputError, match="must be a SourceModel"):
        mrviz.load(tmp_path / "model", nn.Linear(2, 2))


def test_rounding_of_another_device_is_not_another_source(tmp_path):
    model = make("linear")
    model.save(tmp_path / "model")

    class Rounded(type(model.source.module)):
        def forward(self, u):
            return super().forward(u) * (1 + 1e-6)

    near = copy.deepcopy(model.source)
    near.module.__class__ = Rounded
    Rounded.__name__ = "Sequential"
    assert near.fingerprint() != model.source.fingerprint()
    assert mrviz.load(tmp_path / "model", near).outputs == 3


def broken(folder, kind):
    card, tensors = folder / "card.json", folder / "model.safetensors"
    content, values = tensors.read_bytes(), json.loads(card.read_text())
    if kind == "no card":
        card.unlink()
    elif kind == "no tensors":
        tensors.unlink()
    elif kind == "cut card":
        card.write_text(card.read_text()[:-20])
    elif kind == "cut tensors":
        tensors.write_bytes(content[:-20])
    elif kind == "altered tensors":
        tensors.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif kind == "altered card":
        values["content"]["program"]["options"]["seed"] = 7
        card.write_text(json.dumps(values))
    elif kind == "newer":
        card.write_text(json.dumps({**values, "format": 2}))
    elif kind == "foreign":
        card.write_text(json.dumps({"license": "mit"}))
    elif kind == "list":
        card.write_text("[]")
    elif kind == "other model":
        other = mrviz.reprogram(make().source, task(), program="linear", mapping="identity", seed=1)
        other.save(folder.parent / "other")
        tensors.write_bytes((folder.parent / "other" / "model.safetensors").read_bytes())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no card", "not a saved model"),
        ("no tensors", "not a sound safetensors file"),
        ("cut card", "cut short or altered"),
        ("cut tensors", "not a sound safetensors file"),
        ("altered tensors", "altered or damaged"),
        ("altered card", "altered or damaged"),
        ("newer", "update mrviz"),
        ("foreign", "is not an mrviz reprogrammed model"),
        ("list", "is not an mrviz reprogrammed model"),
        ("other model", "altered or damaged"),
    ],
)
def test_what_is_not_a_sound_model_is_refused(kind, message, tmp_path):
    make("linear").save(tmp_path / "model")
    broken(tmp_path / "model", kind)
    with pytest.raises(mrviz.InputError, match=message):
        mrviz.load(tmp_path / "model", make().source)


def test_places_without_a_model(tmp_path):
    (tmp_path / "file").write_text("text")
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(mrviz.InputError, match="is not a folder"):
            mrviz.load(path)
    with pytest.raises(mrviz.InputError, match="not a saved model"):
        mrviz.load(tmp_path)


def test_a_model_replaces_a_model_and_nothing_else(tmp_path):
    first, second = make("linear"), make("overlay")
    first.save(tmp_path / "model")
    second.save(tmp_path / "model")
    same(second, mrviz.load(tmp_path / "model", make().source))
    (tmp_path / "empty").mkdir()
    first.save(tmp_path / "empty")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(mrviz.InputError, match="holds other files"):
        first.save(tmp_path / "model")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(mrviz.InputError, match="saved as a folder"):
        first.save(tmp_path / "file")
    with pytest.raises(mrviz.InputError, match="no folder"):
        first.save(tmp_path / "a" / "b")
    with pytest.raises(mrviz.InputError, match="target must be a Target"):
        first.save(tmp_path / "other", target="digits")
    with pytest.raises(mrviz.InputError, match="cannot be written"):
        first.save(tmp_path / "other", metrics={"model": first})
    assert {p.name for p in tmp_path.iterdir()} == {"model", "empty", "file"}


def test_a_save_that_fails_leaves_the_model_that_was_there(tmp_path, monkeypatch):
    make("linear").save(tmp_path / "model")
    rename, calls = Path.rename, []

    def failing(self, other):
        calls.append(self)
        if len(calls) == 2:
            raise OSError("disk full")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="disk full"):
        make("overlay").save(tmp_path / "model")
    monkeypatch.undo()
    same(make("linear"), mrviz.load(tmp_path / "model", make().source))
    assert {p.name for p in tmp_path.iterdir()} == {"model"}


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    import pickle

    make("linear").save(tmp_path / "model")
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, lambda *args, **kwargs: pytest.fail("unpickled"))
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("unpickled"))
    mrviz.load(tmp_path / "model", make().source)
