"""Every program × reduction × colour × mapping against whole Jacobians, in float64."""

from math import prod

import pytest
import torch
from torch import nn

import mrviz
from mrviz import mappings
from mrviz.programs import Border, Chain, Linear, Overlay, Program, linear_border
from tests.ntk.common import (
    REDUCTIONS,
    brute_gram,
    brute_jacobian,
    close,
    contracted,
    conv_net,
    dense_net,
    fill,
    frame_pixels,
    module_function,
    on_canvas,
    prompt_function,
    recolour,
    uniform,
)

OUTPUTS = 4
COLOURS = {"grey to colour": (1, 3), "colour to grey": (3, 1), "colour": (3, 3)}
MAPPINGS = {
    "all": (mappings.Identity(), torch.eye(4)),
    "first three": (mappings.Identity(3), torch.eye(4)[:3]),
    "frequency": (mappings.Frequency((2, 0, 3)), torch.eye(4)[[2, 0, 3]]),
    "bayesian": (
        mappings.Bayesian.fit(torch.eye(4)[[0, 0, 1, 1, 1, 1, 2]], [0, 0, 0, 1, 1, 1, 1], 2),
        torch.tensor([[10 / 13, 3 / 13, 0, 0], [0, 6 / 11, 5 / 11, 0]], dtype=torch.float64),
    ),
    "logits averaged": (
        mappings.LogitAverage([(2, 0), (1, 3)]),
        torch.tensor([[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5]], dtype=torch.float64),
    ),
    "probabilities averaged": (
        mappings.ProbabilityAverage([(2, 0), (1, 3)]),
        lambda z: torch.stack(
            [z.softmax(1)[:, [0, 2]].mean(1), z.softmax(1)[:, [1, 3]].mean(1)], 1
        ).log(),
    ),
    "matrix": (
        mappings.Matrix([[0.5, 0.5, 0.0, -1.0], [0.0, 2.0, 0.3, 0.0]]),
        torch.tensor([[0.5, 0.5, 0.0, -1.0], [0.0, 2.0, 0.3, 0.0]], dtype=torch.float64),
    ),
}
SQUASH = {"sigmoid": torch.sigmoid, "identity": lambda d: d}


class Affine(nn.Module):
    """A user's own program without shapes: scale and shift of a recoloured, padded image."""

    def __init__(self, source_shape, target_shape):
        super().__init__()
        self.source_shape = source_shape
        self.scale = nn.Parameter(torch.tensor([0.7]))
        self.shift = nn.Parameter(torch.full((source_shape[0], 1, 1), 0.1))
        self.unused = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, x):
        return on_canvas(x, self.source_shape) * self.scale + self.shift * self.frozen[0]


