"""A Gram cut into tiles: how tiles are computed here, and how the matrix is put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Protocol

import torch
from torch import Tensor

from mrviz._memory import Splitter
from mrviz._progress import CancelFlag, Progress, ProgressCallback, stop_if_cancelled
from mrviz.errors import InputError
from mrviz.ntk.factors import Factors
from mrviz.ntk.plan import Plan
from mrviz.ntk.products import product_tile
from mrviz.programs import KernelBlock

Tile = tuple[int, int, Tensor]
"""Row chunk, column chunk, and the tile without the reduction's scale."""


class Sink(Protocol):
    """Where finished tiles go."""

    def put(self, i: int, j: int, tile: Tensor, asymmetry: float) -> None:
        """Takes the tile of row chunk i and column chunk j, and its mirror image if any."""


class MemorySink:
    """A matrix in memory.

    Args:
        plan: what is computed.

    Attributes:
        matrix: the matrix so far.
        asymmetry: largest asymmetry of a diagonal tile before it was averaged away.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.matrix = torch.empty(plan.shape, dtype=torch.float64, device=plan.model.source.device)
        self.asymmetry = 0.0

    def put(self, i: int, j: int, tile: Tensor, asymmetry: float) -> None:
        """Writes the tile and its mirror image."""
        r = self.plan.reduction.rows
        (top, bottom), (left, right) = self.plan.rows[i], self.plan.columns[j]
        self.matrix[top * r : bottom * r, left * r : right * r] = tile
        if self.plan.symmetric and i != j:
            self.matrix[left * r : right * r, top * r : bottom * r] = tile.T
        self.asymmetry = max(self.asymmetry, asymmetry)


class FactorTiles:
    """Tiles from kernel factors, which are kept where they fit and computed again otherwise.

    Args:
        plan: what is computed.
        sides: factors of the rows and, for a cross Gram, of the columns.
    """

    def __init__(self, plan: Plan, sides: list[Factors]) -> None:
        self.plan = plan
        self.sides = sides
        self._spans = [plan.rows, plan.columns][: len(sides)]
        self._kept: list[dict[int, list[KernelBlock]]] = [{} for _ in sides]
        self._room = plan.memory

    def blocks(self, side: int, k: int) -> list[KernelBlock]:
        """Kernel blocks of chunk k."""
        kept = self._kept[side]
        if k in kept:
            return kept[k]
        result = self.sides[side].blocks(*self._spans[side][k])
        used = sum(b.factor.numel() * b.factor.element_size() for b in result)
        if used <= self._room:
            self._room -= used
            kept[k] = result
        else:
            self._room = 0  # the rest is computed when its tiles need it, not now as well
        return result

    def __call__(
        self,
        tiles: list[tuple[int, int]],
        progress: ProgressCallback | bool | None,
        cancel: CancelFlag | None,
    ) -> Iterator[Tile]:
        """Yields the tiles asked for, source Jacobians first as far as they can be kept."""
        last = len(self.sides) - 1
        needed = dict.fromkeys((0, i) for i, _ in tiles)
        needed |= dict.fromkeys((last, j) for _, j in tiles)
        with Progress(len(needed), "source Jacobians", progress, cancel) as bar:
            for side, k in needed:
                if self._room > 0:
                    self.blocks(side, k)
                bar.advance()
        row: tuple[int, list[KernelBlock]] | None = None
        for i, j in tiles:
            if row is None or row[0] != i:
                row = i, self.blocks(0, i)
            columns = row[1] if self.plan.symmetric and i == j else self.blocks(last, j)
            yield i, j, block_product(row[1], columns, self.plan.accumulation)

    def explicit(self) -> Tensor | None:
        """J with Θ = J Jᵀ, float64, where it has fewer columns than rows; else ``None``."""
        if not self.plan.symmetric or sum(map(_columns, self.blocks(0, 0))) >= self.plan.shape[0]:
            return None
        chunks = (self.blocks(0, k) for k in range(len(self._spans[0])))
        scale = self.plan.reduction.scale**0.5
        return torch.cat([torch.cat([*map(_expanded, c)], 1) for c in chunks]).mul_(scale)


def product_tiles(plan: Plan, split: Splitter, cancel: CancelFlag | None) -> Iterator[Tile]:
    """Tiles from NTK-vector products."""

    def tick() -> None:
        stop_if_cancelled(cancel, "Gram matrix")

    columns = plan.x1 if plan.x2 is None else plan.x2
    for i, j in plan.tiles:
        x2 = columns[slice(*plan.columns[j])]

        def work(start: int, stop: int, x2: Tensor = x2) -> Tensor:
            return product_tile(plan.model, plan.x1[start:stop], x2, plan.reduction, tick)

        yield i, j, split(work, *plan.rows[i], torch.cat)


def assemble(
    plan: Plan,
    tiles: Iterable[Tile],
    total: int,
    sink: Sink,
    progress: ProgressCallback | bool | None,
    cancel: CancelFlag | None,
) -> None:
    """Scales each tile, makes diagonal ones of a symmetric Gram exactly symmetric, stores all."""
    with ExitStack() as stack:
        bar: Progress | None = None
        for i, j, tile in tiles:
            if bar is None:  # only now, as what comes before the first tile has its own bar
                bar = stack.enter_context(Progress(total, "Gram tiles", progress, cancel))
            tile, error = tile.mul_(plan.reduction.scale), 0.0
            if plan.symmetric and i == j:
                tile, error = symmetrized(tile)
            sink.put(i, j, tile, error)
            bar.advance()


def block_product(
    a: list[KernelBlock],
    b: list[KernelBlock],
    accumulation: torch.dtype = torch.float64,
    known: dict[tuple[int, int], Tensor] | None = None,
) -> Tensor:
    """Σ over blocks of (s_i·s_j) G_i G_jᵀ, shape (rows of a, rows of b), float64.

    Args:
        a: blocks of the rows.
        b: blocks of the columns.
        accumulation: dtype of the products.
        known: products G_i G_jᵀ of blocks with features, for calls with the same factors.
    """
    total: Tensor | None = None
    for left, right in zip(a, b, strict=True):
        pair = id(left.factor), id(right.factor)
        shared = known is not None and left.features is not None
        if known is not None and pair in known:
            tile = known[pair]
        else:
            tile = left.factor.to(accumulation) @ right.factor.to(accumulation).T
            if known is not None and shared:
                known[pair] = tile
        if left.features is not None and right.features is not None:
            scalar = left.features.to(accumulation) @ right.features.to(accumulation).T
            m, n = scalar.shape
            tile = tile.view(m, -1, n, tile.shape[1] // n)
            scalar = scalar[:, None, :, None]
            tile = (tile * scalar if shared else tile.mul_(scalar)).flatten(2).flatten(0, 1)
        tile = tile.double()
        total = tile if total is None else total.add_(tile)
    if total is None:
        raise InputError("there are no trainable parameters: the tangent kernel is zero")
    return total


def symmetrized(tile: Tensor) -> tuple[Tensor, float]:
    """A diagonal tile made exactly symmetric, and its largest asymmetry before."""
    return (tile + tile.T) / 2, float((tile - tile.T).abs().max())


def _columns(block: KernelBlock) -> int:
    """Columns of a block written out as a Jacobian."""
    features = 1 if block.features is None else block.features.shape[1]
    return block.factor.shape[1] * features


def _expanded(block: KernelBlock) -> Tensor:
    """A block written out: rows s_i ⊗ (row of G_i), float64."""
    factor = block.factor.double()
    if block.features is None:
        return factor
    per_sample = len(factor) // len(block.features)
    features = block.features.double().repeat_interleave(per_sample, 0)
    return (features[:, :, None] * factor[:, None, :]).flatten(1)
