"""Pure functions from results to plotly figures."""

from mrviz.figures.capacity import capacity_figure
from mrviz.figures.decay import Decay, decay_figure
from mrviz.figures.density import density_figure
from mrviz.figures.forecast import forecast_figure
from mrviz.figures.gram import gram_figure
from mrviz.figures.learning import learning_figure
from mrviz.figures.mapping import mapping_figure
from mrviz.figures.message import message_figure
from mrviz.figures.program import program_figure
from mrviz.figures.source import source_figure
from mrviz.figures.spectrum import Curve, spectrum_figure
from mrviz.figures.study import correlation_figure, depth_figure, ranking_figure
from mrviz.figures.theme import CONFIG, PALETTE, Theme

__all__ = [
    "CONFIG",
    "PALETTE",
    "Curve",
    "Decay",
    "Theme",
    "capacity_figure",
    "correlation_figure",
    "decay_figure",
    "density_figure",
    "depth_figure",
    "forecast_figure",
    "gram_figure",
    "learning_figure",
    "mapping_figure",
    "message_figure",
    "program_figure",
    "ranking_figure",
    "source_figure",
    "spectrum_figure",
]
