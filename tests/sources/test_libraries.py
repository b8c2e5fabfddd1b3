"""Classifiers of timm and torchvision: with the libraries where they can be imported."""

import functools
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

import mrviz
from mrviz.errors import InputError, MissingDataError
from mrviz.experiment import Experiment
from mrviz.sources import SOURCES, load_source, source_spec
from mrviz.sources.libraries import library_of, library_spec

ROOT = Path(__file__).parents[2]


@functools.cache
def trouble(library):
    """Why a library cannot be used here; empty where it can."""
    try:
        importlib.import_module(library)
    except Exception as error:  # a torchvision for another PyTorch raises RuntimeError
        return f"{library} cannot be imported: {error}"
    return ""


@pytest.fixture(params=["timm", "torchvision"])
def library(request):
    if why := trouble(request.param):
        pytest.skip(why)
    return request.param


@pytest.fixture
def timm():
    if why := trouble("timm"):
        pytest.skip(why)
    return importlib.import_module("timm")


@pytest.fixture(autouse=True)
def forget():
    library_spec.cache_clear()
    yield
    library_spec.cache_clear()


def small(name, **options):
    return load_source(name, weights="random", progress=False, **{"input_size": 32, **options})


@pytest.mark.parametrize("library_name", ["timm", "torchvision"])
def test_a_library_that_is_not_installed_is_named_with_the_way_to_get_it(monkeypatch, library_name):
    monkeypatch.setitem(sys.modules, library_name, None)
    for make in (load_source, lambda name: Experiment(source=name)):
        with pytest.raises(MissingDataError, match=r'pip install "mrviz\[vision\]"'):
            make(f"{library_name}:resnet18")


def test_a_library_that_does_not_fit_this_pytorch_is_an_error_of_one_line(tmp_path, monkeypatch):
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator x::y does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(
        MissingDataError, match=r"operator x::y does not exist.*belong together"
    ) as caught:
        load_source("timm:resnet18")
    assert "\n" not in str(caught.value)


def test_names_that_the_library_does_not_list(monkeypatch):
    """A stand-in for timm with the functions that are asked before anything is built."""
    stand_in = ModuleType("timm")
    stand_in.is_model = lambda name: name in ("resnet18", "vit_dino")
    stand_in.list_models = lambda pattern="", pretrained=False: ["resnet18.a1_in1k", "resnet18"]
    stand_in.get_pretrained_cfg = lambda name: SimpleNamespace(num_classes=0)
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    with pytest.raises(InputError, match=r"no classifier 'resnt18': did you mean 'timm:resnet18'"):
        load_source("timm:resnt18")
    with pytest.raises(InputError, match=r"did you mean 'timm:resnet18\.a1_in1k'"):
        load_source("timm:resnet18.a1_in")
    with pytest.raises(InputError, match="'vit_dino' is no classifier"):
        load_source("timm:vit_dino")


def test_only_the_two_libraries_have_prefixes():
    assert library_of("timm:x") == "timm" and library_of("ucr:x") is library_of(None) is None
    assert source_spec("cnn") is SOURCES["cnn"]
    for name in ("tim:resnet18", 3, None):
        with pytest.raises(InputError, match="source must be one of"):
            source_spec(name)


