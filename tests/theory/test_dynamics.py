"""Predicted dynamics against brute-force integration, step-by-step recursions and closed forms."""

import math
import threading

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import mrviz
from mrviz.programs.losses import sample_losses
from mrviz.theory import flow, products
from mrviz.theory.dynamics import Trajectory, simulate
from mrviz.theory.modes import (
    gain,
    loss_curve,
    mode_times,
    remaining,
    ridge_filter,
    stable_step,
    steps_to,
    time_to,
    training_filter,
)
from mrviz.theory.products import apply, largest_eigenvalue
from tests.ntk.common import close

N, C = 5, 3
QUIET = {"progress": False}
seeds = st.integers(0, 10_000)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def psd(order, rank=None, seed=0):
    factor = normal(order, order if rank is None else rank, seed=seed)
    return factor @ factor.T


def problem(seed=0, n=N, outputs=C, rank=None):
    """Kernel, cross kernel of 4 other samples, outputs on both, one-hot targets."""
    whole = psd((n + 4) * outputs, rank, seed)
    order = n * outputs
    y = torch.eye(outputs).double()[torch.arange(n) % outputs]
    start = normal(n + 4, outputs, seed=seed + 1)
    return whole[:order, :order], whole[order:, :order], start[:n], start[n:], y


class Behind:
    """A matrix that can do no more than multiply."""

    def __init__(self, matrix):
        self.matrix, self.shape, self.products = matrix, matrix.shape, 0

    def __matmul__(self, columns):
        self.products += columns.shape[1]
        return self.matrix @ columns


# Modes ----------------------------------------------------------------------------------------


def test_flow_of_the_modes_is_the_matrix_exponential():
    kernel, cross, start, test_start, y = problem(rank=9)
    r, t = (y - start).flatten(), 0.375  # a time that float32 holds
    values, vectors = torch.linalg.eigh(kernel)
    left = remaining(values, torch.tensor([t]), n=N, lr=1.0, optimizer="flow")[0]
    decay = torch.as_tensor(expm(-kernel.numpy() * t / N))
    assert close(vectors @ (left * (vectors.T @ r)), decay @ r, 1e-12)
    descent = simulate(kernel, start, y, loss="squared", optimizer="flow", lr=t, steps=1, **QUIET)
    # ∫ e^{−Θs/n} ds / n, integrated numerically: Θ itself has no inverse here.
    nodes, weights = np.polynomial.legendre.leggauss(60)
    integral = sum(
        w * torch.as_tensor(expm(-kernel.numpy() * t * (1 + z) / 2 / N)) @ r
        for z, w in zip(nodes, weights, strict=True)
    )
    expected = test_start + (cross @ integral * t / 2 / N).view(4, C)
    assert close(descent.at(cross, test_start)[-1], expected, 1e-10)


@pytest.mark.parametrize(("optimizer", "beta"), [("gd", None), ("momentum", 0.7)])
def test_steps_of_the_modes_are_those_of_the_matrix(optimizer, beta):
    kernel, cross, start, test_start, y = problem(rank=9)
    lr = 0.9 * stable_step(largest_eigenvalue(kernel), N, momentum=beta)
    f, f_test, velocity = start.flatten(), test_start.flatten(), torch.zeros(N * C).double()
    path, test_path = [f], [f_test]
    for _ in range(12):
        velocity = (beta or 0) * velocity + f - y.flatten()
        f = f - lr / N * kernel @ velocity
        f_test = f_test - lr / N * cross @ velocity
        path.append(f)
        test_path.append(f_test)
    values, vectors = torch.linalg.eigh(kernel)
    options = {"n": N, "lr": lr, "optimizer": optimizer, "momentum": beta}
    steps, c = torch.arange(13), vectors.T @ (y - start).flatten()
    left = remaining(values, steps, **options)
    assert close(y.flatten() - (left * c) @ vectors.T, torch.stack(path), 1e-11)
    gains = gain(values, steps, **options)
    outputs = test_start.flatten() + (gains * c) @ vectors.T @ cross.T
    assert close(outputs, torch.stack(test_path), 1e-11)
    descent = simulate(
        kernel,
        start,
        y,
        loss="squared",
        optimizer=optimizer,
        lr=lr,
        steps=12,
        momentum=beta,
        **QUIET,
    )
    assert close(descent.outputs.flatten(1), torch.stack(path), 1e-12)
    assert close(descent.at(cross, test_start).flatten(1), torch.stack(test_path), 1e-12)
    curve = loss_curve(values, c.square(), steps, **options)
    assert close(curve, sample_losses(descent.outputs, y, "squared").mean(1), 1e-11)


