"""Low-rank, convolution and scale programs against whole Jacobians, sweeps and each other."""

from itertools import pairwise
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import mrviz
from mrviz import mappings
from mrviz.ntk import capacity_grams, jacobian_gram
from mrviz.ntk.factors import Factors, Reduction
from mrviz.programs import Border, Chain, Convolution, Linear, LowRankLinear, Overlay, Scale
from tests.ntk.common import (
    REDUCTIONS,
    brute_jacobian,
    close,
    contracted,
    conv_net,
    dense_net,
    fill,
    frame_pixels,
    module_function,
    on_canvas,
    recolour,
    round_off,
    smallest,
    uniform,
)

COLOURS = {"grey to colour": (1, 3), "colour to grey": (3, 1), "colour": (3, 3)}
SIDES = (4, 6)
few = settings(max_examples=12, deadline=None)
seeds = st.integers(0, 10_000)


def resized(x, source):
    x = recolour(x, source[0])
    return F.interpolate(x, source[1:], mode="bilinear", align_corners=False)


def low_rank_case(rank, max_rank=5, size=None, start=False):
    def make(head, source, target):
        program = LowRankLinear(
            source, target, rank=rank, max_rank=max_rank, image_size=size, seed=3
        ).double()
        if not start:
            fill(program, 8)
        weight, directions = program.weight.detach().clone(), program.directions.clone()

        def f(theta, x):
            change = torch.zeros(len(x), prod(source)).double()
            for k in range(max_rank):
                column = theta.view(-1, rank)[:, k] if k < rank else weight[:, k]
                change = change + (x.flatten(1) @ directions[k])[:, None] * column
            return head(on_canvas(x, source, size) + change.view(-1, *source))

        return program, f, weight[:, :rank].flatten()

    return make


