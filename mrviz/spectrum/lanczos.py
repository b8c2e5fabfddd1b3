"""Some eigenvalues of an operator too large for a dense decomposition, each with its residual.

The iterations are SciPy's: ARPACK for the largest eigenvalues, LOBPCG for the smallest.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from mrviz._checks import Array
from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz.errors import InputError, MrvizError
from mrviz.ntk import Gram
from mrviz.ntk.solve import gaussian, nystrom
from mrviz.ntk.symmetric import SymmetricOperator, as_operator, scipy_operator
from mrviz.spectrum.extremes import ExtremeEigenvalues
from mrviz.targets.options import as_choice, as_count

WHICH = ("largest", "smallest")

DENSE = 2000
"""Order up to which the smallest eigenvalues are read off a dense decomposition, as that needs
fewer products than the iteration."""

GUARD = 10
"""Vectors that LOBPCG iterates beyond those asked for, which speeds up the last ones."""

PRECONDITIONER_RANK = 200
"""Rank of the Nyström preconditioner of LOBPCG, at most a tenth of the order."""

POWER_STEPS = 5
"""Steps of the power method that give the size of λ_max."""


def extreme_eigenvalues(
    operator: SymmetricOperator | Gram | Array,
    k: int = 10,
    which: str = "largest",
    *,
    tol: float = 1e-8,
    max_iter: int = 300,
    seed: int = 0,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> ExtremeEigenvalues:
    """The k largest or smallest eigenvalues of Θ, from products with vectors.

    The largest come from ARPACK's implicitly restarted Lanczos iteration (Lehoucq, Sorensen &
    Yang 1998). "smallest" means the bottom of what is resolved. Where Θ = J Jᵀ with few columns,
    the dual JᵀJ is decomposed and gives the smallest eigenvalues above the noise floor exactly;
    where the order is small (at most 2,000), so does the matrix, written out. Otherwise LOBPCG
    (Knyazev 2001) with a Nyström preconditioner (Frangella, Tropp & Udell 2023) looks for the
    smallest eigenvalues of Θ; its values are upper bounds, so those at or below the floor are
    known not to be resolved even where they did not converge.

    Args:
        operator: an :class:`~mrviz.ntk.operator.NTKOperator`, a symmetric Gram, or any symmetric
            positive semi-definite matrix.
        k: how many, at most N.
        which: "largest" or "smallest".
        tol: residual ‖Θv − λv‖ / λ_max that counts as converged. What round-off in a product
            does not allow is not asked for, nor, of the smallest, a tenth of the floor.
        max_iter: restarts of ARPACK, or iterations of LOBPCG.
        seed: of the start vectors.
        progress: callback (done, total, label), where the total is an upper bound.
        cancel: flag with ``is_set()``, checked between passes.

    Returns:
        The eigenpairs found. What did not converge is flagged and noted, never left out silently.

    Raises:
        InputError: ``k`` or ``which`` is out of range, or a matrix does not fit.
        Cancelled: ``cancel`` was set.

    Example:
        >>> mrviz.extreme_eigenvalues(torch.diag(torch.arange(100.0)), k=2).eigenvalues
        tensor([99., 98.], dtype=torch.float64)
    """
    theta = as_operator(operator)
    k = as_count(k, "k", 1)
    if k > theta.shape[0]:
        raise InputError(f"k={k} is more than the {theta.shape[0]} eigenvalues there are")
    if tol <= 0:
        raise InputError(f"tol must be positive, got {tol}")
    which = as_choice(which, WHICH, "which")
    max_iter = as_count(max_iter, "max_iter", 1)
    with Progress(_most(theta.shape[0], k, which, max_iter), "products", progress, cancel) as bar:
        return _Search(theta, k, which, tol, max_iter, seed, bar).run()


def _most(order: int, k: int, which: str, max_iter: int) -> int:
    """An upper bound on the number of products, for the progress bar."""
    if which == "largest":
        return POWER_STEPS + max(2 * k + 1, 20) + max_iter * max(k + 1, 20 - k) + k
    return 2 * max_iter * (k + GUARD) + min(PRECONDITIONER_RANK, order // 10)


class _Search:
    """One call of :func:`extreme_eigenvalues`."""

    def __init__(
        self,
        theta: SymmetricOperator,
        k: int,
        which: str,
        tol: float,
        max_iter: int,
        seed: int,
        bar: Progress,
    ) -> None:
        self.theta, self.k, self.which = theta, k, which
        self.tol = max(tol, 32 * theta.round_off)
        self.max_iter, self.seed, self.bar = max_iter, seed, bar
        self.order = theta.shape[0]
        self.matvecs = 0
        self.notes: list[str] = []

    def run(self) -> ExtremeEigenvalues:
        if self.which == "largest":
            if self.order <= 5 * (self.k + GUARD):
                return self._dense()
            return self._top()
        dual = self.theta.dual(self._tick)
        if dual is not None:
            return self._dual(dual)
        if self.order <= max(5 * (self.k + GUARD), DENSE):
            return self._dense()
        return self._lobpcg()

    def _top(self) -> ExtremeEigenvalues:
        values, vectors = self._arpack(self.k, self.tol)
        if len(values) < self.k:
            self.notes.append(
                f"ARPACK found {len(values)} of {self.k} eigenvalues in {self.max_iter} "
                "restarts, perhaps not the largest: pass a larger max_iter"
            )
        largest = float(values[0]) if len(values) else self._power()
        return self._result("ARPACK", vectors, largest)

    def _dense(self) -> ExtremeEigenvalues:
        """Everything, by writing the matrix out."""
        unit = torch.eye(self.order, dtype=torch.float64, device=self.theta.device)
        matrix = self._apply(unit)
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        if self.which == "largest":
            return self._result("dense", vectors.flip(1)[:, : self.k], float(values[-1]))
        return self._bottom("dense", values, vectors)

    def _dual(self, dual: Tensor) -> ExtremeEigenvalues:
        values, right = torch.linalg.eigh((dual + dual.T) / 2)
        above = values > self._floor(float(values[-1]))
        lifted = self.theta.lift(right[:, above][:, : self.k], self._tick)
        return self._bottom("dual", values, lifted / lifted.norm(dim=0), lifted=True)

    def _bottom(
        self, method: str, values: Tensor, vectors: Tensor, lifted: bool = False
    ) -> ExtremeEigenvalues:
        """The smallest resolved ones of all eigenvalues, ascending."""
        largest = float(values[-1])
        above = values > self._floor(largest)
        below = self.order - int(above.sum())
        chosen = vectors if lifted else vectors[:, above][:, : self.k]
        if chosen.shape[1] < self.k:
            self.notes.append(f"only {chosen.shape[1]} eigenvalues are resolved")
        return self._result(method, chosen, largest, below)

    def _lobpcg(self) -> ExtremeEigenvalues:
        from scipy.sparse.linalg import lobpcg

        values, _ = self._arpack(1, 1e-3)
        largest = float(values[0]) if len(values) else self._power()
        rank = min(PRECONDITIONER_RANK, self.order // 10)
        approximation = nystrom(self.theta, rank, self.seed, self._tick)
        self._count(rank)
        self.tol = max(self.tol, self.order * self.theta.epsilon / 10)
        with warnings.catch_warnings():  # non-convergence is told by the residuals
            warnings.simplefilter("ignore", UserWarning)
            _, found = lobpcg(
                scipy_operator(self.order, self.theta.device, self._apply),
                self._start(self.k + GUARD),
                M=scipy_operator(
                    self.order, self.theta.device, lambda v: approximation.precondition(v, 0.0)
                ),
                tol=self.tol * largest,
                maxiter=self.max_iter,
                largest=False,
            )
        vectors = torch.as_tensor(found[:, : self.k], device=self.theta.device)
        return self._result("LOBPCG", vectors, largest)

    def _arpack(self, k: int, tol: float) -> tuple[Tensor, Tensor]:
        """The largest eigenpairs that converged, descending.

        ARPACK's tolerance is relative to each eigenvalue, which zero ones never reach, so Θ is
        shifted by about λ_max: the iteration is the same and the tolerance relative to λ_max.
        """
        from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigsh

        shift = self._power() or 1.0
        try:
            values, vectors = eigsh(
                scipy_operator(self.order, self.theta.device, lambda v: self._apply(v) + shift * v),
                k,
                which="LA",
                v0=self._start(1)[:, 0],
                tol=tol / 4,
                maxiter=self.max_iter,
            )
        except ArpackNoConvergence as partial:
            values, vectors = partial.eigenvalues, partial.eigenvectors
        except ArpackError as error:
            raise MrvizError(f"the eigenvalues could not be computed: {error}") from error
        descending = values.argsort()[::-1].copy()
        return (
            torch.as_tensor(values[descending] - shift),
            torch.as_tensor(vectors[:, descending], device=self.theta.device),
        )

    def _power(self) -> float:
        """λ_max from below, by a few steps of the power method."""
        v = torch.as_tensor(self._start(1), device=self.theta.device)
        norm = 0.0
        for _ in range(POWER_STEPS):
            v = self._apply(v / v.norm())
            norm = float(v.norm())
            if norm == 0:
                break
        return norm

    def _result(
        self, method: str, vectors: Tensor, largest: float, below: int | None = None
    ) -> ExtremeEigenvalues:
        """Ritz pairs of the vectors, with residuals from a product of their own."""
        values, vectors, residuals = self._rayleigh_ritz(vectors)
        largest = max(largest, float(values[0]) if len(values) else 0.0)
        residuals = residuals / largest if largest > 0 else residuals
        converged = residuals <= self.tol
        if not converged.all():
            self.notes.append(
                f"{int((~converged).sum())} of {len(values)} eigenvalues did not converge to "
                f"{self.tol:.1e} in {self.max_iter} iterations: pass a larger max_iter or tol"
            )
        floor = self._floor(largest)
        return ExtremeEigenvalues(
            which=self.which,
            order=self.order,
            asked=self.k,
            eigenvalues=values,
            eigenvectors=vectors,
            residuals=residuals,
            converged=converged,
            resolved=values - residuals * largest > floor,
            largest=largest,
            floor=floor,
            epsilon=self.theta.epsilon,
            below=below,
            method=method,
            matvecs=self.matvecs,
            notes=tuple(self.notes),
        )

    def _rayleigh_ritz(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenpairs of Θ in the span of the vectors, descending, and ‖Θv − λv‖."""
        if vectors.shape[1] == 0:
            return vectors.new_zeros(0), vectors, vectors.new_zeros(0)
        basis, _ = torch.linalg.qr(vectors)
        image = self._apply(basis)
        inner = basis.T @ image
        values, turn = torch.linalg.eigh((inner + inner.T) / 2)
        values, turn = values.flip(0), turn.flip(1)
        vectors = basis @ turn
        return values, vectors, (image @ turn - vectors * values).norm(dim=0)

    def _floor(self, largest: float) -> float:
        return self.order * self.theta.epsilon * max(largest, 0.0)

    def _apply(self, v: Tensor) -> Tensor:
        result = self.theta.apply(v, self._tick)
        self._count(v.shape[1])
        return result

    def _count(self, products: int) -> None:
        self.matvecs += products
        self.bar.advance(products)

    def _tick(self) -> None:
        self.bar.advance(0)

    def _start(self, columns: int) -> np.ndarray:
        return gaussian(self.order, columns, self.seed + 1).numpy()
