"""The paper's factors that belong to the source: K_S, Θ_S^b and Assumption 3."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mrviz._checks import Array, as_device
from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.errors import InputError
from mrviz.ntk.factors import Reduce, Reduction
from mrviz.ntk.plan import prepared
from mrviz.ntk.source_kernel import source_ntk
from mrviz.programs import ReprogrammedModel
from mrviz.sources import SourceModel
from mrviz.sources.base import evaluation_mode
from mrviz.spectrum import spectrum
from mrviz.targets.options import as_count
from mrviz.theory.feature_motion import Assumption3, feature_motions
from mrviz.theory.kernel_regime import FeatureKernel, KernelRegimeSource, feature_rows
from mrviz.theory.strength import (
    DRAWS,
    PER_CLASS,
    Effectiveness,
    KernelSpectra,
    KernelStrength,
    SourceData,
    checked,
    draw_samples,
    effectiveness,
    kernel_strength,
)

SAMPLES = 16
"""Target inputs at which Assumption 3 is looked at; fewer cannot establish it (T9)."""

MOST_ROWS = 100
"""Outputs up to which Assumption 3 is looked at for all of them together."""


@dataclass(frozen=True, eq=False)
class SourceFactors:
    """What the paper's theory asks of a source (T8, T9).

    Attributes:
        kernels: λ_min[K_S] by kind; the first kind is the one that the other factors use.
        effectiveness: Θ_S^b; ``None`` where K_S + σ_S I is singular or b is not linear.
        assumption: Assumption 3 at sampled inputs; ``None`` where it was not looked at or the
            features have no derivative.
        notes: what is missing and why.
    """

    kernels: tuple[KernelStrength, ...]
    effectiveness: Effectiveness | None
    assumption: Assumption3 | None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "kernels": [kernel.to_dict() for kernel in self.kernels],
            "effectiveness": self.effectiveness and self.effectiveness.to_dict(),
            "assumption": self.assumption and self.assumption.to_dict(),
            "notes": list(self.notes),
        }


def source_factors(
    model: ReprogrammedModel,
    x: Array,
    source_data: SourceData | None = None,
    *,
    ridge: float = 0.0,
    samples: int = SAMPLES,
    per_class: int = PER_CLASS,
    draws: int = DRAWS,
    reduce: Reduce = "trace",
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> SourceFactors:
    """Measures K_S, Θ_S^b and Assumption 3 in float64 (docs/theory.md, sections 3 and 4).

    The features Φ are the tangent features of the source at its present weights, and K_S is their
    Gram; λ_min of the infinite-width K_S, which the paper reports, is given beside it for dense
    and convolutional families. A :class:`~mrviz.theory.KernelRegimeSource` brings its own
    kernel, data and ridge.

    Args:
        model: the reprogrammed model.
        x: target inputs (n, *target_shape).
        source_data: inputs and labels of the source's own task.
        ridge: σ_S, the ridge with which the source counts as trained.
        samples: Assumption 3 is looked at for the first of x, so many; 0 leaves it out. It is
            the dear part: two backward passes an output for each Lanczos step, until λ_min is
            found or known to be below λ_min[K_S].
        per_class: source samples of each class in K_S.
        draws: how often they are drawn.
        reduce: whose features: "trace" (all outputs), "sum" or a class number (an output's; both
            cost one row of derivatives instead of c_S).
        seed: of the draws.
        device: where to compute; default: where the model is.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.

    Raises:
        InputError: no source data, data that do not fit, or a source without parameters.
        Cancelled: ``cancel`` was set.

    Example:
        >>> source = mrviz.load_source("dnn", depth=2, width=16, input_size=4, progress=False)
        >>> target = mrviz.load_target("digits", n_train=20, n_test=20)
        >>> program = mrviz.programs.Linear(source.input_shape, target.shape)
        >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
        >>> data = torch.rand(20, 1, 4, 4), torch.arange(20) % 10
        >>> found = source_factors(model, target.x_train, data, samples=2, progress=False)
        >>> found.assumption.motions[0].order
        16
    """
    if reduce == "full":
        raise InputError("the factors have one kernel for all outputs: use reduce='trace'")
    samples = as_count(samples, "samples", 0)
    source, place = model.source, as_device(device, model.source.device)
    options: dict[str, Any] = {"progress": progress, "cancel": cancel}
    notes: list[str] = []
    regime = source.module if isinstance(source.module, KernelRegimeSource) else None
    b = model.b.double().to(place) if model.mapping.linear else None
    found = None
    if regime is not None:
        kernels = [own_strength(regime)]
        if b is not None:
            gram = regime.gram.double().to(place)
            found = effectiveness(gram, regime.outputs.double(), b, regime.ridge)
    else:
        x_s, y_s = needed(source, source_data)
        common: dict[str, Any] = {"reduce": reduce, "device": place, **options}
        drawn: dict[str, Any] = {"per_class": per_class, "draws": draws, "seed": seed}
        kernels = [kernel_strength(source, (x_s, y_s), **drawn, **common)]
        try:
            wide = kernel_strength(source, (x_s, y_s), kind="infinite-width", **drawn, **common)
        except InputError:  # data and options were good enough for the other kind
            notes.append("there is no infinite-width kernel for this source's architecture")
        else:
            kernels.append(wide)
        if b is not None:
            pick = draw_samples(y_s, per_class, 1, seed)[0]
            k_s = source_ntk(source, x_s[pick], dtype=torch.float64, **common)
            targets = functional.one_hot(y_s[pick], source.outputs).double()
            found = effectiveness(k_s, targets, b, ridge)
    if b is None:
        notes.append(
            f"Θ_S^b needs a linear mapping (Assumption 2), and {model.mapping.label!r} is none"
        )
    elif found is None:
        notes.append("K_S is singular to double precision, so Θ_S^b needs a ridge: pass ridge=σ_S")
    assumption = None
    if samples:
        u = _programmed(model, x, samples, place)
        try:
            assumption = _assumption(source, u, reduce, kernels[0], options)
        except InputError as error:
            notes.append(str(error))
    return SourceFactors(tuple(kernels), found, assumption, tuple(notes))


def _programmed(model: ReprogrammedModel, x: Array, n: int, device: torch.device) -> Tensor:
    """Programmed inputs u of the first n inputs, float64."""
    model = prepared(model, device, torch.float64)
    with evaluation_mode(model), torch.no_grad():
        return model.programmed(model.inputs(x)[:n])


def _assumption(
    source: SourceModel,
    u: Tensor,
    reduce: Reduce,
    kernel: KernelStrength,
    options: dict[str, Any],
) -> Assumption3:
    """Assumption 3 at programmed inputs.

    Raises:
        InputError: it cannot be looked at; the message says why.
    """
    function, parameters, rows, name = tangent_features(source, reduce, u.device)
    if len(rows) > MOST_ROWS:
        raise InputError(
            f"Assumption 3 takes two backward passes a step for each of {len(rows):,} outputs: "
            "pass reduce='sum' or a class number to source_factors"
        )
    enough = kernel.interval[0]
    motions = feature_motions(function, parameters, rows, u, enough=enough, **options)
    return Assumption3(motions, kernel.interval, name)


def needed(source: SourceModel, source_data: SourceData | None) -> tuple[Tensor, Tensor]:
    """Checked source data.

    Raises:
        InputError: there are none, or they do not fit.
    """
    if source_data is None:
        raise InputError(
            f"the factors of source {source.name!r} need data of its own task: pass "
            "source_data=(x, y), such as source.test_data"
        )
    return checked(source, source_data)


def own_strength(regime: KernelRegimeSource) -> KernelStrength:
    """λ_min of the K_S that a source in the kernel regime is made of."""
    found = spectrum(regime.gram, eigenvectors=False)
    return KernelSpectra("kernel regime", (found,)).strength


def tangent_features(
    source: SourceModel, reduce: Reduce, device: torch.device
) -> tuple[Callable[[Tensor], Tensor], Sequence[Tensor], Tensor, Reduce]:
    """The network behind Φ as a function of u, its weights, the rows q_r and their name; float64.

    Raises:
        InputError: Φ has no derivative, or the source has no parameters.
    """
    twin = copy.deepcopy(source).to(device, torch.float64).eval()
    module = twin.module
    if isinstance(module, KernelRegimeSource):
        kernel = module.kernel
        if not isinstance(kernel, FeatureKernel):
            raise InputError(
                "an infinitely wide network has no features to differentiate here: with ReLU and "
                "biases its kernel has a kink at u = u', so Assumption 3 has no finite λ_min"
            )
        network = kernel.network.requires_grad_(True)
        weights = list(network.parameters())
        return lambda u: network(twin.normalized(u)), weights, kernel.rows, kernel.reduction.name
    weights = list(module.requires_grad_(True).parameters())
    rows = feature_rows(Reduction(reduce, source.outputs), weights[0])
    return twin, weights, rows, reduce
