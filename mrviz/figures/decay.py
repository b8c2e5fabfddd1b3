"""The decay figure: what is left of something step by step, predicted and measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mrviz.errors import InputError
from mrviz.figures.theme import (
    COLORS,
    PALETTE,
    Theme,
    axis_style,
    base_layout,
    decade_ticks,
    room_below,
)

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
"""Shapes go with the colours."""

MARKERS = 25
"""About so many steps have a marker."""


@dataclass(frozen=True, eq=False)
class Decay:
    """What is left after each step, from step 0 on.

    Attributes:
        name: in the legend.
        predicted: values (S + 1,), drawn as a line, or ``None``.
        measured: values (S + 1,), drawn as markers, or ``None``.
    """

    name: str
    predicted: Any = None
    measured: Any = None


def decay_figure(
    decays: Sequence[Decay],
    *,
    label: str = "share of the residual left",
    lowest: float = 1e-4,
    theme: Theme = "light",
    height: int = 430,
) -> go.Figure:
    """Sizes over training steps on a log axis: what is predicted as lines, measured as markers.

    The title says so where there are both, and the legend names each decay once.
    For modes of the residual (:func:`~mrviz.theory.remaining`) or losses. Values are drawn
    without their sign; those below ``lowest`` are gaps, as are zeros and what is not finite.

    Args:
        decays: one for each colour.
        label: title of the upward axis.
        lowest: lower end of what is drawn.
        theme: "light" or "dark".
        height: in pixels.

    Raises:
        InputError: nothing to draw, or values that are no single column.

    Example:
        >>> left = mrviz.theory.remaining(torch.tensor([2.0, 0.1]), torch.arange(5), n=4, lr=1.0)
        >>> figure = decay_figure([Decay("k = 1", left[:, 0]), Decay("k = 2", left[:, 1])])
        >>> figure.data[0].y.tolist()
        [1.0, 0.5, 0.25, 0.125, 0.0625]
    """
    if not lowest > 0:
        raise InputError(f"lowest must be positive, as the axis is logarithmic, got {lowest}")
    traces: list[go.Scatter] = []
    columns, kinds = [], set()
    for k, decay in enumerate(decays):
        color, symbol = PALETTE[k % len(PALETTE)], SYMBOLS[k % len(SYMBOLS)]
        given = {"predicted": decay.predicted, "measured": decay.measured}
        for kind, values in given.items():
            if values is None:
                continue
            column = _sizes(values, f"{kind} of {decay.name!r}", lowest)
            columns.append(column)
            kinds.add(kind)
            every = math.ceil(len(column) / MARKERS) if kind == "measured" else 1
            steps = np.arange(0, len(column), every, dtype=np.int32)
            look: dict[str, Any] = {"mode": "lines", "line": {"color": color, "width": 2}}
            if kind == "measured":
                marker = {"color": color, "size": 7, "symbol": symbol}
                look = {"mode": "markers", "marker": marker, "cliponaxis": False}
            traces.append(
                go.Scatter(
                    x=steps,
                    y=column[steps],
                    name=decay.name,
                    legendgroup=decay.name,
                    showlegend=kind == "predicted" or decay.predicted is None,
                    hovertemplate=f"step %{{x}}, {kind}: %{{y:.4g}}"
                    "<extra>%{fullData.name}</extra>",
                    **look,
                )
            )
    if not columns:
        raise InputError("nothing to draw: give predicted or measured values")
    last = max(len(column) for column in columns) - 1
    drawn = np.concatenate(columns)
    style = axis_style(theme)
    layout = {
        **base_layout(theme, height),
        **room_below(height),
        "title": {
            "text": "lines: predicted; markers: measured" if len(kinds) == 2 else "",
            "font": {"size": 13},
            "x": 0,
            "xref": "paper",
        },
        "hovermode": "closest",
        "xaxis": {
            **style,
            "title": {"text": "training step"},
            "range": [-0.02 * last, 1.02 * last],
        },
        "yaxis": {**style, "title": {"text": label}, "type": "log", **_range(drawn)},
        "shapes": [
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": 1,
                "y1": 1,
                "line": {"color": COLORS[theme].faint, "dash": "dot", "width": 1.5},
            }
        ],
    }
    return go.Figure(traces, layout)


def _sizes(values: Any, name: str, lowest: float) -> np.ndarray:
    column = np.abs(np.asarray(values, dtype=np.float64))
    if column.ndim != 1 or not len(column):
        raise InputError(
            f"{name} must be one value for each step, shape (S + 1,), got {column.shape}"
        )
    column[~(np.isfinite(column) & (column >= lowest))] = math.nan
    return column


def _range(values: np.ndarray) -> dict[str, Any]:
    """Whole decades around the values and one."""
    known = np.append(values[np.isfinite(values)], 1.0)
    low, high = math.floor(np.log10(known.min()) + 1e-9), math.ceil(np.log10(known.max()) - 1e-9)
    low = min(low, high - 1)
    return {
        "range": [low - 0.05, high + 0.05],
        "dtick": decade_ticks(low, high, 6),
        "exponentformat": "power",
    }
