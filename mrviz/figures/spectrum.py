"""The spectrum figure: eigenvalues above and below the noise floor, residual energy per mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from mrviz.figures.theme import COLORS, PALETTE, Theme, base_layout, translucent
from mrviz.spectrum import Spectrum

LOWEST = 0.12
"""Unresolved eigenvalues are drawn no lower than this fraction of the noise floor."""


@dataclass(frozen=True, eq=False)
class Curve:
    """One spectrum to draw.

    Attributes:
        name: in the legend.
        spectrum: the eigenvalues.
        energy: share of the residual in each eigenspace, (N,), or ``None``.
        visible: whether it is shown.
        faded: drawn dim, because newer values are being computed.
    """

    name: str
    spectrum: Spectrum
    energy: object | None = None
    visible: bool = True
    faded: bool = False


def spectrum_figure(
    curves: Sequence[Curve], *, theme: Theme = "light", height: int = 470, title: str = ""
) -> go.Figure:
    """Eigenvalues on a log scale against their index, with what round-off hides marked.

    The first curve is the current one: its noise floor is shaded, and its λ_min and effective
    rank are marked. Eigenvalues at or below a curve's floor are drawn faint. The lower panel
    shows the residual energy per mode.

    Args:
        curves: the current spectrum, then any to compare it with.
        theme: "light" or "dark".
        height: in pixels.
        title: above the figure.
    """
    colors = COLORS[theme]
    figure = go.Figure()
    for k, curve in enumerate(curves):
        figure.add_traces(_traces(curve, PALETTE[k % len(PALETTE)], current=k == 0))
    figure.update_layout(
        **base_layout(theme, height),
        title={"text": title, "font": {"size": 14}, "x": 0, "xref": "paper"},
        legend={
            "orientation": "h",
            "x": 0,
            "y": -0.16,
            "yanchor": "top",
            "bgcolor": "rgba(0,0,0,0)",
        },
        hovermode="closest",
        shapes=[],
        annotations=[],
    )
    axis = {"gridcolor": colors.grid, "zeroline": False, "linecolor": colors.faint}
    figure.update_layout(
        xaxis={**axis, "title": {"text": "index k"}, "anchor": "y2", "range": _index_range(curves)},
        yaxis={
            **axis,
            "title": {"text": "eigenvalue λ<sub>k</sub>"},
            "type": "log",
            "domain": [0.34, 1],
            "exponentformat": "power",
            "dtick": 1,
            "range": _log_range(curves),
        },
        yaxis2={
            **axis,
            "title": {"text": "residual<br>energy"},
            "type": "log",
            "domain": [0, 0.25],
            "exponentformat": "power",
            "nticks": 4,
            "tickmode": "auto",
        },
    )
    if curves:
        _mark(figure, curves[0].spectrum, colors.shade, colors.text, colors.faint)
    return figure


def _traces(curve: Curve, color: str, *, current: bool) -> list[go.Scattergl | go.Scatter]:
    spec = curve.spectrum
    values = spec.eigenvalues.cpu().numpy()
    index = np.arange(1, len(values) + 1, dtype=np.int32)
    rank = spec.rank
    opacity = 0.35 if curve.faded else 1.0
    shown = np.maximum(values, max(spec.floor * LOWEST, 1e-300)).astype(np.float64)
    shared = {"visible": curve.visible, "opacity": opacity, "legendgroup": curve.name}
    hover = "k = %{x}<br>λ<sub>k</sub> = %{y:.4g}<extra>%{fullData.name}</extra>"
    hidden = "k = %{x}<br>not resolved: below the noise floor<extra>%{fullData.name}</extra>"
    traces = [
        go.Scatter(
            x=index[:rank],
            y=shown[:rank],
            mode="lines+markers",
            name=curve.name,
            line={"color": color, "width": 2 if current else 1.5},
            marker={"color": color, "size": 5 if current else 4},
            hovertemplate=hover,
            **shared,
        ),
        go.Scatter(
            x=index[rank:],
            y=shown[rank:],
            mode="markers",
            name=f"{curve.name}, not resolved",
            marker={
                "color": "rgba(0,0,0,0)",
                "size": 5,
                "line": {"color": translucent(color, 0.45), "width": 1},
            },
            hovertemplate=hidden,
            showlegend=False,
            **shared,
        ),
    ]
    energy = np.asarray(curve.energy if curve.energy is not None else [], dtype=np.float64)
    traces.append(
        go.Scatter(
            x=index[: len(energy)],
            y=np.maximum(energy, 1e-16),
            mode="markers",
            yaxis="y2",
            name=f"{curve.name}, residual energy",
            marker={"color": color, "size": 3.5},
            hovertemplate="k = %{x}<br>share of the residual = %{y:.3g}"
            "<extra>%{fullData.name}</extra>",
            showlegend=False,
            **shared,
        )
    )
    return traces


def _mark(figure: go.Figure, spec: Spectrum, shade: str, text: str, line: str) -> None:
    """Noise floor, smallest eigenvalue and effective rank of the current spectrum."""
    figure.add_shape(
        type="rect",
        xref="paper",
        x0=0,
        x1=1,
        yref="y",
        y0=spec.floor * LOWEST * 1e-3,
        y1=spec.floor,
        fillcolor=shade,
        line_width=0,
        layer="below",
    )
    figure.add_shape(
        type="line",
        xref="paper",
        x0=0,
        x1=1,
        yref="y",
        y0=spec.floor,
        y1=spec.floor,
        line={"color": line, "dash": "dot", "width": 1.5},
    )
    figure.add_annotation(
        xref="paper",
        x=1,
        xanchor="right",
        yref="y",
        y=np.log10(max(spec.floor, 1e-300)),
        yanchor="top",
        showarrow=False,
        font={"size": 11, "color": text},
        text=f"noise floor {spec.floor:.2g}: nothing below is resolved",
    )
    effective = spec.effective_rank
    figure.add_shape(
        type="line",
        xref="x",
        x0=effective,
        x1=effective,
        yref="y domain",
        y0=0,
        y1=1,
        line={"color": line, "dash": "dash", "width": 1.5},
    )
    figure.add_annotation(
        xref="x",
        x=effective,
        xanchor="left",
        yref="y domain",
        y=1,
        yanchor="bottom",
        showarrow=False,
        font={"size": 11, "color": text},
        text=f"effective rank {effective:.1f}",
    )
    if spec.full_rank:
        figure.add_annotation(
            xref="x",
            x=spec.order,
            yref="y",
            y=np.log10(spec.smallest),
            ax=-60,
            ay=-30,
            showarrow=True,
            arrowwidth=1,
            arrowcolor=text,
            font={"size": 11, "color": text},
            text=f"λ<sub>min</sub> = {spec.smallest:.3g}",
        )


def _index_range(curves: Sequence[Curve]) -> list[float]:
    longest = max((c.spectrum.order for c in curves if c.visible), default=1)
    return [1 - 0.02 * longest, longest * 1.02 + 1]


def _log_range(curves: Sequence[Curve]) -> list[float]:
    shown = [c.spectrum for c in curves if c.visible and c.spectrum.largest > 0]
    if not shown:
        return [-1, 1]
    high = max(s.largest for s in shown)
    low = min(min(s.floor * 0.1, s.smallest if s.full_rank else s.floor) for s in shown)
    return [float(np.log10(low)) - 0.3, float(np.log10(high)) + 0.4]
