"""What holds for every target NTK, whatever the weights: order, bounds, sums, closed forms."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mrviz
from mrviz import mappings
from mrviz.ntk import capacity_grams, jacobian_gram
from mrviz.programs import Border, Chain, Linear, Overlay, linear_border
from mrviz.programs.placement import Placement
from tests.ntk.common import (
    REDUCTIONS,
    brute_jacobian,
    close,
    conv_net,
    dense_net,
    fill,
    module_function,
    round_off,
    smallest,
    uniform,
)

CANVAS, IMAGE = (1, 5, 5), (1, 3, 3)
few = settings(max_examples=12, deadline=None)
seeds = st.integers(0, 10_000)
samples = st.integers(1, 5)
reductions = st.sampled_from(REDUCTIONS)


class Shift(nn.Module):
    """A program that is none of ours."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=2)

    def forward(self, x):
        return torch.sigmoid(self.conv(x))


def make_program(name, seed):
    if name == "module":
        return fill(Shift().double(), seed)
    program = {
        "border": lambda: Border(CANVAS, IMAGE),
        "overlay": lambda: Overlay(CANVAS, IMAGE, activation="sigmoid"),
        "linear": lambda: Linear(CANVAS, IMAGE, seed=seed),
        "linear_border": lambda: linear_border(CANVAS, IMAGE, seed=seed),
    }[name]().double()
    return fill(program, seed)


def make_model(name, seed, outputs=3, net=None):
    net = net or (conv_net if seed % 2 else dense_net)(CANVAS, outputs, seed)
    return mrviz.ReprogrammedModel(
        mrviz.SourceModel(net, CANVAS), make_program(name, seed), mappings.Identity()
    )


programs = st.sampled_from(["border", "overlay", "linear", "linear_border", "module"])
capable = st.sampled_from(["border", "linear_border"])


@few
@given(programs, seeds, samples, reductions)
def test_symmetric_positive_and_of_the_right_trace(name, seed, n, reduce):
    model, x = make_model(name, seed), uniform(n, *IMAGE, seed=seed)
    gram = mrviz.ntk_gram(model, x, reduce=reduce, chunk_size=2)
    assert gram.order == (n * 3 if reduce == "full" else n)
    assert torch.equal(gram.matrix, gram.matrix.T)
    assert 0 <= gram.info.symmetry_error < 1e-12
    assert smallest(gram.matrix) >= -mrviz.spectrum(gram).floor
    f, theta = module_function(model.source.module, model.program)
    jacobian = brute_jacobian(f, theta, x)
    expected = {
        "full": jacobian.square().sum(),
        "trace": jacobian.square().sum() / 3,
        "sum": jacobian.sum(1).square().sum() / 3,
        1: jacobian[:, 1].square().sum(),
    }[reduce]
    assert gram.info.trace == pytest.approx(float(expected), rel=1e-10)
    assert float(gram.matrix.trace()) == gram.info.trace


@few
@given(programs, seeds, samples, reductions, st.integers(1, 9), st.integers(1, 9))
def test_chunk_size_does_not_matter(name, seed, n, reduce, one, other):
    model, x = make_model(name, seed), uniform(n, *IMAGE, seed=seed)
    y = uniform(3, *IMAGE, seed=seed + 1)
    for second in (None, y):
        a = mrviz.ntk_gram(model, x, second, reduce=reduce, chunk_size=one)
        b = mrviz.ntk_gram(model, x, second, reduce=reduce, chunk_size=other)
        assert close(a.matrix, b.matrix, 1e-12)
        assert (a.info.chunk_size, b.info.chunk_size) == (one, other)


@few
@given(programs, seeds)
def test_cross_gram_of_a_set_with_itself_and_of_parts(name, seed):
    model, x = make_model(name, seed), uniform(5, *IMAGE, seed=seed)
    whole = mrviz.ntk_gram(model, x).matrix
    assert close(mrviz.ntk_gram(model, x, x).matrix, whole, 1e-12)
    part = mrviz.ntk_gram(model, x[:2], x[2:]).matrix
    assert close(part, whole[:6, 6:], 1e-12)
    assert close(mrviz.ntk_gram(model, x[2:], x[:2]).matrix, part.T, 1e-12)


