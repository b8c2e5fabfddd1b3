"""The density figure: how many eigenvalues lie where, estimated without the matrix."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from mrviz.figures.theme import (
    COLORS,
    PALETTE,
    Theme,
    axis_style,
    base_layout,
    room_below,
    translucent,
)
from mrviz.spectrum import DensityCurve, Spectrum

BIN = 0.25
"""Width of the bars of known eigenvalues, in decades."""

SHOWN = 1e-3
"""The axis begins where the density first reaches this share of its maximum."""


def density_figure(
    curve: DensityCurve,
    spectrum: Spectrum | None = None,
    *,
    theme: Theme = "light",
    height: int = 400,
) -> go.Figure:
    """Eigenvalues per decade against λ, with two standard errors to either side.

    Eigenvalues at or below the noise floor are no part of the curve; the figure says how many there
    are.

    Args:
        curve: from :meth:`~mrviz.spectrum.SpectralDensity.density`.
        spectrum: of the same kernel, where all its eigenvalues are known: drawn as bars.
        theme: "light" or "dark".
        height: in pixels.
    """
    colors, color = COLORS[theme], PALETTE[0]
    grid, density = curve.grid.cpu().numpy(), curve.density.cpu().numpy()
    error = np.nan_to_num(curve.error.cpu().numpy())
    low, high = np.maximum(density - 2 * error, 0.0), density + 2 * error
    traces: list[go.Bar | go.Scatter] = []
    if spectrum is not None:
        traces.append(_bars(spectrum, colors.faint))
    traces += [
        go.Scatter(
            x=np.concatenate([grid, grid[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            fill="toself",
            fillcolor=translucent(color, 0.3),
            line={"width": 0},
            name="two standard errors",
            hoverinfo="skip",
        ),
        go.Scatter(
            x=grid,
            y=density,
            mode="lines",
            line={"color": color, "width": 2.5},
            name="estimate",
            hovertemplate="λ = %{x:.3g}<br>%{y:.3g} eigenvalues per decade<extra></extra>",
        ),
    ]
    seen = np.flatnonzero(density > SHOWN * density.max(initial=0.0))
    span = grid[seen[[0, -1]]] if len(seen) else grid[[0, -1]]
    axis = axis_style(theme)
    layout = {
        **base_layout(theme, height),
        **room_below(height),
        "xaxis": {
            **axis,
            "type": "log",
            "title": {"text": "eigenvalue λ"},
            "exponentformat": "power",
            "dtick": 1,
            "range": [float(np.log10(end)) for end in span],
        },
        "yaxis": {**axis, "title": {"text": "eigenvalues per decade"}, "rangemode": "tozero"},
        "annotations": [
            {
                "xref": "paper",
                "x": 0,
                "yref": "paper",
                "y": 1,
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": 11, "color": colors.text},
                "text": f"not resolved: {_counted(curve)}",
            }
        ],
    }
    return go.Figure(traces, layout)


def _bars(spectrum: Spectrum, color: str) -> go.Bar:
    """Resolved eigenvalues in bins of equal width on the log axis."""
    logs = spectrum.eigenvalues[spectrum.resolved].log10().cpu().numpy()
    first, last = (np.floor(logs.min() / BIN), np.ceil(logs.max() / BIN)) if len(logs) else (0, 1)
    edges = BIN * np.arange(first, max(last, first + 1) + 1)
    counts, ends = np.histogram(logs, edges)[0], 10**edges
    return go.Bar(
        x=(ends[1:] + ends[:-1]) / 2,  # so that a bar reaches from end to end of its bin
        y=counts / BIN,
        width=ends[1:] - ends[:-1],
        marker={"color": color, "line": {"width": 0}},
        customdata=counts,
        name="eigenvalues of the matrix",
        hovertemplate="%{customdata} eigenvalues near λ = %{x:.3g}<extra></extra>",
    )


def _counted(curve: DensityCurve) -> str:
    """How many eigenvalues the curve leaves out, with their error where there is one."""
    found = curve.unresolved
    error = found.error if np.isfinite(found.error) else 0.0
    if found.value + error < 0.5:
        return "no eigenvalue"
    number = f"{found.value:.3g} ± {error:.2g}" if error > 0.05 else f"{found.value:.0f}"
    return f"{number} eigenvalues"
