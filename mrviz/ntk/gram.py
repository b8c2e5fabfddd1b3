"""The Gram matrix of the target NTK: planning, tiles, and what is known about the result."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mrviz._checks import Array, as_device
from mrviz._memory import Splitter, available_bytes, is_out_of_memory, readable
from mrviz._progress import CancelFlag, ProgressCallback, stop_if_cancelled
from mrviz.errors import InputError, ResourceError
from mrviz.ntk.factors import Factors, Reduce, Reduction
from mrviz.ntk.jacobian import cache
from mrviz.ntk.tiles import JACOBIAN_BYTES, factor_tiles, fill, product_tiles
from mrviz.programs import Program, ReprogrammedModel
from mrviz.sources.base import evaluation_mode

CHUNK_BYTES = 64 << 20
"""Source Jacobians of one chunk of samples, where the chunk size is chosen automatically."""

METHODS = ("auto", "structured", "contraction", "products")


@dataclass(frozen=True)
class GramInfo:
    """How a Gram was computed and how far it can be trusted.

    Attributes:
        method: "structured", "contraction" or "products".
        why: the reason, in words.
        device: where it was computed.
        dtype: dtype of the Jacobians, the least precise step; accumulation is float64.
        epsilon: unit round-off of that dtype.
        n_parameters: p.
        chunk_size: samples differentiated at once.
        computed: samples whose source Jacobian was computed.
        cached: samples whose source Jacobian was in the cache.
        seconds: wall-clock time.
        trace: trace of the matrix (symmetric Grams only).
        symmetry_error: largest asymmetry before it was averaged away, relative to the largest
            entry (symmetric Grams only).
        notes: what had to be done differently than planned.
    """

    method: str
    why: str
    device: str
    dtype: str
    epsilon: float
    n_parameters: int
    chunk_size: int
    computed: int
    cached: int
    seconds: float
    trace: float | None
    symmetry_error: float | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Gram:
    """A Gram matrix of the target NTK, rows sample-major: (i, c) ↦ i·C + c.

    Attributes:
        matrix: float64; n·C × n·C for ``reduce="full"``, n × n otherwise; rectangular for two
            sets of samples.
        n: number of samples behind the rows.
        outputs: C.
        reduce: "full", "trace", "sum" or a class number.
        symmetric: whether rows and columns are the same samples.
        info: how it was computed.
    """

    matrix: Tensor
    n: int
    outputs: int
    reduce: Reduce
    symmetric: bool
    info: GramInfo

    @property
    def order(self) -> int:
        """N, the number of rows."""
        return self.matrix.shape[0]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the matrix, as plain values."""
        return {
            "n": self.n,
            "outputs": self.outputs,
            "reduce": self.reduce,
            "shape": list(self.matrix.shape),
            **asdict(self.info),
        }

    def __repr__(self) -> str:
        rows, columns = self.matrix.shape
        return (
            f"Gram({rows}×{columns}, reduce={self.reduce!r}, n={self.n}, outputs={self.outputs}, "
            f"method={self.info.method!r}, dtype={self.info.dtype}, {self.info.seconds:.2f} s)"
        )

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in self.to_dict().items())
        return f"<table><caption>Gram matrix of the target NTK</caption>{rows}</table>"


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
        dtype: of the Jacobians; default: the model's. Accumulation is always float64.
        chunk_size: samples differentiated at once; default: by memory. The result does not
            depend on it.
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
    return _gram(
        model, x1, x2, reduce, method, device, dtype, chunk_size, progress, cancel, bare=False
    )


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
    return _gram(
        model, x, None, "full", "structured", device, dtype, chunk_size, progress, cancel, bare=True
    )


