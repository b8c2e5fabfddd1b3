"""One source output for each target class: at random, or by how often classes are predicted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrviz._checks import Array, as_labels
from mrviz.errors import InputError
from mrviz.programs.mappings.base import Mapping, enough_outputs


@dataclass(frozen=True)
class Selection(Mapping):
    """A mapping that selects C different source outputs.

    Attributes:
        assignment: source output of each target class.
    """

    assignment: tuple[int, ...]

    def __post_init__(self) -> None:
        used = list(self.assignment)
        object.__setattr__(self, "assignment", tuple(used))
        if not used or min(used) < 0 or len(set(used)) < len(used):
            raise InputError(f"each target class needs a source output of its own, got {used}")

    def matrix(self, n_source: int) -> Tensor:
        """Selection matrix (C, n_source)."""
        within(self.assignment, n_source)
        return torch.eye(n_source, dtype=torch.float64)[list(self.assignment)]


class Random(Selection):
    """Random label mapping: each target class gets a source output of its own, drawn at random.

    The baseline (RLM) of Chen et al. 2023, arXiv 2211.11635.

    Attributes:
        assignment: source output of each target class.

    Example:
        >>> len(set(mrviz.mappings.Random.draw(1000, 10, seed=3).assignment))
        10
    """

    label = "random"

    @classmethod
    def draw(cls, n_source: int, n_classes: int, seed: int = 0) -> Random:
        """C different ones of ``n_source`` outputs; the same for the same seed."""
        enough_outputs(n_source, n_classes)
        return cls(tuple(shuffled(n_source, seed)[:n_classes]))


class Frequency(Selection):
    """Frequency label mapping (FLM): the source output that a class is predicted as most often.

    Greedy on counts: the pair (target class, source output) that occurs most often is fixed
    first, its row and column are marked −1 as used, and so on (Tsai et al. 2020,
    arXiv 2007.08714; Chen et al. 2023, arXiv 2211.11635).

    Attributes:
        assignment: source output of each target class.
    """

    label = "frequency (greedy)"

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
        enough_outputs(logits.shape[1], n_classes)
        return cls(cls.assign(prediction_counts(logits, y, n_classes)))

    @staticmethod
    def assign(counts: Tensor) -> tuple[int, ...]:
        """Greedy one-to-one assignment on counts (C, c_S); ties go to the first pair."""
        return tuple(s for (s,) in greedy(counts))


def prediction_counts(outputs: Tensor, y: Array, n_classes: int) -> Tensor:
    """How often the largest source output is s for samples of class t, int64, (C, c_S).

    Args:
        outputs: source outputs (n, c_S).
        y: target labels (n).
        n_classes: C.
    """
    n_source = outputs.shape[1]
    labels = as_labels(y, "y", len(outputs), n_classes).to(outputs.device)
    pairs = labels * n_source + outputs.argmax(1)
    return torch.bincount(pairs, minlength=n_classes * n_source).view(n_classes, n_source)


def greedy(counts: Tensor, m: int = 1) -> list[list[int]]:
    """Gives each class m source outputs of its own, the most frequent free pair first.

    Args:
        counts: (C, c_S); ties, and counts of zero, go to the first pair in order.
        m: source outputs for each class, m·C at most c_S.
    """
    counts = counts.detach().cpu().long().clone()
    n_classes, n_source = counts.shape
    enough_outputs(n_source, n_classes)
    chosen: list[list[int]] = [[] for _ in range(n_classes)]
    for _ in range(m * n_classes):
        t, s = divmod(int(counts.argmax()), n_source)
        chosen[t].append(s)
        counts[:, s] = -1
        if len(chosen[t]) == m:
            counts[t, :] = -1
    return chosen


def shuffled(n: int, seed: int) -> list[int]:
    """0 … n − 1 in an order of its own for each seed."""
    order: list[int] = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def within(used: tuple[int, ...], n_source: int) -> None:
    """Raises ``InputError`` where a mapping uses outputs that a source does not have."""
    if max(used) >= n_source:
        raise InputError(
            f"the mapping uses source output {max(used)}, but the source has {n_source} "
            "outputs: fit the mapping with this source"
        )
