"""Grams of a whole range of capacities from one Jacobian pass."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from operator import index

import torch

from mrviz._checks import Array
from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz.errors import InputError
from mrviz.ntk.factors import Factors, Reduce, Reduction
from mrviz.ntk.gram import (
    Gram,
    GramInfo,
    check_fits,
    default_chunk,
    full_precision,
    prepared,
)
from mrviz.ntk.jacobian import cache
from mrviz.ntk.tiles import block_product, spans_of, symmetrized
from mrviz.programs import Program, ReprogrammedModel
from mrviz.sources.base import evaluation_mode


def capacity_grams(
    model: ReprogrammedModel,
    x: Array,
    capacities: Sequence[int] | None = None,
    *,
    reduce: Reduce = "full",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
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
        reduce: as in :func:`~mrviz.ntk_gram`.
        device: where to compute; default: where the model is.
        dtype: of the Jacobians; default: the model's.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.

    Yields:
        (capacity, Gram), capacities increasing.

    Raises:
        InputError: the program has no capacity or no closed form, or a capacity is out of range.
    """
    model = prepared(model, device, dtype)
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
    if program.parameters_at(high) == 0:
        raise InputError("the program has no trainable parameters: its tangent kernel is zero")
    x = model.inputs(x)
    reduction = Reduction(reduce, model.outputs)
    check_fits(len(x), len(x), reduction, model.source.device)
    started = time.perf_counter()

    size = default_chunk(model, reduction)
    spans = spans_of(len(x), size)
    with full_precision(), Progress(len(spans), "source Jacobians", progress, cancel) as bar:
        factors = Factors(model, x, reduction, jacobian_cache=cache, tick=lambda: bar.advance(0))
        chunks = []
        for span in spans:
            with evaluation_mode(model):
                chunks.append(factors.increments(*span, steps))
            bar.advance()

    r = reduction.rows
    matrix = torch.zeros((len(x) * r, len(x) * r), dtype=torch.float64, device=model.source.device)
    with Progress(len(steps), "capacities", progress, cancel) as bar:
        for k, capacity in enumerate(steps):
            asymmetry = 0.0
            for i, (top, bottom) in enumerate(spans):
                for j, (left, right) in enumerate(spans[i:], i):
                    if not chunks[i][k]:
                        continue
                    part = block_product(chunks[i][k], chunks[j][k]) * reduction.scale
                    if i == j:
                        part, error = symmetrized(part)
                        asymmetry = max(asymmetry, error)
                    matrix[top * r : bottom * r, left * r : right * r] += part
                    if i != j:
                        matrix[left * r : right * r, top * r : bottom * r] += part.T
            info = GramInfo(
                method="structured",
                why="sum of the capacity steps of " + type(program).__name__,
                device=str(model.source.device),
                dtype=str(model.source.dtype).removeprefix("torch."),
                epsilon=torch.finfo(model.source.dtype).eps / 2,
                n_parameters=program.parameters_at(capacity),
                chunk_size=size,
                computed=factors.jacobian.computed,
                cached=factors.jacobian.found,
                seconds=time.perf_counter() - started,
                trace=float(matrix.trace()),
                symmetry_error=asymmetry / max(float(matrix.abs().max()), 1e-300),
                notes=tuple(factors.notes),
            )
            yield capacity, Gram(matrix.clone(), len(x), model.outputs, reduction.name, True, info)
            bar.advance()
