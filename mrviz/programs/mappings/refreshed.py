"""Mappings that training fits anew to the program of the moment: ILM, BLM and BLM+."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from mrviz._checks import Array, as_labels
from mrviz.errors import InputError
from mrviz.programs.mappings.base import Mapping, Matrix
from mrviz.programs.mappings.selection import Frequency, prediction_counts
from mrviz.targets.options import as_count

RATIO = 0.15
"""k of BLM+ over the number of target classes, the value of its authors."""


class Refreshed(Mapping):
    """A linear mapping that is computed from source outputs and labels, again and again.

    Belongs to one model: a :class:`~mrviz.ReprogrammedModel` takes a copy of it, and
    ``model.mapping.refresh(model.source(model.programmed(x)), y)`` changes that model. Training
    does so once an epoch. Between two calls the matrix is fixed, and the tangent kernel is that
    of the matrix as it is. Subclasses give :meth:`weigh`.

    Args:
        n_classes: C.
        matrix: the matrix (C, c_S) that an earlier fit found; default: none before the first
            :meth:`refresh`.
    """

    refreshes = True

    def __init__(self, n_classes: int, *, matrix: Array | None = None) -> None:
        self.n_classes = as_count(n_classes, "n_classes", 1)
        self._layer: nn.Module | None = None
        self._matrix: Tensor | None = None
        if matrix is not None:
            self._matrix = Matrix(matrix).values
            if len(self._matrix) != self.n_classes:
                raise InputError(
                    f"matrix has {len(self._matrix)} rows, but there are {self.n_classes} classes"
                )

    @classmethod
    def fit(cls, outputs: Tensor, y: Array, n_classes: int, **options: Any) -> Self:
        """A mapping refreshed once.

        Args:
            outputs: source outputs (n, c_S) of the programmed training inputs.
            y: target labels (n).
            n_classes: C.
            **options: those of the class.

        Raises:
            InputError: labels outside the classes, or options out of range.
        """
        mapping = cls(n_classes, **options)
        mapping.refresh(outputs, y)
        return mapping

    def weigh(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The matrix (C, c_S) for source outputs (n, c_S) and labels (n)."""
        raise NotImplementedError

    def refresh(self, outputs: Tensor, labels: Array) -> None:
        """Computes the matrix anew, also in the model that the mapping belongs to.

        Args:
            outputs: source outputs (n, c_S) at the current programmed inputs.
            labels: integer target labels (n,).

        Raises:
            InputError: labels outside the classes, or outputs of another source.
        """
        outputs = outputs.detach()
        y = as_labels(labels, "labels", len(outputs), self.n_classes).to(outputs.device)
        known = self._matrix
        if known is not None and known.shape[1] != outputs.shape[1]:
            raise InputError(
                f"the mapping was fitted to {known.shape[1]} source outputs, got "
                f"{outputs.shape[1]}: fit a new one to another source"
            )
        self._matrix = self.weigh(outputs, y).double().cpu()
        if self._layer is not None:
            with torch.no_grad():
                self._layer.weight.copy_(self._matrix)  # type: ignore[operator]

    def matrix(self, n_source: int) -> Tensor:
        """The matrix as it is now, (C, n_source)."""
        if self._matrix is None:
            raise InputError(
                f"mapping {self.label!r} has seen no data yet: call refresh(outputs, labels), or "
                "use fit"
            )
        if self._matrix.shape[1] != n_source:
            raise InputError(
                f"the mapping was fitted to {self._matrix.shape[1]} source outputs, but the "
                f"source has {n_source}: fit the mapping with this source"
            )
        return self._matrix

    def follow(self, layer: nn.Module) -> None:
        """Names the layer whose ``weight`` every later :meth:`refresh` changes too."""
        self._layer = layer

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n_classes={self.n_classes})"


