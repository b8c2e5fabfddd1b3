"""Training on a GPU: mixed precision, determinism, checkpoints and saved models."""

import os

import pytest
import torch

import mrviz
from mrviz import mappings
from mrviz.errors import DeviceError
from tests.ntk.common import conv_net, uniform

pytestmark = pytest.mark.gpu

CANVAS, IMAGE = (3, 12, 12), (1, 6, 6)
QUIET = {"progress": False}


def task():
    x, y = uniform(30, *IMAGE), torch.arange(30) % 3
    return mrviz.Target(x[:20], y[:20], x[20:], y[20:], x_val=x[5:15], y_val=y[5:15])


def make(device, program="linear_border"):
    source = mrviz.SourceModel(conv_net(CANVAS, 5, 1).float(), CANVAS).to(device)
    return mrviz.reprogram(source, task(), program=program, mapping=mappings.Identity(3))


def parameters(model):
    found = [p.detach().flatten().cpu() for p in model.parameters() if p.requires_grad]
    return torch.cat(found).double()


def near(model, other, start, share):
    """Whether two models differ by less than a share of how far they moved."""
    moved = (parameters(other) - start).norm()
    return (parameters(model) - parameters(other)).norm() < share * moved


@pytest.mark.parametrize("amp", [True, "bfloat16", "float16"])
def test_mixed_precision_is_near_full_precision(device, amp):
    if amp == "float16" and not device.startswith("cuda"):
        with pytest.raises(DeviceError, match="needs an NVIDIA GPU"):
            mrviz.train(make(device), task(), steps=1, amp=amp, **QUIET)
        return
    half, full = make(device), make(device)
    start = parameters(full)
    options = {"optimizer": "gd", "lr": 0.3, "steps": 20, **QUIET}
    fit = mrviz.train(half, task(), amp=amp, **options)
    reference = mrviz.train(full, task(), **options)
    assert near(half, full, start, 0.15) and not torch.equal(parameters(half), parameters(full))
    assert fit.train_loss[-1] == pytest.approx(reference.train_loss[-1], rel=0.05)
    assert fit.settings["amp"] in ("bfloat16", "float16")
    assert all(p.dtype == torch.float32 for p in half.parameters())


def test_a_device_gives_what_the_cpu_gives(device):
    for optimizer, lr in (("gd", 0.3), ("adam", None), ("spsa", 0.1)):
        found, exact = make(device), make("cpu").double()
        start = parameters(exact)
        options = {"optimizer": optimizer, "lr": lr, "steps": 5, "batch_size": None, **QUIET}
        mrviz.train(found, task(), **options)
        mrviz.train(exact, task(), **options)
        assert near(found, exact, start, 0.02), optimizer


def test_deterministic_training_gives_the_same_bits(device, monkeypatch):
    if device.startswith("cuda"):
        if "CUBLAS_WORKSPACE_CONFIG" not in os.environ:
            with pytest.raises(DeviceError, match="CUBLAS_WORKSPACE_CONFIG"):
                mrviz.train(make(device), task(), steps=1, deterministic=True, **QUIET)
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    models = [make(device), make(device)]
    for model in models:
        mrviz.train(model, task(), steps=10, batch_size=8, deterministic=True, **QUIET)
    assert torch.equal(parameters(models[0]), parameters(models[1]))


@pytest.mark.parametrize("optimizer", ["adam", "spsa"])
def test_a_checkpoint_goes_on_where_it_was(device, optimizer, tmp_path):
    options = {"optimizer": optimizer, "steps": 12, "batch_size": 8, "keep": "val_loss", **QUIET}
    whole, broken, fresh = make(device), make(device), make(device)
    start = parameters(whole)
    expected = mrviz.train(whole, task(), **options)

    def stop(measured):
        if measured.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mrviz.train(
            broken,
            task(),
            checkpoint=tmp_path / "state",
            checkpoint_every=2,
            on_step=stop,
            **options,
        )
    fit = mrviz.train(fresh, task(), checkpoint=tmp_path / "state", **options)
    assert near(fresh, whole, start, 1e-3) and fit.steps == expected.steps
    assert fresh.program.first.weight.device.type == torch.device(device).type


def test_a_model_saved_on_a_gpu_is_loaded_on_the_cpu(device, tmp_path):
    model = make(device)
    mrviz.train(model, task(), steps=3, **QUIET)
    model.save(tmp_path / "model")
    loaded = mrviz.load(tmp_path / "model", make("cpu").source)
    assert torch.equal(parameters(model), parameters(loaded))
    assert loaded.source.device.type == "cpu"
    x = uniform(4, *IMAGE)
    assert torch.allclose(loaded.predict(x), model.predict(x).cpu(), atol=1e-3)
