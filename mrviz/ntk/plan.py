"""What one Gram needs before any arithmetic: checked inputs, method, chunk size, precision."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from mrviz._checks import Array, as_device
from mrviz._memory import available_bytes, readable
from mrviz.errors import InputError, ResourceError
from mrviz.ntk.factors import Factors, Reduce, Reduction, Tick
from mrviz.ntk.jacobian import JacobianCache
from mrviz.programs import Program, ReprogrammedModel
from mrviz.sources import SourceModel
from mrviz.sources.base import evaluation_mode

METHODS = ("auto", "structured", "contraction", "products")

MEMORY_BYTES = 2 << 30
"""Default budget for source Jacobians on a CPU, where that much is free."""

CHUNK_BYTES = 64 << 20
"""Source Jacobians of one chunk of samples, where the chunk size is chosen automatically."""

TF32_ROUND_OFF = 2.0**-11
"""Unit round-off of products in TF32, which keeps ten bits of a mantissa."""


@dataclass(frozen=True, eq=False)
class Plan:
    """One Gram to be computed: on what, how, and in which pieces.

    Attributes:
        model: the reprogrammed model on the device and in the dtype of the computation.
        x1: checked target inputs of the rows.
        x2: those of the columns, or ``None`` for a symmetric Gram.
        reduction: what is kept of each C×C block.
        method: "structured", "contraction" or "products".
        why: the reason for the method, in words.
        chunk_size: samples differentiated at once.
        memory: bytes that source Jacobians may take, then they are computed again by tile.
        tf32: whether CUDA may multiply in TF32.
        bare: whether only Γ, the Gram behind the scalar kernel, is meant.
    """

    model: ReprogrammedModel
    x1: Tensor
    x2: Tensor | None
    reduction: Reduction
    method: str
    why: str
    chunk_size: int
    memory: int
    tf32: bool = False
    bare: bool = False

    @property
    def symmetric(self) -> bool:
        """Whether rows and columns are the same samples."""
        return self.x2 is None

    @property
    def rows(self) -> list[tuple[int, int]]:
        """Chunks of the row samples, as (start, stop)."""
        return spans_of(len(self.x1), self.chunk_size)

    @property
    def columns(self) -> list[tuple[int, int]]:
        """Chunks of the column samples, as (start, stop)."""
        return self.rows if self.x2 is None else spans_of(len(self.x2), self.chunk_size)

    @property
    def tiles(self) -> list[tuple[int, int]]:
        """Tiles (i, j) to compute: all, or the upper triangle of a symmetric Gram."""
        columns = len(self.columns)
        return [
            (i, j)
            for i in range(len(self.rows))
            for j in range(i if self.symmetric else 0, columns)
        ]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        n2 = len(self.x1 if self.x2 is None else self.x2)
        return len(self.x1) * self.reduction.rows, n2 * self.reduction.rows

    @property
    def epsilon(self) -> float:
        """Unit round-off of the least precise step."""
        unit = torch.finfo(self.model.source.dtype).eps / 2
        in_tf32 = self.tf32 and self.model.source.device.type == "cuda"
        return max(unit, TF32_ROUND_OFF) if in_tf32 else unit

    @property
    def accumulation(self) -> torch.dtype:
        """Dtype in which products of factors are summed; the matrix is float64 in any case."""
        return accumulation_dtype(self.model.source.device, self.model.source.dtype)

    def factors(self, cache: JacobianCache | None, tick: Tick | None = None) -> list[Factors]:
        """Kernel factors of the rows and, for a cross Gram, of the columns."""
        return [
            Factors(
                self.model,
                x,
                self.reduction,
                whole=self.method == "contraction",
                bare=self.bare,
                jacobian_cache=cache,
                tick=tick,
            )
            for x in (self.x1, self.x2)
            if x is not None
        ]


def make_plan(
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
    bare: bool = False,
) -> Plan:
    """Checks what was given and decides what was left open; see :func:`~mrviz.ntk_gram`."""
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if chunk_size is not None and chunk_size < 1:
        raise InputError(f"chunk_size must be at least 1, got {chunk_size}")
    if memory is not None and memory < 1:
        raise InputError(f"memory must be a positive number of bytes, got {memory}")
    model = prepared(model, device, dtype)
    if model.n_parameters == 0:
        raise InputError(
            f"program {type(model.program).__name__} has no trainable parameters: its tangent "
            "kernel is zero"
        )
    reduction = Reduction(reduce, model.outputs)
    if memory is None:
        memory = default_memory(model.source.device)
    method, why = _choose(model, method, reduction, memory)
    return Plan(
        model=model,
        x1=model.inputs(x1, "x1"),
        x2=None if x2 is None else model.inputs(x2, "x2"),
        reduction=reduction,
        method=method,
        why=why,
        chunk_size=chunk_size or default_chunk(model, reduction, memory),
        memory=memory,
        tf32=tf32,
        bare=bare,
    )


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


_precision_lock = Lock()
_precision_wanted: list[bool] = []
_precision_before: list[tuple[bool, bool]] = []


@contextmanager
def full_precision(tf32: bool = False) -> Iterator[None]:
    """Switches TF32 off (or on, where asked for) and back afterwards.

    Off, because a spectrum below the round-off of TF32 would be noise. The switches belong to
    the process: of several threads, one that wants full precision gets it for all of them, and
    the last one puts them back.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn

    def switch() -> None:
        on = all(_precision_wanted)
        matmul.allow_tf32 = cudnn.allow_tf32 = on

    with _precision_lock:
        if not _precision_wanted:
            _precision_before[:] = [(matmul.allow_tf32, cudnn.allow_tf32)]
        _precision_wanted.append(tf32)
        switch()
    try:
        yield
    finally:
        with _precision_lock:
            _precision_wanted.remove(tf32)
            if _precision_wanted:
                switch()
            else:
                matmul.allow_tf32, cudnn.allow_tf32 = _precision_before.pop()


