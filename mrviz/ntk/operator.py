"""The target NTK as an operator: products with vectors, where the matrix would not fit."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mrviz._checks import Array
from mrviz._memory import is_out_of_memory, readable
from mrviz._progress import CancelFlag, Progress, ProgressCallback, stop_if_cancelled
from mrviz.errors import ResourceError
from mrviz.ntk.factors import Reduce
from mrviz.ntk.gram import GramInfo
from mrviz.ntk.jacobian import cache
from mrviz.ntk.plan import Plan, full_precision, make_plan, source_jacobian_bytes, spans_of
from mrviz.ntk.products import FactorProducts, TangentProducts
from mrviz.ntk.program_jacobian import Tick
from mrviz.ntk.samples import KernelFactors, SampleMap, block_bytes
from mrviz.ntk.symmetric import multiply, scipy_operator
from mrviz.programs import ReprogrammedModel
from mrviz.sources.base import evaluation_mode

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

DUAL_SIZE = 8192
"""Most columns of J for which JᵀJ is formed."""


def ntk_operator(
    model: ReprogrammedModel,
    x: Array,
    *,
    reduce: Reduce = "full",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    chunk_size: int | None = None,
    memory: int | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> NTKOperator:
    """The empirical target NTK Θ_T of many samples, known by its products with vectors.

    Where the kernel factors of all samples (docs/theory.md, section 2) fit into ``memory``, they
    are computed once and a product costs O(n·C·q + n·m·q) for factors of q columns and scalar
    kernels of m features. Where they do not, a product is one backward pass and one pass that
    differentiates it for all samples, with a vector of p numbers in between (docs/theory.md,
    section 6). The matrix is never formed. The operator is that of the parameters as they are
    now, whatever training does later.

    Args:
        model: the reprogrammed model; evaluated in eval mode, its own mode is restored.
        x: target inputs (n, *target_shape), floating point.
        reduce: as in :func:`~mrviz.ntk_gram`.
        device: where to compute; default: where the model is.
        dtype: of the Jacobians; default: the model's. Products of kept factors are summed in
            float64, on GPUs that are slow at it in float32 unless ``dtype`` is float64.
        chunk_size: samples differentiated at once; default: by memory.
        memory: bytes that kernel factors may take; default: a quarter of what is free, on a CPU
            no more than 2 GiB.
        progress: callback (done, total, label) for the factors; ``False`` for silence; default:
            a text bar.
        cancel: flag with ``is_set()``, checked between passes, in later products too.

    Returns:
        The operator of order N = n·C, rows sample-major, or N = n for a reduced kernel.

    Raises:
        InputError: inputs or reduction do not fit.
        DeviceError: the device is not there.
        ResourceError: one sample alone does not fit into memory.
        Cancelled: ``cancel`` was set.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> program = mrviz.programs.Linear((1, 4, 4), (1, 2, 2))
        >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
        >>> theta = mrviz.ntk_operator(model, torch.rand(5, 1, 2, 2))
        >>> (theta @ torch.ones(15)).shape
        torch.Size([15])
    """
    plan = make_plan(
        model, x, reduce=reduce, device=device, dtype=dtype, chunk_size=chunk_size, memory=memory
    )
    # Copies of all but the source, so that neither training nor new data changes the operator.
    frozen = copy.deepcopy(plan.model, {id(plan.model.source): plan.model.source})
    return NTKOperator(replace(plan, model=frozen, x1=plan.x1.clone()), progress, cancel)


class NTKOperator:
    """Θ_T as a symmetric positive semi-definite operator; made by :func:`ntk_operator`.

    Multiplies tensors and arrays (N,) or (N, k) with ``@``; arrays give arrays.

    Args:
        plan: what it is the kernel of; its model must not change.
        progress: as in :func:`ntk_operator`.
        cancel: as in :func:`ntk_operator`.

    Attributes:
        n: number of samples.
        outputs: C.
        reduce: "full", "trace", "sum" or a class number.
        epsilon: unit round-off of the least precise step; sets the noise floor.
        round_off: relative round-off of one product; where factors are kept it is that of their
            accumulation, as the operator is then the same at every product.
        n_parameters: p.
        dtype: float64, that of the results.
        why: how products are computed and why, in words.
    """

    dtype = torch.float64

    def __init__(
        self, plan: Plan, progress: ProgressCallback | bool | None, cancel: CancelFlag | None
    ) -> None:
        started = time.perf_counter()
        self.n = len(plan.x1)
        self.outputs = plan.model.outputs
        self.reduce = plan.reduction.name
        self.epsilon = plan.epsilon
        self.n_parameters = plan.model.n_parameters
        self._plan = plan
        self._cancel = cancel
        # Jacobians of more samples than the cache holds would only push each other out.
        fits = self.n * source_jacobian_bytes(plan.model, plan.reduction) <= cache.limit
        (self._factors,) = plan.factors(cache if fits else None, self._tick)
        with self._computing():
            self._build(progress)
        self.round_off = self._map.products.round_off
        self._seconds = time.perf_counter() - started

    def _build(self, progress: ProgressCallback | bool | None) -> None:
        """Decides between factors and autograd, and computes the factors."""
        plan, memory = self._plan, self._plan.memory
        self._room: int | None = None
        self._map: SampleMap[Any] = self._samples(
            TangentProducts(plan.model, plan.reduction), lambda start, stop: plan.x1[start:stop]
        )
        self._exact: SampleMap[Any] = self._map
        self.why = plan.why
        if plan.method == "products":
            return
        (probe,) = replace(plan, x1=plan.x1[:1]).factors(None)
        sample = probe.blocks(0, 1)
        needed = self.n * block_bytes(sample)
        blocks = KernelFactors(self._factors)
        self.why = f"{plan.why}; the kernel factors of all samples take {readable(needed)}"
        if needed > memory:
            self.why = (
                f"the kernel factors of all samples would take {readable(needed)}, more than the "
                f"{readable(memory)} allowed"
            )
            # Single rows of J are cheaper from factors, computed again chunk by chunk.
            self._exact = self._samples(FactorProducts(sample, plan.accumulation), blocks)
            return
        with Progress(len(plan.rows), "source Jacobians", progress, self._cancel) as bar:
            blocks.keep(plan.rows, bar)
        products = FactorProducts(sample, plan.accumulation, blocks.features())
        self._map = self._exact = self._samples(products, blocks)
        self._room = memory - needed

    def _samples(self, products: Any, chunk: Callable[[int, int], Any]) -> SampleMap[Any]:
        return SampleMap(products, chunk, self._plan.rows, self._plan.reduction.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""
        return self._plan.shape

    @property
    def device(self) -> torch.device:
        """Where products are computed."""
        return self._plan.model.source.device

    @property
    def info(self) -> GramInfo:
        """How products are computed; "structured" from factors, "products" by autograd."""
        model, kept = self._plan.model, self._room is not None
        accumulation = self._plan.accumulation if kept else model.source.dtype
        return GramInfo(
            method="structured" if kept else "products",
            why=self.why,
            device=str(self.device),
            dtype=_name(model.source.dtype),
            accumulation=_name(accumulation),
            epsilon=self.epsilon,
            n_parameters=self.n_parameters,
            chunk_size=self._plan.chunk_size,
            computed=self._factors.jacobian.computed,
            cached=self._factors.jacobian.found,
            seconds=self._seconds,
            trace=None,
            symmetry_error=None,
            notes=tuple(dict.fromkeys([*self._factors.notes, *self._map.notes])),
        )

    def __matmul__(self, v: Any) -> Any:
        return multiply(self, v)

    def apply(self, v: Tensor, tick: Tick | None = None) -> Tensor:
        """Θ v for v (N, k), float64, on the operator's device; ``tick`` is called between passes.

        Raises:
            ResourceError: it does not fit into memory.
            Cancelled: the operator's ``cancel`` was set.
        """
        return self._times(self._map, v, tick)

    def cross(
        self,
        x: Array,
        *,
        progress: ProgressCallback | bool | None = None,
        cancel: CancelFlag | None = None,
    ) -> CrossOperator:
        """Θ(x, X) for other samples x, as an operator on vectors of this one's samples.

        Args:
            x: target inputs (m, *target_shape).
            progress: as in :func:`ntk_operator`.
            cancel: flag, checked while the factors of the new samples are computed.

        Example:
            >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))
            >>> program = mrviz.programs.Overlay((1, 2, 2), (1, 2, 2))
            >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
            >>> theta = mrviz.ntk_operator(model, torch.rand(5, 1, 2, 2))
            >>> (theta.cross(torch.rand(3, 1, 2, 2)) @ torch.ones(10)).shape
            torch.Size([6])
        """
        plan = replace(self._plan, x1=self._plan.model.inputs(x, "x"))
        chunk: Callable[[int, int], Any] = lambda start, stop: plan.x1[start:stop]  # noqa: E731
        if self._room is not None:
            chunk = self._new_factors(plan, self._room, progress, cancel)
        samples = SampleMap(self._map.products, chunk, plan.rows, plan.reduction.rows)
        return CrossOperator(self, samples, plan)

    def _new_factors(
        self,
        plan: Plan,
        room: int,
        progress: ProgressCallback | bool | None,
        cancel: CancelFlag | None,
    ) -> KernelFactors:
        """Kernel factors of other samples, kept if they fit into ``room`` bytes."""
        label = "source Jacobians"
        (factors,) = plan.factors(None, self._both(lambda: stop_if_cancelled(cancel, label)))
        blocks = KernelFactors(factors)
        with self._computing():
            if len(plan.x1) * block_bytes(factors.blocks(0, 1)) <= room:
                with Progress(len(plan.rows), label, progress, cancel) as bar:
                    blocks.keep(plan.rows, bar)
        return blocks

    def diagonal(self) -> Tensor:
        """The diagonal of Θ, (N,), float64."""
        with self._computing():
            return self._exact.diagonal(self._tick).mul_(self._plan.reduction.scale)

    def trace(self) -> float:
        """The trace of Θ."""
        return float(self.diagonal().sum())

    def dual(self, tick: Tick | None = None) -> Tensor | None:
        """JᵀJ with Θ = J Jᵀ, float64, where J has few columns and fewer than rows; else ``None``.

        It has the non-zero eigenvalues of Θ (docs/theory.md, section 2). For a border prompt its
        order is p. It is formed up to the order ``DUAL_SIZE`` and a quarter of ``memory``.
        """
        size = self._exact.products.size
        if size >= min(self.shape[0], DUAL_SIZE + 1) or 32 * size**2 > self._plan.memory:
            return None
        with self._computing():
            dual = self._exact.dual(self.device, self._both(tick))
        return dual.mul_(self._plan.reduction.scale)

    def lift(self, w: Tensor, tick: Tick | None = None) -> Tensor:
        """J w for w (order of the dual, k): eigenvectors of the dual times √λ as those of Θ."""
        with self._computing():
            lifted = self._exact.push(w, self._both(tick))
        return lifted.mul_(self._plan.reduction.scale**0.5)

    def to_scipy(self) -> LinearOperator:
        """The same operator for SciPy, float64."""
        return scipy_operator(self.shape[0], self.device, self.apply)

    def to_dict(self) -> dict[str, Any]:
        """What it is and how products are computed, as plain values."""
        return {
            "n": self.n,
            "outputs": self.outputs,
            "reduce": self.reduce,
            "shape": list(self.shape),
            **asdict(self.info),
        }

    def __repr__(self) -> str:
        order = self.shape[0]
        return (
            f"NTKOperator({order}×{order}, reduce={self.reduce!r}, n={self.n}, "
            f"outputs={self.outputs}, method={self.info.method!r}, dtype={self.info.dtype})"
        )

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in self.to_dict().items())
        return f"<table><caption>Target NTK, as an operator</caption>{rows}</table>"

    def _times(self, rows: SampleMap[Any], v: Tensor, tick: Tick | None) -> Tensor:
        """Rows of Θ times v, as many columns at once as a quarter of the budget holds."""
        per_column = 8 * (3 * self._map.products.size + 2 * self.shape[0])
        at_once, step = max(1, self._plan.memory // 4 // per_column), self._both(tick)
        with self._computing():
            parts = [
                rows.push(self._map.pull(v[:, start:stop], step), step)
                for start, stop in spans_of(v.shape[1], at_once)
            ]
            return torch.cat(parts, 1).mul_(self._plan.reduction.scale)

    def _tick(self) -> None:
        stop_if_cancelled(self._cancel, "NTK-vector product")

    def _both(self, tick: Tick | None) -> Tick:
        def both() -> None:
            self._tick()
            if tick is not None:
                tick()

        return both

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with evaluation_mode(self._plan.model), full_precision():
            try:
                yield
            except Exception as failure:
                if isinstance(failure, ResourceError) or not is_out_of_memory(failure):
                    raise
                raise ResourceError(
                    f"memory ran out on {self.device}: multiply fewer columns at once, or pass "
                    f"memory= below {readable(self._plan.memory)} so that less is kept"
                ) from failure


class CrossOperator:
    """Θ(x, X) as an operator from vectors of the samples X to those of x.

    Args:
        operator: that of X.
        samples: J of x.
        plan: that of x.

    Attributes:
        n: number of samples x.
        shape: rows for x, columns for X.
        dtype: float64, that of the results.
    """

    dtype = torch.float64

    def __init__(self, operator: NTKOperator, samples: SampleMap[Any], plan: Plan) -> None:
        self.n = len(plan.x1)
        self.shape = plan.shape[0], operator.shape[0]
        self._operator = operator
        self._samples = samples

    @property
    def device(self) -> torch.device:
        """Where products are computed."""
        return self._operator.device

    def __matmul__(self, v: Any) -> Any:
        return multiply(self, v)

    def apply(self, v: Tensor, tick: Tick | None = None) -> Tensor:
        """Θ(x, X) v for v (N, k), float64, as :meth:`NTKOperator.apply`."""
        return self._operator._times(self._samples, v, tick)

    def __repr__(self) -> str:
        return f"CrossOperator({self.shape[0]}×{self.shape[1]}, n={self.n})"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
