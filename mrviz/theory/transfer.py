"""Transfer conditions of a reprogrammed model: measures what they need, then evaluates them."""

from __future__ import annotations

from dataclasses import dataclass

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
from mrviz.theory.conditions import Conditions
from mrviz.theory.residuals import residual
from mrviz.theory.strength import SourceStrength, source_strength


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the conditions need beside a Gram and its spectrum; the same for every capacity.

    Attributes:
        source: the source model.
        residual: r = Y − f_0(X), (n, C).
        gamma: spectrum of Γ where the program has a scalar kernel.
        features: its scalar features (n, m).
        strength: the source on its own task, where it has test data.
    """

    source: SourceModel
    residual: Tensor
    gamma: Spectrum | None
    features: Tensor | None
    strength: SourceStrength | None


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


def evaluate_conditions(gram: Gram, spec: Spectrum, evidence: Evidence) -> Conditions:
    """The conditions T1, T2, T3, T5 and T8 from measured quantities, without further passes."""
    return Conditions(
        (
            indicators.capacity(gram.info.n_parameters, gram.n, gram.outputs),
            indicators.trainability(gram, spec),
            indicators.schur_bound(evidence.gamma, evidence.features, gram, spec),
            indicators.alignment(gram, spec, evidence.residual),
            indicators.source_effectiveness(evidence.source, evidence.strength),
        ),
        gram.n,
    )


def transfer_conditions(
    model: ReprogrammedModel,
    target: Target,
    *,
    n: int | None = None,
    gram: Gram | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    chunk_size: int | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Conditions:
    """Evaluates the transfer conditions on training samples (docs/theory.md, section 4).

    Args:
        model: the reprogrammed model.
        target: the target data set.
        n: use the first ``n`` training samples; default: those of ``gram``, or all.
        gram: Gram of the first ``gram.n`` training samples, where it is there already.
        device: as in :func:`~mrviz.ntk_gram`.
        dtype: as in :func:`~mrviz.ntk_gram`; float64 decides what float32 leaves undecided.
        chunk_size: as in :func:`~mrviz.ntk_gram`.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.

    Raises:
        InputError: ``n`` is larger than the training set, or contradicts ``gram``.
    """
    available = len(target.x_train)
    if n is None:
        n = gram.n if gram is not None else available
    if not 1 <= n <= available or (gram is not None and gram.n != n):
        raise InputError(
            f"n={n} does not fit: the target has {available} training samples"
            + (f" and the Gram is of {gram.n}" if gram is not None else "")
        )
    if gram is None:
        gram = ntk_gram(
            model,
            target.x_train[:n],
            device=device,
            dtype=dtype,
            chunk_size=chunk_size,
            progress=progress,
            cancel=cancel,
        )
    evidence = gather_evidence(
        model,
        target.x_train[:n],
        target.targets_of(target.y_train[:n]),
        device=device,
        dtype=dtype,
        chunk_size=chunk_size,
        progress=progress,
        cancel=cancel,
    )
    return evaluate_conditions(gram, spectrum(gram), evidence)
