"""Conditions on the source: strength, Assumption 3, distribution alignment (T8, T9, T10)."""

from __future__ import annotations

from typing import Any

from mrviz.sources import SourceModel
from mrviz.theory.conditions import Condition, Status, Thresholds
from mrviz.theory.distribution import DistributionBound
from mrviz.theory.factors import SourceFactors
from mrviz.theory.indicators.compare import placed, relation
from mrviz.theory.strength import SourceStrength

SOURCE_DATA = "needs source data: pass source_data=(x, y) of the source's own task"


def source_effectiveness(
    source: SourceModel,
    strength: SourceStrength | None,
    factors: SourceFactors | None = None,
) -> Condition:
    """T8: the source is better than chance at its own task; λ_min[K_S] and Θ_S^b beside it.

    Corollary 1 orders sources by λ_min[K_S] and names no threshold, so the status is that of the
    accuracy.
    """
    chance = 1 / source.outputs
    value = error = None
    details: dict[str, Any] = {}
    status: Status = "undecided"
    if strength is None:
        why = (
            f"{source.name} comes without test data of its own task: to measure it, pass "
            "test_data=(x, y) to SourceModel"
        )
    else:
        low, high = strength.interval
        value, error = strength.accuracy, (high - low) / 2
        status = placed(strength.interval, chance)
        details = {"risk": strength.risk, "interval": [low, high], "n": strength.n}
        why = (
            f"accuracy {strength.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}) and risk "
            f"{strength.risk:.3f} on {strength.n:,} held-out source samples; chance is "
            f"{chance:.1%}"
        )
    if factors is None:
        why += "; λ_min[K_S] and Θ_S^b: pass source_data=(x, y)"
    else:
        for kernel in factors.kernels:
            details[f"smallest_eigenvalue_{kernel.kind.replace(' ', '_')}"] = kernel.mean
            why += f"; {kernel.describe()}"
        if factors.effectiveness is not None:
            found = factors.effectiveness.spectrum
            details["effectiveness_eigenvalues"] = found.eigenvalues.tolist()
            details["effectiveness_floor"] = found.floor
            why += f"; Θ_S^b has eigenvalues {found.describe_smallest()} to {found.largest:.3g}"
        else:
            why += "; Θ_S^b needs a ridge, as K_S is singular to double precision"
    return Condition(
        id="T8",
        name="source strength",
        value=value,
        threshold=chance,
        error=error,
        status=status,
        formula=r"\operatorname{acc}(f_S) > 1/c_S,\;"
        r"\operatorname{risk} = \mathbb{E}\,\|\operatorname{softmax} f_S(x) - y\|_2,\;"
        r"\lambda_{\min}[K_S],\; \Theta_S^b",
        source="paper: Corollary 1 of arXiv 2506.00620; risk: Yang et al. 2021, Theorem 1",
        sentence="An effective source makes the target loss fall; a source that has learned "
        "nothing has nothing to reprogram.",
        why=why,
        details=details,
    )


def assumption3(factors: SourceFactors | None, thresholds: Thresholds) -> Condition:
    """T9: at every target input the source's features move more than λ_min[K_S].

    ∇_uΦ(u)ᵀ∇_uΦ(u), d_S × d_S, is what is measured; read literally, Assumption 3 is about the
    P × P matrix ∇_uΦ∇_uΦᵀ, whose λ_min is zero whenever P > d_S (docs/theory.md, section 4). One
    certain counterexample refutes it; samples alone establish it only as far as the interval of
    its share goes.

    Args:
        factors: from :func:`~mrviz.theory.source_factors`; ``None`` without source data.
        thresholds: the share that the interval must exceed.
    """
    found: dict[str, Any] = {"value": None, "error": None}
    status: Status = "undecided"
    if factors is None:
        why = SOURCE_DATA
    elif factors.assumption is None:
        reasons = [note for note in factors.notes if "Assumption 3" in note]
        why = reasons[0] if reasons else "it was not looked at: pass samples=16 to source_factors"
    else:
        seen = factors.assumption
        low, high = seen.interval
        n, kernel = len(seen.motions), factors.kernels[0]
        if seen.failing:
            status = "fails"
        elif seen.holding == n and low > thresholds.assumption_share:
            status = "holds"
        found = {
            "value": seen.share,
            "error": (high - low) / 2,
            "details": {
                "holding": seen.holding,
                "failing": seen.failing,
                "n": n,
                "interval": [low, high],
                "smallest_motion": seen.smallest,
                "smallest_eigenvalue": kernel.mean,
            },
        }
        why = (
            f"it holds at {seen.holding} and fails at {seen.failing} of {n} sampled inputs (95 % "
            f"interval of the share {low:.1%} to {high:.1%}); smallest λ_min over them "
            f"{'' if seen.converged else 'at most '}{seen.smallest:.3g}, {kernel.describe()}"
        )
        if status == "undecided" and seen.undecided:
            why += f"; {seen.undecided} inputs lie within the error or the spread of λ_min[K_S]"
        elif status == "undecided":
            why += "; too few inputs to establish it for all: raise samples in source_factors"
    return Condition(
        id="T9",
        name="Assumption 3",
        threshold=1.0,
        status=status,
        formula=r"\lambda_{\min}[\nabla_u\Phi(u_t)^\top \nabla_u\Phi(u_t)] \ge \lambda_{\min}[K_S]"
        r"\;\forall t",
        source="paper: Assumption 3 of arXiv 2506.00620, read as docs/theory.md, section 4, says",
        sentence="Do the source's features answer to every direction of its input? The paper's "
        "bounds assume it.",
        why=why,
        **found,
    )


def distribution_alignment(bound: DistributionBound | None, thresholds: Thresholds) -> Condition:
    """T10: source risk + 2√K W₁ says more about the target risk than √2 does, which always holds.

    Args:
        bound: from :func:`~mrviz.theory.distribution_bound`; ``None`` without source data.
        thresholds: the trivial bound.
    """
    found: dict[str, Any] = {"value": None, "error": None}
    status: Status = "undecided"
    if bound is None:
        why = SOURCE_DATA
    else:
        status = placed((-bound.high, -bound.low), -thresholds.risk)
        found = {
            "value": bound.value,
            "error": max(bound.high - bound.value, bound.value - bound.low),
            "details": bound.to_dict(),
        }
        where = relation(status, "below", "above")
        why = (
            f"risk {bound.risk:.3f} + 2√{bound.classes} × W₁ {bound.distance:.3g} = "
            f"{bound.value:.3g} (from {bound.low:.3g} to {bound.high:.3g}; {bound.n:,} samples a "
            f"side) is {where} {thresholds.risk:.3g}, above which it says nothing"
        )
    return Condition(
        id="T10",
        name="distribution alignment",
        threshold=thresholds.risk,
        status=status,
        formula=r"\mathbb{E}\,\|\operatorname{softmax} f_S(x) - y\|_2 + 2\sqrt{K}\,"
        r"W_1(f_S(a_\theta(X_T)), f_S(X_S)) < \sqrt{2}",
        source="lit: Yang et al. 2021, Theorem 1",
        sentence="Do programmed inputs look like source inputs to the source? Then its skill "
        "carries over.",
        why=why,
        **found,
    )
