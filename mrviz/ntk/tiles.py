"""A Gram cut into tiles: how tiles are computed here, and how the matrix is put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mrviz._memory import Splitter
from mrviz._progress import CancelFlag, Progress, ProgressCallback, stop_if_cancelled
from mrviz.errors import InputError
from mrviz.ntk.factors import Factors, Tick
from mrviz.ntk.jacobian import JacobianCache
from mrviz.ntk.plan import Plan
from mrviz.ntk.products import product_tile
from mrviz.programs import KernelBlock

Tile = tuple[int, int, Tensor]
"""Row chunk, column chunk, and the tile without the reduction's scale."""


@dataclass(frozen=True)
class Place:
    """Where tiles are computed.

    Attributes:
        device: as PyTorch writes it.
        accumulation: dtype of the products.
        epsilon: unit round-off of the least precise step.
    """

    device: str
    accumulation: torch.dtype
    epsilon: float


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
        pending: tiles that are not in it at the start: all.
        asymmetry: largest asymmetry of a diagonal tile before it was averaged away.
        notes: none.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pending = plan.tiles
        self.matrix = torch.empty(plan.shape, dtype=torch.float64, device=plan.model.source.device)
        self.asymmetry = 0.0

    def put(self, i: int, j: int, tile: Tensor, asymmetry: float) -> None:
        """Writes the tile and its mirror image."""
        rows, columns = region(self.plan, i, j)
        self.matrix[rows, columns] = tile
        if self.plan.symmetric and i != j:
            self.matrix[columns, rows] = tile.T
        self.asymmetry = max(self.asymmetry, asymmetry)

    @property
    def trace(self) -> float:
        """Trace of a symmetric matrix."""
        return float(self.matrix.trace())

    @property
    def largest(self) -> float:
        """Largest entry of a symmetric matrix; it is on the diagonal, as the matrix is PSD."""
        return float(self.matrix.diagonal().max())


class LocalTiles:
    """Tiles computed in this process.

    Args:
        plan: what is computed.
        cache: where source Jacobians are kept for other Grams, if anywhere.
        cancel: flag that ends the work.
    """

    def __init__(self, plan: Plan, cache: JacobianCache | None, cancel: CancelFlag | None) -> None:
        self.plan = plan
        self.place = Place(str(plan.model.source.device), plan.accumulation, plan.epsilon)
        self._split = Splitter("the tangent")
        self._sides = [] if plan.method == "products" else plan.factors(cache, self._tick)
        self._from_factors = FactorTiles(plan, self._sides) if self._sides else None
        self._cancel = cancel

    def __call__(
        self, tiles: list[tuple[int, int]], progress: ProgressCallback | bool | None
    ) -> Iterator[Tile]:
        """Yields the tiles asked for, in an order of its own."""
        if self._from_factors is not None:
            return self._from_factors(tiles, progress, self._cancel)
        return product_tiles(self.plan, tiles, self._split, self._tick)

    def explicit(self) -> Tensor | None:
        """J with Θ = J Jᵀ where it is the smaller one; see :meth:`FactorTiles.explicit`."""
        return None if self._from_factors is None else self._from_factors.explicit()

    @property
    def computed(self) -> int:
        """Samples whose source Jacobian was computed."""
        return sum(side.jacobian.computed for side in self._sides)

    @property
    def cached(self) -> int:
        """Samples whose source Jacobian was in the cache."""
        return sum(side.jacobian.found for side in self._sides)

    @property
    def notes(self) -> list[str]:
        """What had to be done differently than planned."""
        return [*self._split.notes, *(note for side in self._sides for note in side.notes)]

    def _tick(self) -> None:
        stop_if_cancelled(self._cancel, "Gram matrix")


