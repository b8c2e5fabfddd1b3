"""How a target image gets onto the source's canvas: colours, resizing, centring, all linear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mrviz._checks import as_shape
from mrviz.errors import InputError

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


@dataclass(frozen=True)
class Placement:
    """Linear map that puts an image of ``target_shape`` in the middle of ``source_shape``.

    Grey becomes colour by repetition, colour becomes grey by ITU-R BT.601 luma.

    Attributes:
        source_shape: (c, H, W) of the canvas.
        target_shape: (c, h, w) of the image.
        image_size: (height, width) the image is resized to (bilinear) before it is placed.
    """

    source_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        for name, shape in (
            ("source_shape", self.source_shape),
            ("target_shape", self.target_shape),
        ):
            check_image(shape, name)
        check_colours(self.source_shape[0], self.target_shape[0])
        height, width = self.source_shape[1:]
        if not all(isinstance(side, int) for side in self.image_size):
            raise InputError(
                f"image_size must be a whole number of pixels, got {self.image_size[0]!r}"
            )
        if min(self.image_size) < 1 or self.image_size[0] > height or self.image_size[1] > width:
            raise InputError(
                f"an image of {self.image_size[0]}×{self.image_size[1]} pixels does not fit into "
                f"the source's {height}×{width} input: choose image_size from 1 to "
                f"{min(height, width)}, or a source with a larger input_size"
            )

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of the image's upper left pixel on the canvas."""
        (height, width), (h, w) = self.source_shape[1:], self.image_size
        return (height - h) // 2, (width - w) // 2

    def __call__(self, x: Tensor) -> Tensor:
        """Places images (n, *target_shape) on a zero canvas (n, *source_shape)."""
        x = self.adapt(x)
        top, left = self.corner
        (height, width), (h, w) = self.source_shape[1:], self.image_size
        return functional.pad(x, (left, width - w - left, top, height - h - top))

    def adapt(self, x: Tensor) -> Tensor:
        """Colours and size only, without the canvas around."""
        x = recoloured(x, self.source_shape[0])
        if self.image_size != self.target_shape[1:]:
            x = functional.interpolate(x, self.image_size, mode="bilinear", align_corners=False)
        return x

    def frame(self) -> Tensor:
        """Boolean (H, W): canvas pixels that the image leaves free."""
        mask = torch.ones(self.source_shape[1:], dtype=torch.bool)
        top, left = self.corner
        mask[top : top + self.image_size[0], left : left + self.image_size[1]] = False
        return mask

    def describe(self) -> str:
        """What is done to colours and size, in words."""
        steps = describe_colours(self.source_shape[0], self.target_shape[0])
        h, w = self.target_shape[1:]
        if self.image_size != (h, w):
            steps.append(f"resized from {h}×{w} to {self.image_size[0]}×{self.image_size[1]}")
        else:
            steps.append(f"at its own {h}×{w} pixels")
        return ", ".join(steps)


def make_placement(
    source_shape: Sequence[int], target_shape: Sequence[int], image_size: int | None
) -> Placement:
    """Placement of an image at its own size or resized to a square of ``image_size``."""
    source, target = tuple(source_shape), tuple(target_shape)
    own = target[1:] if len(target) == 3 else (1, 1)
    size = own if image_size is None else (image_size, image_size)
    return Placement(source, target, size)


def check_image(shape: Sequence[int], name: str) -> None:
    """Raises ``InputError`` where a shape is not that of an image."""
    if len(as_shape(shape, name)) != 3:
        raise InputError(f"{name} must be (channels, height, width), got {shape}")


def check_colours(source: int, target: int) -> None:
    """Raises ``InputError`` where target channels cannot become source channels."""
    if source != target and target != 1 and (source, target) != (1, 3):
        raise InputError(
            f"cannot turn {target}-channel images into {source}-channel inputs: only grey to "
            "anything and colour (3) to grey (1) are defined; convert the images first"
        )


def recoloured(x: Tensor, channels: int) -> Tensor:
    """Images (n, c, h, w) in another number of channels; see :class:`Placement`."""
    if (channels, x.shape[1]) == (1, 3):
        return (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    return x.expand(-1, channels, -1, -1) if x.shape[1] == 1 else x


def describe_colours(source: int, target: int) -> list[str]:
    """What is done to colours, in words, if anything."""
    if target == 1 and source > 1:
        return [f"grey repeated over {source} channels"]
    return ["colour turned to grey"] if target > source else []


def border_distance(height: int, width: int) -> Tensor:
    """Distance of every pixel (H, W) to the canvas edge: 0 on the outermost ring."""
    rows = torch.arange(height)
    cols = torch.arange(width)
    vertical = torch.minimum(rows, height - 1 - rows)
    horizontal = torch.minimum(cols, width - 1 - cols)
    return torch.minimum(vertical[:, None], horizontal[None, :])