def test_gain_is_continuous_at_zero_and_exact_for_tiny_eigenvalues():
    tiny = torch.tensor([-1e-12, 0.0, 1e-14, 1e-9, 0.3, 0.7, 1.9])
    steps = torch.tensor([0, 1, 7, 200])
    for optimizer in ("flow", "gd", "momentum"):
        found = gain(tiny, steps, n=1, lr=1.0, optimizer=optimizer)
        left = remaining(tiny, steps, n=1, lr=1.0, optimizer=optimizer)
        assert close(found[:, 4:], (1 - left[:, 4:]) / tiny[4:], 1e-10)
        assert close(found[:, :1], found[:, 1:2], 0) and close(found[:, 2], found[:, 1], 1e-11)
        filtered = training_filter(tiny, steps, n=1, lr=1.0, optimizer=optimizer)
        assert float((filtered - (1 - left)).abs().max()) < 1e-12
    assert gain(tiny[1:2], steps, n=1, lr=0.5).flatten().tolist() == [0, 0.5, 3.5, 100]


@given(seeds, st.floats(0.02, 0.98), st.integers(1, 50))
def test_below_the_edge_the_loss_falls_at_every_step(seed, share, steps):
    values = psd(6, seed=seed).diagonal()
    energy = normal(6, seed=seed + 1).square()
    lr = share * stable_step(float(values.max()), 6)
    curve = loss_curve(values, energy, torch.arange(steps + 1), n=6, lr=lr)
    assert (curve.diff() < 0).all()
    kernel, _, start, _, y = problem(seed)
    for loss in ("squared", "cross_entropy"):
        lr = share * stable_step(largest_eigenvalue(kernel), N, loss=loss)
        descent = simulate(kernel, start, y, loss=loss, lr=lr, steps=steps, **QUIET)
        assert (sample_losses(descent.outputs, y, loss).mean(1).diff() < 1e-12).all()


@pytest.mark.parametrize("beta", [None, 0.5, 0.9])
def test_the_edge_of_squared_loss_is_exact(beta):
    values = torch.tensor([0.3, 2.0, 5.0])
    optimizer = "gd" if beta is None else "momentum"
    edge = stable_step(5.0, 4, momentum=beta)
    for factor, stable in ((0.99, True), (1.01, False)):
        left = remaining(
            values, torch.tensor([4000]), n=4, lr=factor * edge, optimizer=optimizer, momentum=beta
        )
        assert bool(left.abs().max() < 1e-3) == stable
    assert stable_step(5.0, 4, loss="cross_entropy", momentum=beta) == 2 * edge
    assert stable_step(0.0, 4) == math.inf


