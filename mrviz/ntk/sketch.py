"""Sketches: Grams of some samples and some output directions, with the error that this makes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mrviz._checks import Array
from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.errors import InputError
from mrviz.ntk.compute import ntk_gram
from mrviz.ntk.factors import Reduce, Reduction
from mrviz.ntk.gram import Gram
from mrviz.programs import ReprogrammedModel
from mrviz.programs.mappings import LinearHead, Mapping, Matrix


@dataclass(frozen=True, eq=False)
class Sketch:
    """The Gram of a random subset of samples, on random directions of the outputs.

    With all outputs, or for the full kernel, its eigenvalues interlace those of the whole Gram:
    the k-th largest is at most the k-th largest of the whole, and the smallest is at least the
    smallest (docs/theory.md, section 2, Sketches).

    Attributes:
        model: the model whose Gram this is: the given one, or with outputs projected.
        gram: Gram of order s·m, or s after a reduction.
        samples: which samples, (s,).
        directions: orthonormal rows, (m, C), or ``None`` where all outputs are kept.
        n: number of all samples.
        outputs: C.
        trace: unbiased estimate of the trace of the whole Gram.
        trace_error: its standard error; zero where nothing was left out.
    """

    model: ReprogrammedModel
    gram: Gram
    samples: Tensor
    directions: Tensor | None
    n: int
    outputs: int
    trace: float
    trace_error: float

    @property
    def exact(self) -> bool:
        """Whether nothing was left out."""
        return len(self.samples) == self.n and self.directions is None

    def describe(self) -> str:
        """What was left out, and how far that can be off, in words."""
        parts = [f"{len(self.samples)} of {self.n} samples"]
        if self.directions is not None:
            parts.append(f"{len(self.directions)} of {self.outputs} output directions")
        error = self.trace_error / self.trace if self.trace > 0 else 0.0
        return f"{', '.join(parts)}; mean eigenvalue known to ±{error:.0%}"

    def to_dict(self) -> dict[str, Any]:
        """Everything but the matrix, as plain values."""
        return {
            "samples": self.samples.tolist(),
            "directions": None if self.directions is None else self.directions.tolist(),
            "n": self.n,
            "outputs": self.outputs,
            "trace": self.trace,
            "trace_error": self.trace_error,
            "gram": self.gram.to_dict(),
        }

    def __repr__(self) -> str:
        return f"Sketch({self.describe()})"


def sketch_grams(
    model: ReprogrammedModel,
    x: Array,
    *,
    samples: Sequence[int] | None = None,
    directions: int | None = None,
    reduce: Reduce = "full",
    seed: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Iterator[Sketch]:
    """Sketches of a Gram, each of more samples than the one before and using its Jacobians.

    Args:
        model: the reprogrammed model.
        x: target inputs (n, *target_shape).
        samples: how many samples, one number a sketch, each at least 2; default: an eighth, a
            quarter and half of them.
        directions: how many output directions, at least 2 and fewer than C; each costs one
            backward pass. Default: all C outputs. Only for ``reduce`` "full" and "trace".
        reduce: as in :func:`~mrviz.ntk_gram`.
        seed: seed of samples and directions.
        device: as in :func:`~mrviz.ntk_gram`.
        dtype: as in :func:`~mrviz.ntk_gram`.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.

    Yields:
        One sketch for each number of samples, increasing.

    Raises:
        InputError: numbers that do not fit, or directions with a reduction that has one.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> program = mrviz.programs.Linear((1, 4, 4), (1, 2, 2))
        >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
        >>> x = torch.rand(32, 1, 2, 2)
        >>> [s.gram.order for s in mrviz.ntk.sketch_grams(model, x, directions=2)]
        [8, 16, 32]
    """
    x = model.inputs(x)
    n, outputs = len(x), model.outputs
    Reduction(reduce, outputs)
    sizes = sorted({max(2, n // 8), max(2, n // 4), max(2, n // 2)} if samples is None else samples)
    if not sizes or sizes[0] < 2 or sizes[-1] > n:
        raise InputError(f"samples must be numbers from 2 to {n}, got {samples}")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(n, generator=generator)
    basis = None
    if directions is not None:
        if reduce not in ("full", "trace"):
            raise InputError(
                f"reduce={reduce!r} is one direction of the outputs already: leave directions out"
            )
        if not 2 <= directions < outputs:
            raise InputError(
                f"directions must be from 2 to {outputs - 1} for {outputs} outputs, "
                f"got {directions}; leave it out to keep all of them"
            )
        square = torch.randn((outputs, outputs), generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(square)[0][:directions]
        model = projected(model, basis)
    for size in sizes:
        chosen = order[:size].sort().values
        gram = ntk_gram(
            model,
            x[chosen.to(x.device)],
            reduce=reduce if basis is None else "full",
            device=device,
            dtype=dtype,
            progress=progress,
            cancel=cancel,
        )
        per_output = outputs if reduce == "full" else 1
        trace, error = _trace(gram, n, outputs, per_output)
        if basis is not None and reduce == "trace":
            gram = _traced(gram)
        yield Sketch(model, gram, chosen, basis, n, outputs, trace, error)


def projected(model: ReprogrammedModel, directions: Tensor) -> ReprogrammedModel:
    """The model whose outputs are some directions (m, C) of the given model's outputs."""
    if not model.mapping.linear:
        return ReprogrammedModel(model.source, model.program, _Projected(model, directions))
    matrix = Matrix(directions @ model.b.double().cpu())
    bias = model.head.bias
    mapping = LinearHead(matrix, bias=bias is not None) if model.mapping.trainable else matrix
    result = ReprogrammedModel(model.source, model.program, mapping)
    if isinstance(bias, Tensor):
        with torch.no_grad():
            result.head.bias.copy_(directions.to(bias) @ bias)  # type: ignore[operator]
    return result


