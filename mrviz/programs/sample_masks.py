"""Sample-specific masks: a small network decides where each image carries the shared prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrviz.errors import InputError
from mrviz.programs.base import KernelBlock, Program
from mrviz.programs.parts import Part
from mrviz.programs.placement import check_image, whole_canvas
from mrviz.programs.registry import program

WIDTHS = (8, 16, 32, 64, 128)
"""Channels behind the convolutions of the mask network, the last only with six layers."""


@program
class SampleMasks(Program):
    """Sample-specific masks (SMM): u = resize(x) + δ ⊙ mask(resize(x)).

    The mask network is that of Cai et al. 2024 (ICML, arXiv 2406.03150): 3×3 convolutions to 8,
    16, 32 and 64 channels (and 128, with six layers), each with a ReLU, the first l of them
    followed by 2×2 max-pooling, and a last one to as many channels as the source's inputs have.
    Each of its values stands for a patch of 2^l × 2^l pixels (their patch-wise interpolation).
    Where patches do not divide the input, the last ones are cut off.

    Their code normalises batches between convolution and ReLU. That would make a sample's u
    depend on the others in training, so there is no normalisation here.

    The kernel has two blocks, both exact: that of δ is A_i diag(mask_i) diag(mask_j) A_jᵀ; that
    of the network is put together from the inputs of its layers and the rows A_i ⊙ δ taken back
    to their outputs, one backward pass a row for all samples. At the start δ is zero and the
    network, whose output it multiplies, has no part in the kernel.

    Args:
        source_shape: (c, H, W) of the source's inputs.
        target_shape: (c, h, w) of the images.
        patch_size: 2^l, 1 to 16, or 32 with six layers; default: 8, less for small inputs.
        layers: convolutions, 5 or 6.
        seed: seed of the network's start values, uniform in ±1/√fan-in.

    Attributes:
        delta: the prompt δ, shape (c, H, W), zero at the start.
        convolutions: the layers of the mask network.

    Raises:
        InputError: inputs that are no images, or an option that is out of range.

    Example:
        >>> program = mrviz.programs.SampleMasks((3, 32, 32), (1, 28, 28))
        >>> program.mask(torch.rand(2, 1, 28, 28)).shape, program.n_parameters
        (torch.Size([2, 3, 32, 32]), 29331)
    """

    key = "sample_masks"
    label = "sample-specific masks"
    closed_form = True
    takes = ("image",)

    def __init__(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        *,
        patch_size: Annotated[
            Literal[1, 2, 4, 8, 16, 32] | None, "side in pixels of what has one mask value"
        ] = None,
        layers: Annotated[Literal[5, 6], "convolutions of the mask network"] = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(source_shape, target_shape)
        check_image(self.source_shape, "source_shape")
        self.placement = whole_canvas(self.source_shape, self.target_shape)
        if layers not in (5, 6):
            raise InputError(f"layers must be 5 or 6, got {layers!r}")
        if patch_size is None:
            patch_size = 2 ** min(3, max(0, int(math.log2(min(self.source_shape[1:]))) - 1))
        sizes = [2**pools for pools in range(layers)]
        if isinstance(patch_size, bool) or patch_size not in sizes:
            raise InputError(
                f"patch_size must be one of {', '.join(map(str, sizes))} with {layers} layers, "
                f"got {patch_size!r}"
            )
        self.patch_size = int(patch_size)
        self._pools = sizes.index(self.patch_size)
        channels = self.source_shape[0]
        widths = [channels, *WIDTHS[: layers - 1], channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)
        )
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for convolution, fan_in in zip(self.convolutions, widths[:-1], strict=True):
                for p in convolution.parameters():
                    p.uniform_(-((9 * fan_in) ** -0.5), (9 * fan_in) ** -0.5, generator=generator)
        self.delta = nn.Parameter(torch.zeros(self.source_shape))

    def forward(self, x: Tensor) -> Tensor:
        """Programmed inputs u (n, *source_shape) of target inputs x (n, *target_shape)."""
        placed = self.placement(x)
        return placed + self.delta * self._layers(placed)[0]

    def mask(self, x: Tensor) -> Tensor:
        """The mask (n, *source_shape) of each target input."""
        return self._layers(self.placement(x))[0]

    def kernel_increments(
        self, x: Tensor, jacobian: Tensor, capacities: Sequence[int | None]
    ) -> list[list[KernelBlock]]:
        """A ⊙ mask, and the rows A ⊙ δ taken through the network; see :class:`Program`."""
        with torch.enable_grad():
            placed = self.placement(x).detach().requires_grad_(True)
            mask, inputs, outputs = self._layers(placed)
        blocks = []
        if self.delta.requires_grad:
            blocks.append(KernelBlock((jacobian * mask.detach()[:, None]).flatten(2)))
        trained = any(p.requires_grad for p in self.convolutions.parameters())
        if trained and bool(self.delta.any()):
            weighted = jacobian * self.delta.detach()
            rows = range(jacobian.shape[1])
            pulled = [
                torch.autograd.grad(mask, outputs, weighted[:, row], retain_graph=True)
                for row in rows
            ]
            for k, convolution in enumerate(self.convolutions):
                back = torch.stack([grads[k] for grads in pulled], 1).flatten(3)
                blocks += _convolution_blocks(convolution, inputs[k].detach(), back)
        return [blocks, *([] for _ in capacities[1:])]

    def trainable_parts(self, x: Tensor) -> list[Part]:
        """The mask of this sample, and the prompt that it multiplies."""
        with torch.no_grad():
            mask = self.mask(x)[0]
        return [Part("mask of this sample", mask), Part("shared prompt δ", self.delta.detach())]

    def describe(self) -> str:
        """One sentence: what happens to colours, sizes and pixels."""
        return (
            f"image {self.placement.describe()}, plus a trainable prompt times a mask that a "
            f"trainable network of {len(self.convolutions)} convolutions makes of the image, one "
            f"value for each {self.patch_size}×{self.patch_size} pixels and channel"
        )

    def _layers(self, placed: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The mask, and inputs and outputs of every convolution."""
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []
        for k, convolution in enumerate(self.convolutions):
            if k:
                placed = torch.relu(placed)
                if k <= self._pools:
                    placed = functional.max_pool2d(placed, 2, ceil_mode=True)
            inputs.append(placed)
            placed = convolution(placed)
            outputs.append(placed)
        for axis in (-2, -1):
            placed = placed.repeat_interleave(self.patch_size, axis)
        height, width = self.source_shape[1:]
        return placed[..., :height, :width], inputs, outputs


def _convolution_blocks(layer: nn.Module, x: Tensor, back: Tensor) -> list[KernelBlock]:
    """Rows of a 3×3 convolution's parameters, of inputs x and cotangents (n, rows, c, pixels)."""
    weight, bias = layer.weight, layer.bias
    blocks = []
    if weight.requires_grad:
        patches = functional.unfold(x, 3, padding=1)
        blocks.append(KernelBlock((back @ patches.mT[:, None]).flatten(2)))
    if bias.requires_grad:
        blocks.append(KernelBlock(back.sum(3)))
    return blocks