class FactorTiles:
    """Tiles from kernel factors.

    The factors of a panel of rows are kept, as many as ``plan.memory`` holds, while those of the
    columns pass by one after another. So each column's factors are computed once a panel where
    not all of them fit, and once in all where the rows do.

    Args:
        plan: what is computed.
        sides: factors of the rows and, for a cross Gram, of the columns.
    """

    def __init__(self, plan: Plan, sides: list[Factors]) -> None:
        self.plan = plan
        self.sides = sides
        self._spans = [plan.rows, plan.columns][: len(sides)]
        self._panel: dict[int, list[KernelBlock]] = {}
        self._width = 0

    def blocks(self, side: int, k: int) -> list[KernelBlock]:
        """Kernel blocks of chunk k."""
        if side == 0 and k in self._panel:
            return self._panel[k]
        result = self.sides[side].blocks(*self._spans[side][k])
        self._width = sum(map(_columns, result))
        return result

    def __call__(
        self,
        tiles: list[tuple[int, int]],
        progress: ProgressCallback | bool | None,
        cancel: CancelFlag | None,
    ) -> Iterator[Tile]:
        """Yields the tiles asked for, the source Jacobians of the first rows first."""
        rows = list(dict.fromkeys(i for i, _ in tiles))
        with Progress(len(rows), "source Jacobians", progress, cancel) as bar:
            self._panel = {rows[0]: self.blocks(0, rows[0])}
            size = max(1, self.plan.memory // max(1, n_bytes(self._panel[rows[0]])))
            bar.advance()
            for i in rows[1:size]:
                self._panel[i] = self.blocks(0, i)
                bar.advance()
            bar.advance(max(0, len(rows) - size))
        last = len(self.sides) - 1
        for panel, columns in panels(tiles, size):
            self._panel = {i: kept for i, kept in self._panel.items() if i in panel}
            for i in panel:
                self._panel[i] = self.blocks(0, i)
            for j, partners in columns.items():
                column = self.blocks(last, j)
                for i in partners:
                    own = self.plan.reduction.rows if self.plan.symmetric and i == j else 0
                    row = self._panel[i]
                    yield i, j, block_product(row, column, self.plan.accumulation, upper=own)

    def explicit(self) -> Tensor | None:
        """J with Θ = J Jᵀ, float64, where it has fewer columns than rows; else ``None``."""
        if not self.plan.symmetric or self._width >= self.plan.shape[0]:
            return None
        chunks = (self.blocks(0, k) for k in range(len(self._spans[0])))
        scale = self.plan.reduction.scale**0.5
        return torch.cat([torch.cat([*map(_expanded, c)], 1) for c in chunks]).mul_(scale)


def panels(
    tiles: list[tuple[int, int]], size: int
) -> Iterator[tuple[list[int], dict[int, list[int]]]]:
    """Puts tiles into an order that needs few factors at a time: panel by panel, then by column.

    The last column comes first, so that what is left of a symmetric Gram after an interruption
    needs fewer and fewer samples.

    Args:
        tiles: (row chunk, column chunk).
        size: row chunks of one panel.

    Yields:
        The row chunks of a panel, and for each column chunk the rows that it meets.
    """
    columns: dict[int, list[int]] = {}
    for i, j in tiles:
        columns.setdefault(i, []).append(j)
    rows = list(columns)
    for start in range(0, len(rows), size):
        panel = rows[start : start + size]
        partners: dict[int, list[int]] = {}
        for i in panel:
            for j in columns[i]:
                partners.setdefault(j, []).append(i)
        yield panel, dict(sorted(partners.items(), reverse=True))


def product_tiles(
    plan: Plan, tiles: list[tuple[int, int]], split: Splitter, tick: Tick
) -> Iterator[Tile]:
    """Tiles from NTK-vector products."""
    columns = plan.x1 if plan.x2 is None else plan.x2
    for i, j in tiles:
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
    *,
    at_once: bool = False,
) -> None:
    """Scales each tile, makes diagonal ones of a symmetric Gram exactly symmetric, stores all.

    The progress bar appears with the first tile, because what comes before has a bar of its own,
    or ``at_once``.
    """
    with ExitStack() as stack:
        bar: Progress | None = None

        def opened() -> Progress:
            return stack.enter_context(Progress(total, "Gram tiles", progress, cancel))

        if at_once:
            bar = opened()
        for i, j, tile in tiles:
            bar = bar or opened()
            tile, error = tile.mul_(plan.reduction.scale), 0.0
            if plan.symmetric and i == j:
                error = symmetrize_(tile, plan.reduction.rows)
            sink.put(i, j, tile, error)
            bar.advance()


def region(plan: Plan, i: int, j: int) -> tuple[slice, slice]:
    """Rows and columns of the matrix that the tile of row chunk i and column chunk j fills."""
    size = plan.chunk_size * plan.reduction.rows
    height, width = plan.shape
    rows = slice(i * size, min((i + 1) * size, height))
    return rows, slice(j * size, min((j + 1) * size, width))


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
    """
    if not a:
        raise InputError("there are no trainable parameters: the tangent kernel is zero")
    total = a[0].factor.new_empty((len(a[0].factor), len(b[0].factor)), dtype=torch.float64)
    for k, (left, right) in enumerate(zip(a, b, strict=True)):
        g1, g2 = left.factor.to(accumulation), right.factor.to(accumulation)
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
        error = max(error, float((square - square.T).abs().max()))
        square.copy_((square + square.T) / 2)
        tile[rows.stop :, rows] = tile[rows, rows.stop :].T
    return error


def _strips(n: int, c: int, upper: bool) -> Iterator[tuple[slice, int]]:
    """Rows of each strip, a multiple of c, and the column it begins at."""
    size = max(1, (320 if n <= 1280 else 640) // c) * c
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
