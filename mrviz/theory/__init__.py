"""Transfer conditions and the quantities behind them."""

from mrviz.theory.conditions import ICONS, Condition, Conditions
from mrviz.theory.residuals import (
    Alignment,
    kernel_target_alignment,
    residual,
    residual_energy,
    training_residual,
)
from mrviz.theory.strength import SourceStrength, source_strength
from mrviz.theory.transfer import (
    Evidence,
    evaluate_conditions,
    gather_evidence,
    transfer_conditions,
)

__all__ = [
    "ICONS",
    "Alignment",
    "Condition",
    "Conditions",
    "Evidence",
    "SourceStrength",
    "evaluate_conditions",
    "gather_evidence",
    "kernel_target_alignment",
    "residual",
    "residual_energy",
    "source_strength",
    "training_residual",
    "transfer_conditions",
]
