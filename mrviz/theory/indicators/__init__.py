"""The transfer conditions T1 to T13, one function each: from measured quantities to a status."""

from mrviz.theory.indicators.kernel import (
    capacity,
    lazy_training,
    schur_bound,
    spectrum_gap,
    trainability,
)
from mrviz.theory.indicators.source import (
    assumption3,
    distribution_alignment,
    source_effectiveness,
)
from mrviz.theory.indicators.speed import speed
from mrviz.theory.indicators.task import (
    alignment,
    complexity,
    generalization,
    predicted_accuracy,
)

__all__ = [
    "alignment",
    "assumption3",
    "capacity",
    "complexity",
    "distribution_alignment",
    "generalization",
    "lazy_training",
    "predicted_accuracy",
    "schur_bound",
    "source_effectiveness",
    "spectrum_gap",
    "speed",
    "trainability",
]
