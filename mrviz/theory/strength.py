"""How good the source is at its own task: accuracy, its tangent kernel, its effectiveness."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mrviz._checks import Array, as_labels, as_samples
from mrviz._memory import Splitter
from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.errors import InputError
from mrviz.ntk import Gram
from mrviz.ntk.factors import Reduce
from mrviz.ntk.source_kernel import source_ntk
from mrviz.sources import SourceModel
from mrviz.spectrum import Spectrum, spectrum
from mrviz.targets.options import as_count
from mrviz.theory.statistics import wilson_interval

SourceData = tuple[Array, Array]
"""Inputs (n, *input_shape) in [0, 1] and integer labels (n,) of the source's own task."""

PER_CLASS = 10
DRAWS = 3
"""Samples of each class, and how often they are drawn, for λ_min[K_S], as in the paper."""


@dataclass(frozen=True)
class SourceStrength:
    """Accuracy and risk of a source on held-out data of its own task.

    Attributes:
        accuracy: share of correct arg-max predictions.
        interval: 95 % Wilson interval of the accuracy.
        risk: mean of ‖softmax(f(x)) − one-hot(y)‖₂ (Yang et al. 2021, Theorem 1).
        n: number of samples.
        risk_error: two standard errors of the risk.
    """

    accuracy: float
    interval: tuple[float, float]
    risk: float
    n: int
    risk_error: float = 0.0


def source_strength(
    source: SourceModel, batch_size: int = 256, data: SourceData | None = None
) -> SourceStrength | None:
    """Measures a source on labelled samples of its own task.

    Args:
        source: the source.
        batch_size: samples at once.
        data: inputs and labels; default: the source's ``test_data``.

    Returns:
        The strength; ``None`` where there are no data.
    """
    data = source.test_data if data is None else data
    if data is None:
        return None
    x, y = checked(source, data)
    logits = source_outputs(source, x, batch_size)
    correct = int((logits.argmax(1) == y).sum())
    one_hot = functional.one_hot(y, source.outputs).double()
    risks = (logits.softmax(1) - one_hot).norm(dim=1)
    deviation = float(risks.std()) if len(y) > 1 else 2**0.5
    return SourceStrength(
        accuracy=correct / len(y),
        interval=wilson_interval(correct, len(y)),
        risk=float(risks.mean()),
        n=len(y),
        risk_error=2 * deviation / len(y) ** 0.5,
    )


def checked(source: SourceModel, data: SourceData) -> tuple[Tensor, Tensor]:
    """Labelled source samples that fit the source; labels on the CPU.

    Raises:
        InputError: not a pair, another shape, or labels outside the source's outputs.
    """
    try:
        x, y = data
    except (TypeError, ValueError):
        raise InputError(
            "source_data must be (x, y): inputs and labels of the source's own task, such as "
            "source.test_data"
        ) from None
    samples = as_samples(x, "source_data[0]", source.input_shape, source.dtype)
    labels = as_labels(y, "source_data[1]", len(samples), source.outputs).cpu()
    return samples, labels


def source_outputs(source: SourceModel, x: Tensor, batch_size: int = 256) -> Tensor:
    """Logits f_S(x), (n, c_S), float64, on the CPU, in batches."""

    def run(start: int, stop: int) -> Tensor:
        return source(x[start:stop].to(source.device, source.dtype)).double().cpu()

    with torch.no_grad():
        return Splitter("the forward pass", batch_size)(run, 0, len(x), torch.cat)


