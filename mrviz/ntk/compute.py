"""The functions that compute a Gram: plan, tiles, matrix, and the account of it."""

from __future__ import annotations

import time

import torch

from mrviz._checks import Array
from mrviz._memory import Splitter, is_out_of_memory
from mrviz._progress import CancelFlag, ProgressCallback, stop_if_cancelled
from mrviz.errors import InputError, ResourceError
from mrviz.ntk.factors import Reduce
from mrviz.ntk.gram import Gram, GramInfo
from mrviz.ntk.jacobian import cache
from mrviz.ntk.plan import Plan, check_fits, full_precision, make_plan
from mrviz.ntk.tiles import FactorTiles, MemorySink, assemble, product_tiles
from mrviz.programs import Program, ReprogrammedModel
from mrviz.sources.base import evaluation_mode


def ntk_gram(
    model: ReprogrammedModel,
    x1: Array,
    x2: Array | None = None,
    *,
    reduce: Reduce = "full",
    method: str = "auto",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    chunk_size: int | None = None,
    memory: int | None = None,
    tf32: bool = False,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Gram:
    """Gram matrix of the empirical target NTK Θ_T (docs/theory.md, section 2).

    Args:
        model: the reprogrammed model; evaluated in eval mode, its own mode is restored.
        x1: target inputs (n1, *target_shape), floating point.
        x2: target inputs of the columns; default: x1, which computes the upper triangle only.
        reduce: "full" (n·C × n·C), "trace" (mean over classes of Θ^{cc}, n × n), "sum"
            (pseudo-NTK, Mohamadi et al. 2023, n × n) or a class number c (Θ^{cc}, n × n).
        method: "structured" takes the source's input-Jacobian through the program, in closed
            form where the program has one and by vector-Jacobian products otherwise;
            "contraction" contracts Jacobians of the whole model and "products" multiplies the
            kernel by unit vectors: slow references. "auto" chooses and says why in ``info``.
        device: where to compute; default: where the model is.
        dtype: of the Jacobians; default: the model's. Products of Jacobians are summed in
            float64, on GPUs that are slow at it in float32 unless ``dtype`` is float64.
        chunk_size: samples differentiated at once; default: by memory. The result does not
            depend on it.
        memory: bytes that source Jacobians may take; default: a quarter of what is free, on a
            CPU no more than 2 GiB. What does not fit is computed again when it is needed.
        tf32: let a GPU multiply in TF32: faster, and the noise floor rises to match.
        progress: callback (done, total, label); ``False`` for silence; default: a text bar.
        cancel: flag with ``is_set()``, checked between passes.

    Returns:
        The Gram, on the device where it was computed.

    Raises:
        InputError: inputs, reduction or method do not fit.
        DeviceError: the device is not there.
        ResourceError: the matrix does not fit into memory; the message names a size that does.
        Cancelled: ``cancel`` was set.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> program = mrviz.programs.Linear((1, 4, 4), (1, 2, 2))
        >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
        >>> mrviz.ntk_gram(model, torch.rand(5, 1, 2, 2)).matrix.shape
        torch.Size([15, 15])
    """
    plan = make_plan(
        model,
        x1,
        x2,
        reduce=reduce,
        method=method,
        device=device,
        dtype=dtype,
        chunk_size=chunk_size,
        memory=memory,
        tf32=tf32,
    )
    return compute(plan, progress, cancel)


def jacobian_gram(
    model: ReprogrammedModel,
    x: Array,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    chunk_size: int | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Gram:
    """Γ = [A_i A_jᵀ], the source-Jacobian Gram behind the scalar kernel of a linear program.

    For a linear program inside another one, A is the Jacobian taken back to where the linear
    program's output enters (docs/theory.md, section 2).

    Args:
        model: a reprogrammed model whose program has ``scalar_features``.
        x: target inputs (n, *target_shape).
        device: as in :func:`ntk_gram`.
        dtype: as in :func:`ntk_gram`.
        chunk_size: as in :func:`ntk_gram`.
        progress: as in :func:`ntk_gram`.
        cancel: as in :func:`ntk_gram`.

    Raises:
        InputError: the program's kernel has no scalar factor.
    """
    program = model.program
    if not isinstance(program, Program) or program.scalar_features(model.inputs(x)[:1]) is None:
        raise InputError(f"the kernel of {type(program).__name__} has no scalar kernel in front")
    plan = make_plan(
        model,
        x,
        method="structured",
        device=device,
        dtype=dtype,
        chunk_size=chunk_size,
        bare=True,
    )
    return compute(plan, progress, cancel)


def compute(
    plan: Plan, progress: ProgressCallback | bool | None, cancel: CancelFlag | None
) -> Gram:
    """The Gram of a plan, in memory."""
    started = time.perf_counter()
    device = plan.model.source.device
    sizes = len(plan.x1), len(plan.x1 if plan.x2 is None else plan.x2)
    check_fits(*sizes, plan.reduction, device)

    def tick() -> None:
        stop_if_cancelled(cancel, "Gram matrix")

    split = Splitter("the tangent")
    sides = [] if plan.method == "products" else plan.factors(cache, tick)
    factor = None
    with evaluation_mode(plan.model), full_precision(plan.tf32):
        try:
            sink = MemorySink(plan)
            if sides:
                from_factors = FactorTiles(plan, sides)
                tiles = from_factors(plan.tiles, progress, cancel)
            else:
                tiles = product_tiles(plan, split, cancel)
            assemble(plan, tiles, len(plan.tiles), sink, progress, cancel)
            if sides:
                factor = from_factors.explicit()
        except Exception as failure:
            if isinstance(failure, ResourceError) or not is_out_of_memory(failure):
                raise
            raise ResourceError(
                f"memory ran out on {device} while the Gram was put together: use fewer than "
                f"{len(plan.x1)} samples, chunk_size below {plan.chunk_size}, or reduce='trace'"
            ) from failure
    matrix = sink.matrix
    largest = float(matrix.abs().max())
    info = GramInfo(
        method=plan.method,
        why=plan.why,
        device=str(device),
        dtype=str(plan.model.source.dtype).removeprefix("torch."),
        accumulation=str(plan.accumulation).removeprefix("torch."),
        epsilon=plan.epsilon,
        n_parameters=plan.model.n_parameters,
        chunk_size=plan.chunk_size,
        computed=sum(side.jacobian.computed for side in sides),
        cached=sum(side.jacobian.found for side in sides),
        seconds=time.perf_counter() - started,
        trace=float(matrix.trace()) if plan.symmetric else None,
        symmetry_error=(sink.asymmetry / largest if largest > 0 else 0.0)
        if plan.symmetric
        else None,
        notes=(*split.notes, *(note for side in sides for note in side.notes)),
    )
    return Gram(
        matrix,
        len(plan.x1),
        plan.model.outputs,
        plan.reduction.name,
        plan.symmetric,
        info,
        factor,
    )
