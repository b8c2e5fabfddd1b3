"""All eigenvalues of a Gram that fits in memory, by a checked dense decomposition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mrviz._checks import Array
from mrviz._memory import available_bytes, readable
from mrviz.errors import InputError, MrvizError, ResourceError
from mrviz.ntk import Gram


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of a symmetric positive semi-definite matrix of order N, in float64.

    Attributes:
        eigenvalues: descending, (N,); negative ones are round-off and are kept as they are.
        eigenvectors: columns in the same order, (N, N), or ``None`` if they were not kept.
        floor: noise floor; eigenvalues at or below it are not resolved (docs/theory.md,
            section 6): N·ε·λ_max, or the largest eigenpair residual where that is larger.
        epsilon: unit round-off of the least precise step behind the matrix.
        residual: max_k ‖Θv_k − λ_k v_k‖ / λ_max; without eigenvectors, by how much the first two
            moments of the eigenvalues miss tr Θ and ‖Θ‖²_F, relative to λ_max and λ_max².
        device: where the decomposition in use was computed.
        dual: whether it is that of the smaller JᵀJ, so that all but its eigenvalues are zero.
        notes: what had to be done differently than planned.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor | None
    floor: float
    epsilon: float
    residual: float
    device: str
    dual: bool = False
    notes: tuple[str, ...] = ()

    @property
    def order(self) -> int:
        """N, the number of eigenvalues."""
        return len(self.eigenvalues)

    @property
    def largest(self) -> float:
        """λ_max."""
        return float(self.eigenvalues[0])

    @property
    def smallest(self) -> float:
        """λ_min as computed; says nothing where it is at or below the floor."""
        return float(self.eigenvalues[-1])

    @property
    def resolved(self) -> Tensor:
        """Boolean (N,): eigenvalues above the floor."""
        return self.eigenvalues > self.floor

    @property
    def full_rank(self) -> bool:
        """Whether every eigenvalue is resolved, so that λ_min > 0 is established."""
        return self.rank == self.order

    @property
    def rank(self) -> int:
        """Number of resolved eigenvalues."""
        return int(self.resolved.sum())

    @property
    def effective_rank(self) -> float:
        """Exp of the entropy of the normalised resolved eigenvalues (Roy & Vetterli 2007)."""
        weights = self.eigenvalues[self.resolved]
        if len(weights) == 0:
            return 0.0
        weights = weights / weights.sum()
        return float(torch.exp(-(weights * weights.log()).sum()))

    @property
    def condition_number(self) -> float:
        """λ_max over the smallest resolved eigenvalue; NaN where none is resolved."""
        rank = self.rank
        return self.largest / float(self.eigenvalues[rank - 1]) if rank else float("nan")

    @property
    def trace(self) -> float:
        """Sum of the eigenvalues."""
        return float(self.eigenvalues.sum())

    @property
    def psd_error(self) -> float:
        """Size of the most negative eigenvalue relative to the largest size of any; or zero."""
        return -self.smallest / max(self.largest, -self.smallest) if self.smallest < 0 else 0.0

    @property
    def n_negative(self) -> int:
        """How many eigenvalues came out negative."""
        return int((self.eigenvalues < 0).sum())

    def to_dict(self) -> dict[str, Any]:
        """Statistics and eigenvalues as plain values; what is not resolved is ``None``."""
        return {
            "order": self.order,
            "rank": self.rank,
            "effective_rank": self.effective_rank,
            "condition_number": self.condition_number if self.rank else None,
            "largest": self.largest,
            "smallest": self.smallest if self.full_rank else None,
            "floor": self.floor,
            "epsilon": self.epsilon,
            "trace": self.trace,
            "psd_error": self.psd_error,
            "n_negative": self.n_negative,
            "residual": self.residual,
            "device": self.device,
            "dual": self.dual,
            "notes": list(self.notes),
            "eigenvalues": self.eigenvalues.tolist(),
        }

    def describe_smallest(self) -> str:
        """λ_min in words that do not claim more than was resolved."""
        if self.full_rank:
            return f"{self.smallest:.3g}"
        return f"not resolved (below {self.floor:.2g})"

    def __repr__(self) -> str:
        return (
            f"Spectrum(order={self.order}, rank={self.rank}, "
            f"effective_rank={self.effective_rank:.1f}, largest={self.largest:.4g}, "
            f"smallest={self.describe_smallest()}, "
            f"condition_number={self.condition_number:.3g})"
        )

    def _repr_html_(self) -> str:
        values = {k: v for k, v in self.to_dict().items() if k not in ("eigenvalues", "notes")}
        values["smallest"] = self.describe_smallest()
        rows = "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in values.items())
        return f"<table><caption>Spectrum</caption>{rows}</table>"


def spectrum(
    gram: Gram | Array, *, epsilon: float | None = None, eigenvectors: bool = True
) -> Spectrum:
    """Eigen-decomposition of a Gram, checked.

    Where the Gram carries a factor J with fewer columns p than rows, the dual p × p matrix JᵀJ
    is decomposed instead: it has the same non-zero eigenvalues, and the others are exactly zero
    (docs/theory.md, section 2). The residual of every eigenpair is computed; where one exceeds
    the noise floor, or the decomposition fails, it is repeated on the CPU, and the result says so.

    Args:
        gram: a symmetric :class:`~mrviz.ntk.Gram`, or any symmetric matrix (N, N).
        epsilon: unit round-off behind a plain matrix; default: that of its dtype. A Gram
            brings its own.
        eigenvectors: whether to keep them.

    Raises:
        InputError: the matrix is not square, not symmetric, or not finite.
        ResourceError: the decomposition does not fit into memory.
        MrvizError: the decomposition failed on every device.

    Example:
        >>> mrviz.spectrum(torch.diag(torch.tensor([4.0, 1.0, 0.0]))).rank
        2
    """
    if isinstance(gram, Gram):
        if not gram.symmetric:
            raise InputError("the spectrum needs a symmetric Gram: compute it without x2")
        if epsilon is not None:
            raise InputError("epsilon applies to plain matrices: a Gram brings its own")
        matrix, unit, factor = gram.matrix, gram.info.epsilon, gram.factor
    else:
        factor = None
        given = torch.as_tensor(gram)
        matrix = given.detach().double()
        exact = not given.is_floating_point()
        unit = epsilon or torch.finfo(torch.float64 if exact else given.dtype).eps / 2
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
        raise InputError(f"a spectrum needs a square matrix, got shape {tuple(matrix.shape)}")
    if not torch.isfinite(matrix).all():
        raise InputError("the matrix holds NaN or infinite values")
    if float((matrix - matrix.T).abs().max()) > 1e-6 * float(matrix.abs().max()):
        raise InputError("the matrix is not symmetric: spectra are defined for symmetric Grams")

    free, needed = available_bytes(matrix.device), 4 * 8 * len(matrix) ** 2
    if free is not None and needed > free:
        raise ResourceError(
            f"the eigenvalues of a matrix of order {len(matrix):,} need about {readable(needed)}, "
            f"but {matrix.device} has {readable(free)} free: an order up to "
            f"{int((free / 32) ** 0.5):,} fits"
        )
    notes: list[str] = []
    allowed = len(matrix) * max(unit, torch.finfo(torch.float64).eps)
    if factor is None:
        values, vectors, residual = _decompose(matrix, notes, eigenvectors)
    else:
        values, vectors, residual = _decompose_dual(matrix, factor, notes)
    if residual > allowed and matrix.device.type != "cpu":
        notes.append(f"residual {residual:.1e} on {matrix.device}: repeated on the CPU")
        matrix, factor = matrix.cpu(), None
        values, vectors, residual = _decompose(matrix, notes)
    if residual == float("inf"):
        raise MrvizError(f"the eigenvalues could not be computed: {'; '.join(notes)}")

    values = values.flip(0)
    largest = max(float(values[0]), 0.0)
    return Spectrum(
        eigenvalues=values,
        eigenvectors=vectors.flip(1) if eigenvectors and vectors is not None else None,
        floor=max(len(matrix) * unit, residual) * largest,
        epsilon=unit,
        residual=residual,
        device=str(matrix.device),
        dual=factor is not None,
        notes=tuple(notes),
    )


def _decompose(
    matrix: Tensor, notes: list[str], eigenvectors: bool = True
) -> tuple[Tensor, Tensor | None, float]:
    """Eigenvalues, eigenvectors and the residual; a residual of infinity where it failed."""
    try:
        if not eigenvectors:
            values = _eigenvalues(matrix)
            if (residual := _moment_error(matrix, values)) <= len(matrix) * 1e-15:
                return values, None, residual
        values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError as error:
        notes.append(f"eigh failed on {matrix.device}: {error}")
        return matrix.new_zeros(len(matrix)), None, float("inf")
    return values, vectors, _residual(matrix, values, vectors)


def _eigenvalues(matrix: Tensor) -> Tensor:
    """Eigenvalues, ascending."""
    if matrix.device.type != "cpu":
        return torch.linalg.eigvalsh(matrix)
    from scipy.linalg import LinAlgError, eigh

    # With threads that wait asleep (mrviz/__init__.py), torch spends more time on waking them
    # for each of N matrix-vector products than on the products.
    try:
        values = eigh(matrix.numpy(), eigvals_only=True, driver="ev", check_finite=False)
    except LinAlgError as error:
        raise torch.linalg.LinAlgError(str(error)) from error
    return torch.from_numpy(values)


def _moment_error(matrix: Tensor, values: Tensor) -> float:
    """How far the sums of λ and λ² are from tr Θ and ‖Θ‖²_F, a mean over eigenvalues."""
    scale = float(values.abs().max())
    if scale == 0:
        return float(matrix.abs().max())
    first = abs(float(values.sum() - matrix.trace())) / scale
    second = abs(float(values.square().sum() - matrix.square().sum())) / scale**2
    error = max(first, second) / len(values)
    return error if error == error else float("inf")


def _decompose_dual(
    matrix: Tensor, factor: Tensor, notes: list[str]
) -> tuple[Tensor, Tensor | None, float]:
    """As :func:`_decompose` for matrix = J Jᵀ, by the smaller JᵀJ.

    Left singular vectors come from a QR decomposition of J times the eigenvectors, which also
    completes them to a basis.
    """
    values, right, _ = _decompose(factor.T @ factor, notes)
    if right is None:
        return _decompose(matrix, notes)
    order, rank = factor.shape
    vectors, _ = torch.linalg.qr(factor @ right.flip(1), mode="complete")
    every = matrix.new_zeros(order)
    every[order - rank :] = values
    vectors = vectors.roll(order - rank, 1)
    vectors[:, order - rank :] = vectors[:, order - rank :].flip(1)
    return every, vectors, _residual(matrix, every, vectors)


def _residual(matrix: Tensor, values: Tensor, vectors: Tensor) -> float:
    """Largest ‖Θv − λv‖ relative to the largest eigenvalue; infinite if anything is not finite.

    Counts vectors that are not of unit length as errors too: some back ends return zeros.
    """
    scale = max(float(values.abs().max()), float(matrix.abs().max()))
    if scale == 0:
        return 0.0
    error = (matrix @ vectors - vectors * values).norm(dim=0).max() / scale
    error = torch.maximum(error, (vectors.norm(dim=0) - 1).abs().max())
    return float(error) if torch.isfinite(error) else float("inf")
