"""The analytic kernels: an independent library, closed forms, high precision, wide networks."""

import math
import threading
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call, jacrev, vmap

import mrviz
from mrviz.ntk.source_kernel import infinite_width
from mrviz.ntk.source_kernel.infinite_width import infinite_width_ntk
from mrviz.sources.families import build_family
from tests.ntk.common import close, smallest, uniform

ARCHITECTURES = [
    {"family": "dnn", "depth": 3},
    {"family": "cnn", "depth": 2, "pooling": "flatten"},
    {"family": "cnn", "depth": 2, "pooling": "gap"},
]


@pytest.fixture(scope="module")
def stored():
    with np.load(Path(__file__).parents[2] / "data" / "ntk_source.npz") as arrays:
        return {k: torch.tensor(v) for k, v in arrays.items()}


def relative(found, expected):
    return float(((found - expected) / expected).abs().max())


@pytest.mark.parametrize("depth", range(1, 10))
def test_dnn_of_the_independent_library(stored, depth):
    gram = infinite_width_ntk(stored["x"], depth=depth)
    assert relative(gram.matrix, stored[f"dnn{depth}"]) < 1e-13
    assert gram.info.symmetry_error < 1e-15 and gram.info.dtype == "float64"


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("pooling", "key"), [("flatten", "flat"), ("gap", "gap")])
def test_cnn_of_the_independent_library(stored, depth, pooling, key):
    x = stored["x"][:30].view(30, 1, 8, 8)
    gram = infinite_width_ntk(x, family="cnn", depth=depth, pooling=pooling)
    assert relative(gram.matrix, stored[f"cnn{depth}_{key}"]) < 1e-13


@pytest.mark.parametrize(
    ("angle", "expected"),
    [
        *[(0, 1.0), (math.pi / 6, 0.80126531), (math.pi / 3, 0.47116556)],
        *[(math.pi / 2, 0.15915494), (math.pi, 0.0)],
    ],
)
def test_one_hidden_layer_without_bias(angle, expected):
    """Weight stds (√2, 1) halve the kernel of (√2, √2), as it is proportional to both squares."""
    x = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    gram = infinite_width_ntk(x, depth=2, bias_std=0)
    found = float(gram.matrix[0, 1]) / 2
    both, arc = (math.pi - angle) / math.pi, math.sin(angle) / math.pi
    assert found == pytest.approx((arc + 2 * both * math.cos(angle)) / 2, abs=1e-15)
    assert found == pytest.approx(expected, abs=5e-9)


def test_kernel_without_bias_of_one_sample_counts_the_layers():
    x = uniform(4, 6)
    norms = 2 * x.square().mean(1)
    for depth in (1, 2, 5):
        found = infinite_width_ntk(x, depth=depth, bias_std=0).matrix.diagonal()
        assert torch.allclose(found, depth * norms, rtol=1e-14)


def precise_dnn(x, y, depth):
    """The recursion in 60 digits, by the textbook formula."""
    with mpmath.workdps(60):
        x, y = ([mpmath.mpf(v) for v in s.tolist()] for s in (x, y))
        products = [(x, y), (x, x), (y, y)]
        cov, a, b = (sum(p * q for p, q in zip(*s, strict=True)) / len(x) for s in products)
        kernel = mpmath.mpf(0)
        two, tenth = mpmath.mpf(2**0.5) ** 2, mpmath.mpf(0.1**0.5) ** 2
        for layer in range(depth):
            cov, a, b = (two * v + tenth for v in (cov, a, b))
            kernel = cov + two * kernel
            if layer < depth - 1:
                angle = mpmath.acos(cov / mpmath.sqrt(a * b))
                both = (mpmath.pi - angle) / (2 * mpmath.pi)
                kernel = kernel * both
                cov = cov * both + mpmath.sqrt(a * b) * mpmath.sin(angle) / (2 * mpmath.pi)
                a, b = a / 2, b / 2
        return float(kernel)


@pytest.mark.parametrize("distance", [0.0, 1e-14, 1e-11, 1e-8, 1e-5, 1e-2])
def test_nearly_equal_inputs_keep_every_digit(distance):
    x = uniform(1, 16)
    x = torch.cat([x, x + distance * torch.linspace(-1, 1, 16, dtype=torch.float64)])
    for depth in (2, 6):
        found = float(infinite_width_ntk(x, depth=depth).matrix[0, 1])
        assert found == pytest.approx(precise_dnn(x[0], x[1], depth), rel=5e-15)


