"""Squared loss, mode by mode: spectral filters, times and stable steps, in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mrviz.errors import InputError
from mrviz.programs.losses import LOSSES
from mrviz.programs.training import check_momentum, check_rate
from mrviz.targets.options import as_choice, as_count

METHODS = ("flow", "gd", "momentum")
"""Ways of training that have a closed form: gradient flow, gradient descent, heavy ball."""

CURVATURE = {"squared": 1.0, "cross_entropy": 0.5}
"""Largest eigenvalue that the second derivative of a loss by the outputs can have."""


def stable_step(
    largest: float, n: int, *, loss: str = "squared", momentum: float | None = None
) -> float:
    """Edge of stability of full-batch steps on the mean loss (docs/theory.md, section 5).

    2(1 + β) n / (κ λ_max), with κ = 1 for squared loss and 1/2 for cross-entropy, whose second
    derivative diag(p) − ppᵀ is at most 1/2. For squared loss the iteration of the linearised
    model is stable if and only if the step is below it. For cross-entropy it is sufficient:
    below 4n/λ_max the loss falls at every step of gradient descent, above it it may or may not.
    With momentum on cross-entropy it is the edge of a quadratic function of that curvature;
    loss + β‖Δθ‖²/(2η) is sure to fall below 2(1 − β) n / (κ λ_max) only.

    Args:
        largest: λ_max of the kernel.
        n: number of training samples, the n of the mean.
        loss: "squared" or "cross_entropy".
        momentum: β of heavy-ball steps; default: 0, plain gradient descent.

    Returns:
        The step size η; infinite for a zero kernel.

    Example:
        >>> stable_step(4.0, 10), stable_step(4.0, 10, loss="cross_entropy")
        (5.0, 10.0)
    """
    as_choice(loss, LOSSES, "loss")
    beta = 0.0 if momentum is None else check_momentum(momentum)
    n = as_count(n, "n", 1)
    return 2 * (1 + beta) * n / (CURVATURE[loss] * largest) if largest > 0 else math.inf


def remaining(
    eigenvalues: Tensor,
    steps: Tensor,
    *,
    n: int,
    lr: float,
    optimizer: str = "gd",
    momentum: float | None = None,
) -> Tensor:
    """Share of the residual that is left in each mode, for ½·(1/n)Σ‖f − y‖².

    Gradient flow leaves exp(−λt/n) at time t = lr·steps, gradient descent (1 − lr·λ/n)^s, heavy
    ball the ρ_s of ρ_{s+1} = (1 + β − lr·λ/n) ρ_s − β ρ_{s−1}, ρ_0 = ρ_{−1} = 1 (Polyak 1964).

    Args:
        eigenvalues: λ, shape (N,); negative ones are round-off and count as zero.
        steps: numbers of steps s, shape (S,); whole, except for "flow".
        n: number of training samples.
        lr: step size; with ``lr=1`` the steps of "flow" are times t.
        optimizer: "flow", "gd" or "momentum".
        momentum: β; default: 0.9.

    Returns:
        Shape (S, N), float64.

    Raises:
        InputError: options that do not fit.

    Example:
        >>> remaining(torch.tensor([2.0]), torch.tensor([0, 1, 2]), n=4, lr=1.0).flatten()
        tensor([1.0000, 0.5000, 0.2500], dtype=torch.float64)
    """
    x, steps, beta = _checked(eigenvalues, steps, n, lr, optimizer, momentum)
    if optimizer == "flow":
        return torch.exp(-steps[:, None] * x)
    if optimizer == "gd":
        return (1 - x) ** steps[:, None]
    return _recursion(x, steps, beta, start=1.0, push=0.0)


def gain(
    eigenvalues: Tensor,
    steps: Tensor,
    *,
    n: int,
    lr: float,
    optimizer: str = "gd",
    momentum: float | None = None,
) -> Tensor:
    """(1 − remaining)/λ, continued to λ = 0: what stands for Θ⁻¹ after early stopping.

    f_s(x) = f_0(x) + Θ(x, X) V diag(gain) Vᵀ r holds on any input x.

    Args:
        eigenvalues: as in :func:`remaining`.
        steps: as in :func:`remaining`.
        n: as in :func:`remaining`.
        lr: as in :func:`remaining`.
        optimizer: as in :func:`remaining`.
        momentum: as in :func:`remaining`.

    Returns:
        Shape (S, N), float64, in units of 1/λ.
    """
    x, steps, beta = _checked(eigenvalues, steps, n, lr, optimizer, momentum)
    s = steps[:, None]
    if optimizer == "momentum":
        # 1 − λq solves the recursion of the residual exactly if q solves it with this push.
        return _recursion(x, steps, beta, start=0.0, push=lr / n)
    small = x < 0.5
    if optimizer == "flow":
        safe = torch.where(x > 0, x, 1.0)
        return torch.where(x > 0, -torch.expm1(-s * x) / safe, s) * (lr / n)
    safe = torch.where(small & (x > 0), x, 0.25)
    slow = torch.where(x > 0, -torch.expm1(s * torch.log1p(-safe)) / safe, s)
    large = torch.where(small, 1.0, x)
    return torch.where(small, slow, (1 - (1 - large) ** s) / large) * (lr / n)


def ridge_filter(eigenvalues: Tensor, ridge: float) -> Tensor:
    """Spectral filter λ/(λ + R) of kernel ridge regression, shape (N,), between 0 and 1.

    R = n/t is the counterpart of stopping gradient flow at time t: the ridge filter is then
    between 0.77 and 1 times the filter 1 − exp(−λt/n) (Ali, Kolter and Tibshirani 2019).

    Args:
        eigenvalues: λ, shape (N,); negative ones count as zero.
        ridge: R, positive.
    """
    if not ridge > 0:
        raise InputError(f"ridge must be positive, got {ridge}")
    values = eigenvalues.double().clamp_min(0)
    return values / (values + ridge)


def training_filter(
    eigenvalues: Tensor,
    steps: Tensor,
    *,
    n: int,
    lr: float,
    optimizer: str = "gd",
    momentum: float | None = None,
) -> Tensor:
    """Spectral filter λ·gain = 1 − remaining of early stopping, the counterpart of a ridge.

    On training samples f_s = f_0 + V diag(filter) Vᵀ r. It lies between 0 and 1 for flow and for
    gradient descent with lr·λ/n ≤ 1; faster steps and momentum overshoot 1.

    Args:
        eigenvalues: as in :func:`remaining`.
        steps: as in :func:`remaining`.
        n: as in :func:`remaining`.
        lr: as in :func:`remaining`.
        optimizer: as in :func:`remaining`.
        momentum: as in :func:`remaining`.

    Returns:
        Shape (S, N), float64.
    """
    values = eigenvalues.double().clamp_min(0)
    return values * gain(values, steps, n=n, lr=lr, optimizer=optimizer, momentum=momentum)


def loss_curve(
    eigenvalues: Tensor,
    energy: Tensor,
    steps: Tensor,
    *,
    n: int,
    lr: float,
    optimizer: str = "gd",
    momentum: float | None = None,
) -> Tensor:
    """Mean training loss L(s) = (1/2n) Σ_k c_k² ρ_k(s)² (Lee et al. 2019).

    Args:
        eigenvalues: λ, shape (N,).
        energy: c_k² = (v_kᵀ r)², shape (N,); summed over columns for reduced kernels.
        steps: as in :func:`remaining`.
        n: as in :func:`remaining`.
        lr: as in :func:`remaining`.
        optimizer: as in :func:`remaining`.
        momentum: as in :func:`remaining`.

    Returns:
        Shape (S,), float64.
    """
    left = remaining(eigenvalues, steps, n=n, lr=lr, optimizer=optimizer, momentum=momentum)
    return (left.square() @ energy.to(left)) / (2 * n)


def mode_times(eigenvalues: Tensor, fraction: float, n: int) -> Tensor:
    """Times t at which gradient flow has brought each mode's loss down to a fraction of it.

    n ln(1/ε) / (2λ): t counts step size × steps; divide by a small step size for steps.

    Args:
        eigenvalues: λ, shape (N,).
        fraction: ε, between 0 and 1.
        n: number of training samples.

    Returns:
        Shape (N,), float64; infinite where λ ≤ 0.
    """
    _check_fraction(fraction)
    values = eigenvalues.double()
    times = n * math.log(1 / fraction) / (2 * values)
    return torch.where(values > 0, times, math.inf)


def time_to(eigenvalues: Tensor, energy: Tensor, fraction: float, n: int) -> float:
    """Time t at which gradient flow has brought the training loss down to a fraction of it.

    Set eigenvalues that are not resolved to zero first (docs/theory.md, section 6): what they
    hold of the residual is then never learned, and the time may be infinite.

    Args:
        eigenvalues: λ, shape (N,).
        energy: c_k², shape (N,), as in :func:`loss_curve`.
        fraction: ε, between 0 and 1.
        n: number of training samples.

    Returns:
        t, step size × steps; zero for a residual of zero.

    Example:
        >>> time_to(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0]), 0.01, n=4)
        4.605...
    """
    from scipy.optimize import brentq

    rates, share = _shares(eigenvalues, energy, fraction, n)
    if len(share) == 0:
        return 0.0
    stuck = float(share[rates == 0].sum())
    if stuck >= fraction:
        return math.inf
    moving = rates[rates > 0]

    def excess(log_t: float) -> float:
        return float(torch.exp(-2 * math.exp(log_t) * rates) @ share) - fraction

    # At the first bound no mode is below ε of itself, at the second every one is below ε − stuck.
    low = math.log(1 / fraction) / (2 * float(moving.max()))
    high = math.log(1 / (fraction - stuck)) / (2 * float(moving.min()))
    return math.exp(brentq(excess, math.log(low) - 1e-9, math.log(high) + 1e-9, rtol=1e-14))


def steps_to(
    eigenvalues: Tensor, energy: Tensor, fraction: float, *, n: int, lr: float
) -> int | None:
    """Steps of gradient descent after which the training loss is at most a fraction of it.

    Args:
        eigenvalues: as in :func:`time_to`.
        energy: as in :func:`time_to`.
        fraction: ε, between 0 and 1.
        n: number of training samples.
        lr: step size.

    Returns:
        The smallest such number; ``None`` where there is none, or lr is not below the edge.

    Example:
        >>> steps_to(torch.tensor([2.0]), torch.tensor([1.0]), 0.01, n=4, lr=1.0)
        4
    """
    check_rate(lr)
    rates, share = _shares(eigenvalues, energy, fraction, n)
    left = (1 - lr * rates).abs()
    if len(share) == 0:
        return 0
    if float(share[rates == 0].sum()) >= fraction or bool((left[rates > 0] >= 1).any()):
        return None

    def enough(steps: int) -> bool:
        return float(left ** (2 * steps) @ share) <= fraction

    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _checked(
    eigenvalues: Tensor,
    steps: Tensor,
    n: int,
    lr: float,
    optimizer: str,
    momentum: float | None,
) -> tuple[Tensor, Tensor, float]:
    """lr·λ/n, the step numbers as float64, and β."""
    as_choice(optimizer, METHODS, "optimizer")
    check_rate(lr)
    if momentum is not None and optimizer != "momentum":
        raise InputError(f"momentum applies to optimizer='momentum' only, got {optimizer!r}")
    beta = check_momentum(momentum) if optimizer == "momentum" else 0.0
    values = eigenvalues.double().clamp_min(0) * (lr / as_count(n, "n", 1))
    steps = torch.as_tensor(steps).to(values).reshape(-1)
    if (steps < 0).any() or (optimizer != "flow" and (steps != steps.round()).any()):
        raise InputError("steps must be whole numbers, not negative; any times for 'flow'")
    return values, steps, beta


def _recursion(x: Tensor, steps: Tensor, beta: float, start: float, push: float) -> Tensor:
    """ρ_s of ρ_{s+1} = (1 + β − x) ρ_s − β ρ_{s−1} + push, from rest at ``start``; (S, N)."""
    wanted = [int(s) for s in steps.tolist()]
    kept: dict[int, Tensor] = {}
    before = now = torch.full_like(x, start)
    for s in range(max(wanted, default=0) + 1):
        if s in wanted:
            kept[s] = now
        before, now = now, (1 + beta - x) * now - beta * before + push
    return torch.stack([kept[s] for s in wanted])


def _shares(eigenvalues: Tensor, energy: Tensor, fraction: float, n: int) -> tuple[Tensor, Tensor]:
    """λ/n and share of the initial loss of the modes that hold any of it."""
    _check_fraction(fraction)
    share = energy.double()
    held = share > 0
    rates = eigenvalues.double().clamp_min(0)[held] / as_count(n, "n", 1)
    return rates, share[held] / share.sum()


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise InputError(f"fraction must lie between 0 and 1, got {fraction}")