def test_the_softmax_curvature_is_at_most_one_half_and_reaches_it():
    p = normal(2000, 4).mul(3).softmax(1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    assert float(torch.linalg.eigvalsh(curvature).max()) <= 0.5 + 1e-12
    half = torch.tensor([0.5, 0.5])
    assert float(torch.linalg.eigvalsh(half.diag() - half.outer(half))[-1]) == pytest.approx(0.5)


@given(seeds, st.floats(0.05, 0.95))
def test_momentum_on_cross_entropy_loses_energy_below_its_sure_step(seed, share):
    """Loss + β‖Δθ‖²/(2η) of the linearised model, whose Δθ = −η Jᵀv/n, for η < 4(1−β)n/λ_max."""
    factor, beta = normal(N * C, 6, seed=seed), 0.8
    kernel, start, y = factor @ factor.T, normal(N, C, seed=seed + 1), problem()[4]
    lr = share * 4 * (1 - beta) * N / largest_eigenvalue(kernel)
    descent = simulate(
        kernel, start, y, optimizer="momentum", momentum=beta, lr=lr, steps=30, **QUIET
    )
    moved = (descent.dual.diff(dim=0).flatten(1) @ factor).square().sum(1)
    loss = sample_losses(descent.outputs, y, "cross_entropy").mean(1)
    energy = loss + beta / (2 * lr) * torch.cat([torch.zeros(1).double(), moved])
    assert (energy.diff() < 1e-12).all()


@given(seeds, st.floats(1e-3, 1e3), st.integers(0, 300))
def test_filters_lie_between_zero_and_one(seed, t, steps):
    values = psd(6, 4, seed)
    values = torch.linalg.eigvalsh(values)
    lr = float(6 / values.max())
    for kind, step_size in (("flow", t), ("gd", lr)):
        filtered = training_filter(values, torch.tensor([steps]), n=6, lr=step_size, optimizer=kind)
        assert (filtered >= 0).all() and (filtered <= 1 + 1e-12).all()
    ridge = ridge_filter(values, 6 / t)
    assert (ridge >= 0).all() and (ridge < 1).all()
    early = training_filter(values, torch.tensor([1.0]), n=6, lr=t, optimizer="flow")[0]
    assert (ridge <= early + 1e-15).all() and (ridge >= 0.77 * early).all()


@given(seeds, st.floats(1e-6, 0.9), st.floats(1e-6, 0.9))
def test_times_are_in_order_and_solve_the_curve(seed, a, b):
    values = torch.linalg.eigvalsh(psd(6, seed=seed)).flip(0)
    energy = normal(6, seed=seed + 1).square()
    first, second = sorted((a, b), reverse=True)
    times = [time_to(values, energy, fraction, 6) for fraction in (first, second)]
    assert times[0] <= times[1]
    modes = mode_times(values, first, 6)
    assert (modes.diff() >= 0).all(), "small eigenvalues take longer"
    assert float(modes[0]) * (1 - 1e-9) <= times[0] <= float(modes[-1]) * (1 + 1e-9)
    curve = loss_curve(values, energy, torch.tensor([0.0, times[0]]), n=6, lr=1.0, optimizer="flow")
    assert float(curve[1] / curve[0]) == pytest.approx(first, rel=1e-6)
    lr = 0.1 * stable_step(float(values[0]), 6)
    steps = steps_to(values, energy, first, n=6, lr=lr)
    around = loss_curve(values, energy, torch.tensor([0, steps - 1, steps]), n=6, lr=lr)
    assert around[2] <= first * around[0] < around[1]


def test_what_is_never_learned_takes_for_ever():
    values, energy = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])
    assert time_to(values, energy, 0.5, 4) == math.inf
    assert 0 < time_to(values, energy, 0.51, 4) < math.inf
    assert steps_to(values, energy, 0.4, n=4, lr=1.0) is None
    assert steps_to(values, energy, 0.6, n=4, lr=4.0) is None, "at the edge nothing decays"
    assert time_to(values, torch.zeros(2), 0.1, 4) == 0
    assert steps_to(values, torch.zeros(2), 0.1, n=4, lr=1.0) == 0
    assert mode_times(values, 0.1, 4)[1] == math.inf


# Function space -------------------------------------------------------------------------------


def brute_flow(kernel, cross, start, test_start, y, t):
    """Training and held-out outputs by a generic solver, cross-entropy."""
    both = torch.cat([kernel, cross]).numpy() / N

    def slope(_, f):
        p = torch.as_tensor(f[: N * C]).view(N, C).softmax(1)
        return -both @ (p - y).flatten().numpy()

    f0 = torch.cat([start.flatten(), test_start.flatten()]).numpy()
    found = solve_ivp(slope, (0, t), f0, method="DOP853", rtol=1e-12, atol=1e-12)
    f = torch.as_tensor(found.y[:, -1])
    return f[: N * C].view(N, C), f[N * C :].view(4, C)


@pytest.mark.parametrize("rank", [None, 4])
def test_flow_of_cross_entropy(rank):
    kernel, cross, start, test_start, y = problem(rank=rank)
    expected = brute_flow(kernel, cross, start, test_start, y, 2.0)
    for held in (kernel, Behind(kernel)):
        descent = simulate(held, start, y, optimizer="flow", lr=0.5, steps=4, **QUIET)
        assert close(descent.outputs[-1], expected[0], 1e-7)
        assert close(descent.at(cross, test_start)[-1], expected[1], 1e-7)


