"""Training of the linearised model in function space: frozen kernel, the user's own settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz._words import counted
from mrviz.errors import InputError
from mrviz.programs.fit import recorded_steps
from mrviz.programs.losses import LOSSES, accuracies, output_gradient, sample_losses
from mrviz.programs.training import check_momentum, check_rate
from mrviz.targets.options import as_choice, as_count
from mrviz.theory.flow import gradient_flow
from mrviz.theory.modes import METHODS
from mrviz.theory.products import Kernel, apply


@dataclass(frozen=True, eq=False)
class Descent:
    """Training of a linearised model, as what it does to outputs on any inputs.

    f_s(x) = f_0(x) + Θ(x, X) dual_s for every input x (docs/theory.md, section 5).

    Attributes:
        steps: recorded step numbers s, (R,).
        outputs: f_s on the training samples, (R, n, C), float64.
        dual: (R, n, C), float64, in units of outputs per kernel.
        loss: "cross_entropy" or "squared".
        optimizer: "gd", "momentum" or "flow".
        lr: step size; times are t = lr × step.
        momentum: β, for "momentum".
        diverged: the step at which the loss was no longer finite and the simulation stopped, or
            ``None``.
    """

    steps: tuple[int, ...]
    outputs: Tensor
    dual: Tensor
    loss: str
    optimizer: str
    lr: float
    momentum: float | None = None
    diverged: int | None = None

    def at(self, cross: Kernel, start: Tensor) -> Tensor:
        """Outputs on other inputs over time, (R, m, C), float64.

        Args:
            cross: Θ(x, X) of m other inputs, (m·C, n·C) or reduced (m, n).
            start: f_0 on them, (m, C).
        """
        return start.to(self.dual) + apply(cross, self.dual, start.shape[0])


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Predicted losses and accuracies over time.

    Attributes:
        steps: recorded step numbers, from 0.
        times: t = step size × step, the time of gradient flow.
        train_loss: mean loss of the training samples at those steps.
        train_accuracy: share of correct arg-max predictions; ``None`` for real-valued targets.
        test_loss: mean loss of held-out samples; ``None`` without any.
        test_accuracy: their accuracy; ``None`` without any, and for real-valued targets.
        outputs: f on the training samples at the last of those steps, (n, C), float64.
        test_outputs: f on the held-out samples then, (m, C), float64, or ``None``.
        diverged: as in :class:`Descent`; what is recorded ends before it.
    """

    steps: tuple[int, ...]
    times: tuple[float, ...]
    train_loss: tuple[float, ...]
    train_accuracy: tuple[float, ...] | None
    test_loss: tuple[float, ...] | None
    test_accuracy: tuple[float, ...] | None
    outputs: Tensor
    test_outputs: Tensor | None
    diverged: int | None

    @classmethod
    def of(
        cls,
        descent: Descent,
        targets: Tensor,
        test_outputs: Tensor | None = None,
        test_targets: Tensor | None = None,
    ) -> Trajectory:
        """Measures a simulated training.

        Args:
            descent: the training.
            targets: Y of the training samples, (n, C).
            test_outputs: outputs on held-out samples over time, (R, m, C), from
                :meth:`Descent.at`.
            test_targets: Y of the held-out samples, (m, C).
        """

        def losses(f: Tensor, y: Tensor) -> tuple[float, ...]:
            return tuple(sample_losses(f, y.to(f), descent.loss).mean(1).tolist())

        def shares(f: Tensor, y: Tensor) -> tuple[float, ...] | None:
            found = accuracies(f, y.to(f))
            return None if found is None else tuple(found.tolist())

        test_loss = test_accuracy = None
        if test_outputs is not None and test_targets is not None:
            test_loss = losses(test_outputs, test_targets)
            test_accuracy = shares(test_outputs, test_targets)
        return cls(
            steps=descent.steps,
            times=tuple(descent.lr * step for step in descent.steps),
            train_loss=losses(descent.outputs, targets),
            train_accuracy=shares(descent.outputs, targets),
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            outputs=descent.outputs[-1],
            test_outputs=None if test_outputs is None else test_outputs[-1],
            diverged=descent.diverged,
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the outputs, as plain values."""
        names = ("steps", "times", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
        columns = {name: getattr(self, name) for name in names}
        return {
            **{name: None if c is None else list(c) for name, c in columns.items()},
            "diverged": self.diverged,
        }

    def __repr__(self) -> str:
        parts = [f"{counted(self.steps[-1], 'step')}, t = {self.times[-1]:.4g}"]
        for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
            if (column := getattr(self, name)) is not None:
                parts.append(f"{name} {column[0]:.4g} → {column[-1]:.4g}")
        if self.diverged is not None:
            parts.append(f"diverged at step {self.diverged}")
        return f"Trajectory({', '.join(parts)})"


def simulate(
    kernel: Kernel,
    outputs: Tensor,
    targets: Tensor,
    *,
    loss: str = "cross_entropy",
    optimizer: str = "gd",
    lr: float,
    steps: int,
    momentum: float | None = None,
    record_every: int | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Descent:
    """Simulates full-batch training on the mean loss with the kernel held as it is.

    "gd" makes the steps f ← f − (lr/n) Θ ∇_fℓ(f, Y), "momentum" the heavy-ball steps
    v ← momentum·v + ∇_fℓ, f ← f − (lr/n) Θ v: what :func:`~mrviz.train` does to a model that is
    linear in its parameters. "flow" is gradient flow df/dt = −(1/n) Θ ∇_fℓ at times
    t = lr·steps: in closed form for squared loss and a kernel in memory, else integrated with
    LSODA, which changes to an implicit method where the equation is stiff, to 1e-8.

    Args:
        kernel: Θ of the training samples, (n·C, n·C), sample-major. One of order n acts on every
            output alike, as Θ ⊗ I_C: an approximation where C > 1.
        outputs: f_0 on the training samples, (n, C).
        targets: Y, (n, C).
        loss: "cross_entropy" or "squared".
        optimizer: "gd", "momentum" or "flow".
        lr: step size η; time t is lr × steps.
        steps: number of steps S.
        momentum: of "momentum"; default: 0.9.
        record_every: as in :func:`~mrviz.train`.
        progress: callback (done, total, label); ``False`` for silence; default: a text bar.
        cancel: flag with ``is_set()``, checked at each step.

    Returns:
        Outputs over time. It costs one product with Θ a step.

    Raises:
        InputError: shapes or options that do not fit.
        Cancelled: ``cancel`` was set.

    Example:
        >>> kernel, start = torch.eye(2), torch.zeros(2, 1)
        >>> descent = simulate(
        ...     kernel, start, torch.ones(2, 1), loss="squared", lr=1.0, steps=2, progress=False
        ... )
        >>> descent.outputs[:, 0, 0]
        tensor([0.0000, 0.5000, 0.7500], dtype=torch.float64)
    """
    as_choice(loss, LOSSES, "loss")
    as_choice(optimizer, METHODS, "optimizer")
    check_rate(lr)
    if momentum is not None and optimizer != "momentum":
        raise InputError(f"momentum applies to optimizer='momentum' only, got {optimizer!r}")
    steps = as_count(steps, "steps", 1)
    start, y = outputs.double(), targets.double().to(outputs.device)
    if start.ndim != 2 or start.shape != y.shape:
        raise InputError(
            f"outputs and targets must both be (n, C), got {tuple(start.shape)} and "
            f"{tuple(y.shape)}"
        )
    if isinstance(kernel, Tensor):
        kernel = kernel.double()
    fixed: dict[str, Any] = {"loss": loss, "optimizer": optimizer, "lr": lr}
    recorded = recorded_steps(steps, record_every)
    if optimizer == "flow":
        with Progress(1, "gradient flow", progress, cancel) as bar:
            times = lr * torch.tensor(recorded, dtype=torch.float64)
            dual = gradient_flow(kernel, start, y, times, loss=loss, cancel=cancel)
            bar.advance()
        return Descent(recorded, start + apply(kernel, dual, len(start)), dual, **fixed)

    beta = check_momentum(momentum) if optimizer == "momentum" else 0.0
    fixed["momentum"] = beta if optimizer == "momentum" else None
    rate = lr / len(start)
    f, velocity, dual = start, torch.zeros_like(start), torch.zeros_like(start)
    path, duals = [], []
    diverged = None
    with Progress(steps, "predicted training", progress, cancel) as bar:
        for step in range(steps + 1):
            if not torch.isfinite(sample_losses(f, y, loss).sum()):
                diverged = step
                break
            if step in recorded:
                path.append(f)
                duals.append(dual)
            if step < steps:
                velocity = beta * velocity + output_gradient(f, y, loss)
                dual = dual - rate * velocity
                f = f - rate * apply(kernel, velocity, len(f))
                bar.advance()
    made = recorded[: len(path)]
    return Descent(made, torch.stack(path), torch.stack(duals), diverged=diverged, **fixed)
