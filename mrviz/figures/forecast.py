"""The forecast figure: contexts, what came after them, and forecasts of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from mrviz._checks import Array
from mrviz.errors import InputError
from mrviz.figures.theme import (
    COLORS,
    PALETTE,
    Colors,
    Theme,
    axis_style,
    base_layout,
    room_below,
    translucent,
)
from mrviz.targets import ForecastTarget
from mrviz.targets.base import SPLITS
from mrviz.targets.options import as_choice, as_count

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
"""Shapes go with colours, for those who do not tell the colours apart."""


def forecast_figure(
    target: ForecastTarget,
    forecasts: Mapping[str, Array],
    *,
    windows: Sequence[int] = (0,),
    split: str = "test",
    bands: Mapping[str, tuple[Array, Array]] | None = None,
    theme: Theme = "light",
    height: int = 360,
) -> go.Figure:
    """Windows side by side: the end of the context, what came, and what was forecast.

    Values are in the units of the series, time in steps from the last value of the context. Of a
    long context the last two horizons are drawn, but at least a season.

    Args:
        target: the forecasting target.
        forecasts: by name, forecasts (n, horizon) of all windows of the split, scaled as the
            target's values are.
        windows: which windows of the split, from 0.
        split: "train", "val" or "test".
        bands: by the name of a forecast, the lower and upper ends (n, horizon) of a band of it.
        theme: "light" or "dark".
        height: in pixels.

    Raises:
        InputError: another kind of target, forecasts of another shape, bands of no forecast, or
            no such window.

    Example:
        >>> target = mrviz.targets.forecast_target(
        ...     torch.arange(60.0) % 7, context=14, horizon=3, season=7
        ... )
        >>> naive = mrviz.programs.seasonal_naive(target, target.x_test)
        >>> figure = forecast_figure(target, {"seasonal naive": naive}, windows=(0, 5))
        >>> [trace.name for trace in figure.data[:3]]
        ['context', 'what came', 'seasonal naive']
    """
    if not isinstance(target, ForecastTarget):
        raise InputError(f"target must be a ForecastTarget, got {type(target).__name__}")
    as_choice(split, SPLITS, "split")
    x, y = (_values(getattr(target, f"{k}_{split}")) for k in "xy")
    x = x[:, 0]
    horizon, context = y.shape[1], x.shape[1]
    shown = min(context, max(2 * horizon, target.season))
    lines = {name: _like(values, y, name) for name, values in forecasts.items()}
    ends = {
        name: tuple(_like(end, y, f"a band of {name}") for end in band)
        for name, band in (bands or {}).items()
    }
    if unknown := sorted(ends.keys() - lines.keys()):
        raise InputError(f"bands names {', '.join(unknown)}, which is among no forecasts")
    chosen = [as_count(k, "windows", 0) for k in windows]
    if not chosen or max(chosen) >= len(y):
        raise InputError(f"windows must be from 0 to {len(y) - 1}, got {tuple(windows)}")

    def units(values: np.ndarray) -> np.ndarray:
        return values * target.span + target.offset

    colors, style = COLORS[theme], axis_style(theme)
    gap = 0.03
    share = (1 - gap * (len(chosen) - 1)) / len(chosen)
    layout: dict[str, Any] = {**base_layout(theme, height), **room_below(height)}
    layout |= {"hovermode": "closest", "annotations": []}
    traces: list[dict[str, Any]] = []
    for k, window in enumerate(chosen):
        number = "" if k == 0 else str(k + 1)
        axes = {"xaxis": f"x{number}", "yaxis": f"y{number}", "showlegend": k == 0}
        past, came = units(x[window, -shown:]), units(y[window])
        traces += [axes | trace for trace in _known(past, came, colors)]
        for i, (name, values) in enumerate(lines.items()):
            band = [units(end[window]) for end in ends.get(name, ())]
            traces += [axes | trace for trace in _forecast(name, units(values[window]), band, i)]
        start = k * (share + gap)
        layout[f"xaxis{number}"] = style | {
            "anchor": f"y{number}",
            "domain": [start, start + share],
            "title": {"text": "steps from the last value known"},
        }
        layout[f"yaxis{number}"] = style | {"anchor": f"x{number}"}
        if k:
            layout[f"yaxis{number}"] |= {"matches": "y", "showticklabels": False}
        layout["annotations"].append(
            {
                "text": f"{split} window {window}",
                "showarrow": False,
                "font": {"size": 12, "color": colors.text},
                **{"xref": f"x{number} domain", "x": 0.5, "xanchor": "center"},
                **{"yref": "paper", "y": 1, "yanchor": "bottom"},
            }
        )
    layout["yaxis"]["title"] = {"text": target.name}
    return go.Figure(traces, layout)


def _known(past: np.ndarray, came: np.ndarray, colors: Colors) -> list[dict[str, Any]]:
    """The end of the context, and what came, joined to it."""
    ends = np.concatenate([past[-1:], came])
    return [
        _line("context", np.arange(1 - len(past), 1), past)
        | {"mode": "lines", "line": {"color": colors.faint, "width": 1.5}},
        _line("what came", np.arange(len(ends)), ends)
        | {"mode": "lines", "line": {"color": colors.text, "width": 2.5}},
    ]


def _forecast(
    name: str, values: np.ndarray, band: Sequence[np.ndarray], place: int
) -> list[dict[str, Any]]:
    """A forecast as line and markers, above its band where there is one."""
    color, steps = PALETTE[place % len(PALETTE)], np.arange(1, len(values) + 1)
    look = {
        "mode": "lines+markers",
        "line": {"color": color, "width": 1.5},
        "marker": {"color": color, "size": 6, "symbol": SYMBOLS[place % len(SYMBOLS)]},
    }
    traces = [_line(name, steps, values) | look]
    if band:
        low, high = band
        area = _line(name, np.r_[steps, steps[::-1]], np.r_[high, low[::-1]])
        area |= {"mode": "lines", "line": {"width": 0}, "fill": "toself", "hoverinfo": "skip"}
        area |= {"fillcolor": translucent(color, 0.2), "showlegend": False}
        del area["hovertemplate"]
        traces.insert(0, area)
    return traces


def _line(name: str, steps: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": steps,
        "y": values,
        "name": name,
        "legendgroup": name,
        "hovertemplate": "step %{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
    }


def _values(values: Any) -> np.ndarray:
    kept = values.detach().cpu() if isinstance(values, torch.Tensor) else values
    return np.asarray(kept, dtype=np.float64)


def _like(values: Any, y: np.ndarray, name: str) -> np.ndarray:
    """Forecasts in the shape of what came."""
    found = _values(values)
    if found.shape != y.shape:
        raise InputError(
            f"forecasts {name!r} must be {y.shape}, a row for each window, got {found.shape}"
        )
    return found
