"""Visual prompts: a trainable border around the image, or an overlay over all of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mrviz.errors import InputError
from mrviz.programs.base import Activation, AffineProgram, KernelBlock, Squashing
from mrviz.programs.parts import Part
from mrviz.programs.placement import Placement, border_distance, make_placement, whole_canvas
from mrviz.programs.registry import program


class MaskedPrompt(AffineProgram):
    """u = place(x) + M⊙h(δ): what border, overlay and patch share.

    The tangent kernel is A_i D² A_jᵀ with D = diag(M_trainable ⊙ h′(δ)).

    Args:
        placement: where the input goes.
        mask: M, boolean, shape of the canvas without channels: where δ shows.
        ring: whole numbers of that shape: trainable at capacity k is where ring < k.
        activation: "sigmoid" or "identity", the h above.
    """

    closed_form = True
    mask: Tensor
    ring: Tensor

    def __init__(
        self, placement: Placement, mask: Tensor, ring: Tensor, activation: Squashing
    ) -> None:
        super().__init__(placement.source_shape, placement.target_shape)
        self.placement = placement
        self.activation = Activation(activation)
        self.delta = nn.Parameter(torch.zeros(self.source_shape))
        self.register_buffer("mask", mask.expand(self.source_shape), persistent=False)
        self.register_buffer("ring", ring.expand(self.source_shape), persistent=False)

    @property
    def trainable(self) -> Tensor:
        """Boolean (c, H, W): entries of δ that training moves."""
        return self._within(self.capacity)

    def parameters_at(self, capacity: int | None) -> int:
        """P = number of trainable entries of δ."""
        return int(self._within(capacity).sum()) if self.delta.requires_grad else 0

    def forward(self, x: Tensor) -> Tensor:
        """Programmed inputs u (n, *source_shape) of target inputs x (n, *target_shape)."""
        delta = torch.where(self.trainable, self.delta, self.delta.detach())
        return self.placement(x) + self.mask * self.activation(delta)

    def kernel_increments(
        self, x: Tensor, jacobian: Tensor, capacities: Sequence[int | None]
    ) -> list[list[KernelBlock]]:
        """Disjoint rings of D A, one for each step; see :class:`Program`."""
        if not self.delta.requires_grad:
            return [[] for _ in capacities]
        slope = self.activation.derivative(self.delta.detach()).to(jacobian.dtype)
        rows = jacobian.flatten(2)
        increments = []
        for inner, outer in pairwise([0, *capacities]):
            ring = self.mask
            if outer is not None and inner is not None:
                ring = ring & (self.ring >= inner) & (self.ring < outer)
            index = ring.flatten().nonzero().squeeze(1)
            increments.append([KernelBlock(rows[..., index] * slope.flatten()[index])])
        return increments

    def trainable_parts(self, x: Tensor) -> list[Part]:
        """The prompt h(δ) where it is trainable."""
        shown = self.activation(self.delta.detach())
        return [self._part("trainable prompt", shown.masked_fill(~self.trainable, float("nan")))]

    def _within(self, width: int | None) -> Tensor:
        return self.mask if width is None else self.mask & (self.ring < width)


@program
class Border(MaskedPrompt):
    """Border prompt (visual prompt, VP): the image in the middle of a trainable frame.

    Of a series, the frame is padding at both ends.

    u = pad(x) + M⊙h(δ), M the frame. All of the frame carries h(δ); of it, the outermost
    ``width`` pixels are trainable, so that u, and with it the source Jacobian, is the same for
    every width, and the kernel of a wider frame is a sum over rings (docs/theory.md, section 2).

    Args:
        source_shape: (c, H, W) or (c, T) of the source's inputs.
        target_shape: (c, h, w) or (c, t) of the images or series.
        width: trainable frame width in pixels, counted from the edge; default: all of it.
        image_size: side in pixels to which the image is resized first; default: its own size.
        activation: "sigmoid" or "identity", the h above.

    Attributes:
        delta: the prompt δ, shape of a source input, zero at the start.

    Raises:
        InputError: the image leaves no frame, or ``width`` is outside ``capacity_range``.

    Example:
        >>> prompt = mrviz.programs.Border((3, 64, 64), (1, 28, 28), width=4)
        >>> prompt.n_parameters, prompt.capacity_range
        (2880, (1, 18))
    """

    key = "border"
    label = "border"
    framed = True
    capacity_label = "trainable frame width (pixels)"
    capacity_option = "width"
    capacity_advice = "a smaller image_size, as the image leaves no more free"

    def __init__(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        *,
        width: int | None = None,
        image_size: int | None = None,
        activation: Squashing = "sigmoid",
    ) -> None:
        placement = make_placement(source_shape, target_shape, image_size)
        frame = placement.frame()
        if not frame.any():
            canvas = placement.source_shape[1:]
            raise InputError(
                f"the {placement.noun} fills the source's {placement.canvas} and leaves no frame "
                f"for a border prompt: choose image_size below {min(canvas)}, or a source with a "
                "larger input_size"
            )
        ring = border_distance(*placement.source_shape[1:])
        super().__init__(placement, frame, ring, activation)
        self._set_capacity(width, int(ring[frame].max()) + 1)

    def describe(self) -> str:
        """One sentence: what happens to colours, sizes and pixels."""
        return (
            f"{self.placement.noun} {self.placement.describe()}, centred on the source's "
            f"{self.placement.canvas}; the outermost {self.capacity} of {self._largest} frame "
            f"{self.placement.units} on each side are trainable"
        )


@program
class Overlay(MaskedPrompt):
    """Overlay (watermark): the image resized to the whole input, plus a trainable δ everywhere.

    Args:
        source_shape: (c, H, W) or (c, T) of the source's inputs.
        target_shape: (c, h, w) or (c, t) of the images or series.
        activation: "identity" or "sigmoid", applied to δ.

    Attributes:
        delta: the prompt δ, shape of a source input, zero at the start.

    Example:
        >>> mrviz.programs.Overlay((3, 8, 8), (1, 4, 4)).n_parameters
        192
    """

    key = "overlay"
    label = "overlay"

    def __init__(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        *,
        activation: Squashing = "identity",
    ) -> None:
        placement = whole_canvas(source_shape, target_shape)
        everywhere = torch.ones(placement.source_shape[1:], dtype=torch.bool)
        super().__init__(placement, everywhere, torch.zeros_like(everywhere), activation)

    def describe(self) -> str:
        """One sentence: what happens to colours, sizes and pixels."""
        noun, unit = self.placement.noun, self.placement.units[:-1]
        return f"{noun} {self.placement.describe()}, with a trainable value added to every {unit}"