def accumulation_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Float64 where it was asked for or runs at half the rate of float32, else float32.

    Consumer GPUs multiply in float64 at a 32nd or 64th of that rate; the data-centre ones of
    compute capability 6.0, 7.0, 8.0, 9.0 and 10.0 at half of it.
    """
    if device.type == "cuda" and dtype != torch.float64:
        major, minor = torch.cuda.get_device_capability(device)
        if minor != 0 or major < 6:
            return torch.float32
        return torch.float64 if major in (6, 7, 8, 9, 10) else torch.float32
    return torch.float64


def default_memory(device: torch.device) -> int:
    """Byte budget of a device: a quarter of what is free; on a CPU no more than 2 GiB."""
    free = available_bytes(device)
    if free is None:
        return MEMORY_BYTES
    return max(1, free // 4 if device.type == "cuda" else min(MEMORY_BYTES, free // 4))


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
        f"{readable(free)} free: up to {fits} samples fit{hint}; ntk_gram(..., store=path) keeps "
        "it on disk and mrviz.ntk_operator needs no matrix"
    )


def default_chunk(model: ReprogrammedModel, reduction: Reduction, memory: int) -> int:
    """Samples differentiated at once: as many as the budget holds, with the source's activations.

    One chunk takes at most a quarter of the budget, and its source Jacobians ``CHUNK_BYTES``.
    """
    jacobian = source_jacobian_bytes(model, reduction)
    work = jacobian + activation_bytes(model.source)
    return max(1, min(512, CHUNK_BYTES // jacobian, memory // 4 // work))


def source_jacobian_bytes(model: ReprogrammedModel, reduction: Reduction) -> int:
    """Bytes of one sample's source Jacobian."""
    rows = len(reduction.directions(model))
    values = torch.Size(model.source.input_shape).numel()
    return rows * values * torch.finfo(model.source.dtype).bits // 8


_activations: WeakKeyDictionary[SourceModel, tuple[torch.dtype, int]] = WeakKeyDictionary()


def activation_bytes(source: SourceModel) -> int:
    """Bytes that one sample's forward pass keeps for the backward pass, measured once a source."""
    known = _activations.get(source)
    if known is not None and known[0] == source.dtype:
        return known[1]
    weights = {p.untyped_storage().data_ptr() for p in source.state_dict().values()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    u = torch.zeros((1, *source.input_shape), dtype=source.dtype, device=source.device)
    with (
        suppress(Exception),  # the computation itself will fail too, with a better message
        torch.enable_grad(),
        evaluation_mode(source),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        source(u.requires_grad_(True))
    _activations[source] = source.dtype, sum(kept.values())
    return sum(kept.values())


def spans_of(n: int, size: int) -> list[tuple[int, int]]:
    """Chunks of at most ``size`` samples, as (start, stop)."""
    return [(start, min(start + size, n)) for start in range(0, n, size)]


def _choose(
    model: ReprogrammedModel, method: str, reduction: Reduction, memory: int
) -> tuple[str, str]:
    """The method to use and the reason."""
    program = model.program
    name = type(program).__name__
    if method != "auto":
        return method, "asked for"
    if isinstance(program, Program) and program.closed_form:
        return "structured", f"closed form of {name}"
    bits = torch.finfo(model.source.dtype).bits
    needed = len(reduction.directions(model)) * model.n_parameters * bits // 8
    if needed > memory:
        return "products", (
            f"{name} has no closed form and {model.n_parameters} parameters, too many for the "
            f"Jacobian of even one sample ({readable(needed)})"
        )
    return "structured", (
        f"derivatives of {name} by its {model.n_parameters} parameters, in forward mode where they "
        "are no more than the rows, else by vector-Jacobian products"
    )
