"""Choosing program, capacity, mapping and step size: kernel predictions first, then training."""

from mrviz.tuning.autotune import autotune
from mrviz.tuning.result import Savings, Trial, TunedCandidate, Tuning
from mrviz.tuning.split import validation_split

__all__ = ["Savings", "Trial", "TunedCandidate", "Tuning", "autotune", "validation_split"]