class Iterative(Refreshed):
    """Iterative label mapping (ILM): the frequency mapping of the program as it is now.

    Before training it is the frequency mapping of the untrained program (Chen et al. 2023,
    arXiv 2211.11635).

    Args:
        n_classes: C.
        matrix: as in :class:`Refreshed`.
    """

    label = "iterative (ILM)"

    def weigh(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Selection matrix of the frequency mapping."""
        found = Frequency.fit(outputs, labels, self.n_classes)
        return found.matrix(outputs.shape[1])

    @property
    def assignment(self) -> tuple[int, ...]:
        """Source output of each target class, as it is now."""
        return () if self._matrix is None else tuple(self._matrix.argmax(1).tolist())


class Bayesian(Refreshed):
    """Bayesian-guided label mapping (BLM): all source outputs, weighed by how well they tell t.

    With d_ts how often samples of class t are predicted as s, ω_ts = d_ts / (Σ_t d_ts + λ),
    divided by its sum over s; b = ω acts on the logits (Cai et al. 2024, arXiv 2410.24018, and
    the authors' code, whose matrix is the transpose of this one). A source output that is never
    predicted has weight 0, whatever λ; a class without samples weighs all outputs alike.

    Args:
        n_classes: C.
        lam: λ ≥ 0, the Laplace smoothing; the authors' is 1.
        matrix: as in :class:`Refreshed`.

    Example:
        >>> outputs, y = torch.eye(3)[[0, 0, 1, 1]], torch.tensor([0, 0, 0, 1])
        >>> mrviz.mappings.Bayesian.fit(outputs, y, 2, lam=0).matrix(3)
        tensor([[0.6667, 0.3333, 0.0000],
                [0.0000, 1.0000, 0.0000]], dtype=torch.float64)
    """

    label = "Bayesian (BLM)"

    def __init__(self, n_classes: int, *, lam: float = 1.0, matrix: Array | None = None) -> None:
        super().__init__(n_classes, matrix=matrix)
        if not (math.isfinite(lam) and lam >= 0):
            raise InputError(f"lam must be a number of at least 0, got {lam}")
        self.lam = float(lam)

    def weigh(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """ω from counts."""
        return bayesian_weights(prediction_counts(outputs, labels, self.n_classes), self.lam)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n_classes={self.n_classes}, lam={self.lam:g})"


class BayesianPlus(Bayesian):
    """BLM+: as BLM, with the k largest probabilities of each sample added up instead of counts.

    d_ts = Σ over samples of class t of softmax(f_S(u))_s where it is one of the k largest, and
    k = ⌊ratio·C⌋, at least 1 and at most c_S (Cai et al. 2024, arXiv 2410.24018; the authors'
    code has no such guard and fails for few classes).

    Args:
        n_classes: C.
        lam: λ ≥ 0, the Laplace smoothing; the authors' is 1.
        ratio: k over C, positive; the authors' is 0.15.
        matrix: as in :class:`Refreshed`.
    """

    label = "Bayesian, top k (BLM+)"

    def __init__(
        self,
        n_classes: int,
        *,
        lam: float = 1.0,
        ratio: float = RATIO,
        matrix: Array | None = None,
    ) -> None:
        super().__init__(n_classes, lam=lam, matrix=matrix)
        if not (math.isfinite(ratio) and ratio > 0):
            raise InputError(f"ratio must be a positive number, got {ratio}")
        self.ratio = float(ratio)

    def top(self, n_source: int) -> int:
        """The number k for a source with that many outputs."""
        return min(n_source, max(1, math.floor(self.ratio * self.n_classes + 1e-9)))

    def weigh(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """ω from sums of the largest probabilities."""
        n_source = outputs.shape[1]
        values, places = outputs.double().softmax(1).topk(self.top(n_source), 1)
        kept = values.new_zeros(outputs.shape).scatter_(1, places, values)
        sums = kept.new_zeros(self.n_classes, n_source).index_add_(0, labels, kept)
        return bayesian_weights(sums, self.lam)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, ratio={self.ratio:g})"


def bayesian_weights(d: Tensor, lam: float) -> Tensor:
    """ω of Bayesian-guided label mapping, float64, rows that sum to one.

    Args:
        d: counts or sums of probabilities, (C, c_S): target class × source class.
        lam: λ, added to the sum over target classes.
    """
    d = d.double()
    total = d.sum(0) + lam
    weights = d / torch.where(total > 0, total, 1.0)
    sums = weights.sum(1, keepdim=True)
    uniform = torch.full_like(weights, 1 / d.shape[1])
    return torch.where(sums > 0, weights / torch.where(sums > 0, sums, 1.0), uniform)
