"""Transfer conditions of a reprogrammed model: measures what they need, then evaluates them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mrviz._checks import Array
from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.errors import InputError
from mrviz.ntk import Gram, jacobian_gram, ntk_gram
from mrviz.programs import Program, ReprogrammedModel
from mrviz.sources import SourceModel
from mrviz.spectrum import Spectrum, spectrum
from mrviz.targets import Target
from mrviz.theory import indicators
from mrviz.theory.conditions import BoundConstants, Conditions, Thresholds
from mrviz.theory.distribution import DistributionBound, distribution_bound
from mrviz.theory.drift import Drift
from mrviz.theory.factors import SourceFactors, source_factors
from mrviz.theory.prediction import Prediction, predict_training
from mrviz.theory.residuals import residual
from mrviz.theory.strength import SourceData, SourceStrength, source_strength

DEFAULTS = Thresholds()
"""The documented conventions."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the conditions need beside a Gram and its spectrum.

    The first five are the same for every capacity. Those with a default are dear, or need
    something that only the user has; a condition without its evidence is undecided.

    Attributes:
        source: the source model.
        residual: r = Y − f_0(X), (n, C).
        gamma: spectrum of Γ where the program has a scalar kernel.
        features: its scalar features (n, m).
        strength: the source on its own task, where it has test data.
        factors: K_S, Θ_S^b and Assumption 3 (T8, T9).
        distribution: source risk and W₁ of logits (T10).
        prediction: predicted training (T7).
        drift: of the kernel, after training (T12).
        constants: of Theorem 2 (T13).
    """

    source: SourceModel
    residual: Tensor
    gamma: Spectrum | None
    features: Tensor | None
    strength: SourceStrength | None
    factors: SourceFactors | None = None
    distribution: DistributionBound | None = None
    prediction: Prediction | None = None
    drift: Drift | None = None
    constants: BoundConstants | None = None


def gather_evidence(
    model: ReprogrammedModel,
    x: Array,
    targets: Tensor,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    chunk_size: int | None = None,
    strength: SourceStrength | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Evidence:
    """Measures residual, Γ and source strength on training samples.

    Args:
        model: the reprogrammed model.
        x: target inputs (n, *target_shape).
        targets: Y, (n, C).
        device: as in :func:`~mrviz.ntk_gram`.
        dtype: as in :func:`~mrviz.ntk_gram`.
        chunk_size: as in :func:`~mrviz.ntk_gram`.
        strength: the source's strength, where it is known already.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.
    """
    x = model.inputs(x)
    features = model.program.scalar_features(x) if isinstance(model.program, Program) else None
    gamma = None
    if features is not None:
        gram = jacobian_gram(
            model,
            x,
            device=device,
            dtype=dtype,
            chunk_size=chunk_size,
            progress=progress,
            cancel=cancel,
        )
        gamma = spectrum(gram, eigenvectors=False)
    return Evidence(
        source=model.source,
        residual=residual(model, x, targets),
        gamma=gamma,
        features=features,
        strength=strength or source_strength(model.source),
    )


def evaluate_conditions(
    gram: Gram,
    spec: Spectrum,
    evidence: Evidence,
    thresholds: Thresholds = DEFAULTS,
) -> Conditions:
    """The conditions T1 to T13 from measured quantities, without further passes.

    Args:
        gram: the target Gram.
        spec: its spectrum, with eigenvectors.
        evidence: the rest; what it lacks leaves conditions undecided.
        thresholds: conventions that values are compared with.
    """
    r = evidence.residual
    return Conditions(
        (
            indicators.capacity(gram.info.n_parameters, gram.n, gram.outputs),
            indicators.trainability(gram, spec),
            indicators.schur_bound(evidence.gamma, evidence.features, gram, spec),
            indicators.speed(gram, spec, r, thresholds),
            indicators.alignment(gram, spec, r),
            indicators.complexity(gram, spec, r, thresholds),
            indicators.predicted_accuracy(evidence.prediction, gram.outputs, thresholds),
            indicators.source_effectiveness(evidence.source, evidence.strength, evidence.factors),
            indicators.assumption3(evidence.factors, thresholds),
            indicators.distribution_alignment(evidence.distribution, thresholds),
            indicators.spectrum_gap(gram, spec, thresholds),
            indicators.lazy_training(evidence.drift, spec, thresholds),
            indicators.generalization(gram, spec, evidence.constants, thresholds),
        ),
        gram.n,
    )


def reconsidered(
    conditions: Conditions,
    spec: Spectrum,
    evidence: Evidence,
    outputs: int,
    thresholds: Thresholds = DEFAULTS,
) -> Conditions:
    """The same conditions, judged again where evidence came that needs no Gram.

    T7 by a prediction, T8 and T9 by the source's factors, T10 by logits, T12 by a drift; a
    condition without such evidence stays as it is.

    Args:
        conditions: from :func:`evaluate_conditions`.
        spec: the spectrum behind them.
        evidence: what is known by now.
        outputs: C.
        thresholds: conventions that values are compared with.
    """
    late = []
    if evidence.prediction is not None:
        late.append(indicators.predicted_accuracy(evidence.prediction, outputs, thresholds))
    if (factors := evidence.factors) is not None:
        late.append(indicators.source_effectiveness(evidence.source, evidence.strength, factors))
        late.append(indicators.assumption3(factors, thresholds))
    if evidence.distribution is not None:
        late.append(indicators.distribution_alignment(evidence.distribution, thresholds))
    if evidence.drift is not None:
        late.append(indicators.lazy_training(evidence.drift, spec, thresholds))
    by_id = {condition.id: condition for condition in late}
    return replace(conditions, items=tuple(by_id.get(c.id, c) for c in conditions))


def transfer_conditions(
    model: ReprogrammedModel,
    target: Target,
    *,
    n: int | None = None,
    gram: Gram | None = None,
    source_data: SourceData | None = None,
    factors: SourceFactors | None = None,
    predict: bool | Mapping[str, Any] | Prediction = False,
    drift: Drift | None = None,
    constants: BoundConstants | None = None,
    thresholds: Thresholds = DEFAULTS,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    chunk_size: int | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Conditions:
    """Evaluates the transfer conditions on training samples (docs/theory.md, section 4).

    Those that need no more than the Gram (T1–T6, T8 by the source's test data, T11, T13) are
    always there; the others stay undecided, and say what to pass, until they are asked for.

    Args:
        model: the reprogrammed model.
        target: the target data set.
        n: use the first ``n`` training samples; default: those of ``gram``, or all.
        gram: Gram of the first ``gram.n`` training samples, where it is there already.
        source_data: inputs and labels of the source's own task, such as
            ``model.source.test_data``, for T8 (λ_min[K_S], Θ_S^b), T9 and T10.
        factors: result of :func:`~mrviz.theory.source_factors` with options of one's own, which
            ``source_data`` then does not compute.
        predict: for T7: ``True``, the options of :func:`~mrviz.theory.predict_training` such as
            ``{"loss": "squared", "lr": 0.1, "steps": 200}``, or its result.
        drift: for T12: result of :func:`~mrviz.theory.kernel_drift`, after training.
        constants: for T13: the constants of Theorem 2.
        thresholds: conventions that values are compared with.
        device: as in :func:`~mrviz.ntk_gram`.
        dtype: as in :func:`~mrviz.ntk_gram`; float64 decides what float32 leaves undecided.
        chunk_size: as in :func:`~mrviz.ntk_gram`.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.

    Raises:
        InputError: ``n`` is larger than the training set, or contradicts ``gram``; data or
            options that do not fit.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> x, y = torch.rand(6, 1, 2, 2), [0, 1, 2, 0, 1, 2]
        >>> target = mrviz.Target(x, y, x, y)
        >>> model = mrviz.reprogram(source, target, program="linear")
        >>> found = mrviz.transfer_conditions(model, target, predict={"steps": 20})
        >>> found["T1"].status, found["T7"].threshold
        ('holds', 0.333...)
    """
    available = len(target.x_train)
    if n is None:
        n = gram.n if gram is not None else available
    if not 1 <= n <= available or (gram is not None and gram.n != n):
        raise InputError(
            f"n={n} does not fit: the target has {available} training samples"
            + (f" and the Gram is of {gram.n}" if gram is not None else "")
        )
    x = target.x_train[:n]
    options: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "chunk_size": chunk_size,
        "progress": progress,
        "cancel": cancel,
    }
    if gram is None:
        gram = ntk_gram(model, x, **options)
    evidence = gather_evidence(model, x, target.targets_of(target.y_train[:n]), **options)
    if source_data is not None:
        evidence = replace(
            evidence,
            strength=evidence.strength or source_strength(model.source, data=source_data),
            distribution=distribution_bound(model, x, source_data),
        )
        if factors is None:
            factors = source_factors(
                model, x, source_data, device=device, progress=progress, cancel=cancel
            )
    evidence = replace(
        evidence,
        factors=factors,
        prediction=_prediction(model, target, gram, predict, options),
        drift=drift,
        constants=constants,
    )
    return evaluate_conditions(gram, spectrum(gram), evidence, thresholds)


def _prediction(
    model: ReprogrammedModel,
    target: Target,
    gram: Gram,
    predict: bool | Mapping[str, Any] | Prediction,
    options: dict[str, Any],
) -> Prediction | None:
    """The prediction given or asked for, with the Gram that is there where it can be used."""
    if isinstance(predict, Prediction):
        return predict
    if predict is False:
        return None
    chosen = {"n": gram.n, **(predict if isinstance(predict, Mapping) else {})}
    usable = chosen.get("reduce", gram.reduce) == gram.reduce and chosen["n"] == gram.n
    if usable and not isinstance(gram.reduce, int):
        chosen.setdefault("gram", gram)
    return predict_training(model, target, **options, **chosen)
