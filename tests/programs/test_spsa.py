"""Training without gradients: SPSA with gradient correction against its definition."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mrviz
from mrviz import mappings
from mrviz.programs.training import SPSA, train
from mrviz.programs.training.spsa import SPSADescent
from tests.ntk.common import close, conv_net, uniform
from tests.programs.test_training import CANVAS, IMAGE, QUIET, parameters, task


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        return u.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise AssertionError("a black box has no gradients")


class BlackBox(nn.Module):
    """A network whose outputs can be had and whose gradients cannot."""

    def __init__(self, calls=None):
        super().__init__()
        self.net = conv_net(CANVAS, 5, 1)
        self.calls = calls

    def forward(self, u):
        if self.calls is not None:
            self.calls.append(torch.is_grad_enabled())
        return NoBackward.apply(self.net(u))


def black_box(program="border", calls=None, **options):
    source = mrviz.SourceModel(BlackBox(calls), CANVAS)
    return mrviz.reprogram(source, task(), program=program, mapping=mappings.Identity(3), **options)


def quadratic(p=6):
    a = uniform(p, p, seed=3)
    matrix, centre = a @ a.T + torch.eye(p).double(), uniform(p, seed=4)
    return matrix, centre, lambda theta: float((theta - centre) @ matrix @ (theta - centre)) / 2


def estimate(theta, loss, seed=0, **options):
    """ĝ at θ: what one step of size 1 subtracts at once."""
    descent = SPSADescent([theta.clone()], 1.0, SPSA(momentum=0, decay=0, **options), seed)
    descent.step(lambda: loss(descent.parameters[0]))
    return theta - descent.parameters[0]


def test_the_estimate_is_the_gradient_of_a_quadratic_on_average():
    matrix, centre, loss = quadratic()
    theta = uniform(6, seed=5)
    exact = matrix @ (theta - centre)
    errors = [
        float((estimate(theta, loss, average=draws) - exact).norm() / exact.norm())
        for draws in (100, 10_000)
    ]
    assert errors[1] < 0.05 < errors[0], "the error falls with the root of the number of draws"
    found = estimate(theta, loss, average=10_000, perturbation=10.0)
    assert float((found - exact).norm() / exact.norm()) < 0.05, "no bias, whatever the size"


def test_one_draw_by_hand():
    """ĝ_i = (gᵀΔ) / Δ_i on a quadratic, Δ within ±[0.5, 1]."""
    matrix, centre, loss = quadratic(2)
    theta = torch.tensor([0.3, -0.2]).double()
    gradient = matrix @ (theta - centre)
    drawn = []
    descent = SPSADescent([theta.clone()], 1.0, SPSA(momentum=0, decay=0, average=1), 7)

    def watched():
        drawn.append(descent.parameters[0].clone())
        return loss(descent.parameters[0])

    mean = descent.step(watched)
    direction = (drawn[0] - theta) / 0.01
    assert close(drawn[1], theta - 0.01 * direction, 1e-12) and len(drawn) == 2
    assert bool(((direction.abs() >= 0.5) & (direction.abs() <= 1)).all())
    expected = theta - (gradient @ direction) / direction
    assert close(descent.parameters[0], expected, 1e-9)
    assert mean == pytest.approx((loss(drawn[0]) + loss(drawn[1])) / 2)


def test_in_one_dimension_it_is_nesterovs_method():
    """One dimension, quadratic loss: ĝ is exact, and m ← βm − a·g(θ + βm), θ ← θ + m."""
    options = SPSA(momentum=0.8, average=3, offset=2.0, decay=0.5, shrinkage=0.2)
    theta = torch.tensor([1.5]).double()
    descent = SPSADescent([theta], 0.3, options, 0)
    position, velocity = 1.5, 0.0
    for k in range(1, 8):
        descent.step(lambda: float((theta[0] - 0.4) ** 2))
        rate = 0.3 / math.sqrt(k + 2.0)
        velocity = 0.8 * velocity - rate * 2 * (position + 0.8 * velocity - 0.4)
        position += velocity
        assert float(theta) == pytest.approx(position, rel=1e-9)


def test_perturbations_shrink_as_they_should():
    theta, seen = torch.zeros(1).double(), []
    descent = SPSADescent([theta], 1e-12, SPSA(average=1, shrinkage=0.5, perturbation=0.2), 0)
    for _ in range(50):
        descent.step(lambda: seen.append(float(theta)) or 0.0)
    sizes = [abs(v) * math.sqrt(k + 1) / 0.2 for k, v in enumerate(seen[::2])]
    assert all(0.5 - 1e-9 <= size <= 1 + 1e-9 for size in sizes)
    assert min(sizes) < 0.6 and max(sizes) > 0.9
    assert any(v > 0 for v in seen[::2]) and any(v < 0 for v in seen[::2])


def test_a_black_box_is_trained_by_forward_passes_alone():
    calls = []
    model = black_box(calls=calls)
    calls.clear()
    options = {"optimizer": SPSA(average=4, perturbation=0.05), "lr": 0.5, "batch_size": 12}
    fit = train(model, task(), steps=40, record_every=40, **options, **QUIET)
    assert fit.train_loss[-1] < fit.train_loss[0] - 0.02
    assert not any(calls) and len(calls) == 40 * 2 * 4 + 4
    assert fit.settings["optimizer"] == "spsa" and fit.settings["spsa"]["average"] == 4
    with pytest.raises(AssertionError, match="black box"):
        train(model, task(), steps=1, **QUIET)


def test_the_direction_on_a_model_is_that_of_the_gradient():
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    model = mrviz.reprogram(mrviz.SourceModel(net, CANVAS), task(), program="border")
    delta, target = model.program.delta, task()
    loss = F.cross_entropy(model(target.x_train.double()), target.y_train)
    (gradient,) = torch.autograd.grad(loss, delta)
    options = SPSA(momentum=0, decay=0, average=3000, perturbation=1e-3)
    train(model, target, optimizer=options, lr=1.0, steps=1, batch_size=12, **QUIET)
    moved = -delta.detach()
    cosine = float((moved * gradient).sum() / moved.norm() / gradient.norm())
    assert cosine > 0.98 and float(moved.norm() / gradient.norm()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("program", ["border", "low_rank"])
def test_only_trainable_entries_move(program):
    options = {"border": {"width": 1, "image_size": 2}, "low_rank": {"rank": 2, "max_rank": 5}}
    model = black_box(program, **options[program])
    train(model, task(), optimizer="spsa", steps=3, **QUIET)
    moved = next(model.program.parameters()).detach() != 0
    if program == "border":
        assert torch.equal(moved, model.program.trainable) and moved.sum() == 20
    else:
        assert bool(moved[:, :2].all()) and not moved[:, 2:].any()


def test_heads_and_modules_of_ones_own_are_trained_too():
    class Rounded(nn.Module):
        """No gradient passes through, so that only a black-box method can train it."""

        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(IMAGE))

        def forward(self, x):
            return F.pad(((x + self.shift) * 8).round() / 8, (1, 1, 1, 1))

    source = mrviz.SourceModel(BlackBox(), CANVAS)
    model = mrviz.ReprogrammedModel(source, Rounded(), mappings.LinearHead(mappings.Identity(3)))
    options = SPSA(perturbation=0.3)
    fit = train(model, task(), optimizer=options, lr=0.1, steps=10, **QUIET)
    assert bool((model.program.shift != 0).all()) and bool((model.head.bias != 0).all())
    assert fit.train_loss[-1] != fit.train_loss[0]


def test_seeds_decide_and_chunks_do_not():
    runs = []
    for seed, chunk in ((0, 128), (0, 5), (1, 128)):
        model = black_box()
        train(model, task(), optimizer="spsa", steps=5, seed=seed, chunk_size=chunk, **QUIET)
        runs.append(parameters(model))
    assert close(runs[0], runs[1], 1e-9) and not close(runs[0], runs[2], 1e-3)


def test_an_interruption_leaves_the_last_finished_step():
    theta, calls = uniform(4, seed=6), []
    descent = SPSADescent([theta], 0.1, SPSA(average=2), 0)
    descent.step(lambda: float(theta.square().sum()))
    before = theta.clone()

    def interrupted():
        calls.append(theta.clone())
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        descent.step(interrupted)
    assert torch.equal(theta, before) and not torch.equal(calls[0], before)
    assert descent.count == 1


def test_losses_that_are_not_finite_stop_it():
    class Fragile(BlackBox):
        def forward(self, u):
            return torch.where(
                u.abs().amax((1, 2, 3), keepdim=True)[:, 0, 0] > 3, math.inf, 1.0
            ) * (super().forward(u))

    model = mrviz.reprogram(
        mrviz.SourceModel(Fragile(), CANVAS), task(), program="overlay", mapping="identity"
    )
    with pytest.warns(UserWarning, match="diverged at step"):
        fit = train(model, task(), optimizer=SPSA(perturbation=5.0), steps=5, **QUIET)
    assert fit.diverged == 0 and float(parameters(model).abs().max()) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perturbation": 0}, "perturbation"),
        ({"momentum": 1.0}, "momentum"),
        ({"average": 0}, "average"),
        ({"decay": -1}, "decay"),
        ({"offset": math.nan}, "offset"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        SPSA(**options)


def test_momentum_belongs_to_its_options():
    with pytest.raises(mrviz.InputError, match=r"SPSA\(momentum"):
        train(black_box(), task(), optimizer="spsa", momentum=0.5, **QUIET)