def test_flow_far_into_the_stiff_regime():
    """λ_max t/n = 10⁶, against an implicit method of another kind."""
    values = torch.logspace(-3, 3, N * C, dtype=torch.float64)
    basis = torch.linalg.qr(normal(N * C, N * C))[0]
    kernel, start, y = basis * values @ basis.T, normal(N, C), problem()[4]
    descent = simulate(kernel, start, y, optimizer="flow", lr=1000.0, steps=5, **QUIET)

    def slope(_, f):
        p = torch.as_tensor(f).view(N, C).softmax(1)
        return -(kernel @ (p - y).flatten()).numpy() / N

    found = solve_ivp(
        slope, (0, 5000), start.flatten().numpy(), method="Radau", rtol=1e-10, atol=1e-10
    )
    assert close(descent.outputs[-1].flatten(), torch.as_tensor(found.y[:, -1]), 1e-5)


def test_flow_of_squared_loss_behind_a_product_is_the_closed_form():
    kernel, cross, start, test_start, y = problem(rank=7)
    options = {"loss": "squared", "optimizer": "flow", "lr": 0.3, "steps": 5, **QUIET}
    exact, found = (simulate(k, start, y, **options) for k in (kernel, Behind(kernel)))
    assert close(found.outputs, exact.outputs, 1e-7)
    assert close(found.at(cross, test_start), exact.at(Behind(cross), test_start), 1e-7)


def test_small_steps_follow_the_flow():
    kernel, _, start, _, y = problem()
    flowing = simulate(kernel, start, y, optimizer="flow", lr=0.05, steps=1, **QUIET)
    errors = []
    for steps in (50, 100):
        descent = simulate(kernel, start, y, lr=0.05 / steps, steps=steps, **QUIET)
        errors.append(float((descent.outputs[-1] - flowing.outputs[-1]).norm()))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05), "first order in the step size"


@pytest.mark.parametrize("optimizer", ["gd", "momentum", "flow"])
@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_a_reduced_kernel_acts_on_every_output_alike(optimizer, loss):
    small, small_cross = psd(9)[:5, :5], psd(9)[5:, :5]
    _, _, start, test_start, y = problem()
    eye = torch.eye(C).double()
    options = {"loss": loss, "optimizer": optimizer, "lr": 0.1, "steps": 6, **QUIET}
    reduced = simulate(small, start, y, **options)
    full = simulate(torch.kron(small, eye), start, y, **options)
    assert close(reduced.outputs, full.outputs, 1e-7)
    crossed = reduced.at(small_cross, test_start)
    assert close(crossed, full.at(torch.kron(small_cross, eye), test_start), 1e-7)


def test_one_product_a_step_and_an_operator_like_a_matrix():
    kernel, _, start, _, y = problem()
    behind = Behind(kernel)
    descent = simulate(behind, start, y, lr=0.1, steps=20, **QUIET)
    assert behind.products == 20
    assert close(descent.outputs, simulate(kernel, start, y, lr=0.1, steps=20).outputs, 1e-13)


def test_largest_eigenvalue(monkeypatch):
    kernel = psd(N * C)
    expected = float(torch.linalg.eigvalsh(kernel)[-1])
    assert largest_eigenvalue(kernel) == pytest.approx(expected, rel=1e-14)
    assert largest_eigenvalue(Behind(kernel)) == pytest.approx(expected, rel=1e-10)
    assert largest_eigenvalue(Behind(0 * kernel)) == largest_eigenvalue(0 * kernel) == 0
    monkeypatch.setattr(products, "DENSE_ORDER", 3)
    assert largest_eigenvalue(kernel) == pytest.approx(expected, rel=1e-10)


def test_outputs_are_start_plus_kernel_times_dual():
    kernel, _, start, _, y = problem()
    for optimizer in ("gd", "momentum", "flow"):
        descent = simulate(kernel, start, y, optimizer=optimizer, lr=0.2, steps=9, **QUIET)
        assert close(descent.at(kernel, start), descent.outputs, 1e-12)


