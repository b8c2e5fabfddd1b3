"""The Gram matrix of a tangent kernel and what is known about how it came about."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from mrviz.ntk.factors import Reduce


@dataclass(frozen=True)
class GramInfo:
    """How a Gram was computed and how far it can be trusted.

    Attributes:
        method: "structured", "contraction" or "products".
        why: the reason, in words.
        device: where it was computed.
        dtype: dtype of the Jacobians.
        accumulation: dtype in which their products were summed.
        epsilon: unit round-off of the least precise step.
        n_parameters: p; infinite for a kernel of infinite width.
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
    accumulation: str
    epsilon: float
    n_parameters: int | float
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
        factor: J with matrix = J Jᵀ, float64, where it has fewer columns than rows, so that the
            dual JᵀJ gives the spectrum (docs/theory.md, section 2); else ``None``.
    """

    matrix: Tensor
    n: int
    outputs: int
    reduce: Reduce
    symmetric: bool
    info: GramInfo
    factor: Tensor | None = None

    @property
    def order(self) -> int:
        """N, the number of rows."""
        return self.matrix.shape[0]

    def mean_over_outputs(self) -> Tensor:
        """(1/C) Σ_c Θ^{cc} of a full symmetric Gram, (n, n)."""
        n, c = self.n, self.outputs
        return self.matrix.view(n, c, n, c).diagonal(dim1=1, dim2=3).mean(2)

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
        return f"<table><caption>Gram matrix</caption>{rows}</table>"
