"""Kernel regression with the target NTK of many samples, and what training would change.

The solution of (Θ + R) α = r by preconditioned conjugate gradients, without the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrviz._checks import Array
from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz.errors import InputError
from mrviz.ntk.operator import NTKOperator
from mrviz.ntk.solve import Nystrom, conjugate_gradients, nystrom
from mrviz.targets.options import as_count
from mrviz.theory.residuals import output_columns

PRECONDITIONER_RANK = 100
"""Default rank of the Nyström preconditioner, at most a tenth of the order."""


@dataclass(frozen=True, eq=False)
class KernelRegression:
    """Coefficients α with (Θ + R) α = y, and how well they solve it.

    Attributes:
        coefficients: α, (n, C), or (n, 1) for the kernel of a single class.
        ridge: R.
        residual: ‖y − (Θ + R) α‖ / ‖y‖, computed from α.
        tol: the residual asked for.
        converged: whether it was reached.
        iterations: conjugate gradient steps.
        rank: eigenvalues in the preconditioner.
        notes: what should be known before the result is used.
        operator: Θ.
    """

    coefficients: Tensor
    ridge: float
    residual: float
    tol: float
    converged: bool
    iterations: int
    rank: int
    notes: tuple[str, ...] = ()
    operator: NTKOperator = field(repr=False, kw_only=True)

    def predict_change(
        self,
        x: Array,
        *,
        progress: ProgressCallback | bool | None = None,
        cancel: CancelFlag | None = None,
    ) -> Tensor:
        """Θ(x, X) α: what training to convergence adds to the outputs, f_∞(x) − f_0(x).

        Args:
            x: target inputs (m, *target_shape).
            progress: as in :func:`~mrviz.ntk.operator.ntk_operator`.
            cancel: as in :func:`~mrviz.ntk.operator.ntk_operator`.

        Returns:
            Shape (m, C), or (m, 1) for the kernel of a single class, float64.
        """
        cross = self.operator.cross(x, progress=progress, cancel=cancel)
        columns = 1 if self.operator.reduce == "full" else self.coefficients.shape[1]
        change: Tensor = cross @ self.coefficients.reshape(-1, columns)
        return change.reshape(cross.n, -1)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the coefficients, as plain values."""
        return {
            "ridge": self.ridge,
            "residual": self.residual,
            "tol": self.tol,
            "converged": self.converged,
            "iterations": self.iterations,
            "rank": self.rank,
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        n, columns = self.coefficients.shape
        state = "converged" if self.converged else "NOT converged"
        return (
            f"KernelRegression({n}×{columns}, ridge={self.ridge:.3g}, {state}: residual "
            f"{self.residual:.1e} after {self.iterations} iterations)"
        )

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in self.to_dict().items())
        return f"<table><caption>Kernel regression</caption>{rows}</table>"


