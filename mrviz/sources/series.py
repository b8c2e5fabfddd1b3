"""Networks for series (channels, length): the FCN and ResNet of Wang et al., no BatchNorm."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

KERNELS = (8, 5, 3)
"""Lengths of the first convolutions; further ones have the last (Wang et al. 2017)."""


class SeriesBlock(nn.Module):
    """relu(shortcut(x) + scale · branch(x)): three convolutions of length 8, 5 and 3.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        scale: factor of the residual branch.
    """

    def __init__(self, channels_in: int, channels_out: int, scale: float) -> None:
        super().__init__()
        channels = (channels_in, channels_out, channels_out, channels_out)
        self.branch = nn.Sequential(*_convolutions(channels)[:-1])
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv1d(channels_in, channels_out, 1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Output (batch, channels_out, length)."""
        return torch.relu(self.shortcut(x) + self.scale * self.branch(x))

    def extra_repr(self) -> str:
        """Text for the module's repr."""
        return f"scale={self.scale:.4g}"


def fcn(channels: int, depth: int, width: int, n_classes: int) -> nn.Sequential:
    """Fully convolutional net (Wang et al. 2017, arXiv 1611.06455): mean over time at the end.

    The paper's has depth 3 and width 128, so 128, 256 and 128 channels, and BatchNorm behind
    each convolution, which is left out here.

    Args:
        channels: of the input.
        depth: number of convolutions, of length 8, 5, then 3.
        width: channels of the first and last convolution; those between have twice as many.
        n_classes: number of outputs.
    """
    inner = [width if k in (0, depth - 1) else 2 * width for k in range(depth)]
    return nn.Sequential(*_convolutions((channels, *inner)), *_mean_and_dense(width, n_classes))


def resnet1d(channels: int, depth: int, width: int, n_classes: int) -> nn.Sequential:
    """ResNet for series (Wang et al. 2017): blocks of three convolutions, mean over time.

    The paper's has depth 3 and width 64, so 64, 128 and 128 channels, and BatchNorm, which is
    left out here; instead the residual branches of k blocks are scaled by 1/√k.

    Args:
        channels: of the input.
        depth: number of residual blocks.
        width: channels of the first block; the others have twice as many.
        n_classes: number of outputs.
    """
    sizes = [channels, width, *[2 * width] * (depth - 1)]
    scale = 1 / math.sqrt(depth)
    blocks = [SeriesBlock(n_in, n_out, scale) for n_in, n_out in pairwise(sizes)]
    return nn.Sequential(*blocks, *_mean_and_dense(sizes[-1], n_classes))


def _convolutions(channels: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for k, (n_in, n_out) in enumerate(pairwise(channels)):
        length = KERNELS[min(k, len(KERNELS) - 1)]
        padding = nn.ConstantPad1d(((length - 1) // 2, length // 2), 0.0)
        layers += [padding, nn.Conv1d(n_in, n_out, length), nn.ReLU()]
    return layers


def _mean_and_dense(channels: int, n_classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, n_classes)]
