"""T4: how soon gradient descent on the linearised model brings the training loss down."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mrviz._words import counted, verb
from mrviz.ntk import Gram
from mrviz.spectrum import Spectrum
from mrviz.theory.conditions import Condition, Status, Thresholds
from mrviz.theory.indicators.compare import FULL_KERNEL
from mrviz.theory.modes import stable_step, steps_to
from mrviz.theory.residuals import residual_energy


def speed(gram: Gram, spectrum: Spectrum, r: Tensor, thresholds: Thresholds) -> Condition:
    """T4: within the budget of steps the squared loss falls to a fraction of its initial value.

    Steps of size η = fraction × 2n/λ_max. With ‖Θ̂ − Θ‖ ≤ floor and unresolved eigenvalues set
    to zero, no step changes the relative residual ‖r_s‖/‖r‖ by more than 2η·floor/n beyond what
    is computed, as each is a contraction; the status takes s times that into account
    (docs/theory.md, section 4).

    Args:
        gram: the target Gram.
        spectrum: its spectrum, with eigenvectors.
        r: residual (n, C).
        thresholds: the fraction ε, the budget of steps, and the step size.
    """
    epsilon, budget = thresholds.loss_fraction, thresholds.steps
    edge = stable_step(spectrum.largest, gram.n)
    found: dict[str, Any] = {"value": None, "error": None}
    status: Status = "undecided"
    energy = residual_energy(gram, spectrum, r)
    if not energy.any():
        found = {"value": 0.0, "error": 0.0}
        status, why = "holds", "the residual is zero: there is nothing left to learn"
    elif math.isinf(edge):
        status, why = "fails", "the kernel is zero: training does not move the outputs"
    else:
        lr = thresholds.step_fraction * edge
        values = torch.where(spectrum.resolved, spectrum.eigenvalues, 0.0)
        steps = steps_to(values, energy, epsilon, n=gram.n, lr=lr)
        drift = 2 * lr * spectrum.floor / gram.n
        earliest, latest = _range(values * (lr / gram.n), energy, epsilon, drift, steps)
        stuck = float(energy[~spectrum.resolved].sum())
        details = {"lr": lr, "largest_stable_step": edge, "unresolved_energy": stuck}
        if steps is not None:
            details["time"] = lr * steps
            found["value"] = float(steps)
            if latest is not None:
                found["error"] = float(max(latest - steps, steps - earliest))
        found["details"] = details
        why = _reason(steps, lr, edge, epsilon, budget, stuck)
        if gram.reduce != "full":
            why += f"; the {gram.reduce!r} kernel stands for every output: {FULL_KERNEL}"
        elif latest is not None and latest <= budget:
            status = "holds"
        elif earliest > budget:
            status = "fails"
        else:
            why += "; round-off could decide: repeat in float64"
    return Condition(
        id="T4",
        name="speed",
        threshold=float(budget),
        status=status,
        formula=r"\min\{s : \sum_k c_k^2 (1 - \eta\lambda_k/n)^{2s} \le \epsilon\,\|r\|^2\}"
        r" \le S,\; \eta < 2n/\lambda_{\max}",
        source="lit: Lee et al. 2019; budget: a convention",
        sentence="How soon? Modes with small eigenvalues are learned slowly, those below the "
        "noise floor never; T2 alone does not tell.",
        why=why,
        **found,
    )


def _reason(
    steps: int | None, lr: float, edge: float, epsilon: float, budget: int, stuck: float
) -> str:
    at = f"step size {lr:.3g} (largest stable one {edge:.3g})"
    if steps is None:
        return (
            f"at {at} the loss never falls to {epsilon:.3g} of its start: modes below the noise "
            f"floor hold {stuck:.1%} of it; the budget is {counted(budget, 'step')}"
        )
    return (
        f"{counted(steps, 'step')} at {at}, t = {lr * steps:.3g}, {verb(steps, 'brings', 'bring')} "
        f"the squared loss to {epsilon:.3g} of its start; the budget is {counted(budget, 'step')}"
    )


def _range(
    rates: Tensor, share: Tensor, epsilon: float, drift: float, steps: int | None
) -> tuple[int, int | None]:
    """Fewest and most steps that the loss may take, given the drift of each; ``None`` for never.

    With R(s) = ‖r_s‖/‖r‖ as computed, they are the first s with R(s) − s·drift ≤ √ε, and with
    R(s) + s·drift ≤ √ε. R is decreasing and convex.
    """
    held = share > 0
    logs, share = torch.log((1 - rates[held]).abs()), share[held] / share.sum()
    goal = math.sqrt(epsilon)

    def size(s: int) -> float:
        # 0 · log 0 is 0 here: before the first step nothing is learned.
        return math.sqrt(float(torch.exp(2 * s * logs) @ share)) if s else 1.0

    if drift == 0:
        return (steps, steps) if steps is not None else (_NEVER, None)
    earliest = _first(lambda s: size(s) - s * drift <= goal, 0, math.ceil(1 / drift))
    if steps is None:
        return earliest, None
    low, high = steps, max(steps, math.ceil(goal / drift))
    while low < high:  # the lowest point of a convex function
        middle = (low + high) // 2
        if size(middle + 1) + drift < size(middle):
            low = middle + 1
        else:
            high = middle
    if size(low) + low * drift > goal:
        return earliest, None
    return earliest, _first(lambda s: size(s) + s * drift <= goal, steps, low)


_NEVER = 1 << 62


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest number in a range from which on a property holds; it holds at ``high``."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