def kernel_regression(
    operator: NTKOperator,
    y: Array,
    *,
    ridge: float,
    tol: float = 1e-8,
    max_iter: int = 1000,
    preconditioner_rank: int | None = None,
    seed: int = 0,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> KernelRegression:
    """Solves (Θ + ridge·I) α = y by conjugate gradients with a Nyström preconditioner.

    With y the residual r = Y − f_0(X), f_0(x) + Θ(x, X) α is what gradient flow on the linearised
    squared loss with that ridge converges to (docs/theory.md, section 5). The preconditioner is
    that of Frangella, Tropp & Udell 2023 (arXiv 2110.02820); with a rank of at least twice the
    effective dimension tr Θ(Θ + R)⁻¹ the number of iterations does not depend on Θ. The full
    kernel acts on all n·C values at once, the trace kernel and the pseudo-NTK on each of the C
    columns alike, the kernel of a class on that class's column.

    Args:
        operator: Θ, from :func:`~mrviz.ntk.operator.ntk_operator`.
        y: (n, C).
        ridge: R, at least zero, in units of Θ (its mean eigenvalue is ``operator.trace() / N``).
        tol: relative residual to reach.
        max_iter: most iterations.
        preconditioner_rank: products spent on the preconditioner; 0 for none; default: 100, or a
            tenth of the order where that is less.
        seed: of the preconditioner.
        progress: callback (done, total, label), where the total is an upper bound.
        cancel: flag with ``is_set()``, checked between passes.

    Returns:
        The coefficients. Where the residual was not reached, ``converged`` is false and a note
        says so.

    Raises:
        InputError: y, ridge, tol or rank do not fit.
        Cancelled: ``cancel`` was set.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))
        >>> program = mrviz.programs.Linear((1, 2, 2), (1, 2, 2))
        >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
        >>> theta = mrviz.ntk_operator(model, torch.rand(6, 1, 2, 2))
        >>> fit = mrviz.kernel_regression(theta, torch.eye(6)[:, :2], ridge=0.1)
        >>> fit.converged, fit.predict_change(torch.rand(3, 1, 2, 2)).shape
        (True, torch.Size([3, 2]))
    """
    columns = _columns(operator, y)
    order = operator.shape[0]
    if not (ridge >= 0 and ridge < float("inf")):
        raise InputError(f"ridge must be zero or a positive number, got {ridge}")
    if tol <= 0:
        raise InputError(f"tol must be positive, got {tol}")
    rank = min(PRECONDITIONER_RANK, order // 10)
    if preconditioner_rank is not None:
        rank = as_count(preconditioner_rank, "preconditioner_rank", 0)
    max_iter = as_count(max_iter, "max_iter", 1)
    with Progress(max_iter, "conjugate gradients", progress, cancel) as bar:
        approximation = nystrom(operator, rank, seed, lambda: bar.advance(0))
        solution = conjugate_gradients(
            operator, columns, ridge, approximation, tol=tol, max_iter=max_iter, bar=bar
        )
    converged = solution.residual <= tol
    notes = _warnings(operator, ridge, columns, approximation)
    if not converged:
        notes.append(
            f"not converged: residual {solution.residual:.1e} instead of {tol:.1e} after "
            f"{solution.iterations} iterations; pass a larger ridge, max_iter or "
            "preconditioner_rank"
        )
    return KernelRegression(
        coefficients=solution.x.reshape(operator.n, -1),
        ridge=float(ridge),
        residual=solution.residual,
        tol=tol,
        converged=converged,
        iterations=solution.iterations,
        rank=len(approximation.values),
        notes=tuple(notes),
        operator=operator,
    )


def _columns(operator: NTKOperator, y: Array) -> Tensor:
    """Y as the columns that the operator acts on, (N, m)."""
    given = y if isinstance(y, Tensor) else torch.as_tensor(np.asarray(y))
    values = given.detach().to(operator.device, torch.float64)
    if values.shape != (operator.n, operator.outputs):
        raise InputError(
            f"y has shape {tuple(values.shape)}, the operator is of {operator.n} samples and "
            f"{operator.outputs} outputs"
        )
    if not bool(torch.isfinite(values).all()):
        raise InputError("y holds NaN or infinite values")
    return output_columns(values, operator.reduce)


def _warnings(
    operator: NTKOperator, ridge: float, columns: Tensor, approximation: Nystrom
) -> list[str]:
    """What the ridge leaves undetermined."""
    order = operator.shape[0]
    if ridge == 0 and operator.n_parameters < order:
        return [
            f"Θ is singular: its rank is at most p = {operator.n_parameters}, less than its "
            f"order {order}; without a ridge only y in its range can be fitted"
        ]
    if len(approximation.values):
        largest = float(approximation.values[0])
    else:
        largest = float(
            (operator.apply(columns).norm(dim=0) / columns.norm(dim=0)).nan_to_num().max()
        )
    floor = order * operator.epsilon * largest  # λ_max from below, so that the note is never wrong
    if ridge < floor:
        return [
            f"ridge={ridge:.2g} is below the noise floor {floor:.2g} of Θ: components of α in "
            "eigenspaces below it are round-off"
        ]
    return []
