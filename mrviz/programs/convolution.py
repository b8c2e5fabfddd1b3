"""Convolution programs: every source pixel from a neighbourhood of image pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mrviz.errors import InputError
from mrviz.programs.base import AffineProgram, KernelBlock
from mrviz.programs.options import Between
from mrviz.programs.parts import Part, tiled
from mrviz.programs.placement import check_image, whole_canvas
from mrviz.programs.registry import program

MAX_SIZE = 7
"""Largest kernel size where none is asked for."""


@program
class Convolution(AffineProgram):
    """Convolution: u = W ∗ place(x) + β, the image resized to the whole input and convolved.

    W has ``max_size`` × ``max_size`` offsets for each pair of channels and starts as the
    identity, so that u = place(x). All of W takes part in u; trainable are offsets from
    −⌊(k−1)/2⌋ to ⌊k/2⌋ in both directions, k the kernel ``size``, so that u, and with it the
    source Jacobian, is the same for every size, and the kernel of a larger size is a sum over
    rings of offsets. G_i = A_i B_i holds correlations of A_i with the placed image and is
    computed without differentiating anything (docs/theory.md, section 2).

    Args:
        source_shape: (c, H, W) of the source's inputs.
        target_shape: (c, h, w) of the images.
        size: kernel size k in pixels; default: ``max_size``.
        max_size: side of W in pixels; default: 7, or the shorter side of the source's input.
        bias: whether there is a trainable β, one number a channel, zero at the start.

    Attributes:
        weight: W, shape (c, c, max_size, max_size), correlated as in ``torch.nn.Conv2d``.
        bias: β, shape (c), or ``None``.

    Raises:
        InputError: ``size`` or ``max_size`` is out of range.

    Example:
        >>> program = mrviz.programs.Convolution((3, 32, 32), (1, 28, 28), size=3)
        >>> program.n_parameters, program.capacity_range
        (84, (1, 7))
    """

    key = "convolution"
    label = "convolution"
    capacity_label = "kernel size (pixels)"
    capacity_option = "size"
    capacity_advice = "a larger max_size"
    closed_form = True
    takes = ("image",)
    ring: Tensor

    def __init__(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        *,
        size: int | None = None,
        max_size: Annotated[int | None, Between(1, 15), "side of W in pixels"] = None,
        bias: Annotated[bool, "whether there is a trainable β"] = True,
    ) -> None:
        super().__init__(source_shape, target_shape)
        check_image(self.source_shape, "source_shape")
        self.placement = whole_canvas(self.source_shape, self.target_shape)
        canvas = self.source_shape[1:]
        side = min(MAX_SIZE, *canvas) if max_size is None else max_size
        if isinstance(side, bool) or not isinstance(side, int | np.integer):
            raise InputError(f"max_size must be a whole number, got {max_size!r}")
        if not 1 <= side <= min(canvas):
            raise InputError(
                f"max_size={max_size} is outside 1 to {min(canvas)}, the shorter side of the "
                "source's input"
            )
        side = int(side)
        self._before, self._after = (side - 1) // 2, side // 2
        channels = self.source_shape[0]
        self.weight = nn.Parameter(torch.zeros(channels, channels, side, side))
        with torch.no_grad():
            self.weight[:, :, self._before, self._before] = torch.eye(channels)
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.register_buffer("ring", self._rings(side), persistent=False)
        self._set_capacity(size, side)

    def forward(self, x: Tensor) -> Tensor:
        """Programmed inputs u (n, *source_shape) of target inputs x (n, *target_shape)."""
        weight = torch.where(self._within(self.capacity), self.weight, self.weight.detach())
        return functional.conv2d(self._padded(x), weight, self.bias)

    def parameters_at(self, capacity: int | None) -> int:
        """P = c² k², and c for the bias."""
        kernel = self.source_shape[0] ** 2 * (capacity or 0) ** 2
        bias = 0 if self.bias is None or not self.bias.requires_grad else len(self.bias)
        return bias + (kernel if self.weight.requires_grad else 0)

    def kernel_increments(
        self, x: Tensor, jacobian: Tensor, capacities: Sequence[int | None]
    ) -> list[list[KernelBlock]]:
        """A correlated with the image at each ring of offsets; see :class:`Program`."""
        increments: list[list[KernelBlock]] = [[] for _ in capacities]
        if self.weight.requires_grad:
            padded = self._padded(x)
            for blocks, (inner, outer) in zip(increments, pairwise([0, *capacities]), strict=True):
                ring = self._within(outer) & ~self._within(inner)
                blocks.append(KernelBlock(self._correlated(padded, jacobian, ring)))
        if self.bias is not None and self.bias.requires_grad:
            increments[0].append(KernelBlock(jacobian.sum((3, 4))))
        return increments

    def trainable_parts(self, x: Tensor) -> list[Part]:
        """W at its trainable offsets, a tile for each pair of channels."""
        tiles = self.weight.detach().flatten(0, 1)
        tiles = tiles.masked_fill(~self._within(self.capacity), float("nan"))
        return [Part("trainable part of the kernel W", tiled(tiles))]

    def describe(self) -> str:
        """One sentence: what happens to colours, sizes and pixels."""
        return (
            f"image {self.placement.describe()}, then convolved; {self.capacity}×{self.capacity} "
            f"of the {self._largest}×{self._largest} offsets of the kernel are trainable"
        )

    @staticmethod
    def _rings(side: int) -> Tensor:
        """The smallest size (side, side) that contains each offset."""
        offset = torch.arange(side) - (side - 1) // 2
        smallest = torch.where(offset > 0, 2 * offset, 1 - 2 * offset)
        return torch.maximum(smallest[:, None], smallest[None, :])

    def _within(self, size: int | None) -> Tensor:
        return self.ring <= (size or 0)

    def _padded(self, x: Tensor) -> Tensor:
        edge = (self._before, self._after) * 2
        return functional.pad(self.placement(x), edge)

    def _correlated(self, padded: Tensor, jacobian: Tensor, chosen: Tensor) -> Tensor:
        """G (n, rows, q) at the chosen offsets (side, side), one row of offsets after another."""
        n, rows, channels, height, width = jacobian.shape
        flat = jacobian.reshape(n, rows * channels, height * width)
        parts = []
        for top, columns in enumerate(chosen):
            shifted = [
                padded[:, :, top : top + height, left : left + width]
                for left in columns.nonzero().flatten().tolist()
            ]
            if shifted:
                patches = torch.cat(shifted, 1).flatten(2)
                parts.append((flat @ patches.mT).view(n, rows, -1))
        return torch.cat(parts, 2)
