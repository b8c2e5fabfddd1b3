"""A Gram cut into tiles: what a tile is made of, and how the matrix is filled from tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mrviz._memory import Splitter
from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz.errors import InputError
from mrviz.ntk.factors import Factors, Reduction, Tick
from mrviz.ntk.products import product_tile
from mrviz.programs import KernelBlock, ReprogrammedModel

JACOBIAN_BYTES = 2 << 30
"""Source Jacobians of one Gram are kept in memory up to this size, then recomputed by tile."""


@dataclass(frozen=True)
class Tiles:
    """A Gram cut into tiles: ``product(row(i), column(j))`` is the tile of two spans."""

    rows: list[tuple[int, int]]
    columns: list[tuple[int, int]]
    symmetric: bool
    row: Callable[[int], Any]
    column: Callable[[int], Any]
    product: Callable[[Any, Any], Tensor]


def factor_tiles(
    sides: list[Factors],
    size: int,
    progress: ProgressCallback | bool | None,
    cancel: CancelFlag | None,
) -> Tiles:
    """Tiles from factors, which are kept where they fit and recomputed otherwise."""
    spans = [spans_of(len(side.x), size) for side in sides]
    kept: list[dict[int, list[KernelBlock]]] = [{} for _ in sides]
    room = JACOBIAN_BYTES

    def blocks(side: int, k: int) -> list[KernelBlock]:
        nonlocal room
        if k in kept[side]:
            return kept[side][k]
        result = sides[side].blocks(*spans[side][k])
        used = sum(b.factor.numel() * b.factor.element_size() for b in result)
        if used <= room:
            room -= used
            kept[side][k] = result
        else:
            room = 0  # the rest is computed when its tiles need it, not now as well
        return result

    with Progress(sum(map(len, spans)), "source Jacobians", progress, cancel) as bar:
        for side in range(len(sides)):
            for k in range(len(spans[side])):
                if room > 0:
                    blocks(side, k)
                bar.advance()
    last = len(sides) - 1
    return Tiles(
        spans[0],
        spans[last],
        last == 0,
        lambda i: blocks(0, i),
        lambda j: blocks(last, j),
        block_product,
    )


def product_tiles(
    model: ReprogrammedModel,
    x1: Tensor,
    x2: Tensor | None,
    reduction: Reduction,
    size: int,
    split: Splitter,
    tick: Tick,
) -> Tiles:
    """Tiles from NTK-vector products."""
    other = x1 if x2 is None else x2
    rows, columns = spans_of(len(x1), size), spans_of(len(other), size)

    def product(a: Tensor, b: Tensor) -> Tensor:
        return split(
            lambda start, stop: product_tile(model, a[start:stop], b, reduction, tick),
            0,
            len(a),
            torch.cat,
        )

    return Tiles(
        rows,
        columns,
        x2 is None,
        lambda i: x1[slice(*rows[i])],
        lambda j: other[slice(*columns[j])],
        product,
    )


def fill(
    tiles: Tiles,
    reduction: Reduction,
    progress: ProgressCallback | bool | None,
    cancel: CancelFlag | None,
) -> tuple[Tensor, float]:
    """The matrix, tile by tile (upper triangle alone if symmetric), and its asymmetry."""
    r, n_rows, n_columns = reduction.rows, len(tiles.rows), len(tiles.columns)
    matrix: Tensor | None = None
    asymmetry = 0.0
    total = n_rows * (n_rows + 1) // 2 if tiles.symmetric else n_rows * n_columns
    with Progress(total, "Gram tiles", progress, cancel) as bar:
        for i in range(n_rows):
            row = tiles.row(i)
            for j in range(i if tiles.symmetric else 0, n_columns):
                diagonal = tiles.symmetric and i == j
                part = tiles.product(row, row if diagonal else tiles.column(j))
                part = part.mul_(reduction.scale)
                if matrix is None:
                    matrix = part.new_empty(tiles.rows[-1][1] * r, tiles.columns[-1][1] * r)
                if diagonal:
                    part, error = symmetrized(part)
                    asymmetry = max(asymmetry, error)
                (top, bottom), (left, right) = tiles.rows[i], tiles.columns[j]
                matrix[top * r : bottom * r, left * r : right * r] = part
                if tiles.symmetric and not diagonal:
                    matrix[left * r : right * r, top * r : bottom * r] = part.T
                bar.advance()
    assert matrix is not None
    largest = float(matrix.abs().max())
    return matrix, asymmetry / largest if largest > 0 else 0.0


def spans_of(n: int, size: int) -> list[tuple[int, int]]:
    """Chunks of at most ``size`` samples, as (start, stop)."""
    return [(start, min(start + size, n)) for start in range(0, n, size)]


def block_product(a: list[KernelBlock], b: list[KernelBlock]) -> Tensor:
    """Σ over blocks of (s_i·s_j) G_i G_jᵀ in float64, shape (rows of a, rows of b)."""
    total: Tensor | None = None
    for left, right in zip(a, b, strict=True):
        tile = left.factor.double() @ right.factor.double().T
        if left.features is not None and right.features is not None:
            scalar = left.features.double() @ right.features.double().T
            m, n = scalar.shape
            tile = tile.view(m, -1, n, tile.shape[1] // n) * scalar[:, None, :, None]
            tile = tile.flatten(2).flatten(0, 1)
        total = tile if total is None else total.add_(tile)
    if total is None:
        raise InputError("the program has no trainable parameters: its tangent kernel is zero")
    return total


def symmetrized(tile: Tensor) -> tuple[Tensor, float]:
    """A diagonal tile made exactly symmetric, and its largest asymmetry before."""
    return (tile + tile.T) / 2, float((tile - tile.T).abs().max())
