"""How a target input gets onto the source's canvas: colours, resizing, centring, all linear."""

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

LAYOUTS = {3: "(channels, height, width)", 2: "(channels, length)"}
"""Shapes of images and of series."""


@dataclass(frozen=True)
class Placement:
    """Linear map that puts an input of ``target_shape`` in the middle of ``source_shape``.

    Both are images (c, H, W) or both are series (c, T). One channel becomes several by
    repetition, a colour image becomes grey by ITU-R BT.601 luma.

    Attributes:
        source_shape: shape of the canvas.
        target_shape: shape of the image or series.
        image_size: height and width, or length, to which it is resized (linear interpolation)
            before it is placed.
    """

    source_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    image_size: tuple[int, ...]

    def __post_init__(self) -> None:
        check_layouts(self.source_shape, self.target_shape)
        check_colours(self.source_shape, self.target_shape)
        canvas = self.source_shape[1:]
        if not all(isinstance(side, int) for side in self.image_size):
            raise InputError(
                f"image_size must be a whole number of {self.units}, got {self.image_size[0]!r}"
            )
        fits = all(1 <= side <= room for side, room in zip(self.image_size, canvas, strict=True))
        if not fits:
            raise InputError(
                f"{'an' if self.noun == 'image' else 'a'} {self.noun} of {times(self.image_size)} "
                f"{self.units} does not fit into the source's {self.canvas}: choose image_size "
                f"from 1 to {min(canvas)}, or a source with a larger input_size"
            )

    @property
    def noun(self) -> str:
        """What is placed: "image" or "series"."""
        return "image" if len(self.source_shape) == 3 else "series"

    @property
    def units(self) -> str:
        """What its size is counted in."""
        return "pixels" if self.noun == "image" else "points"

    @property
    def canvas(self) -> str:
        """The source's input, in words."""
        return f"{times(self.source_shape[1:])} input" + (" points" * (self.noun == "series"))

    @property
    def corner(self) -> tuple[int, ...]:
        """First row and column, or first point, of the input on the canvas."""
        sides = zip(self.source_shape[1:], self.image_size, strict=True)
        return tuple((canvas - side) // 2 for canvas, side in sides)

    def __call__(self, x: Tensor) -> Tensor:
        """Places inputs (n, *target_shape) on a zero canvas (n, *source_shape)."""
        x = self.adapt(x)
        edges: list[int] = []
        sides = zip(self.corner, self.source_shape[1:], self.image_size, strict=True)
        for start, canvas, side in reversed(list(sides)):
            edges += [start, canvas - side - start]
        return functional.pad(x, edges)

    def adapt(self, x: Tensor) -> Tensor:
        """Colours and size only, without the canvas around."""
        x = recoloured(x, self.source_shape[0])
        if self.image_size != self.target_shape[1:]:
            mode = "bilinear" if self.noun == "image" else "linear"
            x = functional.interpolate(x, self.image_size, mode=mode, align_corners=False)
        return x

    def frame(self) -> Tensor:
        """Boolean (H, W) or (T): what the input leaves free of the canvas."""
        mask = torch.ones(self.source_shape[1:], dtype=torch.bool)
        mask[self.window] = False
        return mask

    @property
    def window(self) -> tuple[slice, ...]:
        """Slices of the canvas where the input lies."""
        sides = zip(self.corner, self.image_size, strict=True)
        return tuple(slice(start, start + side) for start, side in sides)

    def describe(self) -> str:
        """What is done to colours and size, in words."""
        steps = describe_colours(self.source_shape, self.target_shape)
        own = self.target_shape[1:]
        if self.image_size != own:
            steps.append(f"resized from {times(own)} to {times(self.image_size)}")
        else:
            steps.append(f"at its own {times(own)} {self.units}")
        return ", ".join(steps)


def make_placement(
    source_shape: Sequence[int], target_shape: Sequence[int], image_size: int | None
) -> Placement:
    """Placement of an input at its own size, or resized to ``image_size`` on every side."""
    source, target = tuple(source_shape), tuple(target_shape)
    own = target[1:] if len(target) in LAYOUTS else (1, 1)
    size = own if image_size is None else (image_size,) * len(own)
    return Placement(source, target, size)


def whole_canvas(source_shape: Sequence[int], target_shape: Sequence[int]) -> Placement:
    """Placement of an input resized to all of the source's input."""
    source, target = tuple(source_shape), tuple(target_shape)
    return Placement(source, target, source[1:])


def times(sides: Sequence[int]) -> str:
    """Sizes with × between them."""
    return "×".join(map(str, sides))


def check_layouts(source: Sequence[int], target: Sequence[int]) -> None:
    """Raises ``InputError`` where these are not two images or two series."""
    named = {"source_shape": source, "target_shape": target}
    for name, shape in named.items():
        if len(as_shape(shape, name)) not in LAYOUTS:
            raise InputError(f"{name} must be {' or '.join(LAYOUTS.values())}, got {shape}")
    if len(source) != len(target):
        short, long = sorted(named, key=lambda name: len(named[name]))
        raise InputError(
            f"{short} must be {LAYOUTS[3]}, as {long} {named[long]} is, got {named[short]}"
        )


def check_image(shape: Sequence[int], name: str) -> None:
    """Raises ``InputError`` where a shape is not that of an image."""
    if len(as_shape(shape, name)) != 3:
        raise InputError(f"{name} must be {LAYOUTS[3]}, got {shape}")


def check_colours(source_shape: Sequence[int], target_shape: Sequence[int]) -> None:
    """Raises ``InputError`` where target channels cannot become source channels."""
    source, target = source_shape[0], target_shape[0]
    if source == target or target == 1:
        return
    if len(source_shape) == 2:
        raise InputError(
            f"cannot turn {target}-channel series into {source}-channel inputs: only one channel "
            "can be repeated; choose channels first, or a linear program"
        )
    if (source, target) != (1, 3):
        raise InputError(
            f"cannot turn {target}-channel images into {source}-channel inputs: only grey to "
            "anything and colour (3) to grey (1) are defined; convert the images first"
        )


def recoloured(x: Tensor, channels: int) -> Tensor:
    """Inputs (n, c, …) in another number of channels; see :class:`Placement`."""
    if (channels, x.shape[1]) == (1, 3):
        return (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    return x.expand(-1, channels, *x.shape[2:]) if x.shape[1] == 1 else x


def describe_colours(source_shape: Sequence[int], target_shape: Sequence[int]) -> list[str]:
    """What is done to colours, in words, if anything."""
    source, target = source_shape[0], target_shape[0]
    if target == 1 and source > 1:
        one = "grey" if len(target_shape) == 3 else "one channel"
        return [f"{one} repeated over {source} channels"]
    return ["colour turned to grey"] if target > source else []


def border_distance(*sides: int) -> Tensor:
    """Distance of every pixel (H, W) or point (T) to the canvas edge: 0 on the outermost ring."""
    distance = torch.full(sides, max(sides))
    for axis, side in enumerate(sides):
        along = torch.arange(side)
        nearest = torch.minimum(along, side - 1 - along)
        shape = [1] * len(sides)
        shape[axis] = side
        distance = torch.minimum(distance, nearest.view(shape))
    return distance