@dataclass(frozen=True)
class KernelStrength:
    """λ_min[K_S] on several draws of source samples (Corollary 1 of the paper).

    Attributes:
        kind: "empirical", "infinite-width", or "kernel regime" for a source's own K_S.
        smallest: λ_min of each draw as computed; says nothing where at or below its floor.
        floors: noise floor of each draw.
        largest: λ_max of each draw.
        order: samples a draw.
        notes: what was done differently than planned.
    """

    kind: str
    smallest: tuple[float, ...]
    floors: tuple[float, ...]
    largest: tuple[float, ...]
    order: int
    notes: tuple[str, ...] = ()

    @property
    def resolved(self) -> bool:
        """Whether λ_min is above the noise floor in every draw."""
        return all(s > f for s, f in zip(self.smallest, self.floors, strict=True))

    @property
    def mean(self) -> float | None:
        """Mean of λ_min over the draws; ``None`` where it is not resolved in every one."""
        return sum(self.smallest) / len(self.smallest) if self.resolved else None

    @property
    def spread(self) -> float:
        """Standard deviation over the draws; zero for a single one."""
        values = torch.tensor(self.smallest, dtype=torch.float64)
        return float(values.std()) if len(values) > 1 else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """What the mean of λ_min lies between, given floor and spread."""
        mean = sum(max(s, 0.0) for s in self.smallest) / len(self.smallest)
        error = max(self.floors) + self.spread
        return max(0.0, mean - error), mean + error

    def describe(self) -> str:
        """λ_min[K_S] in words that do not claim more than was resolved."""
        draws = len(self.smallest)
        of = f"{self.order} samples" + (f", {draws} draws" if draws > 1 else "")
        if self.mean is None:
            return f"{self.kind} λ_min[K_S] not resolved (below {max(self.floors):.2g}; {of})"
        spread = f" ± {self.spread:.1g}" if draws > 1 else ""
        return f"{self.kind} λ_min[K_S] = {self.mean:.3g}{spread} ({of})"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {**asdict(self), "mean": self.mean, "spread": self.spread}


