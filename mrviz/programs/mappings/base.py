"""What an output mapping is, and those that need no data: identity, a matrix, a linear head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mrviz._checks import Array
from mrviz.errors import InputError


class Mapping:
    """An output mapping b, from source outputs to target outputs (docs/theory.md, section 1).

    Most are linear: f = b f_S(u) with a matrix b of shape (C, c_S). Subclasses give
    :meth:`matrix`, and :meth:`layer` where they act on probabilities.
    """

    label: str
    acts_on: str = "logits"
    """What the matrix weighs: "logits", so that f = b f_S(u), or "probabilities"."""
    trainable = False
    """Whether training moves the matrix, so that it has a part in the tangent kernel."""
    bias = False
    """Whether a trainable vector (C) is added."""
    refreshes = False
    """Whether training fits it anew to the program of the moment, by ``refresh``."""

    @property
    def linear(self) -> bool:
        """Whether f = b f_S(u) with a matrix b, so that the kernel changes linearly with it."""
        return self.acts_on == "logits"

    def matrix(self, n_source: int) -> Tensor:
        """How much each source output counts for each target class, float64, (C, n_source)."""
        raise InputError(f"mapping {type(self).__name__} has no matrix")

    def layer(self, n_source: int) -> nn.Module:
        """The mapping as a layer, float64, that starts at the matrix and at zero bias.

        It has ``out_features`` = C and ``weight`` (C, n_source).
        """
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
        enough_outputs(n_source, c)
        return torch.eye(n_source, dtype=torch.float64)[:c]


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

    @property
    def values(self) -> Tensor:
        """The matrix given, (C, c_S), whatever the source."""
        return self._matrix

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

    label = "linear probe (trainable)"
    trainable = True

    def __init__(self, start: Mapping | Array, *, bias: bool = True) -> None:
        self.start = as_mapping(start)
        if not self.start.linear:
            raise InputError(
                f"a linear head weighs logits, but mapping {self.start.label!r} averages "
                "probabilities: start from another mapping, such as LogitAverage"
            )
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


def enough_outputs(n_source: int, n_classes: int) -> None:
    """Raises ``InputError`` where classes cannot have a source output of their own."""
    if n_classes > n_source:
        raise InputError(
            f"the source has {n_source} outputs, too few for {n_classes} target classes: choose "
            "a source with more outputs, an explicit mapping matrix, or one that is not one to "
            "one, such as mapping='bayesian', or for real values 'linear_probe' with "
            "start='uniform'"
        )
