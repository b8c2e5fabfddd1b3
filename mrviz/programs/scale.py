"""Image scale as a program: how large the image appears on the source's canvas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from mrviz.errors import InputError
from mrviz.programs.base import AffineProgram, KernelBlock
from mrviz.programs.options import Between
from mrviz.programs.parts import Part
from mrviz.programs.placement import check_colours, check_image, describe_colours, recoloured
from mrviz.programs.registry import program

LIMITS = (0.1, 5.0)
"""Range of the scale, as in AutoVP (Tsao et al. 2024, arXiv 2310.08381)."""

Factor = Annotated[float | None, Between(*LIMITS, 0.1), "s, the factor of the image at the start"]


@program
class Scale(AffineProgram):
    """Image scale: the image, resized by a trainable factor s about its centre, on zeros.

    u = R_y(s) x R_x(s)ᵀ for each channel, with bilinear weights R(s)[Y, j] = Λ(t_Y/s − t_j), Λ
    the triangle max(0, 1 − |d|) and t pixel centres counted from the middle. At s = 1 this is
    the image at its own size in the middle, if the spare rows and columns are even in number.
    As in AutoVP, s is kept within 0.1 to 5; beyond, u no longer changes.

    The kernel is G_i G_jᵀ with the column G_i = A_i ∂u/∂s. u is piecewise smooth in s, and
    pixels that coincide, as all do at s = 1, lie on its kinks: there ∂u/∂s, in the kernel as
    in autograd, is the mean of the derivatives to the left and to the right, a central
    difference between the neighbours of each pixel (docs/theory.md, section 2).

    Args:
        source_shape: (c, H, W) of the source's inputs.
        target_shape: (c, h, w) of the images.
        scale: s at the start; default: 1, or what makes a larger image fit.

    Attributes:
        scale: s, shape ().

    Raises:
        InputError: shapes or ``scale`` out of range.

    Example:
        >>> program = mrviz.programs.Scale((3, 32, 32), (1, 28, 28), scale=0.8)
        >>> program(torch.rand(2, 1, 28, 28)).shape, program.n_parameters
        (torch.Size([2, 3, 32, 32]), 1)
    """

    key = "scale"
    label = "image scale"
    closed_form = True
    takes = ("image",)

    def __init__(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        *,
        scale: Factor = None,
    ) -> None:
        super().__init__(source_shape, target_shape)
        check_image(self.source_shape, "source_shape")
        check_image(self.target_shape, "target_shape")
        check_colours(self.source_shape, self.target_shape)
        if scale is None:
            sides = zip(self.source_shape[1:], self.target_shape[1:], strict=True)
            scale = max(LIMITS[0], min(1.0, *(canvas / image for canvas, image in sides)))
        try:
            start = float(scale)
        except (TypeError, ValueError):
            raise InputError(f"scale must be a number, got {scale!r}") from None
        if not LIMITS[0] <= start <= LIMITS[1]:
            raise InputError(f"scale={scale} is outside {LIMITS[0]} to {LIMITS[1]}")
        self.scale = nn.Parameter(torch.tensor(start))

    def forward(self, x: Tensor) -> Tensor:
        """Programmed inputs u (n, *source_shape) of target inputs x (n, *target_shape)."""
        rows, columns = (triangle(d) for d in self._distances())
        return rows @ recoloured(x, self.source_shape[0]) @ columns.T

    def kernel_increments(
        self, x: Tensor, jacobian: Tensor, capacities: Sequence[int | None]
    ) -> list[list[KernelBlock]]:
        """One column, A ∂u/∂s; see :class:`Program`."""
        if not self.scale.requires_grad:
            return [[] for _ in capacities]
        change = self.derivative(x)
        column = jacobian.flatten(2) @ change.flatten(1)[:, :, None]
        return [[KernelBlock(column)], *([] for _ in capacities[1:])]

    def derivative(self, x: Tensor) -> Tensor:
        """∂u/∂s, shape (n, *source_shape), with the convention for kinks of the class."""
        scale = self.scale.detach()
        inside = scale == scale.clamp(*LIMITS)
        (rows, row_change), (columns, column_change) = (
            (triangle(d), triangle_slope(d) * -t[:, None] / scale**2 * inside)
            for d, t in zip(self._distances(), self._canvas(), strict=True)
        )
        image = recoloured(x, self.source_shape[0])
        return (row_change @ image @ columns.T + rows @ image @ column_change.T).detach()

    def trainable_parts(self, x: Tensor) -> list[Part]:
        """∂u/∂s: where the picture changes with the scale."""
        return [Part("change with the scale, ∂u/∂s", self.derivative(x)[0])]

    def describe(self) -> str:
        """One sentence: what happens to colours, sizes and pixels."""
        colours = describe_colours(self.source_shape, self.target_shape)
        height, width = self.source_shape[1:]
        return ", ".join(
            [
                *(f"image {text}" for text in colours),
                f"{'' if colours else 'image '}resized by a trainable factor, now "
                f"{self.scale.item():.3g}, about the middle of the source's {height}×{width} input",
            ]
        )

    def _canvas(self) -> list[Tensor]:
        """t_Y of rows and of columns of the canvas."""
        return [centres(side, self.scale) for side in self.source_shape[1:]]

    def _distances(self) -> list[Tensor]:
        """Distances d = t_Y/s − t_j for rows and for columns, (canvas side, image side)."""
        scale = self.scale.clamp(*LIMITS)
        return [
            t[:, None] / scale - centres(side, self.scale)
            for t, side in zip(self._canvas(), self.target_shape[1:], strict=True)
        ]


def centres(side: int, like: Tensor) -> Tensor:
    """Pixel centres (side) counted from the middle."""
    return torch.arange(side, dtype=like.dtype, device=like.device) + (1 - side) / 2


def triangle(d: Tensor) -> Tensor:
    """Λ(d) = max(0, 1 − |d|), written so that autograd takes the mean slope at its kinks.

    Autograd gives |·| the slope 0 at 0, the mean of −1 and 1, so a sum of such terms has mean
    slopes at d = −1, 0 and 1. Clamping keeps round-off of large |d| out of what is zero.
    """
    d = d.clamp(-2, 2)
    return ((d + 1).abs() + (d - 1).abs()) / 2 - d.abs()


def triangle_slope(d: Tensor) -> Tensor:
    """Λ′(d), at the kinks the mean of the slopes beside them."""
    return ((d + 1).sign() + (d - 1).sign()) / 2 - d.sign()
