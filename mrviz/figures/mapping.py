"""The mapping figure: how much each source class counts for each target class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mrviz.errors import InputError
from mrviz.figures.theme import COLORS, Theme, base_layout

MOST = 40
"""Source classes that are drawn where there are more of them."""

LINE = 13
"""Height of a name of a target class, in pixels; where they do not fit, some are left out."""

SEQUENTIAL, DIVERGING = "Cividis", "RdBu_r"
"""Scales that are told apart with every common form of colour blindness."""

LONGEST = 16
"""Letters of a class name beside the map; all of it is in the hover text."""

LETTER = 6.6
"""Width of a letter of a tick label, in pixels."""


def mapping_figure(
    weights: Any,
    source_classes: Sequence[str] = (),
    target_classes: Sequence[str] = (),
    theme: Theme = "light",
    height: int = 420,
    *,
    labels: bool = True,
) -> go.Figure:
    """Heat map of an output mapping: target classes as rows, source classes as columns.

    Of more than 40 source classes those with the largest weights are drawn, in the order of the
    target class they count most for, and the title says how many are left out and how much they
    weigh. Colours are sequential from zero, or diverging around zero where weights are negative.

    Args:
        weights: (C, c_S), such as ``model.weights``.
        source_classes: names of the source's outputs; default: their numbers.
        target_classes: names of the target's classes; default: their numbers.
        theme: "light" or "dark".
        height: in pixels.
        labels: whether the target's outputs are classes; else they, and the source's, are called
            outputs.

    Raises:
        InputError: weights that are no finite matrix, or another number of names.

    Example:
        >>> figure = mapping_figure([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], (), ("no", "yes"))
        >>> figure.layout.yaxis.ticktext
        ('no', 'yes')
    """
    values = _matrix(weights)
    rows, columns = values.shape
    sources = _names(source_classes, columns, "source_classes")
    targets = _names(target_classes, rows, "target_classes")
    shown = _shown(values)
    drawn = values[:, shown].astype(np.float32)
    largest = float(np.abs(values).max()) or 1.0
    negative = bool((values < 0).any())
    colors = COLORS[theme]
    x, y = np.arange(len(shown), dtype=np.int32), np.arange(rows, dtype=np.int32)
    below, beside = [_short(sources[s]) for s in shown], [_short(name) for name in targets]
    one, several = ("class", "classes") if labels else ("output", "outputs")
    lines = _title(values, shown, several)
    top, bottom = 14 + 17 * len(lines), 38 + max(len(name) for name in below) * LETTER
    every = math.ceil(rows * LINE / max(LINE, height - top - bottom))
    left = 38 + max(len(name) for name in beside[::every]) * LETTER
    heat = go.Heatmap(
        z=drawn,
        x=x,
        y=y,
        name="mapping",
        colorscale=DIVERGING if negative else SEQUENTIAL,
        zmin=-largest if negative else 0.0,
        zmax=largest,
        xgap=1,
        ygap=1 if every == 1 else 0,
        customdata=np.array([[[t, sources[s]] for s in shown] for t in targets], dtype=object),
        hovertemplate=(
            f"target {one} %{{customdata[0]}}<br>source {one} %{{customdata[1]}}<br>"
            "weight %{z:.4g}<extra></extra>"
        ),
        colorbar={
            "title": {"text": "weight", "side": "right"},
            "thickness": 12,
            "outlinewidth": 0,
        },
    )
    common = {"showgrid": False, "zeroline": False, "ticks": "", "tickmode": "array"}
    layout: dict[str, Any] = {
        **base_layout(theme, height),
        "margin": {"l": left, "r": 8, "t": top, "b": bottom},
        "annotations": [
            {
                "text": "<br>".join(lines),
                "font": {"size": 13, "color": colors.text},
                "align": "left",
                "showarrow": False,
                **{"xref": "paper", "x": 0, "xanchor": "left", "xshift": 10 - left},
                **{"yref": "paper", "y": 1, "yanchor": "bottom", "yshift": 2},
            }
        ],
        "hovermode": "closest",
        "xaxis": {
            **common,
            "title": {"text": f"source {one}", "standoff": 6},
            "tickvals": x,
            "ticktext": below,
            "tickangle": -90,
            "range": [-0.5, len(shown) - 0.5],
        },
        "yaxis": {
            **common,
            "title": {"text": f"target {one}", "standoff": 6},
            "tickvals": y[::every],
            "ticktext": beside[::every],
            "range": [rows - 0.5, -0.5],
        },
    }
    for axis in (layout["xaxis"], layout["yaxis"]):
        axis["tickfont"] = {"size": 11, "color": colors.text}
    return go.Figure([heat], layout)


def _matrix(weights: Any) -> np.ndarray:
    values = np.asarray(weights, dtype=np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise InputError(
            "weights must be a finite matrix (C, c_S), such as model.weights, got shape "
            f"{values.shape}"
        )
    return values


def _names(names: Sequence[str], n: int, argument: str) -> list[str]:
    if not len(names):
        return [str(k) for k in range(n)]
    if len(names) != n:
        raise InputError(f"{argument} holds {len(names)} names, but the weights are for {n}")
    return [str(name) for name in names]


def _shown(values: np.ndarray) -> np.ndarray:
    """Source classes to draw: all in order, or those that count most, by target class."""
    if values.shape[1] <= MOST:
        return np.arange(values.shape[1])
    size = np.abs(values)
    largest, best = size.max(0), size.argmax(0)
    rank = np.zeros(len(best), dtype=int)  # among the source classes of the same target class
    for t in np.unique(best):
        mine = np.flatnonzero(best == t)
        rank[mine[np.argsort(-largest[mine], kind="stable")]] = np.arange(len(mine))
    kept = np.lexsort((rank, -largest))[:MOST]
    kept = kept[largest[kept] > 0] if largest.any() else kept
    return kept[np.lexsort((kept, -largest[kept], best[kept]))]


def _title(values: np.ndarray, shown: np.ndarray, several: str) -> list[str]:
    """What is drawn and what is not."""
    rows, columns = values.shape
    title = f"{rows:,} target {several} × {columns:,} source {several}"
    if len(shown) == columns:
        return [title]
    size = np.abs(values)
    rest = np.setdiff1d(np.arange(columns), shown)
    left, most = float(size[:, rest].sum()), float(size[:, rest].max())
    drawn = f"drawn: the {len(shown)} that count most"
    if most == 0:
        return [title, f"{drawn}; the other {len(rest):,} count for nothing"]
    share = left / float(size.sum())
    return [
        title,
        f"{drawn}; the other {len(rest):,} hold {share:.0%} of all weight, at most {most:.2g} each",
    ]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
