"""The capacity figure: λ_min, effective rank and predicted outcome over a program's capacity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

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
    translucent,
)
from mrviz.spectrum import CapacitySweep

SMALLEST, RANK, OUTCOME = PALETTE[0], PALETTE[2], PALETTE[1]
"""Colours of the panels."""

UNRESOLVED: dict[Theme, float] = {"light": 0.6, "dark": 0.95}
"""Opacity of markers at the noise floor."""

MANY = 40
"""More capacities than this get smaller markers."""

TICKS = 20
"""A range of capacities up to this has a tick at each."""

Measure = Literal["accuracy", "mean squared error"]

DOMAINS = {2: ([0.54, 1.0], [0.0, 0.46]), 3: ([0.7, 1.0], [0.35, 0.65], [0.0, 0.3])}
"""Where the panels are, from the top, by their number."""


def capacity_figure(
    sweep: CapacitySweep | None,
    *,
    predicted: Mapping[int, float] | None = None,
    measure: Measure = "accuracy",
    current: int | None = None,
    chance: float | None = None,
    theme: Theme = "light",
    height: int = 470,
    message: str = "",
) -> go.Figure:
    """λ_min, effective rank and the predicted outcome, one below the other, over capacity.

    Where λ_min is not resolved, or is zero because the program has fewer parameters than the
    Gram has rows (docs/theory.md, section 2), an open marker at the noise floor stands for it
    and its hover text says which. The x of every marker is its capacity, so that a click can
    choose it.

    Args:
        sweep: spectra over the capacities; ``None`` draws nothing but ``message``.
        predicted: held-out accuracy, from 0 to 1, or mean squared error at some capacities;
            without any there is no third panel. Values that are not finite are left out.
        measure: which of the two it is, "accuracy" or "mean squared error".
        current: the capacity in use, marked in all panels.
        chance: accuracy of guessing, from 0 to 1, as a line in the third panel.
        theme: "light" or "dark".
        height: in pixels.
        message: what to say where there is no sweep.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), (1, 8, 8))
        >>> program = mrviz.programs.Border((1, 8, 8), (1, 4, 4))
        >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
        >>> sweep = mrviz.capacity_sweep(model, torch.rand(5, 1, 4, 4), progress=False)
        >>> capacity_figure(sweep, current=2).layout.xaxis.title.text
        'trainable frame width (pixels)'
    """
    if sweep is None or not sweep.capacities:
        return go.Figure([], message_layout(theme, height, message))
    outcomes = {c: float(a) for c, a in sorted((predicted or {}).items()) if math.isfinite(a)}
    size = 7 if len(sweep.capacities) <= MANY else 4
    domains = DOMAINS[3 if outcomes else 2]
    smallest = _smallest_traces(sweep, size, theme)
    values = [t.y[np.isfinite(t.y)] for t in smallest]
    low, high = _decades(np.concatenate(values))
    effective = [spec.effective_rank for spec in sweep.spectra]
    traces = [*smallest, _rank_trace(sweep, effective, size)]
    style = axis_style(theme)
    across = sorted({*sweep.capacities, *outcomes, *(() if current is None else (current,))})
    layout: dict[str, Any] = {
        **base_layout(theme, height),
        **room_below(height),
        "hovermode": "closest",
        "xaxis": {
            **style,
            "title": {"text": sweep.capacity_label},
            "anchor": f"y{len(domains)}",
            "range": _padded(across[0], across[-1]),
            "tickformat": "d",
            **({"tick0": 0, "dtick": 1} if across[-1] - across[0] <= TICKS else {}),
        },
        "yaxis": {
            **style,
            "title": {"text": "λ<sub>min</sub>"},
            "type": "log",
            "domain": domains[0],
            "exponentformat": "power",
            "dtick": decade_ticks(low, high, 4),
            "range": [low, high],
        },
        "yaxis2": {
            **style,
            "title": {"text": "effective<br>rank"},
            "domain": domains[1],
            "nticks": 5,
            "range": [0, max(1.0, 1.12 * max(effective))],
        },
        "shapes": [],
        "annotations": [],
    }
    if outcomes:
        traces.append(_outcome_trace(sweep.capacity_label, outcomes, measure, size))
        layout["yaxis3"] = {
            **style,
            "title": {"text": f"predicted<br>{'MSE' if measure != 'accuracy' else measure}"},
            "domain": domains[2],
            **({"dtick": 0.25, **SHARE} if measure == "accuracy" else _from_zero(outcomes)),
        }
        if chance is not None:
            layout |= _chance_mark(chance, theme)
    if current is not None:
        layout["shapes"] = [*layout["shapes"], _current_line(current, theme)]
        traces += _rings(current, traces, theme, size)
    return go.Figure(traces, layout)


def _smallest_traces(sweep: CapacitySweep, size: int, theme: Theme) -> list[go.Scatter]:
    """The noise floor, λ_min where it is resolved, and marks at the floor where it is not."""
    x = np.array(sweep.capacities, dtype=np.int32)
    zero = [_exactly_zero(sweep, k) for k in range(len(x))]
    known = np.array(
        [spec.full_rank and not why for spec, why in zip(sweep.spectra, zero, strict=True)]
    )
    values = np.array([spec.smallest for spec in sweep.spectra], dtype=np.float64)
    floors = np.array([spec.floor for spec in sweep.spectra], dtype=np.float64)
    drawn = [*values[known], *floors[floors > 0]]  # a kernel of zeros has a floor of zero
    floors = np.where(floors > 0, floors, min(drawn, default=1.0))
    words = [
        "not resolved: " + (f"below the noise floor {spec.floor:.2g}" if spec.floor else "Θ = 0")
        for spec in sweep.spectra
    ]
    says = [
        f"λ<sub>min</sub> = {spec.smallest:.4g}" if seen else f"λ<sub>min</sub> {why or word}"
        for spec, seen, why, word in zip(sweep.spectra, known, zero, words, strict=True)
    ]
    text = _hover(sweep, says)
    shared = {"hovertemplate": "%{text}<extra></extra>"}
    return [
        go.Scatter(
            x=x,
            y=floors,
            mode="lines",
            name="noise floor",
            line={"color": COLORS[theme].faint, "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=x,
            y=np.where(known, values, np.nan),
            mode="lines+markers",
            name="λ<sub>min</sub>",
            text=text,
            line={"color": SMALLEST, "width": 2},
            marker={"color": SMALLEST, "size": size},
            showlegend=bool(known.any()),
            **shared,
        ),
        go.Scatter(
            x=x[~known],
            y=floors[~known],
            mode="markers",
            name="λ<sub>min</sub> not resolved or zero",
            text=[line for line, seen in zip(text, known, strict=True) if not seen],
            marker={
                "color": "rgba(0,0,0,0)",
                "size": size + 1,
                "line": {"color": translucent(SMALLEST, UNRESOLVED[theme]), "width": 1.5},
            },
            showlegend=not known.all(),
            **shared,
        ),
    ]


def _exactly_zero(sweep: CapacitySweep, k: int) -> str:
    """Why λ_min is zero whatever was computed; empty where only the numbers can say.

    rank Θ ≤ p for the full kernel, that of one class and that of their sum; the trace over
    outputs adds the ranks of C kernels and has no such bound.
    """
    order, parameters = sweep.spectra[k].order, sweep.infos[k].n_parameters
    if sweep.reduce == "trace" or parameters >= order:
        return ""
    rows = "nC" if sweep.reduce == "full" else "n"
    return f"exactly zero: p < {rows} = {order:,}"


def _rank_trace(sweep: CapacitySweep, effective: list[float], size: int) -> go.Scatter:
    says = [
        f"effective rank {value:.1f}<br>{spec.rank:,} of {spec.order:,} eigenvalues resolved"
        for value, spec in zip(effective, sweep.spectra, strict=True)
    ]
    return go.Scatter(
        x=np.array(sweep.capacities, dtype=np.int32),
        y=np.array(effective, dtype=np.float64),
        mode="lines+markers",
        yaxis="y2",
        name="effective rank",
        text=_hover(sweep, says),
        line={"color": RANK, "width": 2},
        marker={"color": RANK, "size": size},
        showlegend=False,
        hovertemplate="%{text}<extra></extra>",
    )


def _outcome_trace(
    label: str, outcomes: Mapping[int, float], measure: Measure, size: int
) -> go.Scatter:
    shown = "%{y:.1%}" if measure == "accuracy" else "%{y:.4g}"
    return go.Scatter(
        x=np.array(list(outcomes), dtype=np.int32),
        y=np.array(list(outcomes.values()), dtype=np.float64),
        mode="lines+markers",
        yaxis="y3",
        name=f"predicted held-out {measure}",
        line={"color": OUTCOME, "width": 2},
        marker={"color": OUTCOME, "size": size},
        showlegend=False,
        hovertemplate=f"{label}: %{{x}}<br>predicted held-out {measure} {shown}<extra></extra>",
    )


def _from_zero(outcomes: Mapping[int, float]) -> dict[str, Any]:
    return {"nticks": 5, "range": [0, 1.12 * max(outcomes.values()) or 1.0]}


def _hover(sweep: CapacitySweep, says: list[str]) -> list[str]:
    return [
        f"{sweep.capacity_label}: {c}<br>p = {info.n_parameters:,}<br>{words}"
        for c, info, words in zip(sweep.capacities, sweep.infos, says, strict=True)
    ]


def _rings(current: int, traces: list[go.Scatter], theme: Theme, size: int) -> list[go.Scatter]:
    """A ring around what is drawn at the current capacity, one in each panel that has it."""
    rings: list[go.Scatter] = []
    for trace in traces:
        at = np.flatnonzero((trace.x == current) & np.isfinite(trace.y))
        if "markers" not in trace.mode or not len(at):
            continue
        rings.append(
            go.Scatter(
                x=trace.x[at],
                y=trace.y[at],
                mode="markers",
                yaxis=trace.yaxis,
                name="current capacity",
                legendgroup="current capacity",
                showlegend=not rings,
                marker={
                    "color": "rgba(0,0,0,0)",
                    "size": size + 9,
                    "line": {"color": COLORS[theme].text, "width": 2},
                },
                cliponaxis=False,
                hoverinfo="skip",
            )
        )
    return rings


def _current_line(current: int, theme: Theme) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "x",
        "x0": current,
        "x1": current,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"color": COLORS[theme].faint, "dash": "dash", "width": 1.5},
    }


def _chance_mark(chance: float, theme: Theme) -> dict[str, Any]:
    """Line and label at the accuracy of guessing."""
    colors = COLORS[theme]
    line = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "yref": "y3",
        "y0": chance,
        "y1": chance,
        "layer": "below",
        "line": {"color": colors.faint, "dash": "dot", "width": 1.5},
    }
    label = {
        "text": f"chance {100 * chance:.3g}%",
        "showarrow": False,
        "font": {"size": 11, "color": colors.text},
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "yref": "y3",
        "y": chance,
        "yanchor": "bottom",
    }
    return {"shapes": [line], "annotations": [label]}


def _decades(values: np.ndarray) -> tuple[int, int]:
    """Whole decades around positive values, so that the axis stands still."""
    low, high = np.log10(values.min()), np.log10(values.max())
    return math.floor(low - 0.2), math.ceil(high + 0.2)


def _padded(low: int, high: int) -> list[float]:
    room = max(0.5, 0.04 * (high - low))
    return [low - room, high + room]
