"""One set of samples on one side of Θ: J and Jᵀ of all of them, chunk of samples by chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from mrviz._memory import Splitter
from mrviz._progress import Progress
from mrviz.ntk.factors import Factors
from mrviz.ntk.products import Products
from mrviz.ntk.program_jacobian import Tick
from mrviz.programs import KernelBlock

Samples = TypeVar("Samples")


class SampleMap(Generic[Samples]):
    """J of one set of samples, in chunks that are halved when memory runs out.

    Args:
        products: how a chunk is pulled and pushed.
        chunk: samples start … stop − 1, as ``products`` takes them.
        spans: chunks of the samples, as (start, stop).
        rows: rows of J for each sample.
    """

    def __init__(
        self,
        products: Products[Samples],
        chunk: Callable[[int, int], Samples],
        spans: Sequence[tuple[int, int]],
        rows: int,
    ) -> None:
        self.products = products
        self._chunk = chunk
        self._spans = spans
        self._rows = rows
        self._split = Splitter("an NTK-vector product")

    @property
    def notes(self) -> list[str]:
        """What had to be done differently than planned."""
        return self._split.notes

    def pull(self, v: Tensor, tick: Tick) -> Tensor:
        """Jᵀ v for v (n·rows, k), float64."""

        def work(start: int, stop: int) -> Tensor:
            part = v[start * self._rows : stop * self._rows]
            return self.products.pull(self._chunk(start, stop), part, tick)

        total = v.new_zeros(self.products.size, v.shape[1])
        for span in self._spans:
            total += self._split(work, *span, _sum)
        return total

    def push(self, pulled: Tensor, tick: Tick) -> Tensor:
        """J times what was pulled, (n·rows, k), float64."""

        def work(start: int, stop: int) -> Tensor:
            return self.products.push(self._chunk(start, stop), pulled, tick)

        return torch.cat([self._split(work, *span, torch.cat) for span in self._spans])

    def diagonal(self, tick: Tick) -> Tensor:
        """Squared norms of the rows of J, (n·rows), float64."""

        def work(start: int, stop: int) -> Tensor:
            return self.products.diagonal(self._chunk(start, stop), tick)

        return torch.cat([self._split(work, *span, torch.cat) for span in self._spans])

    def dual(self, device: torch.device, tick: Tick) -> Tensor:
        """JᵀJ, float64."""
        unit = torch.eye(self.products.size, dtype=torch.float64, device=device)
        total = torch.zeros_like(unit)

        def work(start: int, stop: int) -> Tensor:
            rows = self.products.push(self._chunk(start, stop), unit, tick)
            return rows.T @ rows

        for span in self._spans:
            total += self._split(work, *span, _sum)
        return total


class KernelFactors:
    """Kernel blocks of ranges of samples, kept or computed each time they are needed.

    Args:
        factors: computes them.
    """

    def __init__(self, factors: Factors) -> None:
        self._factors = factors
        self._kept: list[tuple[int, int, list[KernelBlock]]] = []

    def keep(self, spans: Sequence[tuple[int, int]], bar: Progress) -> None:
        """Computes the blocks of all chunks and keeps them."""
        for start, stop in spans:
            self._kept.append((start, stop, self._factors.blocks(start, stop)))
            bar.advance()

    def features(self) -> list[Tensor | None]:
        """Features of all kept samples, block by block."""
        columns = zip(*([b.features for b in blocks] for *_, blocks in self._kept), strict=True)
        together = []
        for parts in columns:
            found = [part for part in parts if part is not None]
            together.append(torch.cat(found) if found else None)
        return together

    def __call__(self, start: int, stop: int) -> list[KernelBlock]:
        """Kernel blocks of samples start … stop − 1, a range within one chunk."""
        for first, last, blocks in self._kept:
            if first <= start and stop <= last:
                return [_rows_of(b, start - first, stop - first, last - first) for b in blocks]
        return self._factors.blocks(start, stop)


def block_bytes(blocks: Sequence[KernelBlock]) -> int:
    """Bytes that factors and features take."""
    tensors = [t for b in blocks for t in (b.factor, b.features) if t is not None]
    return sum(t.numel() * t.element_size() for t in tensors)


def _rows_of(block: KernelBlock, start: int, stop: int, n: int) -> KernelBlock:
    rows = len(block.factor) // n
    features = None if block.features is None else block.features[start:stop]
    return KernelBlock(block.factor[start * rows : stop * rows], features)


def _sum(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(0)
