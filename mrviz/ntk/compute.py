"""The functions that compute a Gram: plan, tiles, matrix, and the account of it."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mrviz._checks import Array
from mrviz._memory import is_out_of_memory
from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.errors import InputError, ResourceError
from mrviz.ntk.factors import Reduce
from mrviz.ntk.gram import Gram, GramInfo
from mrviz.ntk.jacobian import cache
from mrviz.ntk.manifest import manifest
from mrviz.ntk.plan import Plan, check_fits, full_precision, make_plan
from mrviz.ntk.store import StoreSink, as_begun, as_folder
from mrviz.ntk.tiles import LocalTiles, MemorySink, assemble
from mrviz.programs import Program, ReprogrammedModel
from mrviz.sources.base import evaluation_mode

if TYPE_CHECKING:
    from distributed import Client

    from mrviz.ntk.cluster import ClusterTiles


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
    store: str | os.PathLike[str] | None = None,
    client: Client | None = None,
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
        device: where to compute; default: where the model is. With ``client``, each worker's own.
        dtype: of the Jacobians; default: the model's. Products of Jacobians are summed in
            float64, on GPUs that are slow at it in float32 unless ``dtype`` is float64.
        chunk_size: samples differentiated at once; default: by memory. The result does not
            depend on it.
        memory: bytes that source Jacobians may take, with ``client`` on each worker; default: a
            quarter of what is free, on a CPU no more than 2 GiB. What does not fit is computed
            again when it is needed.
        tf32: let a GPU multiply in TF32: faster, and the noise floor rises to match.
        store: folder that keeps the matrix on disk, so that it may be larger than memory. Called
            again with the same arguments, what is finished there is not computed again, whether
            the process was killed, cancelled or came to its end. ``matrix`` is then a view of
            the file on the CPU, and changes to it stay in this process.
        client: a ``dask.distributed.Client``, whose workers compute the tiles; the matrix comes
            here, or into ``store``. A worker that goes away loses nothing. In float64 the result
            is that of one process to 1e-10; Jacobians in float32 may differ in their last bits
            where workers use another number of threads or another device.
        progress: callback (done, total, label); ``False`` for silence; default: a text bar.
        cancel: flag with ``is_set()``, checked between passes.

    Returns:
        The Gram, on the device where it was computed; with ``store`` or ``client`` on the CPU.

    Raises:
        InputError: inputs, reduction or method do not fit, or ``store`` holds something else.
        DeviceError: the device is not there.
        ResourceError: the matrix does not fit into memory or onto the disk; the message names a
            size that does.
        ClusterError: the cluster of ``client`` went away.
        Cancelled: ``cancel`` was set.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> program = mrviz.programs.Linear((1, 4, 4), (1, 2, 2))
        >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
        >>> mrviz.ntk_gram(model, torch.rand(5, 1, 2, 2)).matrix.shape
        torch.Size([15, 15])
    """
    if client is not None:
        _check_client(client)
    plan = make_plan(
        model,
        x1,
        x2,
        reduce=reduce,
        method=method,
        device=device if client is None else "cpu",
        dtype=dtype,
        chunk_size=chunk_size,
        memory=memory,
        tf32=tf32,
    )
    folder = None if store is None else as_folder(store)
    if folder is not None:
        plan = as_begun(plan, folder, method=method, chunk_size=chunk_size)
    if client is None:
        return compute(plan, progress, cancel, folder)
    from mrviz.ntk.cluster import ClusterTiles

    where = model.source.device.type if device is None else str(device)
    with ClusterTiles(plan, client, where, memory, folder, cancel) as tiles:
        return compute(plan, progress, cancel, folder, tiles)


def jacobian_gram(
    model: ReprogrammedModel,
    x: Array,
    *,
    reduce: Reduce = "full",
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
        reduce: as in :func:`ntk_gram`.
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
        reduce=reduce,
        method="structured",
        device=device,
        dtype=dtype,
        chunk_size=chunk_size,
        bare=True,
    )
    return compute(plan, progress, cancel)


def compute(
    plan: Plan,
    progress: ProgressCallback | bool | None,
    cancel: CancelFlag | None,
    folder: Path | None = None,
    cluster: ClusterTiles | None = None,
) -> Gram:
    """The Gram of a plan.

    Args:
        plan: what is computed.
        progress: as in :func:`ntk_gram`.
        cancel: as in :func:`ntk_gram`.
        folder: the store, or ``None`` for a matrix in memory.
        cluster: who computes the tiles; default: this process.
    """
    started = time.perf_counter()
    # Jacobians from the cache were computed in other chunks, and then the last bits of a matrix
    # that is continued would depend on what came before.
    tiles: LocalTiles | ClusterTiles
    sink: MemorySink | StoreSink
    if folder is None:
        sizes = len(plan.x1), len(plan.x1 if plan.x2 is None else plan.x2)
        check_fits(*sizes, plan.reduction, plan.model.source.device)
        sink = MemorySink(plan)
        tiles = cluster or LocalTiles(plan, cache, cancel, sink.room)
    else:
        tiles = cluster or LocalTiles(plan, None, cancel)
    with ExitStack() as stack:
        if folder is not None:
            made_of = manifest(plan, tiles.place)
            sink = stack.enter_context(StoreSink(folder, plan, made_of, progress, cancel))
        stack.enter_context(evaluation_mode(plan.model))
        stack.enter_context(full_precision(plan.tf32))
        factor = None
        try:
            if sink.pending:
                finished = tiles(sink.pending, progress)
                total = len(sink.pending)
                at_once = cluster is not None
                assemble(plan, finished, total, sink, progress, cancel, at_once=at_once)
            if folder is None:
                factor = tiles.explicit()
        except Exception as failure:
            if isinstance(failure, ResourceError) or not is_out_of_memory(failure):
                raise
            raise ResourceError(
                f"memory ran out on {tiles.place.device} while the Gram was put together: use "
                f"fewer than {len(plan.x1)} samples, chunk_size below {plan.chunk_size}, or "
                "reduce='trace'"
            ) from failure
    info = GramInfo(
        method=plan.method,
        why=plan.why,
        device=tiles.place.device,
        dtype=str(plan.model.source.dtype).removeprefix("torch."),
        accumulation=str(tiles.place.accumulation).removeprefix("torch."),
        epsilon=tiles.place.epsilon,
        n_parameters=plan.model.n_parameters,
        chunk_size=plan.chunk_size,
        computed=tiles.computed,
        cached=tiles.cached,
        seconds=time.perf_counter() - started,
        trace=sink.trace if plan.symmetric else None,
        symmetry_error=sink.asymmetry / (sink.largest or 1.0) if plan.symmetric else None,
        notes=(*tiles.notes, *sink.notes),
    )
    return Gram(
        sink.matrix,
        len(plan.x1),
        plan.model.outputs,
        plan.reduction.name,
        plan.symmetric,
        info,
        factor,
    )


def _check_client(client: Any) -> None:
    distributed = sys.modules.get("distributed")  # there is no client that did not load it
    if distributed is None or not isinstance(client, distributed.Client) or client.asynchronous:
        raise InputError(
            f"client must be a dask.distributed.Client, got {type(client).__name__}: pass "
            "Client(cluster) or Client('tcp://scheduler:8786'), not asynchronous"
        )
    if client.status != "running":
        raise InputError(f"client is {client.status}: connect a new one with Client(cluster)")
