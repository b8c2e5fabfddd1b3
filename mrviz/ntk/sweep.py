"""Grams of a whole range of capacities from one Jacobian pass."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from operator import index

import torch
from torch import Tensor

from mrviz._checks import Array
from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz.errors import InputError
from mrviz.ntk.arithmetic import block_product, symmetrize_
from mrviz.ntk.factors import Reduce
from mrviz.ntk.gram import Gram, GramInfo
from mrviz.ntk.jacobian import cache
from mrviz.ntk.plan import check_fits, full_precision, make_plan
from mrviz.ntk.tiles import MemorySink
from mrviz.programs import KernelBlock, Program, ReprogrammedModel
from mrviz.sources.base import evaluation_mode


def capacity_grams(
    model: ReprogrammedModel,
    x: Array,
    capacities: Sequence[int] | None = None,
    *,
    x2: Array | None = None,
    reduce: Reduce = "full",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    chunk_size: int | None = None,
    memory: int | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Iterator[tuple[int, Gram]]:
    """Grams at increasing capacities, each the last one plus what the step adds.

    A border prompt's kernel is a sum over rings, so all widths together cost one Jacobian pass
    and the arithmetic of one full-width Gram (docs/theory.md, section 2, Capacity).

    Args:
        model: a reprogrammed model whose program has a capacity.
        x: target inputs (n, *target_shape).
        capacities: which; default: the whole range.
        x2: samples of the columns; default: those of the rows, x.
        reduce: as in :func:`~mrviz.ntk_gram`.
        device: where to compute; default: where the model is.
        dtype: of the Jacobians; default: the model's.
        chunk_size: as in :func:`~mrviz.ntk_gram`.
        memory: as in :func:`~mrviz.ntk_gram`.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.

    Yields:
        (capacity, Gram), capacities increasing.

    Raises:
        InputError: the program has no capacity or no closed form, or a capacity is out of range.
    """
    started = time.perf_counter()
    plan = make_plan(
        model,
        x,
        x2,
        reduce=reduce,
        device=device,
        dtype=dtype,
        chunk_size=chunk_size,
        memory=memory,
    )
    model, reduction = plan.model, plan.reduction
    spans = [plan.rows] if plan.symmetric else [plan.rows, plan.columns]
    program, steps = _steps(model, capacities)
    n, m = (side[-1][1] for side in (spans[0], spans[-1]))
    check_fits(n, m, reduction, model.source.device)

    total = sum(map(len, spans))
    with full_precision(), Progress(total, "source Jacobians", progress, cancel) as bar:
        sides = plan.factors(cache, tick=lambda: bar.advance(0))
        chunks: list[list[list[list[KernelBlock]]]] = [[] for _ in sides]
        for factors, parts, found in zip(sides, spans, chunks, strict=True):
            for span in parts:
                with evaluation_mode(model):
                    found.append(factors.increments(*span, steps))
                bar.advance()
    left, right = chunks[0], chunks[-1]

    matrix = torch.zeros(plan.shape, dtype=torch.float64, device=model.source.device)
    known: dict[tuple[int, int], Tensor] = {}
    fixed = plan.model.n_parameters - program.n_parameters
    with Progress(len(steps), "capacities", progress, cancel) as bar:
        for k, capacity in enumerate(steps):
            sink = MemorySink(plan)
            for i, j in plan.tiles if left[0][k] else ():
                with full_precision():
                    own = reduction.rows if plan.symmetric and i == j else 0
                    part = block_product(
                        left[i][k], right[j][k], plan.accumulation, known, upper=own
                    )
                part.mul_(reduction.scale)
                sink.put(i, j, part, symmetrize_(part, reduction.rows) if own else 0.0)
            if left[0][k]:
                matrix += sink.matrix
            info = GramInfo(
                method="structured",
                why="sum of the capacity steps of " + type(program).__name__,
                device=str(model.source.device),
                dtype=str(model.source.dtype).removeprefix("torch."),
                accumulation=str(plan.accumulation).removeprefix("torch."),
                epsilon=plan.epsilon,
                n_parameters=program.parameters_at(capacity) + fixed,
                chunk_size=plan.chunk_size,
                computed=sum(side.jacobian.computed for side in sides),
                cached=sum(side.jacobian.found for side in sides),
                seconds=time.perf_counter() - started,
                trace=float(matrix.trace()) if plan.symmetric else None,
                symmetry_error=(
                    sink.asymmetry / max(float(matrix.abs().max()), 1e-300)
                    if plan.symmetric
                    else None
                ),
                notes=tuple(dict.fromkeys(note for side in sides for note in side.notes)),
            )
            yield (
                capacity,
                Gram(
                    matrix.clone(),
                    len(plan.x1),
                    model.outputs,
                    reduction.name,
                    plan.symmetric,
                    info,
                ),
            )
            bar.advance()


def _steps(model: ReprogrammedModel, capacities: Sequence[int] | None) -> tuple[Program, list[int]]:
    """The program, if it has capacities to sweep, and those asked for, sorted, each once."""
    program = model.program
    if not (isinstance(program, Program) and program.closed_form and program.capacity_range):
        raise InputError(f"program {type(program).__name__} has no capacity to sweep")
    low, high = program.capacity_range
    try:
        chosen = range(low, high + 1) if capacities is None else capacities
        steps = sorted({index(c) for c in chosen})
    except TypeError:
        steps = []
    if not steps or steps[0] < low or steps[-1] > high:
        raise InputError(f"capacities must be whole numbers from {low} to {high}, got {capacities}")
    return program, steps
