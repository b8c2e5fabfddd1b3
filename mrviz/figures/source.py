"""The source figure: spectrum of the source's own kernel K_S, and λ_min[K_S] over depth."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mrviz.figures.theme import COLORS, PALETTE, Colors, Theme, base_layout, translucent
from mrviz.theory import DepthPoint, KernelSpectra, SourceReport

KIND_COLORS = {
    "empirical": PALETTE[0],
    "infinite-width": PALETTE[1],
    "kernel regime": PALETTE[2],
}

LOWEST = 0.12
"""Unresolved eigenvalues are drawn no lower than this fraction of the noise floor."""

DEEPEST = 0.03
"""An unresolved λ_min is drawn no lower than this fraction of the smallest resolved one."""

LEAST_BAR = 0.1
"""An error bar on the log axis reaches no lower than this fraction of the mean."""


def source_figure(
    report: SourceReport | None = None,
    points: Sequence[DepthPoint] = (),
    *,
    depth: int | None = None,
    message: str = "",
    theme: Theme = "light",
    height: int = 470,
) -> go.Figure:
    """Eigenvalues of K_S, and beside them λ_min[K_S] of random networks over depth.

    Each draw of source samples is a curve. Eigenvalues at or below the noise floor are faint, and
    the floor is shaded. A λ_min that is not resolved is an open marker at the floor, or at the
    lower edge where the floor is far below. Without points the spectrum has all the room, and
    without a report the depth curve.

    Args:
        report: from :func:`~mrviz.theory.source_report`.
        points: from :func:`~mrviz.theory.strength_over_depth`, as many as there are.
        depth: of the source in use, marked on the depth axis.
        message: in the middle of the figure, such as why nothing is there.
        theme: "light" or "dark".
        height: in pixels.
    """
    colors = COLORS[theme]
    kernels = report.kernels if report is not None else ()
    points = sorted(points, key=lambda point: point.depth)
    both = bool(kernels) and bool(points)
    axis = {
        "gridcolor": colors.grid,
        "zeroline": False,
        "linecolor": colors.faint,
        "title": {"standoff": 6},
    }
    log = {**axis, "type": "log", "exponentformat": "power"}
    traces, shapes, annotations = [], [], []
    layout: dict[str, Any] = {
        **base_layout(theme, height),
        "margin": {"l": 64, "r": 16, "t": 56, "b": 84},
        "hovermode": "closest",
        "title": {
            "text": "" if report is None else _title(report),
            "font": {"size": 13},
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": 1 - 8 / height,
            "yanchor": "top",
        },
        "legend": {
            "orientation": "h",
            "x": 0,
            "yref": "container",
            "y": 0.01,
            "yanchor": "bottom",
            "bgcolor": "rgba(0,0,0,0)",
        },
    }
    if kernels:
        low, high = _spectrum_range(kernels)
        order = max(kernel.order for kernel in kernels)
        layout["xaxis"] = {
            **axis,
            "anchor": "y",
            "domain": [0, 0.45] if both else [0, 1],
            "title": {"text": "index k", "standoff": 6},
            "range": [1 - 0.02 * order, 1 + 1.02 * order],
        }
        layout["yaxis"] = {
            **log,
            "anchor": "x",
            "title": {"text": "eigenvalue λ<sub>k</sub>[K<sub>S</sub>]", "standoff": 6},
            "range": [low, high],
            **_ticks(low, high),
        }
        for kernel in kernels:
            traces += _spectrum_traces(kernel)
        shapes += _floor_shapes(kernels, colors, low)
        annotations += _spectrum_texts(kernels, colors)
    if points:
        suffix = "2" if kernels else ""
        low, high, bottom = _depth_range(points)
        layout[f"xaxis{suffix}"] = {
            **axis,
            "anchor": f"y{suffix}",
            "domain": [0.58, 1] if both else [0, 1],
            "title": {"text": f"depth of random {points[0].family} sources", "standoff": 6},
            "dtick": 1,
            "range": _depth_axis(points, depth),
        }
        layout[f"yaxis{suffix}"] = {
            **log,
            "anchor": f"x{suffix}",
            "title": {"text": "λ<sub>min</sub>[K<sub>S</sub>]", "standoff": 6},
            "range": [low, high],
            **_ticks(low, high),
        }
        traces += _depth_traces(points, bottom, suffix, legend=not kernels)
        annotations.append(_depth_heading(points, colors, suffix))
        if depth is not None:
            shapes.append(_depth_mark(depth, colors, suffix))
            beside = {"x": depth, "xref": f"x{suffix}", "xanchor": "right", "textangle": -90}
            lower = {"y": 0.02, "yref": f"y{suffix} domain", "yanchor": "bottom"}
            annotations.append({**_text(colors, "this source"), **beside, **lower})
    if not kernels and not points:
        layout |= {"xaxis": {"visible": False}, "yaxis": {"visible": False}}
    if message:
        annotations.append(_message(message, colors))
    return go.Figure(traces, {**layout, "shapes": shapes, "annotations": annotations})


def _spectrum_traces(kernel: KernelSpectra) -> list[Any]:
    """One path with gaps for the resolved eigenvalues of all draws, one for the others."""
    color = KIND_COLORS[kernel.kind]
    parts: dict[bool, list[tuple[np.ndarray, np.ndarray]]] = {True: [], False: []}
    for spec in kernel.spectra:
        values = spec.eigenvalues.cpu().numpy().astype(np.float64)
        shown = np.maximum(values, max(spec.floor * LOWEST, 1e-300))
        index = np.arange(1, len(values) + 1, dtype=np.float64)
        for resolved, piece in ((True, slice(spec.rank)), (False, slice(spec.rank, None))):
            parts[resolved].append((index[piece], shown[piece]))
    shared = {"legendgroup": kernel.kind, "mode": "lines"}
    eigenvalue = "k = %{x}<br>λ<sub>k</sub> = %{y:.4g}<extra>%{fullData.name}</extra>"
    hidden = "k = %{x}<br>not resolved: below the noise floor<extra>%{fullData.name}</extra>"
    faint = translucent(color, 0.45)
    x, y = _with_gaps(parts[True])
    unresolved_x, unresolved_y = _with_gaps(parts[False])
    return [
        go.Scatter(
            x=x,
            y=y,
            name=kernel.kind,
            line={"color": color, "width": 2},
            hovertemplate=eigenvalue,
            **shared,
        ),
        go.Scatter(
            x=unresolved_x,
            y=unresolved_y,
            name=f"{kernel.kind}, not resolved",
            line={"color": faint, "width": 2, "dash": "dot"},
            hovertemplate=hidden,
            showlegend=False,
            **shared,
        ),
    ]


def _with_gaps(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    gap = np.array([np.nan])
    x = [piece for part in parts for piece in (part[0], gap)][:-1]
    y = [piece for part in parts for piece in (part[1], gap)][:-1]
    return np.concatenate(x), np.concatenate(y)


def _floors(kernels: Sequence[KernelSpectra]) -> list[tuple[str, float]]:
    """The noise floors below which something lies that was not resolved."""
    return [
        (kernel.kind, max(max(spec.floor for spec in kernel.spectra), 1e-300))
        for kernel in kernels
        if not kernel.strength.resolved
    ]


def _floor_shapes(
    kernels: Sequence[KernelSpectra], colors: Colors, low: float
) -> list[dict[str, Any]]:
    shapes: list[dict[str, Any]] = []
    for kind, floor in _floors(kernels):
        across = {"xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y1": floor}
        shapes += [
            {
                **across,
                "type": "rect",
                "y0": 10.0 ** (low - 3),
                "fillcolor": colors.shade,
                "line": {"width": 0},
                "layer": "below",
            },
            {
                **across,
                "type": "line",
                "y0": floor,
                "line": {"color": KIND_COLORS[kind], "dash": "dot", "width": 1},
            },
        ]
    return shapes


def _spectrum_texts(kernels: Sequence[KernelSpectra], colors: Colors) -> list[dict[str, Any]]:
    """Heading, and λ_min of each kind in the corner that falling curves leave free."""
    draws = len(kernels[0].spectra)
    plural = "s" if draws > 1 else ""
    heading = f"<b>spectrum of K<sub>S</sub></b>, {kernels[0].order} samples, {draws} draw{plural}"
    texts = [_heading(heading, colors, "")]
    lines = []
    for kernel in kernels:
        found = kernel.strength
        spread = f" ± {found.spread:.1g}" if draws > 1 else ""
        value = f"= {found.mean:.3g}{spread}" if found.mean is not None else "not resolved"
        square = f'<span style="color:{KIND_COLORS[kernel.kind]}">■</span>'
        lines.append(f"λ<sub>min</sub> {value} {square}")
    texts.append(
        {
            **_text(colors, "<br>".join(lines)),
            "xref": "x domain",
            "yref": "y domain",
            "x": 1,
            "y": 0.99,
            "xanchor": "right",
            "yanchor": "top",
            "align": "right",
            "bgcolor": colors.panel,
        }
    )
    texts += [
        {
            **_text(colors, f"noise floor {floor:.2g}"),
            "xref": "x domain",
            "x": 0.01,
            "xanchor": "left",
            "yref": "y",
            "y": np.log10(floor),
            "yanchor": "bottom",
        }
        for _, floor in _floors(kernels)
    ]
    return texts


def _depth_traces(
    points: Sequence[DepthPoint], bottom: float, suffix: str, *, legend: bool
) -> list[Any]:
    axes = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
    kinds = dict.fromkeys(strength.kind for point in points for strength in point.strengths)
    traces = []
    for kind in kinds:
        color = KIND_COLORS[kind]
        found = [(p.depth, strength) for p in points if (strength := p.of(kind)) is not None]
        known = [(d, s, s.mean) for d, s in found if s.mean is not None]
        mean = np.array([value for *_, value in known], dtype=np.float64)
        spread = np.array([s.spread for _, s, _ in known], dtype=np.float64)
        draws = [len(s.smallest) for _, s, _ in known]
        hidden = [(d, s) for d, s in found if s.mean is None]
        shared = {"legendgroup": kind, **axes}
        traces += [
            go.Scatter(
                x=np.array([d for d, *_ in known], dtype=np.int32),
                y=mean,
                mode="lines+markers",
                name=kind,
                showlegend=legend,
                line={"color": color, "width": 2},
                marker={"color": color, "size": 6},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": spread,
                    "arrayminus": np.minimum(spread, (1 - LEAST_BAR) * mean),
                    "color": color,
                    "thickness": 1.5,
                    "width": 3,
                },
                text=[f"± {s:.2g}, {n} draws" for s, n in zip(spread, draws, strict=True)],
                hovertemplate="depth %{x}<br>λ<sub>min</sub> = %{y:.4g} %{text}"
                "<extra>%{fullData.name}</extra>",
                **shared,
            ),
            go.Scatter(
                x=np.array([d for d, _ in hidden], dtype=np.int32),
                y=np.array([max(*s.floors, bottom) for _, s in hidden], dtype=np.float64),
                mode="markers",
                name=f"{kind}, not resolved",
                showlegend=False,
                marker={
                    "symbol": "triangle-down",
                    "color": "rgba(0,0,0,0)",
                    "size": 10,
                    "line": {"color": color, "width": 1.5},
                },
                text=[f"{max(s.floors):.2g}" for _, s in hidden],
                hovertemplate="depth %{x}<br>not resolved: below the noise floor %{text}"
                "<extra>%{fullData.name}</extra>",
                **shared,
            ),
        ]
    return traces


def _depth_heading(points: Sequence[DepthPoint], colors: Colors, suffix: str) -> dict[str, Any]:
    samples = points[0].strengths[0].order
    text = f"<b>λ<sub>min</sub>[K<sub>S</sub>] over depth</b>, {samples} samples"
    return _heading(text, colors, suffix)


def _depth_mark(depth: int, colors: Colors, suffix: str) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": f"x{suffix}",
        "x0": depth,
        "x1": depth,
        "yref": f"y{suffix} domain",
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"color": colors.faint, "dash": "dash", "width": 1.5},
    }


def _spectrum_range(kernels: Sequence[KernelSpectra]) -> tuple[float, float]:
    spectra = [spec for kernel in kernels for spec in kernel.spectra if spec.largest > 0]
    if not spectra:
        return -1.0, 1.0
    low = min(s.smallest if s.full_rank else max(s.floor * LOWEST, 1e-300) for s in spectra)
    high = max(s.largest for s in spectra)
    # Half a decade more for the λ_min in the corner.
    return float(np.floor(np.log10(low))), float(np.log10(high) + 0.5)


def _depth_range(points: Sequence[DepthPoint]) -> tuple[float, float, float]:
    """Log range of the axis, and where an unresolved λ_min is drawn at the lowest."""
    strengths = [strength for point in points for strength in point.strengths]
    means = [s.mean for s in strengths if s.mean is not None]
    floors = [max(*s.floors, 1e-300) for s in strengths if s.mean is None]
    if not means:
        low, high = min(floors), max(floors)
        return float(np.log10(low) - 1), float(np.log10(high) + 1), 1e-300
    bottom = DEEPEST * min(means)
    shown = [max(floor, bottom) for floor in floors] + means
    high = max(s.mean + s.spread for s in strengths if s.mean is not None)
    return float(np.log10(min(shown)) - 0.3), float(np.log10(max(high, *shown)) + 0.3), bottom


def _depth_axis(points: Sequence[DepthPoint], depth: int | None) -> list[float]:
    known = [point.depth for point in points] + ([depth] if depth is not None else [])
    return [min(known) - 0.5, max(known) + 0.5]


def _ticks(low: float, high: float) -> dict[str, Any]:
    """Ticks at whole decades, as many as there is room for."""
    return {"dtick": max(1, int(np.ceil((high - low) / 9)))}


def _title(report: SourceReport) -> str:
    title = textwrap.shorten(report.name, 64, placeholder="…")
    if report.strength is not None:
        title += f": accuracy {report.strength.accuracy:.1%}"
    return title


def _heading(text: str, colors: Colors, suffix: str) -> dict[str, Any]:
    place = {"xref": f"x{suffix} domain", "x": 0, "xanchor": "left"}
    above = {"yref": f"y{suffix} domain", "y": 1, "yanchor": "bottom"}
    return {**_text(colors, text), **place, **above}


def _text(colors: Colors, text: str) -> dict[str, Any]:
    return {"text": text, "showarrow": False, "font": {"size": 11, "color": colors.text}}


def _message(message: str, colors: Colors) -> dict[str, Any]:
    return {
        **_text(colors, "<br>".join(textwrap.wrap(message, 72))),
        "font": {"size": 13, "color": colors.text},
        "xref": "paper",
        "yref": "paper",
        "x": 0.5,
        "y": 0.5,
        "bgcolor": colors.panel,
    }
