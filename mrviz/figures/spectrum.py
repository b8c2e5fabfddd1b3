"""The spectrum figure: eigenvalues above and below the noise floor, residual energy per mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mrviz.figures.theme import (
    COLORS,
    PALETTE,
    Colors,
    Theme,
    base_layout,
    decade_ticks,
    translucent,
)
from mrviz.spectrum import Spectrum

ENERGY_FLOOR = -8
"""Residual energies are drawn no lower than this power of ten."""

MARKERS = 150
"""Longer curves are drawn as lines without markers, which browsers redraw much faster."""

TICK = 40
"""Height of the figure for each tick of the eigenvalues' axis, in pixels, so that none overlap."""

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
    """

    name: str
    spectrum: Spectrum
    energy: object | None = None
    visible: bool = True


def spectrum_figure(
    curves: Sequence[Curve], *, theme: Theme = "light", height: int = 470
) -> go.Figure:
    """Eigenvalues on a log scale against their index, with what round-off hides marked.

    The first curve is the current one: its noise floor is shaded, and its λ_min and effective
    rank are marked. Eigenvalues at or below a curve's floor are drawn faint. The lower panel
    shows the residual energy per mode, where there is any.

    Args:
        curves: the current spectrum, then any to compare it with.
        theme: "light" or "dark".
        height: in pixels.
    """
    colors = COLORS[theme]
    axis = {
        "gridcolor": colors.grid,
        "zeroline": False,
        "linecolor": colors.faint,
        "visible": bool(curves),
    }
    traces = [
        trace
        for k, curve in enumerate(curves)
        for trace in _traces(curve, PALETTE[k % len(PALETTE)], current=k == 0)
    ]
    lower = any(curve.energy is not None for curve in curves)
    low, high = _log_range(curves)
    layout: dict[str, Any] = {
        **base_layout(theme, height),
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": -0.16,
            "yanchor": "top",
            "bgcolor": "rgba(0,0,0,0)",
        },
        "hovermode": "closest",
        "xaxis": {
            **axis,
            "title": {"text": "index k"},
            "anchor": "y2" if lower else "y",
            "range": _index_range(curves),
        },
        "yaxis": {
            **axis,
            "title": {"text": "eigenvalue λ<sub>k</sub>"},
            "type": "log",
            "domain": [0.34, 1] if lower or not curves else [0, 1],
            "exponentformat": "power",
            "dtick": decade_ticks(low, high, max(1, height // TICK)),
            "range": [low, high],
        },
        "yaxis2": {
            **axis,
            "visible": lower,
            "title": {"text": "residual<br>energy"},
            "type": "log",
            "domain": [0, 0.25],
            "exponentformat": "power",
            "nticks": 4,
            "range": [ENERGY_FLOOR, 0.3],
        },
    }
    if curves:
        layout |= _marks(curves[0].spectrum, colors)
    return go.Figure(traces, layout)


def _traces(curve: Curve, color: str, *, current: bool) -> list[go.Scatter]:
    spec = curve.spectrum
    values = spec.eigenvalues.cpu().numpy()
    index = np.arange(1, len(values) + 1, dtype=np.int32)
    rank = spec.rank
    shown = np.maximum(values, max(spec.floor * LOWEST, 1e-300)).astype(np.float64)
    shared = {"visible": curve.visible, "legendgroup": curve.name}
    hover = "k = %{x}<br>λ<sub>k</sub> = %{y:.4g}<extra>%{fullData.name}</extra>"
    hidden = "k = %{x}<br>not resolved: below the noise floor<extra>%{fullData.name}</extra>"
    line = {"color": color, "width": 2.5 if current else 1.5}
    traces = [
        go.Scatter(
            x=index[:rank],
            y=shown[:rank],
            mode="lines" if rank > MARKERS else "lines+markers",
            name=curve.name,
            line=line,
            marker={"color": color, "size": 5 if current else 4},
            hovertemplate=hover,
            **shared,
        ),
        go.Scatter(
            x=index[rank:],
            y=shown[rank:],
            mode="lines" if len(values) - rank > MARKERS else "markers",
            name=f"{curve.name}, not resolved",
            line={**line, "color": translucent(color, 0.45), "dash": "dot"},
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
    if curve.energy is not None:
        stems, shares = _stems(index, np.asarray(curve.energy, dtype=np.float64))
        traces.append(
            go.Scatter(
                x=stems,
                y=shares,
                mode="lines",
                yaxis="y2",
                name=f"{curve.name}, residual energy",
                line={"color": color if current else translucent(color, 0.35), "width": 1},
                hovertemplate="k = %{x}<br>share of the residual = %{y:.3g}"
                "<extra>%{fullData.name}</extra>",
                showlegend=False,
                **shared,
            )
        )
    return traces


def _stems(index: np.ndarray, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One vertical line for each mode as a single path: bottom, top, gap and so on."""
    lowest = 10.0**ENERGY_FLOOR
    tops = np.maximum(energy, lowest)
    columns = [np.full_like(tops, lowest), tops, np.full_like(tops, np.nan)]
    return np.repeat(index, 3), np.stack(columns, 1).reshape(-1)


