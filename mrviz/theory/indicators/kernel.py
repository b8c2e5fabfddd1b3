"""Conditions on the kernel alone: capacity, rank, wide limit, drift (T1, T2, T3, T11, T12)."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from mrviz._words import counted, verb
from mrviz.ntk import Gram
from mrviz.spectrum import Spectrum
from mrviz.theory.conditions import Condition, Status, Thresholds
from mrviz.theory.drift import Drift
from mrviz.theory.indicators.compare import (
    DOUBLE,
    FULL_KERNEL,
    below,
    compared,
    ratio_error,
    relation,
)
from mrviz.theory.wide_limit import proposition_gap


def capacity(n_parameters: float, n: int, outputs: int) -> Condition:
    """T1: at least as many parameters as residuals, necessary for λ_min(Θ_T) > 0."""
    residuals = n * outputs
    holds = n_parameters >= residuals
    return Condition(
        id="T1",
        name="capacity",
        value=float(n_parameters),
        threshold=float(residuals),
        error=0.0,
        status="holds" if holds else "fails",
        formula=r"p \ge nC",
        source="derived: rank Θ ≤ min(p, nC); docs/theory.md, section 4",
        sentence="Can the program fit every residual at all? It needs one parameter for each.",
        why=f"p = {counted(n_parameters, 'parameter')} for nC = {counted(residuals, 'residual')}",
    )


def trainability(gram: Gram, spectrum: Spectrum) -> Condition:
    """T2: the smallest eigenvalue of the full kernel is above the noise floor.

    A reduced kernel's smallest eigenvalue bounds that of the full kernel from above (trace,
    sum and class kernels are averages or principal blocks of it), so it can refute but never
    establish trainability.
    """
    full, residuals = gram.reduce == "full", gram.n * gram.outputs
    smallest, floor = spectrum.smallest, spectrum.floor
    value: float | None = None
    status: Status = "undecided"
    below, zero = spectrum.order - spectrum.rank, residuals - gram.info.n_parameters
    if zero > 0:
        status = "fails"
        why = (
            f"p = {counted(gram.info.n_parameters, 'parameter')}: at least {zero:,} of "
            f"{residuals:,} eigenvalues {verb(zero, 'is', 'are')} exactly zero"
        )
    elif spectrum.full_rank and full:
        status, value = "holds", smallest
        why = f"λ_min = {smallest:.3g} is above the noise floor {floor:.2g}"
    elif spectrum.full_rank:
        why = (
            f"the reduced kernel {gram.reduce!r} only bounds λ_min from above "
            f"(by {smallest:.3g}): {FULL_KERNEL}"
        )
    elif spectrum.epsilon <= DOUBLE:
        status = "fails"
        why = (
            f"{below:,} of {spectrum.order:,} eigenvalues {verb(below, 'is', 'are')} not told "
            f"from zero even in double precision (below {floor:.2g})"
        )
    else:
        why = (
            f"{below:,} of {spectrum.order:,} eigenvalues {verb(below, 'lies', 'lie')} below the "
            f"noise floor {floor:.2g}: repeat in float64 to decide"
        )
    return Condition(
        id="T2",
        name="trainability",
        value=value,
        threshold=floor,
        error=floor,
        status=status,
        formula=r"\lambda_{\min}(\Theta_T) > N\,\varepsilon\,\lambda_{\max}(\Theta_T)",
        source="lit: Du et al. 2019",
        sentence="With λ_min above zero, gradient flow on the linearised model reaches zero "
        "training loss; how soon is another question (T4).",
        why=why,
    )


def schur_bound(
    gamma: Spectrum | None, features: Tensor | None, gram: Gram, spectrum: Spectrum
) -> Condition:
    """T3: the source's Jacobian Gram alone guarantees trainability of a linear program.

    λ_min(P∘Q) ≥ λ_min(P) min_i Q_ii for positive semi-definite P, Q (Schur), with P = Γ and Q
    the scalar kernel φφᵀ + 11ᵀ; further blocks of parameters only add to Θ.

    Args:
        gamma: spectrum of Γ = [A_i A_jᵀ]; ``None`` for programs without a scalar kernel.
        features: scalar features s_i = (φ_i, 1), (n, m).
        gram: the target Gram.
        spectrum: its spectrum.
    """
    value, threshold, error = None, None, None
    status: Status = "undecided"
    if gamma is None or features is None:
        why = "applies to linear programs only: this program's kernel has no factor in x"
    elif gram.reduce != "full":
        why = f"the bound is about the full kernel: {FULL_KERNEL}"
    else:
        smallest_norm = float(features.double().square().sum(1).min())
        threshold = spectrum.floor
        error = gamma.floor * smallest_norm
        if not gamma.full_rank:
            double = gamma.epsilon <= DOUBLE
            status = "fails" if double else "undecided"
            why = (
                f"Γ has {counted(gamma.order - gamma.rank, 'eigenvalue')} below its noise floor "
                f"{gamma.floor:.2g}" + ("" if double else ": repeat in float64 to decide")
            )
        else:
            value = gamma.smallest * smallest_norm
            status = compared(value, threshold, error)
            why = (
                f"λ_min(Γ) · min(‖φ‖² + 1) = {value:.3g} is {relation(status)} the noise floor "
                f"{threshold:.2g} of Θ_T"
            )
    return Condition(
        id="T3",
        name="Schur bound",
        value=value,
        threshold=threshold,
        error=error,
        status=status,
        formula=r"\lambda_{\min}(\Gamma)\,\min_i(\|\varphi_i\|^2+1) > \text{floor},\;"
        r"\Gamma = [A_i A_j^\top]",
        source="derived: Schur product theorem; docs/theory.md, section 4",
        sentence="If it holds, the source's input-Jacobian alone guarantees T2; if it fails, T2 "
        "may still hold.",
        why=why,
    )


def spectrum_gap(gram: Gram, spectrum: Spectrum, thresholds: Thresholds) -> Condition:
    """T11: the spectrum of Θ_T is that of the trace kernel, each eigenvalue C times.

    No eigenvalue of either is off by more than the noise floor, as the trace kernel is a mean
    of principal blocks; so each spectrum is off by at most √N·floor.
    """
    found: dict[str, Any] = {"value": None, "error": None}
    status: Status = "undecided"
    norm = float(spectrum.eigenvalues.norm())
    if gram.reduce != "full":
        why = f"a reduced kernel does not show how the outputs differ: {FULL_KERNEL}"
    elif norm == 0:
        why = "the kernel is zero, and so is the trace kernel"
    else:
        value = proposition_gap(gram, spectrum)
        error = ratio_error(value, spectrum.order**0.5 * spectrum.floor / norm)
        found = {"value": value, "error": error if error < math.inf else None}
        status = below(value, thresholds.spectrum_gap, error)
        why = (
            f"the relative distance {value:.3g} of the spectra is "
            f"{relation(status, 'below', 'above')} {thresholds.spectrum_gap:.3g}"
        )
        if gram.outputs == 1:
            why += "; with one output it is zero for any kernel"
    return Condition(
        id="T11",
        name="Proposition-1 gap",
        threshold=thresholds.spectrum_gap,
        status=status,
        formula=r"\frac{\|\lambda(\Theta_T) - \lambda(\bar\Theta \otimes I_C)\|}"
        r"{\|\lambda(\Theta_T)\|} < \tau,\; \bar\Theta = \tfrac{1}{C} \sum_c \Theta^{cc}",
        source="paper: Proposition 1 of arXiv 2506.00620; threshold: a convention",
        sentence="In the wide limit every output has the same kernel and none sees another: is "
        "that picture valid here?",
        why=why,
        **found,
    )


def lazy_training(drift: Drift | None, spectrum: Spectrum, thresholds: Thresholds) -> Condition:
    """T12: training moved the kernel little, so that the linearised model still describes it.

    Args:
        drift: from :func:`~mrviz.theory.kernel_drift`; ``None`` before training.
        spectrum: of the kernel before training; both kernels are taken to be off by its floor.
        thresholds: the largest drift that counts as lazy.
    """
    found: dict[str, Any] = {"value": None, "error": None}
    status: Status = "undecided"
    norm = float(spectrum.eigenvalues.norm())
    if drift is None:
        why = "needs training: pass drift=mrviz.theory.kernel_drift(gram_before, gram_after)"
    else:
        off = spectrum.order**0.5 * spectrum.floor / norm if norm > 0 else 0.0
        error = ratio_error(drift.relative, off)
        status = below(drift.relative, thresholds.drift, error)
        found = {
            "value": drift.relative,
            "error": error if error < math.inf else None,
            "details": {"centered_kernel_alignment": drift.alignment},
        }
        alike = "" if drift.alignment is None else f", CKA {drift.alignment:.3g}"
        why = (
            f"training changed the kernel by {drift.relative:.3g} of its norm{alike}; that is "
            f"{relation(status, 'below', 'above')} {thresholds.drift:.3g}"
        )
    return Condition(
        id="T12",
        name="kernel drift",
        threshold=thresholds.drift,
        status=status,
        formula=r"\frac{\|\Theta_t - \Theta_0\|_F}{\|\Theta_0\|_F} < \tau",
        source="lit: Jacot et al. 2018; CKA: Cortes et al. 2012; threshold: a convention",
        sentence="Did training stay lazy? Where the kernel moves, the model learns features and "
        "what the kernel predicts is off.",
        why=why,
        **found,
    )
