"""Output mappings b: linear maps from source outputs to target classes, fixed or trainable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mrviz._checks import Array, as_labels
from mrviz.errors import InputError


class Mapping:
    """A linear output mapping b, a matrix of shape (C, c_S).

    Subclasses give :meth:`matrix`.
    """

    label: str
    trainable = False
    """Whether training moves the matrix, so that it has a part in the tangent kernel."""
    bias = False
    """Whether a trainable vector (C) is added."""

    def matrix(self, n_source: int) -> Tensor:
        """The matrix b, float64, shape (C, n_source), for a source with that many outputs."""
        raise InputError(f"mapping {type(self).__name__} has no matrix")

    def layer(self, n_source: int) -> nn.Linear:
        """The mapping as a layer, float64, that starts at the matrix and at zero bias."""
        matrix = self.matrix(n_source)
        layer = nn.utils.skip_init(
            nn.Linear, n_source, len(matrix), bias=self.bias, dtype=torch.float64
        )
        with torch.no_grad():
            layer.weight.copy_(matrix)
            if self.bias:
                layer.bias.zero_()
        return layer.requires_grad_(self.trainable)


@dataclass(frozen=True)
class Identity(Mapping):
    """The first C source outputs are the target outputs; all of them where C is not given.

    Attributes:
        n_classes: C.
    """

    n_classes: int | None = None
    label = "identity (first C)"

    def matrix(self, n_source: int) -> Tensor:
        """The first C rows of the identity, shape (C, n_source)."""
        c = n_source if self.n_classes is None else self.n_classes
        _enough_outputs(n_source, c)
        return torch.eye(n_source, dtype=torch.float64)[:c]


@dataclass(frozen=True)
class Frequency(Mapping):
    """Frequency label mapping: each target class gets a source output of its own.

    Greedy on counts: the pair (target class, source output) that occurs most often is fixed
    first, its row and column are marked −1 as used, and so on (Tsai et al. 2020,
    arXiv 2007.08714; Chen et al. 2023, arXiv 2211.11635).

    Attributes:
        assignment: source output of each target class.
    """

    assignment: tuple[int, ...]
    label = "frequency"

    def __post_init__(self) -> None:
        used = list(self.assignment)
        if not used or min(used) < 0 or len(set(used)) < len(used):
            raise InputError(
                f"a frequency mapping gives each class a source output of its own, got {used}"
            )

    @classmethod
    def fit(cls, logits: Tensor, y: Array, n_classes: int) -> Frequency:
        """Counts arg-max source outputs per target class and assigns greedily.

        Args:
            logits: source outputs (n, c_S) of the programmed training inputs.
            y: target labels (n).
            n_classes: C.

        Raises:
            InputError: fewer source outputs than classes, or labels outside the classes.
        """
        n_source = logits.shape[1]
        _enough_outputs(n_source, n_classes)
        labels = as_labels(y, "y", len(logits), n_classes).to(logits.device)
        predicted = logits.argmax(1)
        pairs = labels * n_source + predicted
        counts = torch.bincount(pairs, minlength=n_classes * n_source)
        return cls(cls.assign(counts.view(n_classes, n_source)))

    @staticmethod
    def assign(counts: Tensor) -> tuple[int, ...]:
        """Greedy one-to-one assignment on counts (C, c_S); ties go to the first pair."""
        counts = counts.detach().cpu().long().clone()
        n_classes, n_source = counts.shape
        _enough_outputs(n_source, n_classes)
        assignment = [0] * n_classes
        for _ in range(n_classes):
            t, s = divmod(int(counts.argmax()), n_source)
            assignment[t] = s
            counts[t, :] = -1
            counts[:, s] = -1
        return tuple(assignment)

    def matrix(self, n_source: int) -> Tensor:
        """Selection matrix (C, n_source)."""
        if max(self.assignment) >= n_source:
            raise InputError(
                f"the mapping uses source output {max(self.assignment)}, but the source has "
                f"{n_source} outputs: fit the mapping with this source"
            )
        return torch.eye(n_source, dtype=torch.float64)[list(self.assignment)]


class Matrix(Mapping):
    """An explicit matrix b.

    Args:
        matrix: shape (C, c_S), finite numbers.
    """

    label = "explicit matrix"

    def __init__(self, matrix: Array) -> None:
        try:
            self._matrix = torch.as_tensor(matrix, dtype=torch.float64).detach().cpu().clone()
        except (TypeError, ValueError, RuntimeError):
            raise InputError(
                f"a mapping matrix holds numbers of shape (C, c_S), got {type(matrix).__name__}"
            ) from None
        if self._matrix.ndim != 2:
            raise InputError(
                f"a mapping matrix has shape (C, c_S), got shape {tuple(self._matrix.shape)}"
            )
        if not torch.isfinite(self._matrix).all():
            raise InputError("a mapping matrix must be finite, this one has NaN or inf")

    def matrix(self, n_source: int) -> Tensor:
        """The matrix given, shape (C, n_source)."""
        if self._matrix.shape[1] != n_source:
            raise InputError(
                f"the mapping matrix has {self._matrix.shape[1]} columns, but the source has "
                f"{n_source} outputs"
            )
        return self._matrix

    def __repr__(self) -> str:
        return f"Matrix{tuple(self._matrix.shape)}"


class LinearHead(Mapping):
    """A trainable linear head: source outputs to target outputs by a matrix that training moves.

    Its parameters add (f_S(u_i)·f_S(u_j) + 1) I_C to the target NTK, with 1 only where there is
    a bias (docs/theory.md, section 2).

    Args:
        start: the mapping, or matrix (C, c_S), that training starts from.
        bias: whether there is a trainable bias, zero at the start.

    Example:
        >>> head = mrviz.mappings.LinearHead(mrviz.mappings.Identity(3))
        >>> head.matrix(5).shape
        torch.Size([3, 5])
    """

    label = "trainable linear head"
    trainable = True

    def __init__(self, start: Mapping | Array, *, bias: bool = True) -> None:
        self.start = as_mapping(start)
        self.bias = bias

    def matrix(self, n_source: int) -> Tensor:
        """The matrix that training starts from, shape (C, n_source)."""
        return self.start.matrix(n_source)

    def __repr__(self) -> str:
        return f"LinearHead({self.start!r}, bias={self.bias})"


def as_mapping(mapping: Any) -> Mapping:
    """A mapping as it is, or an array as an explicit matrix."""
    if isinstance(mapping, Mapping):
        return mapping
    if isinstance(mapping, str):
        raise InputError(
            f"mapping={mapping!r} needs data: use mrviz.reprogram(source, target, "
            f"mapping={mapping!r}), or pass mrviz.mappings.Identity() or Matrix(b)"
        )
    return Matrix(mapping)


def _enough_outputs(n_source: int, n_classes: int) -> None:
    if n_classes > n_source:
        raise InputError(
            f"the source has {n_source} outputs, too few for {n_classes} target classes: choose "
            "a source with more outputs or an explicit mapping matrix"
        )
