"""A source's kernel put together from the kernels of its layers, tile by tile."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from mrviz._memory import Splitter, available_bytes, is_out_of_memory, readable
from mrviz._progress import CancelFlag, Progress, ProgressCallback, stop_if_cancelled
from mrviz.errors import InputError, ResourceError
from mrviz.ntk.arithmetic import symmetrize_
from mrviz.ntk.factors import Reduction
from mrviz.ntk.gram import Gram, GramInfo
from mrviz.ntk.plan import accumulation_dtype, default_memory, spans_of
from mrviz.ntk.source_kernel.layers import FORMS, Block, joined, kept_bytes, layers_product
from mrviz.ntk.source_kernel.recording import RecordedNetwork
from mrviz.sources import SourceModel

CHUNK_BYTES = 256 << 20
"""Layer inputs and gradients of one chunk of samples, where its size is chosen automatically."""

CHUNK_SAMPLES = 64
"""Most samples of a chunk whose size is chosen automatically."""


class LayerwiseGram:
    """One empirical source kernel: sizes and forms chosen, then computed.

    Args:
        source: the frozen source.
        sides: checked inputs of the rows and, for a cross Gram, of the columns.
        reduction: what is kept of each C×C block.
        chunk_size: samples differentiated at once, or ``None`` to choose by memory.

    Attributes:
        chunk: samples differentiated at once.
        rows: output rows differentiated at once; those of a trace can be taken in parts.
        forms: how the gradients of each linear and convolution layer are multiplied.

    Raises:
        InputError: the source has no parameters, or its outputs do not depend on them.
        ResourceError: what must be written out does not fit for a single pair of samples.
    """

    def __init__(
        self,
        source: SourceModel,
        sides: list[Tensor],
        reduction: Reduction,
        chunk_size: int | None,
    ) -> None:
        device, dtype = sides[0].device, sides[0].dtype
        self.sides = sides
        self.symmetric = len(sides) == 1
        self.reduction = reduction
        self.accumulation = accumulation_dtype(device, dtype)
        self.recorded = RecordedNetwork(source, device, dtype)
        self.cotangents = reduction.cotangents(sides[0])
        self.rows = len(self.cotangents)
        element = sides[0].element_size()
        per_row = self.recorded.row_values * element
        if reduction.name == "trace":
            self.rows = max(1, min(self.rows, CHUNK_BYTES // (8 * per_row)))
        self._check_fits(source.name, self.rows * element, device)
        per_sample = self.recorded.input_values * element + self.rows * per_row
        tile = math.isqrt(CHUNK_BYTES // 8) // reduction.rows
        self.chunk = chunk_size or max(1, min(CHUNK_SAMPLES, tile, CHUNK_BYTES // per_sample))
        n = min(map(len, sides))
        self.forms = [
            layer.best_form(self.rows, reduction, n, self.chunk) for layer in self.recorded.weights
        ]

    @property
    def why(self) -> str:
        """How many layers were taken how."""
        counts = [f"{self.forms.count(k)} {v}" for k, v in FORMS.items() if k in self.forms]
        parts = ["linear and convolution layers: " + ", ".join(counts)] if counts else []
        written: dict[str, list[int]] = {}
        for layer in self.recorded.explicit:
            whole = layer.module is self.recorded.network
            name = "the whole source" if whole else type(layer.module).__name__
            written.setdefault(name, []).append(layer.size)
        parts += [
            f"written out: {sum(sizes):,} parameters of {len(sizes)} × {name}"
            for name, sizes in written.items()
        ]
        if self.recorded.n_idle:
            parts.append(f"{self.recorded.n_idle:,} parameters without gradient")
        return "; ".join(parts)

    def compute(self, progress: ProgressCallback | bool | None, cancel: CancelFlag | None) -> Gram:
        """The Gram."""
        started = time.perf_counter()
        x = self.sides[0]
        split = Splitter("the parameter gradients")
        try:
            matrix, asymmetry = self._matrix(split, progress, cancel)
        except Exception as failure:
            if isinstance(failure, ResourceError) or not is_out_of_memory(failure):
                raise
            raise ResourceError(
                f"memory ran out on {x.device} while the source's kernel was put together: use "
                f"fewer samples, chunk_size below {self.chunk}, or reduce='trace'"
            ) from failure
        if not torch.isfinite(matrix).all():
            raise InputError(
                f"source {self.recorded.network.name!r} has NaN or infinite parameter derivatives "
                "here"
            )
        largest = float(matrix.abs().max())
        info = GramInfo(
            method="layers",
            why=self.why,
            device=str(x.device),
            dtype=str(x.dtype).removeprefix("torch."),
            accumulation=str(self.accumulation).removeprefix("torch."),
            epsilon=torch.finfo(x.dtype).eps / 2,
            n_parameters=self.recorded.n_parameters,
            chunk_size=self.chunk,
            computed=sum(map(len, self.sides)),
            cached=0,
            seconds=time.perf_counter() - started,
            trace=float(matrix.trace()) if self.symmetric else None,
            symmetry_error=asymmetry / (largest or 1.0) if self.symmetric else None,
            notes=tuple(split.notes),
        )
        name = self.reduction.name
        return Gram(matrix, len(x), self.reduction.outputs, name, self.symmetric, info)

    def _check_fits(self, name: str, width: int, device: torch.device) -> None:
        """Raises ``ResourceError`` where the explicit gradients of two samples do not fit."""
        needed, free = 2 * self.recorded.explicit_values * width, available_bytes(device)
        if free is not None and needed > 0.8 * free:
            raise ResourceError(
                f"source {name!r} has {self.recorded.explicit_values:,} parameters outside linear "
                "and convolution layers, whose gradients must be written out: those of two "
                f"samples need {readable(needed)}, but {device} has {readable(free)} free. Pass "
                "reduce='sum' or a class number, or use fewer such parameters"
            )

    def _matrix(
        self, split: Splitter, progress: ProgressCallback | bool | None, cancel: CancelFlag | None
    ) -> tuple[Tensor, float]:
        """The matrix, tiles below the diagonal being mirror images, and its asymmetry."""
        r, ends = self.reduction.rows, (self.sides[0], self.sides[-1])
        rows, columns = (spans_of(len(side), self.chunk) for side in ends)
        shape = [len(side) * r for side in ends]
        matrix = torch.zeros(shape, dtype=torch.float64, device=ends[0].device)
        asymmetry = 0.0
        parts = self.cotangents.split(self.rows)
        tiles = [
            (row, column)
            for row in rows
            for column in columns
            if not self.symmetric or column[0] >= row[0]
        ]
        with Progress(len(parts) * len(tiles), "source kernel", progress, cancel) as bar:
            for number, cotangents in enumerate(parts):
                if len(parts) > 1:
                    first = number * self.rows + 1
                    last = first + len(cotangents) - 1
                    which = f"outputs {first:,}–{last:,}" if last > first else f"output {first:,}"
                    bar.describe(f"source kernel, {which} of {len(self.cotangents):,}")
                chunks = Chunks(self, cotangents, split, cancel)
                for row, column in tiles:
                    a, b = chunks.pair(row, column)
                    tile = layers_product(a, b, self.reduction, self.accumulation)
                    tile = tile.mul_(self.reduction.scale)
                    diagonal = self.symmetric and row == column
                    if diagonal:
                        error = symmetrize_(tile, 1)
                        asymmetry = max(asymmetry, error)
                    down, across = (slice(start * r, stop * r) for start, stop in (row, column))
                    matrix[down, across] += tile
                    if self.symmetric and not diagonal:
                        matrix[across, down] += tile.T
                    bar.advance()
        return matrix, asymmetry


class Chunks:
    """Gradients of chunks of samples, kept where they fit and computed again otherwise.

    Args:
        task: whose samples and layers they are.
        cotangents: directions (R, C) in output space.
        split: halves a chunk when memory runs out.
        cancel: flag that is checked between backward passes.
    """

    def __init__(
        self, task: LayerwiseGram, cotangents: Tensor, split: Splitter, cancel: CancelFlag | None
    ) -> None:
        self.task = task
        self.cotangents = cotangents
        self.split = split
        self.cancel = cancel
        self._kept: dict[tuple[int, int], list[Block]] = {}
        self._row: tuple[tuple[int, int], list[Block]] | None = None
        self._room = default_memory(cotangents.device)

    def pair(
        self, row: tuple[int, int], column: tuple[int, int]
    ) -> tuple[list[Block], list[Block]]:
        """Gradients of the samples of two spans."""
        symmetric = self.task.symmetric
        if self._row is None or self._row[0] != row:
            self._row = row, self._blocks(0, row)
        here = self._row[1]
        return here, here if symmetric and row == column else self._blocks(-1, column)

    def _blocks(self, side: int, span: tuple[int, int]) -> list[Block]:
        side = side % len(self.task.sides)
        if (side, span[0]) in self._kept:
            return self._kept[side, span[0]]

        def work(first: int, last: int) -> list[Block]:
            x = self.task.sides[side][first:last]
            recorded, reduction = self.task.recorded, self.task.reduction
            return recorded.blocks(x, self.cotangents, self.task.forms, reduction, self._tick)

        blocks = self.split(work, *span, joined)
        used = sum(map(kept_bytes, blocks))
        if used <= self._room:
            self._room -= used
            self._kept[side, span[0]] = blocks
        return blocks

    def _tick(self) -> None:
        stop_if_cancelled(self.cancel, "source kernel")
