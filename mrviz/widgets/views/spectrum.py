"""The view of the spectrum."""

from __future__ import annotations

import plotly.graph_objects as go

from mrviz.figures import Curve, spectrum_figure
from mrviz.widgets.views.base import Scene, View
from mrviz.workbench import Result


class SpectrumView(View):
    """Eigenvalues against their index, with pinned ones beside them."""

    name = "spectrum"
    label = "Spectrum"
    tooltip = "Eigenvalues of the kernel and the residual energy of each mode"

    def figure(self, scene: Scene) -> go.Figure:
        """The spectrum, then the pinned ones."""
        curves = []
        if (result := scene.result) is not None:
            name = result.experiment.label()
            name += "" if result.exact else f" (sketch: {result.n} samples)"
            curves.append(Curve(f"now: {name}", result.spectrum, result.energy.numpy()))
        return spectrum_figure([*curves, *scene.pinned], theme=scene.theme)

    def table(self, result: Result) -> str:
        """One row a mode."""
        return result.to_csv()

    def details(self, result: Result) -> Result:
        """The result."""
        return result
