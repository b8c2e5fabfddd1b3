"""Products of kernel factors, in strips of rows that stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mrviz.errors import InputError
from mrviz.programs import KernelBlock


def n_bytes(blocks: list[KernelBlock]) -> int:
    """Bytes that the factors of kernel blocks take."""
    return sum(b.factor.numel() * b.factor.element_size() for b in blocks)


def block_product(
    a: list[KernelBlock],
    b: list[KernelBlock],
    accumulation: torch.dtype = torch.float64,
    known: dict[tuple[int, int], Tensor] | None = None,
    *,
    upper: int = 0,
    out: Tensor | None = None,
) -> Tensor:
    """Σ over blocks of (s_i·s_j) G_i G_jᵀ, shape (rows of a, rows of b), float64.

    Worked out in strips of rows, so that what a strip needs stays in the processor's cache.

    Args:
        a: blocks of the rows.
        b: blocks of the columns.
        accumulation: dtype of the products.
        known: products G_i G_jᵀ of blocks with features, for calls with the same factors.
        upper: rows of each sample, where a and b are the same and what lies left of each strip's
            own columns is left to :func:`symmetrize_`; 0 computes everything.
        out: float64 memory for the result; default: new.
    """
    if not a:
        raise InputError("there are no trainable parameters: the tangent kernel is zero")
    total = out
    if total is None:
        total = a[0].factor.new_empty((len(a[0].factor), len(b[0].factor)), dtype=torch.float64)
    for k, (left, right) in enumerate(zip(a, b, strict=True)):
        g1 = left.factor.to(accumulation)
        g2 = g1 if right.factor is left.factor else right.factor.to(accumulation)
        if left.features is None or right.features is None:
            for rows, first in _strips(len(g1), upper or 1, upper > 0):
                _put(total[rows, first:], g1[rows], g2[first:], k > 0)
            continue
        s1, s2 = left.features.to(accumulation), right.features.to(accumulation)
        c = len(g1) // len(s1)
        pair = id(left.factor), id(right.factor)
        product = None if known is None else known.get(pair)
        if known is not None and product is None:
            product = known[pair] = g1.new_empty((len(g1), len(g2)))
            for rows, first in _strips(len(g1), c, upper > 0):
                torch.mm(g1[rows], g2[first:].T, out=product[rows, first:])
        for rows, first in _strips(len(g1), c, upper > 0):
            strip = total[rows, first:]
            scalar = s1[rows.start // c : rows.stop // c] @ s2[first // c :].T
            if product is not None:
                part = product[rows, first:].clone()
            elif k == 0 and accumulation == torch.float64:
                part = torch.mm(g1[rows], g2[first:].T, out=strip)
            else:
                part = g1[rows] @ g2[first:].T
            part.unflatten(1, (-1, c)).unflatten(0, (-1, c)).mul_(scalar[:, None, :, None])
            if part is not strip:
                strip.add_(part) if k > 0 else strip.copy_(part)
    return total


def symmetrize_(tile: Tensor, rows_per_sample: int) -> float:
    """Makes a diagonal tile exactly symmetric in place, from its upper strips.

    Args:
        tile: square, from :func:`block_product` or complete.
        rows_per_sample: as there.

    Returns:
        The largest asymmetry of the squares on the diagonal before.
    """
    error = 0.0
    for rows, _ in _strips(len(tile), rows_per_sample, True):
        square = tile[rows, rows]
        error = max(error, float((square - square.T).abs_().max()))
        square.copy_((square + square.T).div_(2))
        tile[rows.stop :, rows] = tile[rows, rows.stop :].T
    return error


def _strips(n: int, c: int, upper: bool) -> Iterator[tuple[slice, int]]:
    """Rows of each strip, a multiple of c, and the column it begins at."""
    size = max(1, (160 if n <= 1280 else 320) // c) * c
    for start in range(0, n, size):
        yield slice(start, min(start + size, n)), start if upper else 0


def _put(strip: Tensor, g1: Tensor, g2: Tensor, add: bool) -> None:
    """Writes G_i G_jᵀ into a strip of the tile, or adds it."""
    if add:
        strip.add_(g1 @ g2.T)
    elif g1.dtype == strip.dtype:
        torch.mm(g1, g2.T, out=strip)
    else:
        strip.copy_(g1 @ g2.T)
