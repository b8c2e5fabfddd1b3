"""Pure functions from results to plotly figures."""

from mrviz.figures.spectrum import Curve, spectrum_figure
from mrviz.figures.study import correlation_figure, depth_figure, ranking_figure
from mrviz.figures.theme import CONFIG, PALETTE, Theme

__all__ = [
    "CONFIG",
    "PALETTE",
    "Curve",
    "Theme",
    "correlation_figure",
    "depth_figure",
    "ranking_figure",
    "spectrum_figure",
]
