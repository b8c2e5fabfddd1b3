"""The learning figure: predicted and measured loss and accuracy over the steps of training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mrviz.figures.theme import (
    COLORS,
    PALETTE,
    SHARE,
    Theme,
    axis_style,
    base_layout,
    decade_ticks,
    message_layout,
    room_below,
)
from mrviz.programs.fit import Measurement
from mrviz.theory.dynamics import Trajectory

LOG_FROM = 20
"""Positive losses that span more than this factor get a log axis."""

MANY = 40
"""More steps than this get smaller markers."""

SAMPLES = {"train": ("training", PALETTE[0]), "test": ("held-out", PALETTE[1])}
"""Name and colour of the curves by whose samples they are measured on."""

Column = Sequence[float | None]
Columns = dict[str, Column]


def learning_figure(
    trajectory: Trajectory | None,
    history: Sequence[Measurement] = (),
    *,
    references: Mapping[str, float] | None = None,
    theme: Theme = "light",
    height: int = 470,
    message: str = "",
) -> go.Figure:
    """Loss and accuracy over steps: what is predicted as lines, what is measured as markers.

    Made to be drawn again while training runs: the steps shown are those of the prediction from
    the first measurement on, and the other axes change by whole decades or ticks only. Values
    that are not finite are gaps.

    Args:
        trajectory: the predicted training, or ``None``.
        history: what training has measured so far.
        references: held-out losses of other predictors by name, drawn as level lines.
        theme: "light" or "dark".
        height: in pixels.
        message: what to say where there is neither.

    Example:
        >>> history = [Measurement(0, 2.3, 0.1, 2.3, 0.1), Measurement(5, 0.7, 0.8, 1.1, 0.6)]
        >>> [trace.name for trace in learning_figure(None, history).data[:2]]
        ['measured, training', 'measured, held-out']
    """
    if trajectory is None and not history:
        return go.Figure([], message_layout(theme, height, message))
    predicted = {} if trajectory is None else _predicted(trajectory)
    measured = _measured(history)
    steps = () if trajectory is None else trajectory.steps
    made = tuple(m.step for m in history)
    size = 6 if max(len(steps), len(made)) <= MANY else 4
    traces: list[dict[str, Any]] = []
    for quantity in ("loss", "accuracy"):
        traces += _traces(quantity, "predicted", steps, predicted)
        traces += _traces(quantity, "measured", made, measured, size)
    both = any(trace["yaxis"] == "y2" for trace in traces)
    stop = None if trajectory is None else trajectory.diverged
    last = _last_step(steps if stop is None else (*steps, stop), made)
    traces += _levels(references or {}, last)
    losses = [trace["y"] for trace in traces if trace["yaxis"] == "y"]
    style = axis_style(theme)
    layout: dict[str, Any] = {
        **base_layout(theme, height),
        **room_below(height),
        "hovermode": "closest",
        "xaxis": {
            **style,
            "title": {"text": "training step"},
            "anchor": "y2" if both else "y",
            "range": [-0.02 * last, 1.02 * last],
            "tickformat": "d",
            **({"tick0": 0, "dtick": 1} if last <= 10 else {}),
        },
        "yaxis": {
            **style,
            "title": {"text": "loss"},
            "domain": [0.5, 1] if both else [0, 1],
            **_loss_axis(np.concatenate(losses)),
        },
        "shapes": [],
        "annotations": [],
    }
    if both:
        layout["yaxis2"] = {
            **style,
            "title": {"text": "accuracy"},
            "domain": [0, 0.42],
            "dtick": 0.2,
            **SHARE,
        }
    if stop is not None:
        layout |= _divergence_mark(stop, last, theme)
    return go.Figure(traces, layout)


def _predicted(trajectory: Trajectory) -> Columns:
    names = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
    columns = {name: getattr(trajectory, name) for name in names}
    return {name: column for name, column in columns.items() if column is not None}


def _measured(history: Sequence[Measurement]) -> Columns:
    names = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
    columns = {name: [getattr(m, name) for m in history] for name in names}
    return {n: column for n, column in columns.items() if any(v is not None for v in column)}


def _traces(
    quantity: str, kind: str, steps: Sequence[int], columns: Columns, size: int = 0
) -> list[dict[str, Any]]:
    """Traces as dicts: made into objects once, with the figure, which takes half the time."""
    traces = []
    for samples, (words, color) in SAMPLES.items():
        column = columns.get(f"{samples}_{quantity}")
        if column is None:
            continue
        width = 1.5 if samples == "train" else 3
        look: dict[str, Any] = {"mode": "lines", "line": {"color": color, "width": width}}
        if kind == "measured":
            look = {
                "mode": "lines+markers",
                "line": {"color": color, "width": 1, "dash": "dot"},
                "marker": {
                    "color": color,
                    "size": size,
                    "symbol": "circle-open" if samples == "train" else "circle",
                },
                "cliponaxis": False,
            }
        shown = "%{y:.4g}" if quantity == "loss" else "%{y:.1%}"
        name = f"{kind}, {words}"
        traces.append(
            {
                "type": "scatter",
                "x": np.array(steps, dtype=np.int32),
                "y": _with_gaps(column),
                "yaxis": "y" if quantity == "loss" else "y2",
                "name": name,
                "legendgroup": name,
                "showlegend": quantity == "loss",
                "hovertemplate": f"step %{{x}}<br>{quantity} {shown}"
                "<extra>%{fullData.name}</extra>",
                **look,
            }
        )
    return traces


def _levels(references: Mapping[str, float], last: int) -> list[dict[str, Any]]:
    """A level line for each reference."""
    looks = zip(PALETTE[2:], ("dash", "dot", "dashdot", "longdash"), strict=False)
    return [
        {
            "type": "scatter",
            "x": np.array([0, last], dtype=np.int32),
            "y": np.array([loss, loss], dtype=np.float64),
            "yaxis": "y",
            "name": f"held-out, {name}",
            "mode": "lines",
            "line": {"color": color, "width": 1.5, "dash": dash},
            "hovertemplate": "loss %{y:.4g}<extra>%{fullData.name}</extra>",
        }
        for (name, loss), (color, dash) in zip(references.items(), looks, strict=False)
    ]


def _with_gaps(column: Column) -> np.ndarray:
    values = np.array([math.nan if v is None else v for v in column], dtype=np.float64)
    values[~np.isfinite(values)] = math.nan
    return values


def _last_step(predicted: Iterable[int], measured: Iterable[int]) -> int:
    """Where the steps end: at the end of the prediction, or at a round number beyond it."""
    planned, made = max(predicted, default=0), max(measured, default=0)
    return max(1, planned if made <= planned else math.ceil(_outward(0, made)[1]))


def _loss_axis(values: np.ndarray) -> dict[str, Any]:
    """Type, range and ticks for losses, rounded outward."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {"range": [0, 1]}
    low, high = float(values.min()), float(values.max())
    if low <= 0 or high / low <= LOG_FROM:
        return {"range": _outward(low, high)}
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    axis = {"type": "log", "range": [first, last]}
    if last - first > 2:
        return {**axis, "dtick": decade_ticks(first, last, 6), "exponentformat": "power"}
    values = np.outer(10.0 ** np.arange(first, last), [1, 2, 5]).reshape(-1)
    return {**axis, "tickvals": [*values.tolist(), 10.0**last], "tickformat": "~g"}


def _outward(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten around two numbers, about five steps apart."""
    rough = ((high - low) or abs(high) or 1.0) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9)) * power
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [first * step, max(last, first + 1) * step]


def _divergence_mark(step: int, last: int, theme: Theme) -> dict[str, Any]:
    """Line and label where the predicted loss is no longer finite."""
    colors = COLORS[theme]
    line = {
        "type": "line",
        "xref": "x",
        "x0": step,
        "x1": step,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"color": colors.faint, "dash": "dash", "width": 1.5},
    }
    label = {
        "text": f"predicted to diverge by step {step}",
        "showarrow": False,
        "font": {"size": 11, "color": colors.text},
        "xref": "x",
        "x": step,
        "xanchor": "left" if step < last / 2 else "right",
        "yref": "paper",
        "y": 1,
        "yanchor": "bottom",
    }
    return {"shapes": [line], "annotations": [label]}
