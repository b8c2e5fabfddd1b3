"""Runs what was chosen, and keeps what the next choice can use again."""

from mrviz.workbench.bench import Workbench
from mrviz.workbench.learning import Learning, Schedule, Training
from mrviz.workbench.result import Result
from mrviz.workbench.source import OWN, SourceStudy, depths, has_own_data

__all__ = [
    "OWN",
    "Learning",
    "Result",
    "Schedule",
    "SourceStudy",
    "Training",
    "Workbench",
    "depths",
    "has_own_data",
]