def test_divergence_ends_the_simulation():
    kernel, _, start, _, y = problem()
    lr = 50 * stable_step(largest_eigenvalue(kernel), N)
    descent = simulate(kernel, start, y, loss="squared", lr=lr, steps=1000, **QUIET)
    assert descent.diverged < 1000 and torch.isfinite(descent.outputs).all()
    trajectory = Trajectory.of(descent, y)
    assert trajectory.diverged == descent.diverged and trajectory.steps[-1] < descent.diverged
    assert "diverged at step" in repr(trajectory)


def test_trajectory_measures_what_it_says():
    kernel, cross, start, test_start, y = problem()
    descent = simulate(kernel, start, y, lr=0.25, steps=8, record_every=4, **QUIET)
    y_test = y[[2, 1, 0, 1]]
    outputs = descent.at(cross, test_start)
    found = Trajectory.of(descent, y, outputs, y_test)
    assert found.steps == (0, 4, 8) and found.times == (0.0, 1.0, 2.0)
    expected = torch.nn.functional.cross_entropy(outputs[1], y_test.argmax(1))
    assert found.test_loss[1] == pytest.approx(float(expected))
    right = (descent.outputs[2].argmax(1) == y.argmax(1)).double().mean()
    assert found.train_accuracy[2] == pytest.approx(float(right))
    assert torch.equal(found.test_outputs, outputs[-1])
    alone = Trajectory.of(descent, y)
    assert alone.test_loss is None and "test" not in repr(alone)
    assert alone.to_dict()["train_loss"] == list(found.train_loss)
    real = Trajectory.of(simulate(kernel, start, start + 1, loss="squared", lr=0.1, steps=1), y / 2)
    assert real.train_accuracy is None


def test_cancelling():
    kernel, _, start, _, y = problem()
    stop = threading.Event()
    stop.set()
    for optimizer in ("gd", "flow"):
        with pytest.raises(mrviz.Cancelled):
            simulate(kernel, start, y, optimizer=optimizer, lr=0.1, steps=5, cancel=stop)
    with pytest.raises(mrviz.Cancelled):
        flow.gradient_flow(kernel, start, y, torch.tensor([0.0, 1.0]), cancel=stop)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "loss must be one of"),
        ({"optimizer": "adam"}, "optimizer must be one of"),
        ({"lr": -1.0}, "positive"),
        ({"steps": 0}, "steps"),
        ({"momentum": 0.5}, "momentum applies"),
        ({"optimizer": "momentum", "momentum": 1.5}, "below 1"),
    ],
)
def test_options_that_do_not_fit(options, message):
    kernel, _, start, _, y = problem()
    with pytest.raises(mrviz.InputError, match=message):
        simulate(kernel, start, y, **{"lr": 0.1, "steps": 2, **options}, **QUIET)


def test_shapes_and_numbers_that_do_not_fit():
    kernel, _, start, _, y = problem()
    with pytest.raises(mrviz.InputError, match="need \\(15, 15\\), or \\(5, 5\\)"):
        simulate(kernel[:-1, :-1], start, y, lr=0.1, steps=2, **QUIET)
    with pytest.raises(mrviz.InputError, match="must both be"):
        simulate(kernel, start, y[:, :2], lr=0.1, steps=2, **QUIET)
    with pytest.raises(mrviz.InputError, match="whole numbers"):
        remaining(torch.ones(2), torch.tensor([0.5]), n=2, lr=1.0)
    with pytest.raises(mrviz.InputError, match="fraction"):
        mode_times(torch.ones(2), 1.5, 2)
    with pytest.raises(mrviz.InputError, match="ridge"):
        ridge_filter(torch.ones(2), 0.0)
    with pytest.raises(mrviz.InputError, match="momentum applies"):
        gain(torch.ones(2), torch.tensor([1]), n=2, lr=1.0, momentum=0.5)


def test_products_keep_batches_apart():
    kernel, values = psd(N * C), normal(2, 4, N, C)
    expected = (values.flatten(2) @ kernel).view_as(values)
    assert close(apply(kernel, values, N), expected, 1e-13)
    small = psd(N)
    assert close(apply(small, values, N), torch.einsum("ij,abjc->abic", small, values), 1e-13)