class Convolution(nn.Module):
    def __init__(self, source_shape, target_shape):
        super().__init__()
        pad = source_shape[1] - target_shape[1]
        self.conv = nn.Conv2d(target_shape[0], source_shape[0], 3, padding=1 + pad // 2)

    def forward(self, x):
        return torch.tanh(self.conv(x))


class Gain(Program):
    """A Program without a closed form."""

    key = "gain"
    label = "gain"

    def __init__(self, source_shape, target_shape):
        super().__init__(source_shape, target_shape)
        self.gain = nn.Parameter(torch.full(source_shape, 1.3))

    def forward(self, x):
        return on_canvas(x, self.source_shape) * self.gain + self.gain.square()


def random_delta(program, seed=3):
    with torch.no_grad():
        program.delta.copy_(2 * uniform(*program.delta.shape, seed=seed) - 1)
    return program


def border_case(width=None, size=None, activation="sigmoid", delta=True):
    def make(head, source, target):
        program = Border(source, target, width=width, image_size=size, activation=activation)
        if delta:
            random_delta(program)
        image = target[1:] if size is None else (size, size)
        f, theta = prompt_function(
            head,
            source,
            program.delta.detach().double(),
            frame_pixels(source, image),
            frame_pixels(source, image, width),
            SQUASH[activation],
            lambda x: on_canvas(x, source, size),
        )
        return program, f, theta

    return make


def overlay_case(activation):
    def make(head, source, target):
        program = random_delta(Overlay(source, target, activation=activation))
        everywhere = torch.arange(prod(source))

        def place(x):
            x = nn.functional.interpolate(x, source[1:], mode="bilinear", align_corners=False)
            return recolour(x, source[0])

        delta = program.delta.detach().double()
        f, theta = prompt_function(
            head, source, delta, everywhere, everywhere, SQUASH[activation], place
        )
        return program, f, theta

    return make


def linear_case(bias=True, frozen=()):
    def make(head, source, target):
        program = Linear(source, target, bias=bias, seed=5)
        for name in frozen:
            getattr(program, name).requires_grad_(False)
        d_s, d_t = prod(source), prod(target)
        weight = program.weight.detach().double()
        shift = program.bias.detach().double() if bias else torch.zeros(d_s).double()
        theta = torch.cat(
            [weight.flatten()] * ("weight" not in frozen)
            + [shift] * (bias and "bias" not in frozen)
        )

        def f(t, x):
            w = t[: d_s * d_t].view(d_s, d_t) if "weight" not in frozen else weight
            b = t[-d_s:] if bias and "bias" not in frozen else shift
            return head((x.flatten(1) @ w.T + b).view(-1, *source))

        return program, f, theta

    return make


def linear_border_case(size=None, width=None, frozen=False):
    def make(head, source, target):
        program = linear_border(source, target, image_size=size, width=width, seed=4)
        first, second = program.first, random_delta(program.second)
        if frozen:
            first.requires_grad_(False)
        inner = (source[0], *target[1:])
        image = inner[1:] if size is None else (size, size)
        frame, trainable = frame_pixels(source, image), frame_pixels(source, image, width)
        mask = torch.zeros(prod(source)).double()
        mask[frame] = 1
        delta = second.delta.detach().double().flatten()
        weight, bias = (p.detach().double() for p in (first.weight, first.bias))
        blocks = [] if frozen else [weight.flatten(), bias]
        theta = torch.cat([*blocks, delta[trainable]])

        def f(t, x):
            w, b = weight, bias
            if not frozen:
                w = t[: weight.numel()].view(weight.shape)
                b = t[weight.numel() : weight.numel() + bias.numel()]
            full = delta.scatter(0, trainable, t[-len(trainable) :])
            placed = on_canvas((x.flatten(1) @ w.T + b).view(-1, *inner), source, size)
            return head(placed + (mask * torch.sigmoid(full)).view(source))

        return program, f, theta

    return make


def module_case(kind):
    def make(head, source, target):
        program = kind(source, target).double()
        if kind is Convolution:
            fill(program, 7)
        f, theta = module_function(head, program)
        return program, f, theta

    return make


def chained(*kinds):
    """A chain; only its forward pass is used by the oracle."""

    def make(head, source, target):
        inner = (source[0], *target[1:])
        program = Chain(kinds[0](inner, target), kinds[1](source, inner)).double()
        for part in (program.first, program.second):
            if isinstance(part, Overlay | Border):
                random_delta(part)
        f, theta = module_function(head, program)
        return program, f, theta

    return make


CASES = {
    "border": border_case(),
    "border at start": border_case(delta=False),
    "border width 1": border_case(width=1),
    "border resized": border_case(size=3),
    "border resized width 2": border_case(size=2, width=2),
    "border identity": border_case(activation="identity", width=1),
    "overlay": overlay_case("identity"),
    "overlay sigmoid": overlay_case("sigmoid"),
    "linear": linear_case(),
    "linear no bias": linear_case(bias=False),
    "linear frozen weight": linear_case(frozen=("weight",)),
    "linear frozen bias": linear_case(frozen=("bias",)),
    "linear_border": linear_border_case(),
    "linear_border resized": linear_border_case(size=3, width=1),
    "linear_border frozen linear": linear_border_case(frozen=True),
    "module affine": module_case(Affine),
    "module convolution": module_case(Convolution),
    "program without closed form": module_case(Gain),
    "overlay then linear": chained(Overlay, Linear),
    "linear then linear": chained(Linear, Linear),
    "linear then overlay": chained(Linear, Overlay),
    "no closed form then border": chained(Gain, Border),
}


def build(case, colour, mapping="first three"):
    target, source = ((c, s, s) for c, s in zip(COLOURS[colour], (4, 6), strict=True))
    net = conv_net(source, OUTPUTS, seed=1)
    chosen, b = MAPPINGS[mapping]
    outputs = b if callable(b) else lambda z: z @ b.double().T
    program, f, theta = CASES[case](lambda u: outputs(net(u)), source, target)
    model = mrviz.ReprogrammedModel(mrviz.SourceModel(net, source), program, chosen)
    return model, f, theta, target


COMBINATIONS = [
    *((case, colour, "first three") for case in CASES for colour in COLOURS),
    *((case, "grey to colour", m) for case in CASES for m in MAPPINGS if m != "first three"),
]


@pytest.mark.parametrize(("case", "colour", "mapping"), COMBINATIONS)
def test_gram_is_that_of_whole_jacobians(case, colour, mapping):
    model, f, theta, target = build(case, colour, mapping)
    x1, x2 = uniform(3, *target, seed=1), uniform(2, *target, seed=2)
    j1, j2 = brute_jacobian(f, theta, x1), brute_jacobian(f, theta, x2)
    for reduce in REDUCTIONS:
        gram = mrviz.ntk_gram(model, x1, reduce=reduce, chunk_size=2)
        expected = contracted(j1, j1, reduce)
        assert float(expected.norm()) > 1e-6
        assert close(gram.matrix, expected), reduce
    cross = mrviz.ntk_gram(model, x1, x2, chunk_size=2)
    assert close(cross.matrix, contracted(j1, j2))
    reduced = mrviz.ntk_gram(model, x2, x1, reduce="sum")
    assert close(reduced.matrix, contracted(j2, j1, "sum"))


SLOW = [*((case, "matrix") for case in CASES), ("linear", "probabilities averaged")]


@pytest.mark.parametrize("method", ["contraction", "products"])
@pytest.mark.parametrize(("case", "mapping"), SLOW)
def test_slow_references_agree_with_whole_jacobians(case, mapping, method):
    model, f, theta, target = build(case, "grey to colour", mapping)
    x1, x2 = uniform(3, *target, seed=1), uniform(2, *target, seed=2)
    j1, j2 = brute_jacobian(f, theta, x1), brute_jacobian(f, theta, x2)
    for reduce in REDUCTIONS:
        gram = mrviz.ntk_gram(model, x1, reduce=reduce, method=method, chunk_size=2)
        assert close(gram.matrix, contracted(j1, j1, reduce)), reduce
    cross = mrviz.ntk_gram(model, x1, x2, method=method, reduce="trace")
    assert close(cross.matrix, contracted(j1, j2, "trace"))


HIDDEN = {"no closed form then border": 3 * 4 * 4}
"""Entries of δ under the image: in the oracle's θ, where they do nothing, but not in p."""


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_counted_and_outputs_are_those_of_the_oracle(case):
    model, f, theta, target = build(case, "colour", "matrix")
    x = uniform(3, *target, seed=1)
    assert model.n_parameters == len(theta) - HIDDEN.get(case, 0)
    assert close(model(x).detach(), f(theta, x))


@pytest.mark.parametrize("source", [(1, 7, 9), (2, 5, 8), (1, 6, 4)])
def test_border_on_odd_and_rectangular_canvases(source):
    target = (1, 2, 3)
    net = dense_net(source, 3, seed=2)
    program = random_delta(Border(source, target))
    delta = program.delta.detach().double()
    low, high = program.capacity_range
    assert low == 1
    x = uniform(3, *target)
    for width in range(low, high + 1):
        f, theta = prompt_function(
            net,
            source,
            delta,
            frame_pixels(source, target[1:]),
            frame_pixels(source, target[1:], width),
            torch.sigmoid,
            lambda v: on_canvas(v, source),
        )
        program.capacity = width
        model = mrviz.ReprogrammedModel(
            mrviz.SourceModel(net, source), program, mappings.Identity()
        )
        assert model.n_parameters == len(theta)
        assert close(mrviz.ntk_gram(model, x).matrix, brute_gram(f, theta, x))
    assert len(theta) == len(frame_pixels(source, target[1:])), "widest is the whole frame"


def test_normalisation_is_differentiated_through():
    source, target = (3, 6, 6), (1, 4, 4)
    net = conv_net(source, 3)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.5]
    shift, scale = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (mean, std))
    frozen = mrviz.SourceModel(net, source, normalize=(mean, std))
    model = mrviz.ReprogrammedModel(frozen, Border(source, target), mappings.Identity())
    f, theta = prompt_function(
        lambda u: net((u - shift) / scale),
        source,
        torch.zeros(source).double(),
        frame_pixels(source, target[1:]),
        frame_pixels(source, target[1:]),
        torch.sigmoid,
        lambda x: on_canvas(x, source),
    )
    x = uniform(3, *target)
    assert close(mrviz.ntk_gram(model, x).matrix, brute_gram(f, theta, x))


