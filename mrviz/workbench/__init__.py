"""Runs what was chosen, and keeps what the next choice can use again."""

from mrviz.workbench.bench import Workbench
from mrviz.workbench.learning import Learning, Schedule, Training
from mrviz.workbench.result import Result

__all__ = ["Learning", "Result", "Schedule", "Training", "Workbench"]
