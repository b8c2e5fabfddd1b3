"""AutoVP's input program: an image of trainable size in the middle of a trainable frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mrviz.errors import InputError
from mrviz.programs.base import Activation, KernelBlock, Squashing
from mrviz.programs.parts import Part
from mrviz.programs.placement import border_distance, check_image
from mrviz.programs.registry import program
from mrviz.programs.scale import LIMITS, Factor, Scale


@program
class ScaledBorder(Scale):
    """Scaled image and border (AutoVP): u = scale(x; s) + M(s)⊙h(δ), s and δ both trainable.

    The image lies in the middle at s times its size, as :class:`~mrviz.programs.Scale` puts it
    there, and s stays within 0.1 to 5. The mask M(s) is rebuilt at every call: it is the canvas
    without the ⌊s h⌋ × ⌊s w⌋ pixels in the middle (Tsao et al. 2024, AutoVP, arXiv 2310.08381).
    All of M carries h(δ); of it, the outermost ``width`` pixels are trainable, at the largest
    width all of it.

    M is constant in s but for jumps, so δ has the kernel of a border prompt with the mask as it
    is now, and s adds that of the image's scale; the blocks add. No gradient sees the jumps: where
    one more row of the image costs more than it gains, training stays at that scale.

    Args:
        source_shape: (c, H, W) of the source's inputs.
        target_shape: (c, h, w) of the images.
        width: trainable frame width in pixels, counted from the edge; default: all of it.
        scale: s at the start; default: 1, or what leaves a frame of one pixel around the image.
        activation: "sigmoid", or "identity" as AutoVP has it in front of CLIP.

    Attributes:
        scale: s, shape ().
        delta: the prompt δ, shape (c, H, W), zero at the start.

    Raises:
        InputError: ``scale`` is out of range or leaves no frame, or ``width`` is out of range.

    Example:
        >>> program = mrviz.programs.ScaledBorder((3, 32, 32), (1, 28, 28), scale=0.5)
        >>> program.n_parameters, program.capacity_range
        (2485, (1, 9))
    """

    key = "scaled_border"
    label = "image scale + border"
    capacity_label = "trainable frame width (pixels)"
    capacity_option = "width"
    capacity_advice = "a smaller scale, as the image leaves no more free"
    ring: Tensor

    def __init__(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        *,
        width: int | None = None,
        scale: Factor = None,
        activation: Squashing = "sigmoid",
    ) -> None:
        check_image(source_shape, "source_shape")
        check_image(target_shape, "target_shape")
        canvas = tuple(source_shape)[1:]
        if scale is None:
            # A hair more than the ratio, whose product with the side might fall below a pixel.
            room = zip(canvas, tuple(target_shape)[1:], strict=True)
            fitting = (max(side - 2, 1) / own * (1 + 1e-6) for side, own in room)
            scale = max(LIMITS[0], min(1.0, *fitting))
        super().__init__(source_shape, target_shape, scale=scale)
        self.activation = Activation(activation)
        self.delta = nn.Parameter(torch.zeros(self.source_shape))
        self.register_buffer("ring", border_distance(*canvas), persistent=False)
        frame = self.mask()
        if not frame.any():
            raise InputError(
                f"at scale={scale:.3g} the image fills the source's {canvas[0]}×{canvas[1]} input "
                "and leaves no frame: choose a smaller scale, or a source with a larger input_size"
            )
        self._set_capacity(width, int(self.ring[frame].max()) + 1)

    def mask(self) -> Tensor:
        """M(s) as it is now, boolean (H, W)."""
        scale = self.scale.detach().clamp(*LIMITS)
        inside = []
        for side, own in zip(self.source_shape[1:], self.target_shape[1:], strict=True):
            pixels = torch.arange(side, device=scale.device)
            shown = (own * scale).floor().clamp(max=side)
            first, end = ((side - shown) / 2).floor(), ((side + shown) / 2).floor()
            inside.append((pixels >= first) & (pixels < end))
        return ~(inside[0][:, None] & inside[1])

    def forward(self, x: Tensor) -> Tensor:
        """Programmed inputs u (n, *source_shape) of target inputs x (n, *target_shape)."""
        delta = torch.where(self._within(self.capacity), self.delta, self.delta.detach())
        return super().forward(x) + self.mask() * self.activation(delta)

    def parameters_at(self, capacity: int | None) -> int:
        """P = entries of δ that are trainable and show, and one for the scale."""
        shown = int(self._within(capacity).sum()) * self.source_shape[0]
        return shown * self.delta.requires_grad + int(self.scale.requires_grad)

    def kernel_increments(
        self, x: Tensor, jacobian: Tensor, capacities: Sequence[int | None]
    ) -> list[list[KernelBlock]]:
        """Rings of D A, one for each step, and in the first A ∂u/∂s; see :class:`Program`."""
        increments = super().kernel_increments(x, jacobian, capacities)
        if not self.delta.requires_grad:
            return increments
        slope = self.activation.derivative(self.delta.detach()).to(jacobian).flatten(1)
        rows = jacobian.flatten(3)
        for blocks, (inner, outer) in zip(increments, pairwise([0, *capacities]), strict=True):
            ring = self._within(outer) & ~self._within(inner)
            index = ring.flatten().nonzero().squeeze(1)
            blocks.append(KernelBlock((rows[..., index] * slope[:, index]).flatten(2)))
        return increments

    def trainable_parts(self, x: Tensor) -> list[Part]:
        """The prompt where it is trainable, and the change with the scale."""
        shown = self.activation(self.delta.detach())
        hidden = ~self._within(self.capacity).expand(self.source_shape)
        prompt = Part("trainable prompt", shown.masked_fill(hidden, float("nan")))
        return [prompt, *super().trainable_parts(x)]

    def describe(self) -> str:
        """One sentence: what happens to colours, sizes and pixels."""
        return (
            f"{super().describe()}; around it, the outermost {self.capacity} of {self._largest} "
            "frame pixels on each side are trainable"
        )

    def _within(self, width: int | None) -> Tensor:
        """Trainable pixels (H, W): none at 0, all of the frame at the largest width."""
        mask = self.mask()
        return mask if width == self._largest else mask & (self.ring < (width or 0))
