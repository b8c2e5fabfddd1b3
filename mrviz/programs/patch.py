"""Patch prompts: a trainable square on the resized image, in the corner or at a random place."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import torch
from torch import Tensor

from mrviz.programs.placement import times, whole_canvas
from mrviz.programs.prompts import MaskedPrompt
from mrviz.programs.registry import program


@program
class Patch(MaskedPrompt):
    """Fixed patch: the image resized to the whole input, plus a trainable square in its corner.

    u = resize(x) + δ, of which the ``side`` × ``side`` pixels in the upper left are trainable,
    as in the fixed patch of Bahng et al. 2022 (arXiv 2203.17274). δ starts at zero, where their
    code draws normal values, so that u, and with it the source Jacobian, is the same for every
    side, and the kernel of a larger patch is a sum over nested squares. Of a series, the patch
    is a window of ``side`` points at its start.

    Args:
        source_shape: (c, H, W) or (c, T) of the source's inputs.
        target_shape: (c, h, w) or (c, t) of the images or series.
        side: side of the trainable square in pixels; default: the shorter side of the input.

    Attributes:
        delta: the prompt δ, shape of a source input, zero at the start.
        place: where the patch lies, as shares of the room it has: 0 is upper left.

    Raises:
        InputError: shapes that do not go together, or ``side`` is out of range.

    Example:
        >>> program = mrviz.programs.Patch((3, 32, 32), (1, 28, 28), side=4)
        >>> program.n_parameters, program.capacity_range
        (48, (1, 32))
    """

    key = "patch"
    label = "patch in the corner"
    capacity_label = "patch side (pixels)"
    capacity_option = "side"
    capacity_advice = "a source with a larger input_size"

    def __init__(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        *,
        side: int | None = None,
    ) -> None:
        self._make(source_shape, target_shape, side, place=None)

    def _make(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        side: int | None,
        place: Sequence[float] | None,
    ) -> None:
        placement = whole_canvas(source_shape, target_shape)
        canvas = placement.source_shape[1:]
        shares = tuple(0.0 for _ in canvas) if place is None else tuple(place)
        ring = nested_squares(canvas, shares)
        super().__init__(placement, torch.ones(canvas, dtype=torch.bool), ring, "identity")
        self.place = shares
        self._set_capacity(side, min(canvas))

    def describe(self) -> str:
        """One sentence: what happens to colours, sizes and pixels."""
        corner = patch_corner(self.source_shape[1:], self.capacity or 1, self.place)
        sides = times((self.capacity or 1,) * len(corner))
        names = ("row", "column") if len(corner) == 2 else ("point",)
        starts = zip(names, corner, strict=True)
        at = " and ".join(f"{name} {start}" for name, start in starts)
        return (
            f"{self.placement.noun} {self.placement.describe()}, plus a trainable patch of {sides} "
            f"{self.placement.units} from {at}"
        )


@program
class RandomPatch(Patch):
    """Random patch: as :class:`Patch`, at a place drawn once from the seed.

    Bahng et al. 2022 draw a new place at every call, which makes the prompt, and its tangent
    kernel, random. Here the place belongs to the program: the same seed gives the same place,
    in training as in the kernel, and other seeds give the other draws. The share of the way from
    edge to edge is drawn, uniformly in each direction, so that for every side the place is
    uniform over all there are, and the patch of a smaller side lies inside that of a larger one.

    Args:
        source_shape: (c, H, W) or (c, T) of the source's inputs.
        target_shape: (c, h, w) or (c, t) of the images or series.
        side: side of the trainable square in pixels; default: the shorter side of the input.
        seed: seed of the place.

    Attributes:
        delta: the prompt δ, shape of a source input, zero at the start.
        place: where the patch lies, as shares of the room it has: 0 is upper left.

    Raises:
        InputError: shapes that do not go together, or ``side`` is out of range.

    Example:
        >>> program = mrviz.programs.RandomPatch((3, 32, 32), (1, 28, 28), side=4, seed=3)
        >>> program.n_parameters
        48
    """

    key = "random_patch"
    label = "patch at a random place"

    def __init__(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        *,
        side: int | None = None,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        axes = len(tuple(source_shape)) - 1
        shares = torch.rand(max(axes, 0), generator=generator, dtype=torch.float64)
        self._make(source_shape, target_shape, side, shares.tolist())


def patch_corner(sides: Sequence[int], k: int, shares: Sequence[float]) -> tuple[int, ...]:
    """First row and column of the patch of side k: its share of the n − k + 1 places there are.

    One more in k takes at most one off, so patches of growing sides are nested.
    """
    return tuple(floor(share * (n - k + 1)) for n, share in zip(sides, shares, strict=True))


def nested_squares(sides: Sequence[int], shares: Sequence[float]) -> Tensor:
    """For each pixel the largest side of the patches that do not hold it, whole numbers."""
    largest = min(sides)
    ring = torch.full(tuple(sides), largest)
    for k in range(largest, 0, -1):
        corner = patch_corner(sides, k, shares)
        ring[tuple(slice(start, start + k) for start in corner)] = k - 1
    return ring
