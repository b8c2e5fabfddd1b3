"""Studies: many trainings in one resumable file, and what correlates with their outcome.

A study says which indicator, known before training, goes with what training then gives: it
trains for real. Figures of its rows are in ``mrviz.figures.study``.
"""

from mrviz.study.correlation import Correlation, Correlations, correlate
from mrviz.study.grid import configurations
from mrviz.study.runner import Study, run
from mrviz.study.store import load

__all__ = [
    "Correlation",
    "Correlations",
    "Study",
    "configurations",
    "correlate",
    "load",
    "run",
]
