"""Figures of studies and rankings: what correlates, what leads, what depth does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mrviz.errors import InputError
from mrviz.figures.theme import COLORS, PALETTE, Theme, base_layout, translucent
from mrviz.study import Correlation, correlate
from mrviz.theory.ranking import Candidate, Ranking

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
"""Shapes go with colours, and go on where colours repeat: their numbers have no common factor."""

TICKS = 20
"""A range of whole numbers up to this has a tick at each."""

NAMES = {
    "test_accuracy": "held-out accuracy after training",
    "train_accuracy": "training accuracy after training",
    "predicted_accuracy": "predicted held-out accuracy",
    "source_accuracy": "source accuracy",
    "source_lambda_min": "λ<sub>min</sub>[K<sub>S</sub>]",
    "lambda_max": "λ<sub>max</sub>",
    "T2_value": "λ<sub>min</sub>(Θ<sub>T</sub>)",
    "effective_rank": "effective rank",
    "depth": "source depth",
    "logme": "LogME",
    "h_score": "H-score",
    "leep": "LEEP",
    "nce": "NCE",
}
"""Columns of a study as people call them."""

Row = Mapping[str, Any]


def correlation_figure(
    rows: Sequence[Row],
    indicator: str,
    outcome: str = "test_accuracy",
    *,
    correlation: Correlation | None = None,
    by: Sequence[str] = ("program",),
    log_x: bool = False,
    theme: Theme = "light",
    height: int = 430,
) -> go.Figure:
    """An outcome against an indicator, with a least-squares line and the rank correlation.

    The line is that of the values as drawn, so of log₁₀ x where ``log_x`` is set.

    Args:
        rows: from :func:`~mrviz.study.load`; those without both numbers are left out.
        indicator: column across.
        outcome: column upwards.
        correlation: what the title says; default: Spearman's, from the same rows.
        by: columns that tell points apart.
        log_x: a logarithmic axis; values that are not positive are left out, and the title says
            how many.
        theme: "light" or "dark".
        height: in pixels.

    Raises:
        InputError: no rows, or columns that are not there.
    """
    if correlation is None:
        correlation = correlate(rows, [indicator], [outcome])[indicator, outcome]
    elif (correlation.indicator, correlation.outcome) != (indicator, outcome):
        raise InputError(
            f"the correlation is of {correlation.indicator} with {correlation.outcome}, not of "
            f"{indicator} with {outcome}"
        )
    known = [row for row in rows if _finite(row, indicator) and _finite(row, outcome)]
    drawn = [row for row in known if not log_x or row[indicator] > 0]
    title = f"{correlation.method.capitalize()}: {correlation.describe()}"
    if left := len(known) - len(drawn):
        title += f"; {left} not positive, not drawn"
    traces: list[go.Scatter] = []
    for k, (name, members) in enumerate(_grouped(drawn, by).items()):
        traces.append(
            go.Scatter(
                x=[float(row[indicator]) for row in members],
                y=[float(row[outcome]) for row in members],
                mode="markers",
                name=name,
                text=[_hover(row) for row in members],
                marker={
                    "color": translucent(PALETTE[k % len(PALETTE)], 0.85),
                    "symbol": SYMBOLS[k % len(SYMBOLS)],
                    "size": 8,
                },
                hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra>%{fullData.name}</extra>",
            )
        )
    if (line := _least_squares(drawn, indicator, outcome, log_x)) is not None:
        traces.append(
            go.Scatter(
                x=line[0],
                y=line[1],
                mode="lines",
                name="least squares",
                line={"color": COLORS[theme].text, "width": 1.5, "dash": "dash"},
                hoverinfo="skip",
            )
        )
    axis: dict[str, Any] = {"title": {"text": _title(indicator)}}
    if log_x:
        axis |= {"type": "log", "exponentformat": "power"}
    return go.Figure(
        traces, _layout(theme, height, axis, {"title": {"text": _title(outcome)}}, title)
    )


def ranking_figure(
    ranking: Ranking, *, theme: Theme = "light", height: int | None = None
) -> go.Figure:
    """Predicted accuracy of each candidate as a bar with its interval, the best on top.

    Bars of candidates that cannot be told from the best are filled, the others are hatched;
    those that failed have no bar and say why.

    Args:
        ranking: from :func:`~mrviz.rank_programs` or :func:`~mrviz.rank_sources`.
        theme: "light" or "dark".
        height: in pixels; default: by the number of candidates.
    """
    colors = COLORS[theme]
    places = [f"{k}. {row.name}" for k, row in enumerate(ranking, start=1)]
    placed = list(zip(places, ranking, strict=True))
    traces = []
    for tied, name in ((True, "the best, and not told from it"), (False, "below")):
        members = [(place, row) for place, row in placed if _is_bar(row) and row.tied == tied]
        low, high = [], []
        for _, row in members:
            ends, value = row.interval or (math.nan, math.nan), row.accuracy or 0.0
            low.append(value - ends[0])
            high.append(ends[1] - value)
        color = PALETTE[0] if tied else translucent(PALETTE[0], 0.4)
        traces.append(
            go.Bar(
                y=[place for place, _ in members],
                x=[row.accuracy for _, row in members],
                orientation="h",
                name=name,
                marker={
                    "color": color,
                    "pattern": {"shape": "" if tied else "/", "fgcolor": colors.text},
                },
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": high,
                    "arrayminus": low,
                    "color": colors.text,
                    "thickness": 1.5,
                },
                text=[f"p = {row.parameters:,}, {row.seconds:.2f} s" for _, row in members],
                textposition="none",
                hovertemplate="%{y}: %{x:.1%}<br>%{text}<extra></extra>",
            )
        )
    annotations = [
        {
            "x": 0,
            "y": place,
            "xanchor": "left",
            "showarrow": False,
            "font": {"size": 11, "color": colors.text},
            "text": "failed: " + _short(row.error or ""),
        }
        for place, row in placed
        if not _is_bar(row)
    ]
    size = 150 + 34 * max(1, len(places)) if height is None else height
    across = {
        "title": {"text": "predicted held-out accuracy, 95 % interval of its samples"},
        "range": [0, 1],
        "tickformat": ".0%",
    }
    upwards = {
        "categoryorder": "array",
        "categoryarray": places[::-1],
        "range": [-0.5, max(1, len(places)) - 0.5],
        "automargin": True,
    }
    layout = _layout(theme, size, across, upwards, f"{ranking.kind}s before training")
    return go.Figure(traces, {**layout, "annotations": annotations, "barmode": "overlay"})


def depth_figure(
    rows: Sequence[Row],
    outcome: str = "test_accuracy",
    *,
    x: str = "depth",
    by: Sequence[str] = ("source", "program"),
    log_x: bool = False,
    theme: Theme = "light",
    height: int = 430,
) -> go.Figure:
    """Mean of an outcome over runs at each depth, one curve a group, with its spread.

    The band is one standard deviation of the runs (over seeds, and over whatever else ``by``
    does not name) to either side; a single run has none. The hover text tells the number of
    runs.

    Args:
        rows: from :func:`~mrviz.study.load`; those without both numbers are left out.
        outcome: column upwards.
        x: column across.
        by: columns that name a curve.
        log_x: a logarithmic axis across, with a tick at each value, such as for widths; values
            that are not positive are left out.
        theme: "light" or "dark".
        height: in pixels.
    """
    drawn = [row for row in rows if _finite(row, x) and _finite(row, outcome)]
    drawn = [row for row in drawn if not log_x or row[x] > 0]
    traces: list[go.Scatter] = []
    for k, (name, members) in enumerate(_grouped(drawn, by).items()):
        values: dict[float, list[float]] = {}
        for row in members:
            values.setdefault(float(row[x]), []).append(float(row[outcome]))
        places = sorted(values)
        counts = [len(values[place]) for place in places]
        mean = np.array([np.mean(values[place]) for place in places])
        spread = np.array([np.std(values[p], ddof=1) if len(values[p]) > 1 else 0 for p in places])
        color = PALETTE[k % len(PALETTE)]
        traces += [
            go.Scatter(
                x=[*places, *places[::-1]],
                y=[*(mean + spread), *(mean - spread)[::-1]],
                mode="lines",
                fill="toself",
                fillcolor=translucent(color, 0.18),
                line={"width": 0, "color": translucent(color, 0.0)},
                name=f"{name}, spread",
                legendgroup=name,
                showlegend=False,
                hoverinfo="skip",
            ),
            go.Scatter(
                x=places,
                y=mean,
                mode="lines+markers",
                name=name,
                legendgroup=name,
                line={"color": color, "width": 2.5, "dash": DASHES[k % len(DASHES)]},
                marker={"color": color, "size": 7, "symbol": SYMBOLS[k % len(SYMBOLS)]},
                customdata=np.column_stack([spread, counts]),
                hovertemplate="%{x}: %{y:.4g} ± %{customdata[0]:.2g}, %{customdata[1]} runs"
                "<extra>%{fullData.name}</extra>",
            ),
        ]
    across: dict[str, Any] = {"title": {"text": _title(x)}}
    found = {float(row[x]) for row in drawn}
    if log_x:
        ticks = sorted(found)
        across |= {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    elif found and max(found) - min(found) <= TICKS and all(value.is_integer() for value in found):
        across |= {"dtick": 1}
    title = "mean ± one standard deviation over runs"
    return go.Figure(
        traces, _layout(theme, height, across, {"title": {"text": _title(outcome)}}, title)
    )


def _layout(
    theme: Theme, height: int, x: Mapping[str, Any], y: Mapping[str, Any], title: str
) -> dict[str, Any]:
    colors = COLORS[theme]
    axis = {"gridcolor": colors.grid, "zeroline": False, "linecolor": colors.faint}
    return {
        **base_layout(theme, height),
        "margin": {"l": 64, "r": 16, "t": 36, "b": 84},
        "title": {"text": title, "font": {"size": 13}, "x": 0, "xref": "paper"},
        "showlegend": True,
        "legend": {
            "orientation": "h",
            "x": 0,
            "yref": "container",
            "y": 0.01,
            "yanchor": "bottom",
            "bgcolor": "rgba(0,0,0,0)",
        },
        "hovermode": "closest",
        "xaxis": {**axis, **x},
        "yaxis": {**axis, **y},
    }


def _finite(row: Row, name: str) -> bool:
    value = row.get(name)
    return value is not None and math.isfinite(value)


def _grouped(rows: Sequence[Row], by: Sequence[str]) -> dict[str, list[Row]]:
    """Rows by the values of some columns, in the order in which they occur."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = " · ".join(str(row[key]) for key in by if row.get(key) is not None)
        groups.setdefault(name or "runs", []).append(row)
    return groups


def _hover(row: Row) -> str:
    names = ("source", "depth", "program", "capacity", "mapping", "target", "seed")
    return ", ".join(f"{name} {row[name]}" for name in names if row.get(name) is not None)


def _least_squares(
    rows: Sequence[Row], x: str, y: str, log_x: bool
) -> tuple[list[float], list[float]] | None:
    """Ends of the line; ``None`` where all x are the same."""
    across = np.array([float(row[x]) for row in rows])
    upwards = np.array([float(row[y]) for row in rows])
    across = np.log10(across) if log_x else across
    if len(across) < 2 or np.ptp(across) == 0:
        return None
    center, height = across.mean(), upwards.mean()
    slope = ((across - center) @ (upwards - height)) / ((across - center) @ (across - center))
    ends = np.array([across.min(), across.max()])
    values = height + slope * (ends - center)
    return (10.0**ends if log_x else ends).tolist(), values.tolist()


def _is_bar(row: Candidate) -> bool:
    return row.accuracy is not None


def _title(name: str) -> str:
    return NAMES.get(name, name.replace("_", " "))


def _short(text: str, size: int = 90) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"
