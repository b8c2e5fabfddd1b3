"""What iterative methods need of a symmetric operator, and a matrix in memory as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from mrviz._checks import Array
from mrviz.errors import InputError
from mrviz.ntk.factors import Tick
from mrviz.ntk.gram import Gram

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


@runtime_checkable
class SymmetricOperator(Protocol):
    """A symmetric positive semi-definite operator Θ of order N that is known by its products."""

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""

    @property
    def device(self) -> torch.device:
        """Where products are computed."""

    @property
    def epsilon(self) -> float:
        """Unit round-off of the least precise step behind Θ; sets the noise floor."""

    @property
    def round_off(self) -> float:
        """Relative round-off of one product; smaller where Θ itself is what is imprecise."""

    def apply(self, v: Tensor, tick: Tick | None = None) -> Tensor:
        """Θ v for v (N, k), float64, on ``device``; ``tick`` is called between passes."""

    def dual(self, tick: Tick | None = None) -> Tensor | None:
        """JᵀJ, float64, where Θ = J Jᵀ with fewer columns than rows and few enough; or ``None``."""

    def lift(self, w: Tensor, tick: Tick | None = None) -> Tensor:
        """J w for w (columns of J, k), which turns eigenvectors of the dual into those of Θ."""


class MatrixOperator:
    """A symmetric matrix in memory, such as that of a Gram, as an operator.

    Args:
        matrix: (N, N).
        epsilon: unit round-off behind it; default: that of its dtype.
        factor: J with matrix = J Jᵀ and fewer columns than rows, where it is known.

    Raises:
        InputError: not square, not symmetric, or not finite.
    """

    def __init__(
        self, matrix: Tensor, epsilon: float | None = None, factor: Tensor | None = None
    ) -> None:
        exact = not matrix.is_floating_point()
        self.epsilon = epsilon or torch.finfo(torch.float64 if exact else matrix.dtype).eps / 2
        self.round_off = torch.finfo(torch.float64).eps / 2
        self._matrix, self._factor = matrix.detach().double(), factor
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
            raise InputError(f"a square matrix is expected, got shape {tuple(matrix.shape)}")
        if not torch.isfinite(self._matrix).all():
            raise InputError("the matrix holds NaN or infinite values")
        error = float((self._matrix - self._matrix.T).abs().max())
        if error > 1e-6 * float(self._matrix.abs().max()):
            raise InputError("the matrix is not symmetric")

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""
        return len(self._matrix), len(self._matrix)

    @property
    def device(self) -> torch.device:
        """Where the matrix is."""
        return self._matrix.device

    def apply(self, v: Tensor, tick: Tick | None = None) -> Tensor:
        """Θ v."""
        if tick is not None:
            tick()
        return self._matrix @ v

    def dual(self, tick: Tick | None = None) -> Tensor | None:
        """JᵀJ where J was given."""
        return None if self._factor is None else self._factor.T @ self._factor

    def lift(self, w: Tensor, tick: Tick | None = None) -> Tensor:
        """J w."""
        if self._factor is None:
            raise InputError("no factor of the matrix is known")
        return self._factor @ w


def as_operator(operator: SymmetricOperator | Gram | Array) -> SymmetricOperator:
    """An operator as it is; a symmetric Gram, or any symmetric matrix, as one.

    Raises:
        InputError: a cross Gram, or a matrix that is not square, symmetric and finite.
    """
    if isinstance(operator, SymmetricOperator):
        return operator
    if isinstance(operator, Gram):
        if not operator.symmetric:
            raise InputError("a symmetric Gram is needed: compute it without x2")
        return MatrixOperator(operator.matrix, operator.info.epsilon, operator.factor)
    return MatrixOperator(torch.as_tensor(operator))


class _Applicable(Protocol):
    """A linear map, rectangular perhaps."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def device(self) -> torch.device: ...

    def apply(self, v: Tensor, tick: Tick | None = None) -> Tensor: ...


def multiply(operator: _Applicable, v: Any) -> Any:
    """``operator @ v`` for tensors and arrays (N,) or (N, k); arrays give arrays.

    Raises:
        InputError: another shape, or complex numbers.
    """
    columns = v if isinstance(v, Tensor) else torch.as_tensor(np.asarray(v))
    order = operator.shape[1]
    if columns.ndim not in (1, 2) or columns.shape[0] != order:
        raise InputError(
            f"the operator multiplies vectors ({order},) and matrices ({order}, k), got shape "
            f"{tuple(columns.shape)}"
        )
    if columns.is_complex():
        raise InputError("the operator is real: multiply real and imaginary part on their own")
    columns = columns.detach().to(operator.device, torch.float64)
    result = operator.apply(columns.reshape(order, -1))
    result = result[:, 0] if columns.ndim == 1 else result
    return result if isinstance(v, Tensor) else result.cpu().numpy()


def scipy_operator(
    size: int,
    device: torch.device,
    product: Callable[[Tensor], Tensor],
) -> LinearOperator:
    """A symmetric map of tensors (size, k), float64, as a SciPy operator on arrays."""
    from scipy.sparse.linalg import LinearOperator

    def matmat(v: np.ndarray) -> np.ndarray:
        columns = torch.as_tensor(np.ascontiguousarray(v, dtype=np.float64), device=device)
        return product(columns.reshape(size, -1)).cpu().numpy()

    def matvec(v: np.ndarray) -> np.ndarray:
        return matmat(v).reshape(size)

    return LinearOperator(
        (size, size),
        matvec=matvec,
        rmatvec=matvec,
        matmat=matmat,
        rmatmat=matmat,
        dtype=np.float64,
    )
