"""Padding of a series: copies of it along the source's input, and a trainable rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mrviz.errors import InputError
from mrviz.programs.base import Squashing
from mrviz.programs.options import Between
from mrviz.programs.placement import Placement
from mrviz.programs.prompts import MaskedPrompt
from mrviz.programs.registry import program


@dataclass(frozen=True)
class Copies(Placement):
    """Linear map that puts m copies of a series along a longer one.

    Copy s starts at s ⌊⌊T/t⌋/m⌋ t, as in the code of Voice2Series: at multiples of the series'
    length t, the first at 0, with the same room after each.

    Attributes:
        source_shape: (c, T) of the canvas.
        target_shape: (c, t) of the series.
        image_size: (t,).
        replicas: m, the number of copies.
    """

    replicas: int = 1

    @property
    def starts(self) -> tuple[int, ...]:
        """Where the copies start."""
        length = self.image_size[0]
        step = self.source_shape[1] // length // self.replicas * length
        return tuple(step * s for s in range(self.replicas))

    def __call__(self, x: Tensor) -> Tensor:
        """Places series (n, *target_shape) on a zero canvas (n, *source_shape)."""
        x = self.adapt(x)
        total, length = self.source_shape[1], self.image_size[0]
        edges = [(start, total - start - length) for start in self.starts]
        return torch.stack([functional.pad(x, edge) for edge in edges]).sum(0)

    def frame(self) -> Tensor:
        """Boolean (T): points that no copy covers."""
        return self.distance() > 0

    def distance(self) -> Tensor:
        """Distance of every point (T) to the nearest copy: 0 inside one."""
        t, length = torch.arange(self.source_shape[1]), self.image_size[0]
        beyond = [
            torch.maximum(start - t, t - (start + length - 1)).clamp(min=0) for start in self.starts
        ]
        return torch.stack(beyond).amin(0)


@program
class SeriesPadding(MaskedPrompt):
    """Padding (Voice2Series): copies of a series on the source's input, trainable in between.

    u = copies(x) + M⊙h(δ), M where no copy lies, as the input of Yang et al. 2021 (Voice2Series,
    arXiv 2106.09296, equation 3). Their code adds δ on the copies as well, and drops out part of
    it in training; here M is that of the paper, and nothing is random. All of M carries h(δ); of
    it, the ``width`` points next to a copy on either side are trainable, so that u, and with it
    the source Jacobian, is the same for every width.

    A series in the middle of its padding is what :class:`~mrviz.programs.Border` makes of one.

    Args:
        source_shape: (c, T) of the source's inputs.
        target_shape: (c, t) of the series, t below T.
        width: trainable points on either side of a copy; default: all there are.
        replicas: m, the number of copies.
        activation: "identity" or "sigmoid", the h above.

    Attributes:
        delta: the prompt δ, shape (c, T), zero at the start.

    Raises:
        InputError: inputs that are no series, copies that do not fit or leave nothing free, or
            ``width`` out of range.

    Example:
        >>> program = mrviz.programs.SeriesPadding((1, 100), (1, 20), replicas=2, width=5)
        >>> program.placement.starts, program.n_parameters, program.capacity_range
        ((0, 40), 15, (1, 40))
    """

    key = "series_padding"
    label = "copies and padding"
    capacity_label = "trainable points beside a copy"
    capacity_option = "width"
    capacity_advice = "fewer replicas, as the copies leave no more free"
    takes = ("series",)

    def __init__(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        *,
        width: int | None = None,
        replicas: Annotated[int, Between(1, 8), "copies of the series"] = 1,
        activation: Squashing = "identity",
    ) -> None:
        source, target = tuple(source_shape), tuple(target_shape)
        if len(source) != 2 or len(target) != 2:
            name, shape = ("source_shape", source) if len(source) != 2 else ("target_shape", target)
            raise InputError(
                f"{name} must be (channels, length), got {shape}: this program pads series"
            )
        if isinstance(replicas, bool) or not isinstance(replicas, int | np.integer):
            raise InputError(f"replicas must be a whole number, got {replicas!r}")
        fit = source[1] // target[1]
        if fit and not 1 <= replicas <= fit:
            raise InputError(
                f"replicas={replicas} is outside 1 to {fit}: that many copies of {target[1]} "
                f"points fit into the source's {source[1]}"
            )
        placement = Copies(source, target, target[1:], int(replicas))
        free = placement.frame()
        if not free.any():
            raise InputError(
                f"{replicas} copies of {target[1]} points fill the source's {source[1]} and leave "
                "nothing to train: choose fewer replicas or a source with a longer input"
            )
        distance = placement.distance()
        super().__init__(placement, free, distance - 1, activation)
        self._set_capacity(width, int(distance.max()))

    def describe(self) -> str:
        """One sentence: what happens to channels and points."""
        copies = self.placement.replicas if isinstance(self.placement, Copies) else 1
        return (
            f"series {self.placement.describe()}, {copies} times along the source's "
            f"{self.placement.canvas}; elsewhere the {self.capacity} of {self._largest} points "
            "next to a copy are trainable"
        )