def _gram(
    model: ReprogrammedModel,
    x1: Array,
    x2: Array | None,
    reduce: Reduce,
    method: str,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    chunk_size: int | None,
    progress: ProgressCallback | bool | None,
    cancel: CancelFlag | None,
    bare: bool,
) -> Gram:
    started = time.perf_counter()
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if chunk_size is not None and chunk_size < 1:
        raise InputError(f"chunk_size must be at least 1, got {chunk_size}")
    model = prepared(model, device, dtype)
    reduction = Reduction(reduce, model.outputs)
    x1 = model.inputs(x1, "x1")
    x2 = None if x2 is None else model.inputs(x2, "x2")
    check_fits(len(x1), len(x1 if x2 is None else x2), reduction, model.source.device)
    method, why = _choose(model, method, reduction)
    size = chunk_size or default_chunk(model, reduction)

    def tick() -> None:
        stop_if_cancelled(cancel, "Gram matrix")

    sides: list[Factors] = []
    split = Splitter("the tangent")
    with evaluation_mode(model), full_precision():
        if method == "products":
            tiles = product_tiles(model, x1, x2, reduction, size, split, tick)
        else:
            whole = method == "contraction"
            sides = [
                Factors(
                    model, x, reduction, whole=whole, bare=bare, jacobian_cache=cache, tick=tick
                )
                for x in (x1, x2)
                if x is not None
            ]
            tiles = factor_tiles(sides, size, progress, cancel)
        try:
            matrix, error = fill(tiles, reduction, progress, cancel)
        except Exception as failure:
            if isinstance(failure, ResourceError) or not is_out_of_memory(failure):
                raise
            raise ResourceError(
                f"memory ran out on {model.source.device} while the Gram was put together: use "
                f"fewer than {len(x1)} samples, chunk_size below {size}, or reduce='trace'"
            ) from failure

    symmetric = x2 is None
    info = GramInfo(
        method=method,
        why=why,
        device=str(model.source.device),
        dtype=str(model.source.dtype).removeprefix("torch."),
        epsilon=torch.finfo(model.source.dtype).eps / 2,
        n_parameters=model.n_parameters,
        chunk_size=size,
        computed=sum(side.jacobian.computed for side in sides),
        cached=sum(side.jacobian.found for side in sides),
        seconds=time.perf_counter() - started,
        trace=float(matrix.trace()) if symmetric else None,
        symmetry_error=error if symmetric else None,
        notes=(*split.notes, *(note for side in sides for note in side.notes)),
    )
    return Gram(matrix, len(x1), model.outputs, reduction.name, symmetric, info)


def prepared(
    model: ReprogrammedModel, device: torch.device | str | None, dtype: torch.dtype | None
) -> ReprogrammedModel:
    """The model itself, or a copy of it on another device or in another dtype.

    Raises:
        InputError: not a reprogrammed model, or a dtype that is not floating point.
    """
    if not isinstance(model, ReprogrammedModel):
        raise InputError(
            f"model must be a ReprogrammedModel, got {type(model).__name__}: build one with "
            "mrviz.reprogram(source, target) or mrviz.ReprogrammedModel(source, program, mapping)"
        )
    target = as_device(device, model.source.device)
    dtype = dtype or model.source.dtype
    if not dtype.is_floating_point:
        raise InputError(f"dtype must be a floating-point type, got {dtype}")
    if (target, dtype) == (model.source.device, model.source.dtype):
        return model
    return copy.deepcopy(model).to(target, dtype)


@contextmanager
def full_precision() -> Iterator[None]:
    """Switches TF32 off: a spectrum below its round-off would be noise."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def check_fits(n1: int, n2: int, reduction: Reduction, device: torch.device) -> None:
    """Raises ``ResourceError`` where the matrix alone would not fit into free memory."""
    free = available_bytes(device)
    rows = reduction.rows
    needed = n1 * n2 * rows**2 * 8
    if free is None or needed <= 0.8 * free:
        return
    fits = max(1, int((0.8 * free / 8) ** 0.5) // rows)
    hint = "" if reduction.name != "full" else "; reduce='trace' needs " + readable(n1 * n2 * 8)
    raise ResourceError(
        f"a Gram of {n1 * rows}×{n2 * rows} needs {readable(needed)}, but {device} has "
        f"{readable(free)} free: up to {fits} samples fit{hint}"
    )


def default_chunk(model: ReprogrammedModel, reduction: Reduction) -> int:
    """Samples differentiated at once so that their source Jacobians fill ``CHUNK_BYTES``."""
    per_sample = _source_jacobian_bytes(model, reduction)
    return max(1, min(512, CHUNK_BYTES // per_sample))


def _source_jacobian_bytes(model: ReprogrammedModel, reduction: Reduction) -> int:
    rows = len(reduction.cotangents(model.b))
    values = torch.Size(model.source.input_shape).numel()
    return rows * values * torch.finfo(model.source.dtype).bits // 8


def _choose(model: ReprogrammedModel, method: str, reduction: Reduction) -> tuple[str, str]:
    """The method to use and the reason."""
    program = model.program
    name = type(program).__name__
    if method != "auto":
        return method, "asked for"
    if isinstance(program, Program) and program.closed_form:
        return "structured", f"closed form of {name}"
    bits = torch.finfo(model.source.dtype).bits
    needed = len(reduction.cotangents(model.b)) * model.n_parameters * bits // 8
    if needed > JACOBIAN_BYTES:
        return "products", (
            f"{name} has no closed form and {model.n_parameters} parameters, too many for the "
            f"Jacobian of even one sample ({readable(needed)})"
        )
    return "structured", f"vector-Jacobian products of the source Jacobian through {name}"