def _marks(spec: Spectrum, colors: Colors) -> dict[str, Any]:
    """Noise floor, effective rank and smallest eigenvalue of the current spectrum."""
    floor, effective = max(spec.floor, 1e-300), spec.effective_rank
    text = {"showarrow": False, "font": {"size": 11, "color": colors.text}}
    across = {"xref": "paper", "x0": 0, "x1": 1, "yref": "y", "y1": floor}
    shapes = [
        {
            **across,
            "type": "rect",
            "y0": floor * LOWEST * 1e-3,
            "fillcolor": colors.shade,
            "line": {"width": 0},
            "layer": "below",
        },
        {
            **across,
            "type": "line",
            "y0": floor,
            "line": {"color": colors.faint, "dash": "dot", "width": 1.5},
        },
        {
            "type": "line",
            "xref": "x",
            "x0": effective,
            "x1": effective,
            "yref": "y domain",
            "y0": 0,
            "y1": 1,
            "line": {"color": colors.faint, "dash": "dash", "width": 1.5},
        },
    ]
    annotations = [
        {
            **text,
            "xref": "paper",
            "x": 1,
            "xanchor": "right",
            "yref": "y",
            "y": np.log10(floor),
            "yanchor": "top",
            "text": f"noise floor {spec.floor:.2g}: nothing below is resolved",
        },
        {
            **text,
            "xref": "x",
            "x": effective,
            "xanchor": "left",
            "yref": "y domain",
            "y": 1,
            "yanchor": "bottom",
            "text": f"effective rank {effective:.1f}",
        },
    ]
    if spec.full_rank:
        annotations.append(
            {
                **text,
                "showarrow": True,
                "arrowwidth": 1,
                "arrowcolor": colors.text,
                "bgcolor": colors.panel,
                "xref": "x",
                "x": spec.order,
                "ax": -60,
                "yref": "y",
                "y": np.log10(spec.smallest),
                "ay": -30,
                "text": f"λ<sub>min</sub> = {spec.smallest:.3g}",
            }
        )
    return {"shapes": shapes, "annotations": annotations}


def _index_range(curves: Sequence[Curve]) -> list[float]:
    longest = max((c.spectrum.order for c in curves if c.visible), default=1)
    return [1 - 0.02 * longest, longest * 1.02 + 1]


def _log_range(curves: Sequence[Curve]) -> list[float]:
    shown = [c.spectrum for c in curves if c.visible and c.spectrum.largest > 0]
    if not shown:
        return [-1, 1]
    high = max(s.largest for s in shown)
    low = min(s.smallest if s.full_rank else s.floor * LOWEST for s in shown)
    # Whole decades, so that the axis stands still while a capacity is dragged.
    return [float(np.floor(np.log10(max(low, 1e-300)))), float(np.ceil(np.log10(high) + 0.2))]
