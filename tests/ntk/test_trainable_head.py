"""A trainable linear head behind every kind of program, against whole Jacobians in float64."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

import mrviz
from mrviz import mappings
from mrviz.ntk import capacity_grams, jacobian_gram
from mrviz.programs import (
    Border,
    Chain,
    Convolution,
    Linear,
    LowRankLinear,
    Overlay,
    Scale,
    linear_border,
)
from tests.ntk.common import (
    REDUCTIONS,
    brute_jacobian,
    close,
    contracted,
    conv_net,
    fill,
    uniform,
)

CANVAS, IMAGE = (1, 6, 6), (1, 4, 4)
START = torch.tensor([[0.5, 0.5, 0.0, -1.0], [0.0, 2.0, 0.3, 0.0], [1.0, 0.0, 0.0, 0.4]])


class Gain(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.full((1, 4, 4), 1.2))

    def forward(self, x):
        return nn.functional.pad(torch.sin(x * self.gain), (1, 1, 1, 1))


PROGRAMS = {
    "border": lambda: Border(CANVAS, IMAGE),
    "border of width 1": lambda: Border(CANVAS, IMAGE, image_size=2, width=1),
    "overlay": lambda: Overlay(CANVAS, IMAGE, activation="sigmoid"),
    "linear": lambda: Linear(CANVAS, IMAGE),
    "linear in a border": lambda: linear_border(CANVAS, IMAGE),
    "low rank 2 of 4": lambda: LowRankLinear(CANVAS, IMAGE, rank=2, max_rank=4),
    "convolution 2 of 3": lambda: Convolution(CANVAS, IMAGE, size=2, max_size=3),
    "scale": lambda: Scale(CANVAS, IMAGE, scale=1.3),
    "scale in a border": lambda: Chain(
        Scale((1, 5, 5), IMAGE, scale=0.9), Border(CANVAS, (1, 5, 5))
    ),
    "module": Gain,
    "frozen border": lambda: Border(CANVAS, IMAGE).requires_grad_(False),
    "frozen linear": lambda: Linear(CANVAS, IMAGE).requires_grad_(False),
    "frozen module": lambda: Gain().requires_grad_(False),
}


def make(name, bias=True, start=None, dtype=torch.float64):
    """A model whose head has moved away from its start, and a brute-force account of it."""
    program = PROGRAMS[name]().double()
    if "scale" not in name:
        fill(program, 4, 0.3)
    net = conv_net(CANVAS, 4, seed=1)
    model = mrviz.ReprogrammedModel(
        mrviz.SourceModel(net, CANVAS),
        program,
        mappings.LinearHead(START if start is None else start, bias=bias),
    )
    with torch.no_grad():
        model.head.weight.add_(uniform(*model.head.weight.shape, seed=9) - 0.5)
        if bias:
            model.head.bias.add_(uniform(model.outputs, seed=10))
    named = [(k, p) for k, p in program.named_parameters() if p.requires_grad]
    weight = model.head.weight.detach().clone()
    shift = model.head.bias.detach().clone() if bias else torch.zeros(len(weight)).double()

    def f(theta, x):
        values, at = {}, 0
        for key, p in named:
            values[key] = theta[at : at + p.numel()].view(p.shape)
            at += p.numel()
        matrix = theta[at : at + weight.numel()].view(weight.shape)
        added = theta[at + weight.numel() :] if bias else shift
        return net(functional_call(program, values, (x,))) @ matrix.T + added

    blocks = [p.detach().flatten() for _, p in named] + [weight.flatten()] + [shift] * bias
    return model.to(dtype), f, torch.cat(blocks)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_gram_is_that_of_whole_jacobians(name, bias):
    model, f, theta = make(name, bias)
    x1, x2 = uniform(3, *IMAGE, seed=1), uniform(2, *IMAGE, seed=2)
    assert close(model(x1).detach(), f(theta, x1).detach(), 1e-12)
    j1, j2 = brute_jacobian(f, theta, x1), brute_jacobian(f, theta, x2)
    for reduce in REDUCTIONS:
        gram = mrviz.ntk_gram(model, x1, reduce=reduce, chunk_size=2)
        assert gram.info.method == "structured"
        assert close(gram.matrix, contracted(j1, j1, reduce)), reduce
    assert close(mrviz.ntk_gram(model, x1, x2, chunk_size=2).matrix, contracted(j1, j2))
    cross = mrviz.ntk_gram(model, x2, x1, reduce="trace")
    assert close(cross.matrix, contracted(j2, j1, "trace"))


@pytest.mark.parametrize("method", ["contraction", "products"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_slow_references_agree(name, method):
    for bias in (True, False):
        model, f, theta = make(name, bias)
        x = uniform(3, *IMAGE, seed=1)
        jacobian = brute_jacobian(f, theta, x)
        for reduce in ("full", "sum"):
            gram = mrviz.ntk_gram(model, x, reduce=reduce, method=method, chunk_size=2)
            assert close(gram.matrix, contracted(jacobian, jacobian, reduce))


def test_the_head_adds_the_kernel_of_the_sources_outputs():
    """(f_S(u_i)·f_S(u_j) + 1) I_C, alone where the program does not move."""
    for bias in (True, False):
        model, *_ = make("frozen border", bias)
        x = uniform(4, *IMAGE)
        outputs = model.source(model.programmed(x)).detach()
        scalar = outputs @ outputs.T + float(bias)
        eye = torch.eye(3, dtype=torch.float64)
        assert close(mrviz.ntk_gram(model, x).matrix, torch.kron(scalar, eye), 1e-12)


def test_n_parameters():
    for name, expected in (("border", 20), ("linear", 36 * 17), ("low rank 2 of 4", 72)):
        for bias in (True, False):
            model, *_ = make(name, bias)
            assert model.n_parameters == expected + 3 * (4 + bias)
            assert mrviz.ntk_gram(model, uniform(2, *IMAGE)).info.n_parameters == (
                model.n_parameters
            )
    assert make("frozen linear", False)[0].n_parameters == 12


@pytest.mark.parametrize("name", ["border of width 1", "low rank 2 of 4", "convolution 2 of 3"])
def test_sweeps_keep_the_head_in_every_step(name):
    model, *_ = make(name)
    x = uniform(3, *IMAGE)
    low, high = model.program.capacity_range
    assert high > low
    for reduce in REDUCTIONS:
        for capacity, gram in capacity_grams(model, x, reduce=reduce):
            model.capacity = capacity
            single = mrviz.ntk_gram(model, x, reduce=reduce)
            assert close(gram.matrix, single.matrix, 1e-12)
            assert gram.info.n_parameters == model.n_parameters


def test_jacobian_gram_is_that_of_the_program_alone():
    model, *_ = make("linear")
    x = uniform(3, *IMAGE)
    u = model.programmed(x).detach()
    rows = torch.func.vmap(torch.func.jacrev(lambda v: model.head(model.source(v[None]))[0]))(u)
    flat = rows.flatten(2).flatten(0, 1)
    assert close(jacobian_gram(model, x).matrix, flat @ flat.T)
    model.head.weight.data.mul_(2)
    assert close(jacobian_gram(model, x).matrix, 4 * flat @ flat.T)


def test_the_dual_has_the_spectrum_of_the_kernel():
    model, *_ = make("scale")
    x = uniform(8, *IMAGE)
    gram = mrviz.ntk_gram(model, x)
    assert gram.factor is not None and gram.factor.shape == (24, 16)
    assert close(gram.factor @ gram.factor.T, gram.matrix, 1e-12)
    spec = mrviz.spectrum(gram)
    assert torch.allclose(
        spec.eigenvalues, torch.linalg.eigvalsh(gram.matrix).flip(0), atol=1e-9 * spec.largest
    )


def test_predictions_of_the_head_as_it_is_now():
    model, f, theta = make("linear in a border")
    x = uniform(5, *IMAGE)
    assert close(model.predict(x, batch_size=2), f(theta, x).detach(), 1e-12)
    assert torch.equal(model.b, model.head.weight) and not model.b.requires_grad
    before = model.predict(x)
    with torch.no_grad():
        model.head.bias.add_(torch.tensor([1.0, 0.0, -2.0]))
    assert close(model.predict(x) - before, torch.tensor([[1.0, 0.0, -2.0]] * 5).double(), 1e-9)


def test_training_moves_head_and_program():
    model, *_ = make("border")
    x, y = uniform(6, *IMAGE), torch.tensor([0, 1, 2] * 2)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses, start = [], [p.detach().clone() for p in model.head.parameters()]
    for _ in range(5):
        loss = nn.functional.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert not any(
        torch.equal(p, was) for p, was in zip(model.head.parameters(), start, strict=True)
    )


def test_one_gradient_step_moves_the_outputs_as_the_kernel_says():
    """f(θ − ηJᵀg) ≈ f − ηΘg for a small step."""
    model, *_ = make("linear in a border")
    x = uniform(4, *IMAGE)
    before, step = model.predict(x), 1e-6
    direction = uniform(4, 3, seed=3) - 0.5
    model.zero_grad()
    (model(x) * direction).sum().backward()
    kernel = mrviz.ntk_gram(model, x).matrix
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p.sub_(step * p.grad)
    change = (model.predict(x) - before) / step
    assert close(change.flatten(), -kernel @ direction.flatten(), 1e-4)


def test_state_dict_and_copies():
    model, *_ = make("linear")
    other, *_ = make("linear")
    x = uniform(3, *IMAGE)
    with torch.no_grad():
        for p in other.head.parameters():
            p.mul_(3)
    assert not torch.equal(model(x), other(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(x), other(x))
    copied = copy.deepcopy(model)
    gram = mrviz.ntk_gram(model, x)
    assert torch.equal(copied.head.weight, model.head.weight)
    assert torch.equal(mrviz.ntk_gram(copied, x).matrix, gram.matrix)
    with torch.no_grad():
        copied.head.weight.mul_(2)
    assert torch.equal(mrviz.ntk_gram(model, x).matrix, gram.matrix)
    assert not close(mrviz.ntk_gram(copied, x).matrix, gram.matrix, 0.1)


@pytest.mark.parametrize("name", ["border", "linear", "low rank 2 of 4", "scale", "module"])
def test_float32_and_float64(name):
    double, *_ = make(name)
    single, *_ = make(name, dtype=torch.float32)
    assert {p.dtype for p in single.parameters()} == {torch.float32}
    x = uniform(3, *IMAGE)
    expected = mrviz.ntk_gram(double, x).matrix
    rough = mrviz.ntk_gram(single, x.float())
    assert rough.info.dtype == "float32"
    assert close(rough.matrix, expected, 1e-4) and not close(rough.matrix, expected, 1e-12)
    again = mrviz.ntk_gram(single, x.float(), dtype=torch.float64)
    assert again.info.dtype == "float64"
    assert close(again.matrix, expected, 1e-4)
    assert {p.dtype for p in single.parameters()} == {torch.float32}


def test_reprogram_takes_a_head():
    x, y = uniform(6, *IMAGE), [0, 1, 2] * 2
    target = mrviz.Target(x, y, x, y)
    source = mrviz.SourceModel(conv_net(CANVAS, 5, 1), CANVAS)
    head = mappings.LinearHead(mappings.Identity(3))
    model = mrviz.reprogram(source, target, program="linear", mapping=head)
    plain = mrviz.reprogram(source, target, program="linear", mapping="identity")
    assert close(model.predict(x), plain.predict(x), 1e-12), "it starts where it is told to"
    assert model.n_parameters == plain.n_parameters + 3 * 6
    assert [p.requires_grad for p in model.head.parameters()] == [True, True]
    assert [p.requires_grad for p in plain.head.parameters()] == [False]
    moving, fixed = (mrviz.ntk_gram(m, x).matrix for m in (model, plain))
    values = torch.linalg.eigvalsh(moving - fixed)
    assert values[0] > -1e-9 * values[-1] and values[-1] > 0
    with pytest.raises(mrviz.InputError, match="one row for each class"):
        mrviz.reprogram(source, target, mapping=mappings.LinearHead(mappings.Identity(4)))


def test_starts_of_a_head():
    frequency = mappings.Frequency((2, 0, 3))
    for start, expected in ((frequency, frequency.matrix(4)), (START, START.double())):
        head = mappings.LinearHead(start, bias=False)
        assert torch.equal(head.matrix(4), expected) and head.trainable
        layer = head.layer(4)
        assert torch.equal(layer.weight, expected) and layer.bias is None
    assert "LinearHead(" in repr(head) and "bias=False" in repr(head)
    with pytest.raises(mrviz.InputError, match="needs data"):
        mappings.LinearHead("frequency")
    with pytest.raises(mrviz.InputError, match="has 4 columns, but the source has 5 outputs"):
        mappings.LinearHead(START).layer(5)
