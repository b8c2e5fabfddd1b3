"""Linear systems (Θ + R) α = y with Θ as an operator: conjugate gradients, preconditioned.

SciPy's conjugate gradients are used as they are; all columns of y are one system with Θ + R in
each diagonal block, so that one product serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrviz._progress import Progress
from mrviz.errors import InputError
from mrviz.ntk.program_jacobian import Tick
from mrviz.ntk.symmetric import SymmetricOperator, scipy_operator


@dataclass(frozen=True, eq=False)
class Nystrom:
    """Randomized Nyström approximation U diag(λ) Uᵀ ⪯ Θ of rank r.

    Attributes:
        vectors: U, orthonormal columns, (N, r).
        values: λ, descending, (r,), positive; none is larger than the eigenvalue of Θ at its place.
    """

    vectors: Tensor
    values: Tensor

    def precondition(self, v: Tensor, ridge: float) -> Tensor:
        """P⁻¹ v for the preconditioner of Θ + ridge·I, up to a factor.

        P⁻¹ = (λ_r + R) U (diag(λ) + R)⁻¹ Uᵀ + I − U Uᵀ (Frangella, Tropp & Udell 2023,
        arXiv 2110.02820, equation 1.3); the identity at rank 0.
        """
        if len(self.values) == 0:
            return v
        shrunk = (self.values[-1] + ridge) / (self.values + ridge)
        inner = self.vectors.T @ v
        return v + self.vectors @ ((shrunk - 1)[:, None] * inner)


def nystrom(operator: SymmetricOperator, rank: int, seed: int, tick: Tick | None = None) -> Nystrom:
    """Randomized Nyström approximation from ``rank`` products with Θ.

    Algorithm 2.1 of Frangella, Tropp & Udell 2023 (arXiv 2110.02820): an orthonormal Gaussian
    test matrix, a shift of the size of the round-off that makes the square root of the core
    stable, and its removal from the eigenvalues. Eigenvalues no larger than the shift are left
    out, so that fewer than ``rank`` remain where Θ has a smaller rank.

    Args:
        operator: Θ, of order N.
        rank: r, at most N; 0 gives an empty approximation.
        seed: of the test matrix.
        tick: called between passes.
    """
    order, device = operator.shape[0], operator.device
    if not 0 <= rank <= order:
        raise InputError(f"the rank of a Nyström approximation must be 0 to {order}, got {rank}")
    if rank == 0:
        empty = torch.zeros(order, 0, dtype=torch.float64, device=device)
        return Nystrom(empty, empty.new_zeros(0))
    test, _ = torch.linalg.qr(gaussian(order, rank, seed).to(device))
    sketch = operator.apply(test, tick)
    shift = order**0.5 * operator.round_off * float(torch.linalg.matrix_norm(sketch, 2))
    if shift == 0:  # Θ is zero
        return Nystrom(test[:, :0], sketch.new_zeros(0))
    sketch += shift * test
    core = test.T @ sketch
    values, basis = torch.linalg.eigh((core + core.T) / 2)
    kept = values > shift / 2  # Θ + shift has none below the shift, but for round-off
    root = basis[:, kept] / values[kept].sqrt()
    vectors, singular, _ = torch.linalg.svd(sketch @ root, full_matrices=False)
    found = singular.square() - shift
    kept = found > shift
    return Nystrom(vectors[:, kept], found[kept])


def gaussian(rows: int, columns: int, seed: int) -> Tensor:
    """Standard normal numbers (rows, columns), float64, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Solution:
    """What conjugate gradients found.

    Attributes:
        x: (N, k).
        residual: ‖y − (Θ + R) x‖ / ‖y‖ in the Frobenius norm, computed from x.
        iterations: products with all k columns.
    """

    x: Tensor
    residual: float
    iterations: int


def conjugate_gradients(
    operator: SymmetricOperator,
    y: Tensor,
    ridge: float,
    approximation: Nystrom,
    *,
    tol: float,
    max_iter: int,
    bar: Progress,
) -> Solution:
    """Solves (Θ + ridge·I) x = y for all columns of y (N, k) at once.

    Args:
        operator: Θ.
        y: (N, k), float64, on the operator's device.
        ridge: R.
        approximation: what preconditions; of rank 0 for none.
        tol: relative residual to reach.
        max_iter: most iterations.
        bar: advances with every iteration.
    """
    rows, columns = y.shape
    steps = 0

    def system(v: Tensor) -> Tensor:
        v = v.view(rows, columns)
        return (operator.apply(v, lambda: bar.advance(0)) + ridge * v).view(-1, 1)

    def inverse(v: Tensor) -> Tensor:
        return approximation.precondition(v.view(rows, columns), ridge).view(-1, 1)

    def count(_: object) -> None:
        nonlocal steps
        steps += 1
        bar.advance()

    from scipy.sparse.linalg import cg

    found, _ = cg(
        scipy_operator(y.numel(), y.device, system),
        y.reshape(-1).cpu().numpy(),
        rtol=tol / 2,  # of the recursive residual, which drifts away from the true one
        atol=0.0,
        maxiter=max_iter,
        M=scipy_operator(y.numel(), y.device, inverse),
        callback=count,
    )
    x = torch.as_tensor(found, device=y.device).view(rows, columns)
    norm = float(y.norm())
    error = float((y - system(x).view(rows, columns)).norm())
    return Solution(x, error / norm if norm > 0 else error, steps)