class _Projected(Mapping):
    """Directions (m, C) of the outputs of a mapping that is not linear."""

    label = "directions of the outputs"
    acts_on = "probabilities"

    def __init__(self, model: ReprogrammedModel, directions: Tensor) -> None:
        self._head, self._directions = model.head, directions

    def layer(self, n_source: int) -> nn.Module:
        return _ProjectedHead(copy.deepcopy(self._head), Matrix(self._directions))


class _ProjectedHead(nn.Module):
    def __init__(self, head: nn.Module, directions: Matrix) -> None:
        super().__init__()
        self.head = head
        self.turn = directions.layer(int(head.out_features))  # type: ignore[arg-type]
        self.out_features = self.turn.out_features

    @property
    def weight(self) -> Tensor:
        """What each source output counts for: the directions of what it did before."""
        weights: Tensor = self.turn(self.head.weight.T).T
        return weights

    def forward(self, z: Tensor) -> Tensor:
        outputs: Tensor = self.turn(self.head(z))
        return outputs


def _trace(gram: Gram, n: int, outputs: int, per_sample: int) -> tuple[float, float]:
    """Estimate of the whole trace and its standard error.

    Samples and directions are drawn without replacement, each from a finite population whose sum
    is the trace, so each adds the variance of its mean times the share that was left out.
    """
    values = gram.matrix.diagonal().view(gram.n, -1)
    s, m = values.shape
    variance = (1 - s / n) * float(values.mean(1).var()) / s
    if 1 < m < outputs:
        variance += (1 - m / outputs) * float(values.mean(0).var()) / m
    scale = n * per_sample
    return float(values.mean()) * scale, math.sqrt(variance) * scale


def _traced(gram: Gram) -> Gram:
    """The trace kernel of a full Gram."""
    matrix = gram.mean_over_outputs()
    info = replace(gram.info, trace=float(matrix.trace()))
    return replace(gram, matrix=matrix, reduce="trace", info=info, factor=None)
