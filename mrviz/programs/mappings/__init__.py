"""Output mappings b: from the source's outputs to those of the target, fixed or trainable."""

from mrviz.programs.mappings.averaging import LogitAverage, ManyToOne, ProbabilityAverage
from mrviz.programs.mappings.base import Identity, LinearHead, Mapping, Matrix, as_mapping
from mrviz.programs.mappings.refreshed import Bayesian, BayesianPlus, Iterative, Refreshed
from mrviz.programs.mappings.registry import MAPPINGS, MappingData, MappingSpec, build_mapping
from mrviz.programs.mappings.selection import Frequency, Random, Selection

__all__ = [
    "MAPPINGS",
    "Bayesian",
    "BayesianPlus",
    "Frequency",
    "Identity",
    "Iterative",
    "LinearHead",
    "LogitAverage",
    "ManyToOne",
    "Mapping",
    "MappingData",
    "MappingSpec",
    "Matrix",
    "ProbabilityAverage",
    "Random",
    "Refreshed",
    "Selection",
    "as_mapping",
    "build_mapping",
]
