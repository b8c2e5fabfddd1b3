"""The transfer conditions, one function each: from measured quantities to a status."""

from __future__ import annotations

import torch
from torch import Tensor

from mrviz.ntk import Gram
from mrviz.sources import SourceModel
from mrviz.spectrum import Spectrum
from mrviz.theory.conditions import Condition, Status
from mrviz.theory.residuals import kernel_target_alignment, residual_energy
from mrviz.theory.strength import SourceStrength

DOUBLE = torch.finfo(torch.float64).eps / 2


def compared(value: float, threshold: float, error: float) -> Status:
    """Whether a value is above its threshold; undecided where the error could decide."""
    if abs(value - threshold) <= error:
        return "undecided"
    return "holds" if value > threshold else "fails"


def capacity(n_parameters: int, n: int, outputs: int) -> Condition:
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
        source="rank Θ ≤ min(p, nC); docs/theory.md, section 4",
        sentence="Can the program fit every residual at all? It needs one parameter for each.",
        why=f"p = {n_parameters:,} parameters for nC = {residuals:,} residuals",
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
    if gram.info.n_parameters < residuals:
        status = "fails"
        why = (
            f"p = {gram.info.n_parameters:,} parameters: at least "
            f"{residuals - gram.info.n_parameters:,} of {residuals:,} eigenvalues are exactly zero"
        )
    elif spectrum.full_rank and full:
        status, value = "holds", smallest
        why = f"λ_min = {smallest:.3g} is above the noise floor {floor:.2g}"
    elif spectrum.full_rank:
        why = (
            f"the reduced kernel {gram.reduce!r} only bounds λ_min from above "
            f"(by {smallest:.3g}): choose the full kernel to decide"
        )
    elif spectrum.epsilon <= DOUBLE:
        status = "fails"
        why = (
            f"{spectrum.order - spectrum.rank:,} of {spectrum.order:,} eigenvalues are not told "
            f"from zero even in double precision (below {floor:.2g})"
        )
    else:
        why = (
            f"{spectrum.order - spectrum.rank:,} of {spectrum.order:,} eigenvalues lie below the "
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
        source="Du et al. 2019",
        sentence="With λ_min above zero, gradient flow on the linearised model reaches zero "
        "training loss; how soon is another question.",
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
        why = "the bound is about the full kernel: choose the full kernel to decide"
    else:
        smallest_norm = float(features.double().square().sum(1).min())
        threshold = spectrum.floor
        error = gamma.floor * smallest_norm
        if not gamma.full_rank:
            double = gamma.epsilon <= DOUBLE
            status = "fails" if double else "undecided"
            why = (
                f"Γ has {gamma.order - gamma.rank:,} eigenvalues below its noise floor "
                f"{gamma.floor:.2g}" + ("" if double else ": repeat in float64 to decide")
            )
        else:
            value = gamma.smallest * smallest_norm
            status = compared(value, threshold, error)
            relation = {"holds": "above", "fails": "below", "undecided": "within error of"}
            why = (
                f"λ_min(Γ) · min(‖φ‖² + 1) = {value:.3g} is {relation[status]} the noise floor "
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


def alignment(gram: Gram, spectrum: Spectrum, r: Tensor) -> Condition:
    """T5: the residual lies where the kernel is large, compared with a random direction."""
    found = kernel_target_alignment(gram, spectrum, r)
    energy = residual_energy(gram, spectrum, r)
    top = min(gram.outputs, spectrum.order)
    share = float(energy[:top].sum())
    error = 2 * found.deviation
    status = compared(found.value, found.chance, error)
    words = {"holds": "above", "fails": "below", "undecided": "not told apart from"}
    return Condition(
        id="T5",
        name="alignment",
        value=found.value,
        threshold=found.chance,
        error=error,
        status=status,
        formula=r"\frac{\langle\Theta_T, rr^\top\rangle}{\|\Theta_T\|_F\,\|r\|^2}"
        r" > \frac{\operatorname{tr}\Theta_T}{N\,\|\Theta_T\|_F}",
        source="kernel-target alignment, Cristianini et al. 2001",
        sentence="Does the task live where the kernel is large? Modes with large eigenvalues are "
        "learned first.",
        why=f"alignment {found.value:.3g} is {words[status]} the {found.chance:.3g} of a random "
        f"residual; the top {top} modes hold {share:.0%} of the residual energy",
    )


def source_effectiveness(source: SourceModel, strength: SourceStrength | None) -> Condition:
    """T8: the source is better than chance at its own task."""
    chance = 1 / source.outputs
    value = error = None
    status: Status = "undecided"
    if strength is None:
        why = (
            f"{source.name} comes without test data of its own task: to measure it, pass "
            "test_data=(x, y) to SourceModel"
        )
    else:
        low, high = strength.interval
        value, error = strength.accuracy, (high - low) / 2
        status = "holds" if low > chance else "fails" if high < chance else "undecided"
        why = (
            f"accuracy {strength.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}) and risk "
            f"{strength.risk:.3f} on {strength.n:,} held-out source samples; chance is "
            f"{chance:.1%}"
        )
    return Condition(
        id="T8",
        name="source strength",
        value=value,
        threshold=chance,
        error=error,
        status=status,
        formula=r"\operatorname{acc}(f_S) > 1/c_S,\;"
        r"\operatorname{risk} = \mathbb{E}\,\|\operatorname{softmax} f_S(x) - y\|_2",
        source="Corollary 1 of arXiv 2506.00620; risk: Yang et al. 2021, Theorem 1",
        sentence="An effective source makes the target loss fall; a source that has learned "
        "nothing has nothing to reprogram.",
        why=why,
    )
