"""What a program shows of itself: its trainable parts as pictures, for figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

PROBES = 64
"""Directions in parameter space; all of them where there are no more parameters."""


@dataclass(frozen=True)
class Part:
    """One picture of what training can change.

    Attributes:
        name: what is shown, in a few words.
        values: a picture (height, width) or (channels, height, width), or curves (k, length)
            where ``curves``; NaN is left blank.
        curves: whether the rows of ``values`` are curves.
        blank: what blank places are, such as "fixed"; nothing for gaps between pictures.
    """

    name: str
    values: Tensor
    curves: bool = False
    blank: str = "fixed"


def response(module: nn.Module, x: Tensor) -> Tensor:
    """How strongly each source input answers to the parameters: the root of diag(B Bᵀ).

    Exact for up to :data:`PROBES` parameters, one Jacobian-vector product each. With more, the
    root of the mean of (B v)² over that many normal v, seeded, which is off by about a tenth.

    Args:
        module: maps x (1, …) to u (1, *source_shape); treats samples independently.
        x: one sample.

    Returns:
        Shape of u without the sample axis.
    """
    theta = {k: p.detach() for k, p in module.named_parameters() if p.requires_grad}
    size = sum(p.numel() for p in theta.values())
    generator = torch.Generator().manual_seed(0)

    def along(flat: Tensor) -> Tensor:
        sizes = [p.numel() for p in theta.values()]
        pieces = flat.split(sizes)
        direction = {
            k: v.view(p.shape).to(p) for (k, p), v in zip(theta.items(), pieces, strict=True)
        }
        change: Tensor = jvp(lambda t: functional_call(module, t, (x,)), (theta,), (direction,))[1]
        return change[0].detach()

    if size == 0:
        with torch.no_grad():
            return torch.zeros_like(module(x)[0])
    if size <= PROBES:
        return torch.stack([along(v) for v in torch.eye(size)]).norm(dim=0)
    probes = [along(torch.randn(size, generator=generator)) for _ in range(PROBES)]
    return torch.stack(probes).square().mean(0).sqrt()


def tiled(stack: Tensor) -> Tensor:
    """Pictures (k, h, w) side by side in as square a grid as there is, NaN between them.

    Example:
        >>> tiled(torch.zeros(5, 2, 2)).shape
        torch.Size([5, 8])
    """
    count, height, width = stack.shape
    columns = math.ceil(count**0.5)
    rows = math.ceil(count / columns)
    grid = stack.new_full((rows * (height + 1) - 1, columns * (width + 1) - 1), float("nan"))
    for k, picture in enumerate(stack):
        top, left = k // columns * (height + 1), k % columns * (width + 1)
        grid[top : top + height, left : left + width] = picture
    return grid