def test_keeping_no_jacobian_in_memory_changes_nothing():
    model, x = make_model("linear_border", 4), uniform(5, *IMAGE)
    normal = mrviz.ntk_gram(model, x, chunk_size=2).matrix
    for room in (1, 500, 3000):
        tight = mrviz.ntk_gram(model, x, chunk_size=2, memory=room).matrix
        cross = mrviz.ntk_gram(model, x[:3], x, chunk_size=2, memory=room).matrix
        assert close(tight, normal, 1e-13) and close(cross, normal[:9], 1e-12)


@few
@given(capable, seeds, samples, reductions)
def test_wider_frames_add_positive_kernels(name, seed, n, reduce):
    model, x = make_model(name, seed), uniform(n, *IMAGE, seed=seed)
    grams = []
    low, high = model.program.capacity_range
    for width in range(low, high + 1):
        model.capacity = width
        grams.append(mrviz.ntk_gram(model, x, reduce=reduce).matrix)
    for narrow, wide in pairwise(grams):
        assert smallest(wide - narrow) >= -round_off(wide)
        values = (torch.linalg.eigvalsh(m) for m in (narrow, wide))
        assert bool((next(values) <= next(values) + round_off(wide)).all())


@few
@given(capable, seeds, samples, reductions)
def test_a_sweep_gives_the_gram_of_every_capacity(name, seed, n, reduce):
    canvas = (1, 7, 7)
    program = {"border": Border, "linear_border": linear_border}[name](canvas, IMAGE)
    model = mrviz.ReprogrammedModel(
        mrviz.SourceModel(dense_net(canvas, 3, seed), canvas),
        fill(program.double(), seed),
        mappings.Identity(),
    )
    x = uniform(n, *IMAGE, seed=seed)
    for chosen in (None, [2], [2, 1]):
        found = list(capacity_grams(model, x, chosen, reduce=reduce))
        assert [c for c, _ in found] == sorted(chosen or [1, 2])
        for width, gram in found:
            model.capacity = width
            single = mrviz.ntk_gram(model, x, reduce=reduce)
            assert close(gram.matrix, single.matrix, 1e-12)
            assert gram.info.n_parameters == single.info.n_parameters
            assert gram.info.trace == pytest.approx(single.info.trace)
            assert (gram.reduce, gram.n, gram.outputs) == (reduce, n, 3)


def test_a_sweep_goes_over_many_widths_and_several_chunks(monkeypatch):
    canvas = (1, 9, 9)
    model = mrviz.ReprogrammedModel(
        mrviz.SourceModel(conv_net(canvas, 3, 1), canvas),
        fill(Border(canvas, (1, 2, 2)).double(), 2),
        mappings.Identity(),
    )
    x = uniform(5, 1, 2, 2)
    monkeypatch.setattr("mrviz.ntk.plan.CHUNK_BYTES", 2 * 3 * 81 * 8)
    found = dict(capacity_grams(model, x))
    assert list(found) == [1, 2, 3, 4]
    assert {g.info.chunk_size for g in found.values()} == {2}
    for width, gram in found.items():
        model.capacity = width
        assert close(gram.matrix, mrviz.ntk_gram(model, x).matrix, 1e-12)
    assert model.capacity == 4


def test_grams_of_a_sweep_are_not_changed_by_later_ones():
    model, x = make_model("border", 1), uniform(2, *IMAGE)
    model.program.capacity = 1
    sweep = capacity_grams(model, x, [1])
    (_, first) = next(sweep)
    kept = first.matrix.clone()
    list(sweep)
    assert torch.equal(first.matrix, kept)


def linear_like(border):
    """A linear program whose u at the start is that of the border prompt."""
    program = Linear(CANVAS, IMAGE).double()
    place = Placement(CANVAS, IMAGE, IMAGE[1:])
    with torch.no_grad():
        basis = torch.eye(9, dtype=torch.float64).view(9, *IMAGE)
        program.weight.copy_(place(basis).flatten(1).T)
        program.bias.copy_(border(torch.zeros(1, *IMAGE, dtype=torch.float64)).flatten())
    return program


