"""Transfer conditions and the quantities behind them."""

from mrviz.theory.baselines import Baselines, h_score, leep, logme, nce, transfer_baselines
from mrviz.theory.conditions import ICONS, BoundConstants, Condition, Conditions, Thresholds
from mrviz.theory.decomposition import Decomposition, ProgramFactor, decompose
from mrviz.theory.distribution import DistributionBound, distribution_bound, wasserstein1
from mrviz.theory.drift import Drift, kernel_drift
from mrviz.theory.dynamics import Descent, Trajectory, simulate
from mrviz.theory.factors import SourceFactors, source_factors
from mrviz.theory.feature_motion import Assumption3, InputMotion
from mrviz.theory.gram_factors import GramFactors, gram_factors
from mrviz.theory.kernel_regime import FeatureKernel, KernelRegimeSource, WideKernel
from mrviz.theory.leave_one_out import leave_one_out, ridge_regression
from mrviz.theory.mapping_effect import MappingEffect, mapping_effect
from mrviz.theory.modes import (
    gain,
    loss_curve,
    mode_times,
    remaining,
    ridge_filter,
    stable_step,
    steps_to,
    time_to,
    training_filter,
)
from mrviz.theory.prediction import Prediction, predict_training
from mrviz.theory.ranking import Candidate, Ranking, rank_programs, rank_sources
from mrviz.theory.residuals import (
    Alignment,
    kernel_target_alignment,
    residual,
    residual_energy,
    training_residual,
)
from mrviz.theory.source_report import (
    DepthPoint,
    SourceReport,
    source_report,
    strength_over_depth,
)
from mrviz.theory.strength import (
    Effectiveness,
    KernelSpectra,
    KernelStrength,
    SourceStrength,
    effectiveness,
    kernel_spectra,
    kernel_strength,
    source_strength,
)
from mrviz.theory.transfer import (
    Evidence,
    evaluate_conditions,
    gather_evidence,
    reconsidered,
    transfer_conditions,
)
from mrviz.theory.wide_limit import proposition_gap, theorem_sum, trace_kernel

__all__ = [
    "ICONS",
    "Alignment",
    "Assumption3",
    "Baselines",
    "BoundConstants",
    "Candidate",
    "Condition",
    "Conditions",
    "Decomposition",
    "DepthPoint",
    "Descent",
    "DistributionBound",
    "Drift",
    "Effectiveness",
    "Evidence",
    "FeatureKernel",
    "GramFactors",
    "InputMotion",
    "KernelRegimeSource",
    "KernelSpectra",
    "KernelStrength",
    "MappingEffect",
    "Prediction",
    "ProgramFactor",
    "Ranking",
    "SourceFactors",
    "SourceReport",
    "SourceStrength",
    "Thresholds",
    "Trajectory",
    "WideKernel",
    "decompose",
    "distribution_bound",
    "effectiveness",
    "evaluate_conditions",
    "gain",
    "gather_evidence",
    "gram_factors",
    "h_score",
    "kernel_drift",
    "kernel_spectra",
    "kernel_strength",
    "kernel_target_alignment",
    "leave_one_out",
    "leep",
    "logme",
    "loss_curve",
    "mapping_effect",
    "mode_times",
    "nce",
    "predict_training",
    "proposition_gap",
    "rank_programs",
    "rank_sources",
    "reconsidered",
    "remaining",
    "residual",
    "residual_energy",
    "ridge_filter",
    "ridge_regression",
    "simulate",
    "source_factors",
    "source_report",
    "source_strength",
    "stable_step",
    "steps_to",
    "strength_over_depth",
    "theorem_sum",
    "time_to",
    "trace_kernel",
    "training_filter",
    "training_residual",
    "transfer_baselines",
    "transfer_conditions",
    "wasserstein1",
]