def test_nothing_imports_the_libraries_unasked():
    code = """if True:
        import sys, mrviz
        from mrviz.experiment import Experiment
        Experiment(), mrviz.load_source("cnn", depth=1, width=2, progress=False)
        print(*{"timm", "torchvision", "huggingface_hub"} & set(sys.modules))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_the_libraries_normalisation_and_size(library):
    spec = source_spec(f"{library}:resnet18")
    assert spec.ranges["input_size"].default == 224 and spec.options == ("input_size", "weights")
    source = small(f"{library}:resnet18")
    assert source.input_shape == (3, 32, 32) and source.outputs == 1000
    assert source.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert source.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = source.module.eval()((x - source.mean) / source.std)
    torch.testing.assert_close(source(x), expected)
    assert [m for m in source.modules() if isinstance(m, nn.BatchNorm2d)]


def test_unknown_models_of_a_library(library):
    with pytest.raises(InputError, match=f"did you mean '{library}:resnet18'"):
        load_source(f"{library}:resnt18")
    with pytest.raises(InputError, match="depth does not apply"):
        load_source(f"{library}:resnet18", depth=3)


@pytest.mark.parametrize(
    "name",
    ["timm:resnet18", "timm:mixer_s32_224", "torchvision:resnet18", "torchvision:vgg11"],
)
def test_random_weights_follow_the_seed_and_leave_torch_alone(name):
    if why := trouble(library_of(name)):
        pytest.skip(why)
    before = torch.get_rng_state()
    first, again, other = (small(name, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    x = torch.rand(4, 3, 32, 32)
    assert torch.equal(first(x), again(x)) and not torch.equal(first(x), other(x))
    assert 0.01 < float(first(x).std()) < 1000
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_kernels_agree_with_brute_force(library):
    """Through in-place activations and BatchNorm in eval mode."""
    source = small(f"{library}:resnet18").double()
    target = mrviz.load_target("digits", n_train=10, n_test=10)
    model = mrviz.reprogram(source, target, program="border", mapping="frequency", seed=0)
    model = model.double()
    x = target.x_train[:3].double()
    gram = mrviz.ntk_gram(model, x, dtype=torch.float64, progress=False).matrix
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for output in model(x).flatten():
        grads = torch.autograd.grad(output, parameters, retain_graph=True)
        rows.append(torch.cat([g.flatten() for g in grads]))
    jacobian = torch.stack(rows)
    torch.testing.assert_close(gram, jacobian @ jacobian.T, rtol=1e-8, atol=1e-10)


def test_a_saved_model_finds_its_source_again(library, tmp_path):
    pytest.importorskip("safetensors")
    source = small(f"{library}:resnet18", seed=3)
    target = mrviz.load_target("digits", n_train=10, n_test=10)
    model = mrviz.reprogram(source, target, program="border", mapping="frequency", seed=0)
    model.save(tmp_path / "model")
    again = mrviz.load(tmp_path / "model", progress=False)
    x = target.x_test
    torch.testing.assert_close(again(x), model(x))
    assert again.source.spec == {
        "name": f"{library}:resnet18",
        "input_size": 32,
        "weights": "random",
        "seed": 3,
    }


def test_a_vision_transformer_takes_other_sizes_where_its_library_builds_it_for_them(library):
    if library == "timm":
        source = small("timm:vit_tiny_patch16_224", input_size=48)
        assert source(torch.rand(2, 3, 48, 48)).shape == (2, 1000)
        assert source.mean.flatten().tolist() == [0.5] * 3
    else:
        with pytest.raises(InputError, match=r"does not take input_size=48.*its own is 224"):
            small("torchvision:vit_b_16", input_size=48)


def test_models_without_outputs_or_weights(timm):
    with pytest.raises(InputError, match="is no classifier"):
        load_source("timm:vit_small_patch14_dinov2")
    bare = next(
        m for m in timm.list_models("resnet*") if not timm.get_pretrained_cfg(m).has_weights
    )
    assert source_spec(f"timm:{bare}").choices["weights"] == ("random",)
    with pytest.raises(InputError, match="weights must be one of 'random'"):
        load_source(f"timm:{bare}", weights="pretrained")


def test_weights_that_cannot_be_downloaded(library, tmp_path, monkeypatch):
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None:
        monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(
        MissingDataError, match=f"downloaded by {library}.*weights='random'"
    ) as caught:
        load_source(f"{library}:resnet18", input_size=32, progress=False)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_come_with_names_of_classes(tmp_path, monkeypatch):
    """A file of weights where torchvision keeps those it downloaded."""
    if why := trouble("torchvision"):
        pytest.skip(why)
    from torchvision import models

    weights = models.ResNet18_Weights.DEFAULT
    torch.manual_seed(5)
    network = models.resnet18()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / weights.url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = load_source("torchvision:resnet18", input_size=64, progress=False)
    assert source.classes == tuple(weights.meta["categories"]) and source.classes[985] == "daisy"
    assert source.name == "torchvision:resnet18, pretrained"
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = network.eval()((x - source.mean) / source.std)
    torch.testing.assert_close(source(x), expected)
    assert not any(p.requires_grad for p in source.parameters())


def test_an_experiment_takes_such_names(library):
    experiment = Experiment(
        source=f"{library}:resnet18", weights="random", input_size=32, target="digits", n=10
    )
    assert experiment.label().startswith(f"{library}:resnet18 (random)")
    assert experiment.changed(target="mnist-5k").source == f"{library}:resnet18"
    source = experiment.load_source(progress=False)
    assert source.outputs == 1000 and repr(f"{library}:resnet18") in experiment.code()


def test_the_explorer_shows_such_names(library):
    pytest.importorskip("ipywidgets")
    from mrviz.widgets.controls import Controls

    experiment = Experiment(
        source=f"{library}:resnet18", weights="random", input_size=48, target="digits", n=10
    )
    controls = Controls(experiment, lambda _: None)
    try:
        assert controls.experiment == experiment
        controls.widgets["source"].value = "cnn"
        controls.widgets["source"].value = f"{library}:resnet18"
        shown = controls.experiment
        assert (shown.source, shown.input_size) == (f"{library}:resnet18", 224)
        assert shown.weights == "pretrained" and shown.depth is None
    finally:
        controls.close()


def test_the_command_line_takes_such_names(library, capsys):
    from mrviz import cli

    names = ["--source", f"{library}:resnet18", "--weights", "random", "--input-size", "32"]
    assert cli.main(["spectrum", *names, "--target", "digits", "--n", "10"]) == 0
    assert f"{library}:resnet18 (random)" in capsys.readouterr().out