@few
@given(seeds, samples, st.sampled_from(["sigmoid", "identity"]))
def test_linear_over_jacobian_gram_over_border_at_the_same_u(seed, n, activation):
    source = mrviz.SourceModel(conv_net(CANVAS, 3, seed), CANVAS)
    border = fill(Border(CANVAS, IMAGE, activation=activation).double(), seed)
    linear = linear_like(border)
    x = uniform(n, *IMAGE, seed=seed)
    assert torch.allclose(border(x), linear(x), atol=1e-14)
    low, high = (mrviz.ReprogrammedModel(source, p, mappings.Identity()) for p in (border, linear))
    prompt, full = mrviz.ntk_gram(low, x).matrix, mrviz.ntk_gram(high, x).matrix
    gamma = jacobian_gram(high, x).matrix
    assert smallest(full - gamma) >= -round_off(full)
    assert smallest(gamma - prompt) >= -round_off(gamma)
    r = uniform(len(gamma), seed=seed + 1) - 0.5
    gamma = gamma + 1e-6 * torch.eye(len(gamma)) * gamma.trace()
    shifted = full + 1e-6 * torch.eye(len(gamma)) * full.trace()
    assert float(r @ torch.linalg.solve(shifted, r)) <= float(r @ torch.linalg.solve(gamma, r))


@few
@given(seeds, st.integers(1, 4), st.sampled_from(["linear", "linear_border"]))
def test_schur_bound(seed, n, name):
    model, x = make_model(name, seed), uniform(n, *IMAGE, seed=seed)
    kernel, gamma = mrviz.ntk_gram(model, x).matrix, jacobian_gram(model, x).matrix
    norms = x.flatten(1).square().sum(1) + 1
    bound = max(smallest(gamma), 0.0) * float(norms.min())
    assert smallest(kernel) >= bound - round_off(kernel)


def test_schur_bound_says_something():
    model, x = make_model("linear", 1, outputs=2), uniform(2, *IMAGE)
    gamma = smallest(jacobian_gram(model, x).matrix)
    bound = gamma * float((x.flatten(1).square().sum(1) + 1).min())
    found = smallest(mrviz.ntk_gram(model, x).matrix)
    assert 0.01 * found < bound <= found


@few
@given(programs, seeds, samples)
def test_reduced_kernels_bound_the_smallest_eigenvalue_from_above(name, seed, n):
    model, x = make_model(name, seed), uniform(n, *IMAGE, seed=seed)
    full = mrviz.ntk_gram(model, x).matrix
    for reduce in ("trace", "sum", 0, 1, 2):
        reduced = mrviz.ntk_gram(model, x, reduce=reduce).matrix
        assert smallest(reduced) >= smallest(full) - round_off(full)


def test_jacobian_gram_is_the_gram_of_source_jacobians():
    model, x = make_model("linear_border", 5), uniform(3, *IMAGE)
    net = model.source.module
    place = Placement(CANVAS, IMAGE, IMAGE[1:])
    rows = []
    with torch.no_grad():
        u, inner = model.programmed(x), model.program.first(x)
    offset = u - place(inner)
    for k in range(3):
        rows.append(torch.func.jacrev(lambda v, k=k: net(place(v[None]) + offset[k])[0])(inner[k]))
    flat = torch.stack(rows).flatten(2).flatten(0, 1)
    assert close(jacobian_gram(model, x).matrix, flat @ flat.T)