def offsets(size):
    return range(-((size - 1) // 2), size // 2 + 1)


def shifted(x, down, right):
    """The image x(row + down, column + right), zero outside."""
    height, width = x.shape[2:]
    out = torch.zeros_like(x)
    rows = slice(max(0, -down), height - max(0, down))
    columns = slice(max(0, -right), width - max(0, right))
    from_rows = slice(max(0, down), height - max(0, -down))
    from_columns = slice(max(0, right), width - max(0, -right))
    out[:, :, rows, columns] = x[:, :, from_rows, from_columns]
    return out


def convolution_case(size, max_size, bias=True, start=False, frozen=False):
    """W as a dictionary of offsets: the oracle knows nothing of kernels and padding."""

    def make(head, source, target):
        program = Convolution(source, target, size=size, max_size=max_size, bias=bias).double()
        if not start:
            fill(program, 8)
        if frozen:
            program.weight.requires_grad_(False)
        c, low = source[0], offsets(max_size)[0]
        fixed = {
            (i, j): program.weight.detach()[:, :, i - low, j - low].clone()
            for i in offsets(max_size)
            for j in offsets(max_size)
        }
        moving = [] if frozen else [(i, j) for i in offsets(size) for j in offsets(size)]
        shift = program.bias.detach().clone() if bias else torch.zeros(c).double()
        blocks = [fixed[o].flatten() for o in moving] + [shift] * bias

        def f(theta, x):
            x = resized(x, source)
            kernel = dict(fixed)
            for k, offset in enumerate(moving):
                kernel[offset] = theta[k * c * c : (k + 1) * c * c].view(c, c)
            u = (theta[-c:] if bias else shift).view(c, 1, 1)
            for (down, right), mix in kernel.items():
                u = u + torch.einsum("oc,nchw->nohw", mix, shifted(x, down, right))
            return head(u)

        return program, f, torch.cat(blocks)

    return make


def scale_case(scale):
    def make(head, source, target):
        program = Scale(source, target, scale=scale).double()
        with torch.no_grad():
            program.scale.fill_(scale)
        (height, width), (h, w) = source[1:], target[1:]

        def f(theta, x):
            """Every canvas pixel looks where it comes from; a library samples the image there."""
            down = (torch.arange(height) + 0.5 - height / 2).double() / theta[0] / (h / 2)
            right = (torch.arange(width) + 0.5 - width / 2).double() / theta[0] / (w / 2)
            grid = torch.stack(
                [right.expand(height, width), down[:, None].expand(height, width)], 2
            )
            image = recolour(x, source[0])
            return head(F.grid_sample(image, grid.expand(len(x), -1, -1, -1), align_corners=False))

        return program, f, torch.tensor([scale], dtype=torch.float64)

    return make


CASES = {
    "low rank": low_rank_case(5),
    "low rank at start": low_rank_case(5, start=True),
    "low rank 1 of 5": low_rank_case(1),
    "low rank 3 of 5, resized": low_rank_case(3, size=5),
    "low rank, full": low_rank_case(16, max_rank=16),
    "convolution": convolution_case(3, 3),
    "convolution at start": convolution_case(3, 3, start=True),
    "convolution 1 of 4": convolution_case(1, 4),
    "convolution 2 of 5": convolution_case(2, 5),
    "convolution 4 of 4": convolution_case(4, 4),
    "convolution 3 of 6, no bias": convolution_case(3, 6, bias=False),
    "convolution, frozen kernel": convolution_case(2, 3, frozen=True),
    "scale up": scale_case(1.37),
    "scale down": scale_case(0.61),
}


def build(case, colour, mapping=None):
    target, source = ((c, s, s) for c, s in zip(COLOURS[colour], SIDES, strict=True))
    net = conv_net(source, 4, seed=1)
    program, f, theta = CASES[case](lambda u: net(u)[:, :3], source, target)
    model = mrviz.ReprogrammedModel(
        mrviz.SourceModel(net, source), program, mapping or mappings.Identity(3)
    )
    return model, f, theta, target


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("case", CASES)
def test_gram_is_that_of_whole_jacobians(case, colour):
    model, f, theta, target = build(case, colour)
    x1, x2 = uniform(3, *target, seed=1), uniform(2, *target, seed=2)
    assert close(model(x1).detach(), f(theta, x1).detach(), 1e-12)
    assert model.n_parameters == len(theta)
    j1, j2 = brute_jacobian(f, theta, x1), brute_jacobian(f, theta, x2)
    for reduce in REDUCTIONS:
        gram = mrviz.ntk_gram(model, x1, reduce=reduce, chunk_size=2)
        expected = contracted(j1, j1, reduce)
        assert float(expected.norm()) > 1e-6
        assert close(gram.matrix, expected), reduce
        assert "closed form" in gram.info.why and gram.info.n_parameters == len(theta)
    assert close(mrviz.ntk_gram(model, x1, x2, chunk_size=2).matrix, contracted(j1, j2))
    reduced = mrviz.ntk_gram(model, x2, x1, reduce="sum")
    assert close(reduced.matrix, contracted(j2, j1, "sum"))


@pytest.mark.parametrize("method", ["contraction", "products"])
@pytest.mark.parametrize("case", CASES)
def test_slow_references_agree(case, method):
    model, f, theta, target = build(case, "grey to colour")
    x = uniform(3, *target, seed=1)
    jacobian = brute_jacobian(f, theta, x)
    for reduce in ("full", "trace"):
        gram = mrviz.ntk_gram(model, x, reduce=reduce, method=method, chunk_size=2)
        assert close(gram.matrix, contracted(jacobian, jacobian, reduce))


RECTANGLES = [((1, 7, 5), (1, 4, 3)), ((3, 5, 8), (1, 5, 2)), ((1, 6, 9), (3, 3, 3))]


@pytest.mark.parametrize(("source", "target"), RECTANGLES)
@pytest.mark.parametrize("case", ["low rank 1 of 5", "convolution 4 of 4", "scale down"])
def test_rectangular_canvases(case, source, target):
    net = dense_net(source, 3, seed=2)
    program, f, theta = CASES[case](net, source, target)
    model = mrviz.ReprogrammedModel(mrviz.SourceModel(net, source), program, mappings.Identity())
    x = uniform(3, *target)
    jacobian = brute_jacobian(f, theta, x)
    assert close(mrviz.ntk_gram(model, x).matrix, contracted(jacobian, jacobian))


def test_float32_agrees_with_float64():
    for case in CASES:
        model, *_, target = build(case, "colour")
        x = uniform(3, *target)
        expected = mrviz.ntk_gram(model, x).matrix
        single = mrviz.ntk_gram(model.float(), x.float())
        assert single.info.dtype == "float32"
        assert close(single.matrix, expected, 1e-4) and not close(single.matrix, expected, 1e-12)


# Scale: the derivative where the image's pixels lie on those of the canvas


def scaled(program, x, scale):
    with torch.no_grad():
        program.scale.fill_(scale)
        return program(x)


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_at_kinks_the_derivative_is_the_mean_of_left_and_right(scale):
    source, target = (1, 8, 6), (1, 4, 4)
    program = Scale(source, target, scale=scale).double()
    x = uniform(2, *target)
    step = 1e-6
    at, left, right = (scaled(program, x, scale + d) for d in (0, -step, step))
    one_sided = [(at - left) / step, (right - at) / step]
    scaled(program, x, scale)
    mean = sum(one_sided) / 2
    assert float(mean.norm()) > 1
    assert close(program.derivative(x), mean, 1e-4)
    if scale == 1:
        assert not close(*one_sided, 0.1), "the two sides differ"
    tangent = torch.func.jvp(
        lambda s: torch.func.functional_call(program, {"scale": s}, (x,)),
        (program.scale.detach(),),
        (torch.ones(()).double(),),
    )[1]
    assert close(program.derivative(x), tangent, 1e-12)


def test_kernel_of_the_scale_at_its_start_is_that_of_autograd():
    source, target = (1, 8, 8), (1, 4, 4)
    net = conv_net(source, 3, seed=4)
    program = Scale(source, target).double()
    assert program.scale.item() == 1
    model = mrviz.ReprogrammedModel(mrviz.SourceModel(net, source), program, mappings.Identity())
    x = uniform(3, *target)
    found = mrviz.ntk_gram(model, x)
    assert float(found.matrix.trace()) > 1e-3
    assert close(found.matrix, mrviz.ntk_gram(model, x, method="contraction").matrix)
    assert close(found.matrix, mrviz.ntk_gram(model, x, method="products").matrix)


@pytest.mark.parametrize("scale", [0.02, 7.0])
def test_beyond_its_limits_the_scale_has_no_effect(scale):
    program = Scale((1, 8, 8), (1, 20, 20)).double()
    x = uniform(2, 1, 20, 20)
    beyond = scaled(program, x, scale)
    assert torch.equal(beyond, scaled(program, x, 0.1 if scale < 1 else 5.0))
    assert float(program.derivative(x).norm()) > 0.1
    scaled(program, x, scale)
    assert not program.derivative(x).any()
    (grad,) = torch.autograd.grad(program(x).sum(), program.scale)
    assert float(grad) == 0


# Low rank and linear


def same_u(source_shape, target_shape, max_rank):
    """A low-rank program at its start and the bias-free linear program that has its u."""
    low = LowRankLinear(source_shape, target_shape, max_rank=max_rank).double()
    low.directions.copy_(torch.linalg.qr(low.directions.T)[0].T)  # to float64 precision
    linear = Linear(source_shape, target_shape, bias=False).double()
    with torch.no_grad():
        basis = torch.eye(linear.weight.shape[1]).double().view(-1, *target_shape)
        linear.weight.copy_(low(basis).flatten(1).T)
    return low, linear


@few
@given(seeds, st.integers(1, 5))
def test_full_rank_is_linear_without_bias(seed, n):
    source, target = (2, 5, 5), (1, 3, 3)
    frozen = mrviz.SourceModel(conv_net(source, 3, seed), source)
    low, linear = same_u(source, target, 9)
    x = uniform(n, *target, seed=seed)
    models = [mrviz.ReprogrammedModel(frozen, p, mappings.Identity()) for p in (low, linear)]
    assert torch.allclose(models[0](x), models[1](x), atol=1e-12)
    full, expected = (mrviz.ntk_gram(m, x).matrix for m in models)
    assert close(full, expected, 1e-12)
    low.capacity = 4
    part = mrviz.ntk_gram(models[0], x).matrix
    assert smallest(expected - part) >= -round_off(expected)
    assert not close(part, expected, 0.01)


def test_scalar_features_are_those_of_the_kernel():
    source, target = (1, 5, 5), (1, 3, 3)
    program = fill(LowRankLinear(source, target, rank=3).double(), 2)
    model = mrviz.ReprogrammedModel(
        mrviz.SourceModel(conv_net(source, 3), source), program, mappings.Identity()
    )
    x = uniform(4, *target)
    gamma, s = jacobian_gram(model, x).matrix.view(4, 3, 4, 3), program.scalar_features(x)
    assert s.shape == (4, 3)
    product = gamma * (s @ s.T)[:, None, :, None]
    assert close(mrviz.ntk_gram(model, x).matrix, product.reshape(12, 12), 1e-12)
    program.weight.requires_grad_(False)
    assert program.scalar_features(x) is None


# Capacities


def make(name, seed, canvas=(1, 7, 7), image=(1, 3, 3), max_rank=5):
    program = {
        "low_rank": lambda: LowRankLinear(canvas, image, max_rank=max_rank, seed=seed),
        "convolution": lambda: Convolution(canvas, image, max_size=4, bias=bool(seed % 3)),
    }[name]()
    net = (conv_net if seed % 2 else dense_net)(canvas, 3, seed)
    return mrviz.ReprogrammedModel(
        mrviz.SourceModel(net, canvas), fill(program.double(), seed), mappings.Identity()
    )


capable = st.sampled_from(["low_rank", "convolution"])


@few
@given(capable, seeds, st.integers(1, 5), st.sampled_from(REDUCTIONS))
def test_eigenvalues_grow_with_the_capacity(name, seed, n, reduce):
    model, x = make(name, seed), uniform(n, 1, 3, 3, seed=seed)
    u, grams, counts = model.programmed(x), [], []
    low, high = model.program.capacity_range
    for capacity in range(low, high + 1):
        model.capacity = capacity
        assert torch.equal(model.programmed(x), u)
        counts.append(model.n_parameters)
        grams.append(mrviz.ntk_gram(model, x, reduce=reduce).matrix)
    assert counts == sorted(set(counts))
    for less, more in pairwise(grams):
        assert smallest(more - less) >= -round_off(more)
        values = [torch.linalg.eigvalsh(m) for m in (less, more)]
        assert bool((values[0] <= values[1] + round_off(more)).all())
    assert float(grams[-1].trace()) > float(grams[0].trace())


@few
@given(capable, seeds, st.integers(1, 5), st.sampled_from(REDUCTIONS), st.integers(1, 6))
def test_a_sweep_gives_the_gram_of_every_capacity(name, seed, n, reduce, chunk):
    model, x = make(name, seed), uniform(n, 1, 3, 3, seed=seed)
    for chosen in (None, [1, 3], [4]):
        found = list(capacity_grams(model, x, chosen, reduce=reduce, chunk_size=chunk))
        low, high = model.program.capacity_range
        assert [c for c, _ in found] == (chosen or list(range(low, high + 1)))
        for capacity, gram in found:
            model.capacity = capacity
            single = mrviz.ntk_gram(model, x, reduce=reduce)
            assert close(gram.matrix, single.matrix, 1e-12)
            assert gram.info.n_parameters == single.info.n_parameters
    rows = uniform(n + 2, 1, 3, 3, seed=seed + 1)
    for capacity, cross in capacity_grams(model, rows, x2=x, reduce=reduce, chunk_size=chunk):
        model.capacity = capacity
        assert not cross.symmetric and cross.info.trace is None and cross.n == n + 2
        assert close(cross.matrix, mrviz.ntk_gram(model, rows, x, reduce=reduce).matrix, 1e-12)


class Products(TorchDispatchMode):
    """Counts products of matrices (…, q) with their like."""

    def __init__(self, q):
        super().__init__()
        self.q = q
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        shapes = [a.shape for a in args if isinstance(a, torch.Tensor) and a.ndim == 2]
        if func in (torch.ops.aten.mm.default, torch.ops.aten.mm.out) and shapes[0][1] == self.q:
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_all_ranks_share_one_factor_and_one_product(reduce):
    canvas, image, n, ranks = (1, 7, 7), (1, 5, 5), 5, range(1, 17)
    model = make("low_rank", 3, canvas, image, 25)
    x = uniform(n, *image)
    factors = Factors(model, x, Reduction(reduce, 3))
    steps = [blocks for (blocks,) in factors.increments(0, n, list(ranks))]
    assert {id(block.factor) for block in steps} == {id(steps[0].factor)}
    assert [block.features.shape for block in steps] == [(n, 1)] * 16

    expected = mrviz.ntk_gram(model, x, reduce=reduce).matrix
    with Products(steps[0].factor.shape[1]) as products:
        found = dict(capacity_grams(model, x, ranks, reduce=reduce, chunk_size=2))
    assert products.count == 6, "one for each tile of the upper triangle of 3 × 3 chunks"
    model.capacity = 16
    assert close(found[16].matrix, mrviz.ntk_gram(model, x, reduce=reduce).matrix, 1e-12)
    assert not close(found[16].matrix, expected, 1e-3), "of 25 ranks"


class Hungry(torch.nn.Module):
    """Runs out of memory for more than two samples."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.limit = 1000

    def forward(self, u):
        if len(u) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.net(u)


def test_steps_go_on_sharing_their_factor_after_memory_ran_out():
    canvas, image = (1, 7, 7), (1, 3, 3)
    net = Hungry(conv_net(canvas, 3, 1))
    program = fill(LowRankLinear(canvas, image).double(), 1)
    model = mrviz.ReprogrammedModel(mrviz.SourceModel(net, canvas), program, mappings.Identity())
    x = uniform(5, *image)
    whole = dict(capacity_grams(model, x))
    net.limit = 2
    factors = Factors(model, x, Reduction("full", 3))
    with pytest.warns(UserWarning, match="out of memory"):
        steps = [blocks for (blocks,) in factors.increments(0, 5, [1, 2, 3])]
    assert {id(block.factor) for block in steps} == {id(steps[0].factor)}
    mrviz.ntk.cache.clear()
    with pytest.warns(UserWarning, match="out of memory"):
        parts = dict(capacity_grams(model, x))
    for rank, gram in whole.items():
        assert close(parts[rank].matrix, gram.matrix, 1e-12)


# Chains


INNER = (1, 5, 5)
CHAINS = {
    "low rank, border": lambda: Chain(LowRankLinear(INNER, (1, 3, 3)), Border((1, 7, 7), INNER)),
    "scale, border": lambda: Chain(Scale(INNER, (1, 3, 3), scale=1.3), Border((1, 7, 7), INNER)),
    "convolution, border": lambda: Chain(
        Convolution(INNER, (1, 3, 3), max_size=3), Border((1, 7, 7), INNER)
    ),
    "linear, low rank": lambda: Chain(
        Linear(INNER, (1, 3, 3)), LowRankLinear((1, 7, 7), INNER, max_rank=4)
    ),
    "overlay, convolution": lambda: Chain(
        Overlay(INNER, (1, 3, 3)), Convolution((1, 7, 7), INNER, max_size=4)
    ),
    "low rank, scale": lambda: Chain(
        LowRankLinear(INNER, (1, 3, 3)), Scale((1, 7, 7), INNER, scale=0.8)
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains(name):
    program = CHAINS[name]().double()
    for part in (program.first, program.second):
        if not isinstance(part, Scale):
            fill(part, 6)
    net = conv_net((1, 7, 7), 3, 2)
    model = mrviz.ReprogrammedModel(mrviz.SourceModel(net, (1, 7, 7)), program, mappings.Identity())
    x, y = uniform(3, 1, 3, 3), uniform(2, 1, 3, 3, seed=5)
    f, theta = module_function(net, program)
    low, high = program.capacity_range or (None, None)
    if low is not None:
        program.capacity = low
    j1, j2 = brute_jacobian(f, theta, x), brute_jacobian(f, theta, y)
    assert program.closed_form
    for reduce in REDUCTIONS:
        assert close(mrviz.ntk_gram(model, x, reduce=reduce).matrix, contracted(j1, j1, reduce))
    assert close(mrviz.ntk_gram(model, x, y).matrix, contracted(j1, j2))
    if low is not None:
        swept = dict(capacity_grams(model, x))
        assert set(swept) == set(range(low, high + 1))
        assert close(swept[low].matrix, contracted(j1, j1), 1e-10)
        program.capacity = high
        assert close(swept[high].matrix, mrviz.ntk_gram(model, x).matrix, 1e-12)
    both = mrviz.ntk_gram(model, x).matrix
    program.second.requires_grad_(False)
    first = mrviz.ntk_gram(model, x).matrix
    assert 1e-3 < float(first.norm() / both.norm()) < 1 - 1e-6, "both have a part in it"


def test_a_chain_of_a_scale_and_a_border_leaves_the_image_in_the_middle():
    program = Chain(Scale((1, 6, 6), (1, 4, 4)), Border((1, 10, 10), (1, 6, 6))).double()
    x = uniform(2, 1, 4, 4)
    expected = on_canvas(x, (1, 10, 10)).flatten(1)
    expected[:, frame_pixels((1, 10, 10), (6, 6))] = 0.5
    assert close(program(x).detach().flatten(1), expected, 1e-14)
