"""Pure functions from results to plotly figures."""

from mrviz.figures.spectrum import Curve, spectrum_figure
from mrviz.figures.theme import CONFIG, PALETTE, Theme

__all__ = ["CONFIG", "PALETTE", "Curve", "Theme", "spectrum_figure"]
