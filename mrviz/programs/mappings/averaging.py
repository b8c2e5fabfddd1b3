"""Many source outputs for each target class, averaged as logits or as probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mrviz.errors import InputError
from mrviz.programs.mappings.base import Mapping, enough_outputs
from mrviz.programs.mappings.selection import greedy, shuffled, within
from mrviz.targets.options import as_count

GROUP = 5
"""Source outputs for each target class where nothing else is asked for, as far as they reach."""


@dataclass(frozen=True)
class ManyToOne(Mapping):
    """A mapping with m source outputs for each target class, none of them used twice.

    Attributes:
        assignment: source outputs of each target class, C tuples of m.
    """

    assignment: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        groups = tuple(tuple(group) for group in self.assignment)
        object.__setattr__(self, "assignment", groups)
        used = [s for group in groups for s in group]
        if not used or len({len(group) for group in groups}) > 1:
            raise InputError(
                "each target class needs the same number of source outputs, at least one, got "
                f"{[len(group) for group in groups]}"
            )
        if min(used) < 0 or len(set(used)) < len(used):
            raise InputError(f"a source output stands for one target class only, got {groups}")

    @property
    def m(self) -> int:
        """Source outputs for each target class."""
        return len(self.assignment[0])

    def matrix(self, n_source: int) -> Tensor:
        """Averaging matrix (C, n_source): 1/m for the outputs of a class."""
        within(tuple(s for group in self.assignment for s in group), n_source)
        matrix = torch.zeros(len(self.assignment), n_source, dtype=torch.float64)
        return matrix.scatter_(1, torch.tensor(self.assignment), 1 / self.m)


class LogitAverage(ManyToOne):
    """Each target output is the mean of m logits of the source (AutoVP, Tsao et al. 2024).

    Linear, so the kernel is that of the matrix (arXiv 2310.08381 and the authors' code).

    Attributes:
        assignment: source outputs of each target class, C tuples of m.
    """

    label = "average of logits (AutoVP)"


class ProbabilityAverage(ManyToOne):
    """Each target class has the mean of m probabilities of the source (Voice2Series).

    The target outputs are logarithms, f_t = log mean over s in S_t of softmax(f_S(u))_s. Their
    softmax is the averaged probabilities divided by their sum, so cross-entropy is the loss that
    Voice2Series is trained with (Yang et al. 2021, arXiv 2106.09296, and the authors' code). Not
    linear: A_i is the Jacobian of all of f (docs/theory.md, section 2).

    Attributes:
        assignment: source outputs of each target class, C tuples of m.

    Example:
        >>> head = mrviz.mappings.ProbabilityAverage([(0, 1), (2, 3)]).layer(4)
        >>> head(torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()).exp()
        tensor([[0.1500, 0.3500]])
    """

    label = "average of probabilities (V2S)"
    acts_on = "probabilities"

    def layer(self, n_source: int) -> nn.Module:
        """The mapping as a layer, with the matrix as its ``weight``."""
        return LogMeanProbability(self.matrix(n_source), torch.tensor(self.assignment))


class LogMeanProbability(nn.Module):
    """Logits z (n, c_S) to f_t = log mean over s in S_t of softmax(z)_s, (n, C).

    Computed from logarithms throughout, so that no probability underflows.

    Args:
        weight: averaging matrix (C, c_S), kept for those who look at the mapping.
        index: source outputs of each class, (C, m).
    """

    weight: Tensor
    index: Tensor

    def __init__(self, weight: Tensor, index: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("index", index)
        self.out_features = len(index)

    def forward(self, z: Tensor) -> Tensor:
        """Logarithms of averaged probabilities."""
        chosen = z.index_select(1, self.index.flatten()).view(len(z), *self.index.shape)
        # Two sums of exponentials, so that no class loses digits to the largest probability.
        return chosen.logsumexp(2) - z.logsumexp(1, keepdim=True) - math.log(self.index.shape[1])


def group_size(n_source: int, n_classes: int, m: int | None) -> int:
    """The number m, or as many as the source has for each class, five at most.

    Raises:
        InputError: too many for the source.
    """
    enough_outputs(n_source, n_classes)
    most = n_source // n_classes
    if m is None:
        return min(GROUP, most)
    m = as_count(m, "m", 1)
    if m > most:
        raise InputError(
            f"m={m} source outputs for each of {n_classes} target classes are more than the "
            f"{n_source} of this source: choose m from 1 to {most}"
        )
    return m


def consecutive(n_classes: int, m: int) -> list[list[int]]:
    """Class t gets the source outputs t·m … t·m + m − 1."""
    return [list(range(t * m, t * m + m)) for t in range(n_classes)]


def drawn(n_source: int, n_classes: int, m: int, seed: int) -> list[list[int]]:
    """Each class gets m different source outputs at random."""
    order = shuffled(n_source, seed)
    return [order[t * m : t * m + m] for t in range(n_classes)]


def by_frequency(counts: Tensor, m: int) -> list[list[int]]:
    """Each class gets the m free source outputs that it is predicted as most often, greedily."""
    return greedy(counts, m)
