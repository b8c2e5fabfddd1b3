"""A Gram cut into tiles: how tiles are computed here, and how the matrix is put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mrviz._memory import Splitter
from mrviz._progress import CancelFlag, Progress, ProgressCallback, stop_if_cancelled
from mrviz.ntk.arithmetic import block_product, n_bytes, symmetrize_
from mrviz.ntk.factors import Factors, Tick
from mrviz.ntk.jacobian import JacobianCache
from mrviz.ntk.plan import Plan
from mrviz.ntk.products import product_tile
from mrviz.programs import KernelBlock

Tile = tuple[int, int, Tensor]
"""Row chunk, column chunk, and the tile without the reduction's scale."""

Room = Callable[[int, int], Tensor]
"""Where in a matrix the tile of row chunk i and column chunk j belongs, to be computed there."""


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

    def room(self, i: int, j: int) -> Tensor:
        """The part of the matrix that the tile fills."""
        return self.matrix[region(self.plan, i, j)]

    def put(self, i: int, j: int, tile: Tensor, asymmetry: float) -> None:
        """Writes the tile, unless it was computed in its :meth:`room`, and its mirror image."""
        room = self.room(i, j)
        if tile.data_ptr() != room.data_ptr():
            room.copy_(tile)
        if self.plan.symmetric and i != j:
            self.room(j, i).copy_(tile.T)
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
        room: where in the matrix tiles are computed; default: outside it.
    """

    def __init__(
        self,
        plan: Plan,
        cache: JacobianCache | None,
        cancel: CancelFlag | None,
        room: Room | None = None,
    ) -> None:
        self.plan = plan
        self.place = Place(str(plan.model.source.device), plan.accumulation, plan.epsilon)
        self._split = Splitter("the tangent")
        self._sides = [] if plan.method == "products" else plan.factors(cache, self._tick)
        self._from_factors = FactorTiles(plan, self._sides, room) if self._sides else None
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
        room: as in :class:`LocalTiles`.
    """

    def __init__(self, plan: Plan, sides: list[Factors], room: Room | None = None) -> None:
        self.plan = plan
        self._room = room
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
                    row, out = self._panel[i], self._room(i, j) if self._room else None
                    tile = block_product(row, column, self.plan.accumulation, upper=own, out=out)
                    yield i, j, tile

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
            error = 0.0
            if plan.reduction.scale != 1:
                tile.mul_(plan.reduction.scale)
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