@pytest.mark.parametrize("options", ARCHITECTURES)
def test_a_repeated_sample_repeats_its_row(options):
    x = uniform(3, 2, 4, 5)
    found = infinite_width_ntk(x[[0, 1, 2, 0]], **options).matrix
    assert torch.equal(found[0, 0], found[0, 3]) and torch.equal(found[0], found[3])


@pytest.mark.parametrize("options", ARCHITECTURES)
@pytest.mark.parametrize("chunk_size", [1, 2, 3, 100])
def test_tiles_and_slices_agree_with_the_whole(options, chunk_size):
    x, y = uniform(5, 2, 4, 5), uniform(3, 2, 4, 5, seed=1)
    whole = infinite_width_ntk(torch.cat([x, y]), **options)
    found = infinite_width_ntk(torch.cat([x, y]), chunk_size=chunk_size, **options)
    cross = infinite_width_ntk(x, y, chunk_size=chunk_size, **options)
    assert close(found.matrix, whole.matrix, 1e-15)
    assert close(cross.matrix, whole.matrix[:5, 5:], 1e-15)
    assert whole.symmetric and torch.equal(whole.matrix, whole.matrix.T)
    assert not cross.symmetric and cross.info.trace is None
    assert (cross.n, cross.outputs, cross.reduce) == (5, 1, "full")


@pytest.mark.parametrize("options", ARCHITECTURES)
@given(data=st.data())
def test_positive_semi_definite_and_permutable(options, data):
    seed = data.draw(st.integers(0, 10**6))
    height, width = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    bias = data.draw(st.sampled_from([0.0, 0.3, 2.0]))
    x = uniform(6, 2, height, width, seed=seed) - 0.5
    x[1], x[2] = x[0], 0
    found = infinite_width_ntk(x, bias_std=bias, **options).matrix
    assert smallest(found) >= -1e-14 * float(found.norm())
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    permuted = infinite_width_ntk(x[order], bias_std=bias, **options).matrix
    assert close(permuted, found[order][:, order], 1e-14)


@pytest.mark.parametrize("options", ARCHITECTURES)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_without_biases_it_is_homogeneous(options, scale, seed):
    x, y = uniform(3, 1, 3, 4, seed=seed) - 0.5, uniform(2, 1, 3, 4, seed=seed + 1)
    found = infinite_width_ntk(scale * x, y, bias_std=0, **options).matrix
    assert close(found, scale * infinite_width_ntk(x, y, bias_std=0, **options).matrix, 1e-10)


@pytest.mark.parametrize("options", ARCHITECTURES)
def test_weight_std_is_a_factor_without_biases(options):
    x = uniform(4, 1, 4, 4)
    layers = options["depth"] + (options["family"] == "cnn")
    found = infinite_width_ntk(x, weight_std=1, bias_std=0, **options).matrix
    expected = infinite_width_ntk(x, bias_std=0, **options).matrix
    assert close(found * 2**layers, expected, 1e-14)


def test_mirrored_images_have_the_same_kernel():
    x = uniform(4, 3, 4, 5)
    for options in ARCHITECTURES[1:]:
        found = infinite_width_ntk(x.flip(3), **options).matrix
        assert close(found, infinite_width_ntk(x, **options).matrix, 1e-14)


def test_one_pixel_makes_the_readouts_equal():
    x = uniform(4, 3, 1, 1)
    flat, gap = (infinite_width_ntk(x, family="cnn", pooling=p).matrix for p in ("flatten", "gap"))
    assert close(flat, gap, 1e-14)


def test_smallest_eigenvalue_grows_with_depth_on_digits(stored):
    """What Corollary 1 of the paper rests on."""
    smallest_by_depth = [
        smallest(infinite_width_ntk(stored["x"], depth=d).matrix) for d in (1, 2, 3, 6, 9)
    ]
    assert abs(smallest_by_depth[0]) < 1e-12
    assert smallest_by_depth[1:] == sorted(smallest_by_depth[1:])
    assert smallest_by_depth[1] > 0.01


