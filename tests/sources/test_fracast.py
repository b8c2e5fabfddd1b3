import copy
import sys
import warnings

import pytest
import torch
from torch.nn import functional as F

import mrviz
from mrviz.errors import InputError, MissingDataError
from mrviz.sources import load_source
from mrviz.sources.fracast import CONTEXT, _KeepDouble, load_fracast

fracast = pytest.importorskip("fracast", reason="fracast is not installed")


@pytest.fixture(scope="module")
def package():
    return fracast.FracastModel.from_pretrained(weights="fp32")


@pytest.fixture(scope="module")
def network():
    return load_fracast(6, median=True, pretrained=True, seed=0).double()


def contexts(n, length, seed=0):
    """Seasons of 7 to 12 steps with noise and a trend."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(length)
    period = 7 + 5 * torch.rand(n, 1, 1, generator=generator)
    noise = 0.2 * torch.randn(n, 1, length, generator=generator)
    return 3 * torch.sin(6.283 * t / period) + noise + t / 50


def whole(network, x):
    """The same from the package's two networks on all 2,048 steps at once."""
    length = x.shape[-1]
    low = x[:, 0].amin(1, keepdim=True)
    span = x[:, 0].amax(1, keepdim=True) - low
    values = F.pad((x[:, 0] - low) / span, (CONTEXT - length, 0))
    valid = torch.zeros_like(values, dtype=torch.bool)
    valid[:, CONTEXT - length :] = True
    with _KeepDouble():
        hidden = network.core(values[:, None], valid[:, None], valid[:, None].to(values))
        found = network.head.forward_horizon(hidden, values[:, -1:], ctx=values, ctx_mask=valid)
    return found[:, : network.horizon, 4] * span + low


@pytest.mark.parametrize("length", [8, 50, 700, CONTEXT])
def test_forecasts_are_those_of_the_package(package, length):
    x = contexts(2, length)
    expected = package.forecast_batch(x[:, 0].numpy())
    median = load_source("fracast", input_size=length, horizon=48, progress=False)
    torch.testing.assert_close(
        median(x), torch.tensor(expected[:, :, 4]).float(), atol=1e-4, rtol=1e-4
    )
    quantiles = load_source(
        "fracast", input_size=length, horizon=5, output="quantiles", progress=False
    )
    assert quantiles.outputs == 45 and quantiles.classes[:2] == ("t+1, 10 %", "t+1, 20 %")
    torch.testing.assert_close(
        quantiles(x).view(2, 5, 9), torch.tensor(expected[:, :5]).float(), atol=1e-4, rtol=1e-4
    )


def test_gradients_are_those_of_the_whole_network_and_of_differences(network):
    x = contexts(2, 40).double().requires_grad_(True)
    (ours,) = torch.autograd.grad(network(x)[:, 2].sum(), x)
    (expected,) = torch.autograd.grad(whole(network, x)[:, 2].sum(), x)
    torch.testing.assert_close(ours, expected, atol=1e-10, rtol=1e-8)
    step = torch.zeros_like(x)
    step[..., 30] = 1e-5
    with torch.no_grad():
        slope = (network(x + step) - network(x - step))[:, 2] / 2e-5
    torch.testing.assert_close(slope, ours[:, 0, 30], atol=1e-6, rtol=1e-5)


def test_states_before_the_context_follow_the_weights(network):
    changed, x = copy.deepcopy(network), contexts(2, 40).double()
    before = changed(x)
    torch.testing.assert_close(before, network(x))
    with torch.no_grad():
        changed.core.in_proj.weight.mul_(1.1)
    after = changed(x)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, whole(changed, x))
    changed.requires_grad_(True)
    weights = list(changed.core.parameters())
    ours = torch.autograd.grad(changed(x).square().sum(), weights)
    expected = torch.autograd.grad(whole(changed, x).square().sum(), weights)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_the_kernel_over_the_horizon_is_that_of_gradients():
    source = load_source("fracast", input_size=20, horizon=3, progress=False)
    x, y = contexts(4, 12).float(), torch.rand(4, 3)
    target = mrviz.Target(x, y, x, y)
    model = mrviz.reprogram(source, target, program="linear", mapping="identity")
    gram = mrviz.ntk_gram(model, x[:2], dtype=torch.float64, progress=False)
    double = copy.deepcopy(model).double()
    outputs = double(x[:2].double()).flatten()
    parameters = [p for p in double.parameters() if p.requires_grad]
    rows = [torch.autograd.grad(o, parameters, retain_graph=True) for o in outputs]
    jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    torch.testing.assert_close(gram.matrix, jacobian @ jacobian.T)
    assert gram.matrix.shape == (6, 6)


def test_float64_is_kept_all_the_way(network):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = network(contexts(1, 30).double())
    single = copy.deepcopy(network).float()(contexts(1, 30))
    assert out.dtype == torch.float64
    assert 0 < float((out - single).abs().max()) < 1e-4


def test_random_weights_follow_the_seed_and_leave_torch_alone():
    state, x = torch.get_rng_state(), contexts(2, 96)
    first, again, other = (
        load_source("fracast", weights="random", seed=s, progress=False) for s in (1, 1, 2)
    )
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first(x), again(x)) and not torch.allclose(first(x), other(x), atol=1e-3)


def test_forecasts_move_with_the_scale_of_the_context():
    source, x = load_source("fracast", progress=False), contexts(2, 96)
    torch.testing.assert_close(source(5 * x + 3), 5 * source(x) + 3, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 49}, "forecasts at most 48"),
        ({"input_size": 2049}, "at most 2048"),
        ({"input_size": 7}, "input_size must be at least 8"),
        ({"output": "mean"}, "'median', 'quantiles'"),
        ({"trained_on": "airline"}, "trained_on does not apply"),
    ],
)
def test_options_that_do_not_fit_are_errors(options, message):
    with pytest.raises(InputError, match=message):
        load_source("fracast", **options)


def test_without_the_package_the_way_to_get_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fracast", None)
    with pytest.raises(MissingDataError, match=r'pip install "mrviz\[series\]"'):
        load_source("fracast", progress=False)
