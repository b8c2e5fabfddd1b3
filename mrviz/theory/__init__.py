"""Transfer conditions and the quantities behind them."""

from mrviz.theory.conditions import ICONS, BoundConstants, Condition, Conditions, Thresholds
from mrviz.theory.decomposition import Decomposition, ProgramFactor, decompose
from mrviz.theory.distribution import DistributionBound, distribution_bound, wasserstein1
from mrviz.theory.factors import SourceFactors, source_factors
from mrviz.theory.feature_motion import Assumption3, InputMotion
from mrviz.theory.kernel_regime import FeatureKernel, KernelRegimeSource, WideKernel
from mrviz.theory.residuals import (
    Alignment,
    kernel_target_alignment,
    residual,
    residual_energy,
    training_residual,
)
from mrviz.theory.strength import (
    Effectiveness,
    KernelStrength,
    SourceStrength,
    effectiveness,
    kernel_strength,
    source_strength,
)
from mrviz.theory.transfer import (
    Evidence,
    evaluate_conditions,
    gather_evidence,
    transfer_conditions,
)
from mrviz.theory.wide_limit import proposition_gap, theorem_sum, trace_kernel

__all__ = [
    "ICONS",
    "Alignment",
    "Assumption3",
    "BoundConstants",
    "Condition",
    "Conditions",
    "Decomposition",
    "DistributionBound",
    "Effectiveness",
    "Evidence",
    "FeatureKernel",
    "InputMotion",
    "KernelRegimeSource",
    "KernelStrength",
    "ProgramFactor",
    "SourceFactors",
    "SourceStrength",
    "Thresholds",
    "WideKernel",
    "decompose",
    "distribution_bound",
    "effectiveness",
    "evaluate_conditions",
    "gather_evidence",
    "kernel_strength",
    "kernel_target_alignment",
    "proposition_gap",
    "residual",
    "residual_energy",
    "source_factors",
    "source_strength",
    "theorem_sum",
    "trace_kernel",
    "training_residual",
    "transfer_conditions",
    "wasserstein1",
]