@dataclass(frozen=True, eq=False)
class KernelSpectra:
    """All eigenvalues of K_S on several draws of source samples.

    Attributes:
        kind: as in :class:`KernelStrength`.
        spectra: one for each draw, without eigenvectors.
        notes: what was done differently than planned.
    """

    kind: str
    spectra: tuple[Spectrum, ...]
    notes: tuple[str, ...] = ()

    @property
    def order(self) -> int:
        """Samples a draw."""
        return self.spectra[0].order

    @property
    def strength(self) -> KernelStrength:
        """λ_min[K_S] over the draws."""
        return KernelStrength(
            kind=self.kind,
            smallest=tuple(s.smallest for s in self.spectra),
            floors=tuple(s.floor for s in self.spectra),
            largest=tuple(s.largest for s in self.spectra),
            order=self.order,
            notes=self.notes,
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "kind": self.kind,
            "spectra": [s.to_dict() for s in self.spectra],
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        return f"KernelSpectra({self.strength.describe()})"


def draw_samples(labels: Tensor, per_class: int, draws: int, seed: int) -> list[Tensor]:
    """Indices of random samples, the same number of each class where there are enough.

    Args:
        labels: (n,) integers.
        per_class: samples of each class; all of a class that has fewer.
        draws: how many draws.
        seed: of the draws.
    """
    per_class, draws = as_count(per_class, "per_class", 1), as_count(draws, "draws", 1)
    generator = torch.Generator().manual_seed(seed)
    members = [(labels == c).nonzero().flatten() for c in labels.unique()]
    return [
        torch.cat([m[torch.randperm(len(m), generator=generator)[:per_class]] for m in members])
        for _ in range(draws)
    ]


def kernel_spectra(
    source: SourceModel,
    data: SourceData,
    *,
    kind: str = "empirical",
    per_class: int = PER_CLASS,
    draws: int = DRAWS,
    reduce: Reduce = "trace",
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> KernelSpectra:
    """Eigenvalues of K_S on a few samples of each class, a few draws.

    Args:
        source: the source.
        data: inputs and labels of its own task.
        kind: "empirical" or "infinite-width"; see :func:`~mrviz.ntk.source_kernel.source_ntk`.
        per_class: samples of each class.
        draws: how often they are drawn; one where the data hold no more than one draw.
        reduce: "trace", "sum" or a class number.
        seed: of the draws.
        dtype: of the gradients; default: float64, whose noise floor is low.
        device: where to compute; default: where the source is.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.

    Raises:
        InputError: data that do not fit, or no kernel of this kind.

    Example:
        >>> source = mrviz.load_source("dnn", depth=2, width=32, input_size=8, progress=False)
        >>> data = torch.rand(60, 1, 8, 8), torch.arange(60) % 10
        >>> found = kernel_spectra(source, data, kind="infinite-width", progress=False)
        >>> len(found.spectra), found.order  # all 60 samples fit into one draw
        (1, 60)
    """
    x, y = checked(source, data)
    counts = torch.bincount(y)
    fewest = int(counts[counts > 0].min())
    picks = draw_samples(y, per_class, draws, seed)
    if len(picks[0]) == len(y):
        picks = picks[:1]
    spectra = tuple(
        spectrum(
            source_ntk(
                source,
                x[pick],
                kind=kind,
                reduce=reduce,
                dtype=torch.float64 if dtype is None else dtype,
                device=device,
                progress=progress,
                cancel=cancel,
            ),
            eigenvectors=False,
        )
        for pick in picks
    )
    notes = (f"only {fewest} samples of some class",) if fewest < per_class else ()
    return KernelSpectra(kind, spectra, notes)


def kernel_strength(
    source: SourceModel,
    data: SourceData,
    *,
    kind: str = "empirical",
    per_class: int = PER_CLASS,
    draws: int = DRAWS,
    reduce: Reduce = "trace",
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> KernelStrength:
    """λ_min[K_S] as the paper measures it: a few samples of each class, a few draws.

    It is the end of :func:`kernel_spectra`, whose arguments and errors it has.

    Example:
        >>> source = mrviz.load_source("dnn", depth=2, width=32, input_size=8, progress=False)
        >>> data = torch.rand(60, 1, 8, 8), torch.arange(60) % 10
        >>> kernel_strength(source, data, kind="infinite-width", progress=False).order
        60
    """
    return kernel_spectra(
        source,
        data,
        kind=kind,
        per_class=per_class,
        draws=draws,
        reduce=reduce,
        seed=seed,
        dtype=dtype,
        device=device,
        progress=progress,
        cancel=cancel,
    ).strength


@dataclass(frozen=True, eq=False)
class Effectiveness:
    """Θ_S^b, the paper's measure of how effective the source is, C × C.

    Attributes:
        matrix: b Y_Sᵀ (K_S + σ_S I)⁻¹ K_S (K_S + σ_S I)⁻¹ Y_S bᵀ, (C, C), float64: the Gram
            of the mapped source predictor's outputs in the space of its kernel.
        spectrum: its eigenvalues, with a noise floor raised by the condition of K_S + σ_S I.
        ridge: σ_S.
    """

    matrix: Tensor
    spectrum: Spectrum
    ridge: float

    def to_dict(self) -> dict[str, Any]:
        """Eigenvalues and matrix as plain values."""
        return {
            "ridge": self.ridge,
            "matrix": self.matrix.tolist(),
            "spectrum": self.spectrum.to_dict(),
        }


def effectiveness(
    kernel: Gram | Tensor, targets: Tensor, b: Tensor, ridge: float = 0.0
) -> Effectiveness | None:
    """Θ_S^b from K_S; ``None`` where K_S + σ_S I is singular to double precision.

    Args:
        kernel: K_S, (n, n).
        targets: Y_S, (n, c_S).
        b: the mapping, (C, c_S).
        ridge: σ_S.

    Example:
        >>> effectiveness(2 * torch.eye(2), torch.eye(2), torch.eye(2)).matrix
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]], dtype=torch.float64)
    """
    if not ridge >= 0:
        raise InputError(f"ridge must not be negative, got {ridge}")
    values = spectrum(kernel, eigenvectors=False)
    if values.smallest + ridge <= values.floor:
        return None
    gram = (kernel.matrix if isinstance(kernel, Gram) else kernel).double()
    shifted = gram + ridge * torch.eye(len(gram)).to(gram)
    mapped = targets.to(gram) @ b.to(gram).T
    solved = torch.linalg.solve(shifted, mapped)
    matrix = solved.T @ gram @ solved
    condition = (values.largest + ridge) / (max(values.smallest, 0.0) + ridge)
    matrix = (matrix + matrix.T) / 2
    unit = values.epsilon * condition
    return Effectiveness(matrix, spectrum(matrix, epsilon=unit, eigenvectors=False), ridge)