def ntk_parameterised(network, x):
    """Trace kernel of a standard network, each gradient by √(2/fan-in) or √0.1, all written out."""
    named = {k: p.detach() for k, p in network.named_parameters()}

    def output(theta, sample):
        return functional_call(network, theta, (sample[None],))[0]

    jacobian = vmap(jacrev(output), (None, 0))(named, x)
    total = 0
    for name, j in jacobian.items():
        p = named[name]
        variance = 2 / p[0].numel() if p.ndim > 1 else 0.1
        total = total + variance * torch.einsum("icp,jcp->ij", j.flatten(2), j.flatten(2))
    return total / jacobian[name].shape[1]


@pytest.mark.parametrize(
    ("family", "depth", "width"), [("dnn", 2, 1024), ("dnn", 4, 256), ("cnn", 2, 96)]
)
def test_wide_random_networks_approach_it(family, depth, width):
    x = uniform(4, 2, 3, 3) * 2 - 1
    draws = []
    for seed in range(24):
        network = build_family(
            family, (2, 3, 3), depth=depth, width=width, groups=None, n_classes=8, seed=seed
        )
        draws.append(ntk_parameterised(network.double(), x))
    draws = torch.stack(draws)
    limit = infinite_width_ntk(x, family=family, depth=depth).matrix
    error, spread = draws.mean(0) - limit, draws.std(0) / len(draws) ** 0.5
    assert float((error.abs() - 5 * spread).max()) <= 0, "beyond five standard errors"
    assert float((spread / limit.norm()).max()) < 0.02, "so the check above says something"


@pytest.mark.parametrize("options", ARCHITECTURES)
def test_progress_and_cancellation(options):
    calls, flag = [], threading.Event()
    x = uniform(5, 1, 3, 3)
    infinite_width_ntk(x, chunk_size=2, progress=lambda *c: calls.append(c), **options)
    assert [c[:2] for c in calls] == [(k, 6) for k in range(7)]

    def stop(done, total, label):
        if done == 2:
            flag.set()

    with pytest.raises(mrviz.Cancelled, match="2 of 6"):
        infinite_width_ntk(x, chunk_size=2, progress=stop, cancel=flag, **options)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (torch.ones(3, 4, dtype=torch.int64), {}, "floating point"),
        (torch.full((3, 4), torch.nan), {}, "NaN"),
        (torch.ones(4), {}, "sample axis"),
        (torch.ones(2, 0), {}, "without values"),
        (torch.ones(3, 4), {"depth": 0}, "depth must be at least 1"),
        (torch.ones(3, 4), {"depth": 1.5}, "depth must be an integer"),
        (torch.ones(3, 4), {"family": "cnn"}, "takes images"),
        (torch.ones(3, 4), {"family": "rnn"}, "family must be one of"),
        (torch.ones(3, 4), {"pooling": "gap"}, "pooling applies to family='cnn'"),
        (torch.ones(3, 1, 4, 4), {"family": "cnn", "pooling": "max"}, "pooling must be one of"),
        (torch.ones(3, 4), {"x2": torch.ones(3, 5)}, "x2 holds samples of shape"),
        (torch.ones(3, 4), {"weight_std": math.inf}, "weight_std"),
        (torch.ones(3, 4), {"bias_std": -1.0}, "bias_std"),
        (torch.ones(3, 4), {"chunk_size": 0}, "chunk_size"),
    ],
)
def test_wrong_inputs(x, options, message):
    with pytest.raises(mrviz.InputError, match=message):
        infinite_width_ntk(x, **options)


def test_devices_without_float64_and_memory_that_does_not_suffice(monkeypatch):
    with pytest.raises(mrviz.DeviceError, match="float64"):
        infinite_width_ntk(torch.ones(2, 3), device="mps")
    x = uniform(2, 1, 8, 8)
    assert infinite_width_ntk(x, family="cnn", pooling="gap").info.chunk_size > 1
    monkeypatch.setattr(infinite_width, "available_bytes", lambda device: 100_000)
    with pytest.raises(mrviz.ResourceError, match="pooling='flatten'"):
        infinite_width_ntk(x, family="cnn", pooling="gap")
    assert infinite_width_ntk(x, family="cnn").info.chunk_size > 1


def test_numpy_and_float32_inputs_are_taken_in_float64():
    x = uniform(3, 5).float()
    found = infinite_width_ntk(x.numpy())
    assert found.matrix.dtype == torch.float64
    assert torch.equal(found.matrix, infinite_width_ntk(x.double()).matrix)
    assert found.info.method == "analytic" and "3 weight layers" in found.info.why