def test_float32_is_float32_and_float64_on_request_is_float64():
    source, target = (1, 6, 6), (1, 4, 4)
    net = conv_net(source, 3).float()
    model = mrviz.ReprogrammedModel(
        mrviz.SourceModel(net, source), Linear(source, target), mappings.Identity()
    )
    x = uniform(4, *target, dtype=torch.float32)
    single = mrviz.ntk_gram(model, x)
    double = mrviz.ntk_gram(model, x, dtype=torch.float64)
    again = mrviz.ntk_gram(model.double(), x.double())
    assert (single.info.dtype, double.info.dtype) == ("float32", "float64")
    assert single.info.epsilon == 2.0**-24 and double.info.epsilon == 2.0**-53
    assert single.matrix.dtype == double.matrix.dtype == torch.float64
    error = float((single.matrix - double.matrix).norm() / double.matrix.norm())
    assert 1e-10 < error < 1e-4
    assert close(double.matrix, again.matrix, 1e-12)


def test_asking_for_another_dtype_leaves_the_model_alone():
    source, target = (1, 6, 6), (1, 4, 4)
    model = mrviz.ReprogrammedModel(
        mrviz.SourceModel(conv_net(source, 3).float(), source),
        Linear(source, target),
        mappings.Identity(),
    )
    mrviz.ntk_gram(model, uniform(2, *target), dtype=torch.float64)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(p.grad is None for p in model.parameters())


class Sinus(nn.Module):
    def forward(self, u):
        return torch.sin(u.flatten(1))


def test_source_without_parameters_follows_the_dtype_asked_for():
    source = target = (1, 2, 2)
    model = mrviz.ReprogrammedModel(
        mrviz.SourceModel(Sinus(), source), Linear(source, target), mappings.Identity()
    )
    x = uniform(3, *target)
    gram = mrviz.ntk_gram(model, x, dtype=torch.float64)
    assert gram.info.dtype == "float64" and gram.info.epsilon == 2.0**-53
    model.double()
    f, theta = module_function(lambda u: torch.sin(u.flatten(1)), model.program)
    assert close(gram.matrix, brute_gram(f, theta, x))