@few
@given(seeds, samples)
def test_linear_source_with_shared_shift(seed, n):
    """Θ = 11ᵀ ⊗ WWᵀ, non-zero eigenvalues n·σ²."""
    net = fill(nn.Sequential(nn.Flatten(), nn.Linear(25, 3)).double(), seed)
    source = mrviz.SourceModel(net, CANVAS)
    program = Overlay(CANVAS, CANVAS).double()
    model = mrviz.ReprogrammedModel(source, program, mappings.Identity())
    gram = mrviz.ntk_gram(model, uniform(n, *CANVAS, seed=seed))
    w = net[1].weight.detach()
    assert close(gram.matrix, torch.kron(torch.ones(n, n, dtype=torch.float64), w @ w.T))
    spec = mrviz.spectrum(gram)
    assert spec.rank == 3
    expected = n * torch.linalg.svdvals(w).square()
    assert torch.allclose(spec.eigenvalues[:3], expected, rtol=1e-10)


@few
@given(seeds, samples)
def test_linear_source_with_trainable_matrix(seed, n):
    """Θ = XXᵀ ⊗ WWᵀ, eigenvalues λ_i(XXᵀ)·σ_j²; with a bias (XXᵀ + 11ᵀ) ⊗ WWᵀ."""
    net = fill(nn.Sequential(nn.Flatten(), nn.Linear(25, 3)).double(), seed)
    source = mrviz.SourceModel(net, CANVAS)
    x = uniform(n, *IMAGE, seed=seed)
    w, gram_x = net[1].weight.detach(), x.flatten(1) @ x.flatten(1).T
    for bias in (False, True):
        program = Linear(CANVAS, IMAGE, bias=bias, seed=seed)
        model = mrviz.ReprogrammedModel(source, program, mappings.Identity())
        gram = mrviz.ntk_gram(model, x)
        assert close(gram.matrix, torch.kron(gram_x + float(bias), w @ w.T))
        reduced = mrviz.ntk_gram(model, x, reduce="trace")
        assert close(reduced.matrix, (gram_x + float(bias)) * float(w.square().sum()) / 3)


def test_parameter_blocks_add():
    model, x = make_model("linear_border", 6), uniform(3, *IMAGE)
    both = mrviz.ntk_gram(model, x).matrix
    model.program.first.requires_grad_(False)
    border = mrviz.ntk_gram(model, x).matrix
    model.program.first.requires_grad_(True)
    model.program.second.requires_grad_(False)
    linear = mrviz.ntk_gram(model, x).matrix
    assert close(border + linear, both, 1e-12)
    assert min(float(border.norm()), float(linear.norm())) > 1e-3 * float(both.norm())


def test_rows_are_sample_major():
    model, x = make_model("linear", 7), uniform(4, *IMAGE)
    full = mrviz.ntk_gram(model, x).matrix.view(4, 3, 4, 3)
    for c in range(3):
        assert close(mrviz.ntk_gram(model, x, reduce=c).matrix, full[:, c, :, c], 1e-12)
    permuted = mrviz.ntk_gram(model, x[[2, 0, 1, 3]]).matrix.view(4, 3, 4, 3)
    order = [2, 0, 1, 3]
    assert close(permuted, full[order][:, :, order], 1e-12)


def test_gram_describes_itself():
    model, x = make_model("border", 8), uniform(2, *IMAGE)
    gram = mrviz.ntk_gram(model, x, reduce="trace")
    cross = mrviz.ntk_gram(model, x, x)
    assert "2×2" in repr(gram) and "trace" in repr(gram)
    assert gram.symmetric and not cross.symmetric
    assert cross.info.trace is None and cross.info.symmetry_error is None
    info = gram.to_dict()
    assert info["n_parameters"] == 25 - 9 and info["shape"] == [2, 2]
    assert "<table" in gram._repr_html_() and "structured" in gram._repr_html_()
    assert "Border" in gram.info.why


def test_chain_of_chains():
    inner = Chain(Linear(IMAGE, IMAGE, seed=1), Overlay(IMAGE, IMAGE))
    program = Chain(inner, Border(CANVAS, IMAGE)).double()
    model = make_model("border", 3)
    model = mrviz.ReprogrammedModel(model.source, program, mappings.Identity())
    x = uniform(3, *IMAGE)
    f, theta = module_function(model.source.module, program)
    jacobian = brute_jacobian(f, theta, x).flatten(0, 1)
    assert close(mrviz.ntk_gram(model, x).matrix, jacobian @ jacobian.T)
