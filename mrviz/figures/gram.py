"""The Gram figure: class-ordered heat maps of the trace kernel and its two factors."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from mrviz.figures.theme import COLORS, Colors, Theme, base_layout
from mrviz.theory import GramFactors

MOST = 128
"""More samples than this are drawn as means over blocks of samples of one class."""

NEGATIVE = 0.02
"""Negative entries count where they reach this share of the largest."""

SEQUENTIAL, DIVERGING = "Cividis", "RdBu_r"
"""Scales that are told apart with every common form of colour blindness."""

QUANTILE = 0.99
"""Share of the entries inside the scale: a diagonal that stands out would darken all others."""

SHADES = 12
"""Steps of the colour bar in a map's title."""

NARROWEST = 560
"""Width of the figure, in pixels, at which names must still fit."""

LETTER, LINE = 6.5, 15
"""Width of a letter and height of a line of tick names, in pixels."""

SUBSCRIPT = re.compile(r"_(\w)")

LONGEST = 9
"""Letters of a class name beside a map."""


@dataclass(frozen=True, eq=False)
class _Cells:
    """Samples as cells of a map: consecutive samples of one class, in order.

    Attributes:
        groups: indices of the samples of each cell.
        names: what a cell is called in hover texts, one for each.
        blocks: class name, first cell, and one after the last cell.
    """

    groups: list[np.ndarray]
    names: list[str]
    blocks: list[tuple[str, int, int]]

    def means(self, matrix: np.ndarray) -> np.ndarray:
        """Mean over the samples of each pair of cells, float32."""
        order = np.concatenate(self.groups)
        sizes = np.array([len(group) for group in self.groups])
        starts = np.concatenate([[0], sizes.cumsum()[:-1]])
        sums = np.add.reduceat(np.add.reduceat(matrix[order][:, order], starts, 0), starts, 1)
        return (sums / np.outer(sizes, sizes)).astype(np.float32)


def gram_figure(
    factors: GramFactors,
    *,
    classes: Sequence[str] = (),
    theme: Theme = "light",
    height: int = 470,
) -> go.Figure:
    """Program kernel ⊙ source Jacobian Gram = trace kernel as heat maps, or the last alone.

    Samples are ordered by class. Each map has its own colour scale, which its title shows:
    sequential, or diverging around zero where entries are negative. One in a hundred entries may
    lie beyond its end, as the diagonal often does. The caption says what the factors are, and
    why there is no product where there is none.

    Args:
        factors: from :func:`~mrviz.theory.gram_factors`.
        classes: names of the classes; default: their numbers.
        theme: "light" or "dark".
        height: in pixels.
    """
    colors = COLORS[theme]
    cells = _cells(factors, classes)
    maps = [("trace kernel of Θ", factors.kernel)]
    if factors.program is not None:
        maps = [
            ("program kernel", factors.program),
            ("source Jacobian Gram", factors.source),
            *maps,
        ]
    margin = {"l": 74 if cells.blocks else 16, "r": 12, "t": 30, "b": 8}
    room = height - margin["t"] - margin["b"]
    layout: dict[str, Any] = {
        **base_layout(theme, height),
        "margin": margin,
        "title": {
            "text": _title(factors, cells),
            "font": {"size": 13},
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": 1 - 8 / height,
            "yanchor": "top",
        },
        "showlegend": False,
        "hovermode": "closest",
    }
    caption = _caption(factors)
    gap = 0.045
    share = (1 - gap * (len(maps) - 1)) / len(maps)
    # Titles of two lines above the maps; class names and the caption below.
    low, high = (26 + 15 * len(caption)) / room, 1 - 40 / room
    side = min(share * (NARROWEST - margin["l"] - margin["r"]), (high - low) * room)
    traces: list[Any] = []
    below = {"x": 0, "xanchor": "left", "yref": "y domain", "y": 0, "yanchor": "top"}
    annotations = [_text(colors, "<br>".join(caption), **below, yshift=-24, align="left")]
    for k, (name, matrix) in enumerate(maps):
        number = "" if k == 0 else str(k + 1)
        start = k * (share + gap)
        drawn = _Map.of(name, cells.means(matrix.numpy()))
        traces += drawn.traces(cells, number)
        layout[f"xaxis{number}"] = {
            **_axis(cells),
            "anchor": f"y{number}",
            "domain": [start, start + share],
            "range": [-0.5, len(cells.groups) - 0.5],
        }
        layout[f"yaxis{number}"] = {
            **_axis(cells),
            "anchor": f"x{number}",
            "domain": [low, high],
            "range": [len(cells.groups) - 0.5, -0.5],
            "scaleanchor": f"x{number}",
            "constraintoward": "top",
        }
        annotations.append(
            _text(
                colors,
                drawn.heading,
                **{"xref": f"x{number} domain", "x": 0.5, "yref": f"y{number} domain", "y": 1},
                yanchor="bottom",
            )
        )
        annotations += _class_names(cells, colors, number, side, beside=k == 0)
        if k:
            sign = _text(colors, "⊙" if k == 1 else "=", x=start - gap / 2, y=0.5)
            font = {"size": 20, "color": colors.text}
            annotations.append({**sign, "yref": "y domain", "font": font})
    return go.Figure(traces, {**layout, "annotations": annotations, "shapes": []})


@dataclass(frozen=True, eq=False)
class _Map:
    """One heat map.

    Attributes:
        name: what is drawn.
        values: (m, m), float32.
        scale: plotly's name of the colour scale.
        low: value at its lower end.
        high: value at its upper end.
        clipped: whether there are larger values than the upper end.
    """

    name: str
    values: np.ndarray
    scale: str
    low: float
    high: float
    clipped: bool

    @classmethod
    def of(cls, name: str, values: np.ndarray) -> _Map:
        low, most = float(values.min()), float(values.max())
        largest = max(abs(low), abs(most))
        if low < -NEGATIVE * largest:
            end = float(np.quantile(np.abs(values), QUANTILE)) or largest
            return cls(name, values, DIVERGING, -end, end, end < largest)
        if most - low <= 1e-6 * largest:  # a constant has no scale of its own
            return cls(name, values, SEQUENTIAL, 0.0, most if most > 0 else 1.0, False)
        high = float(np.quantile(values, QUANTILE))
        high = high if high > low else most
        return cls(name, values, SEQUENTIAL, low, high, high < most)

    @property
    def heading(self) -> str:
        """Name, and below it the colour scale with its ends, as text that follows the map."""
        shades = sample_colorscale(self.scale, SHADES)
        bar = "".join(f'<span style="color:{shade}">█</span>' for shade in shades)
        ends = [_number(self.low), _number(self.high)]
        if self.clipped:
            ends[1] = f"≥ {ends[1]}"
            ends[0] = f"≤ {ends[0]}" if self.low < 0 and self.scale == DIVERGING else ends[0]
        scale = f' <span style="font-size:9px">{bar}</span> '.join(ends)
        return f"<b>{self.name}</b><br>{scale}"

    def traces(self, cells: _Cells, number: str) -> list[Any]:
        """The map, and thin lines between the classes."""
        axes = {"xaxis": f"x{number}", "yaxis": f"y{number}"}
        index = np.arange(len(cells.groups), dtype=np.int32)
        heat = go.Heatmap(
            z=self.values,
            x=index,
            y=index,
            name=self.name,
            colorscale=self.scale,
            zmin=self.low,
            zmax=self.high,
            showscale=False,
            hovertemplate="%{y}<br>%{x}<br>%{z:.4g}<extra>%{fullData.name}</extra>",
            **axes,
        )
        inner = np.array([stop for *_, stop in cells.blocks[:-1]], dtype=np.float64) - 0.5
        ends = np.array([-0.5, len(index) - 0.5, np.nan])
        along, across = np.tile(ends, len(inner)), np.repeat(inner, 3)
        faint = "rgba(255,255,255,0.6)" if self.scale == SEQUENTIAL else "rgba(0,0,0,0.35)"
        lines = go.Scatter(
            x=np.concatenate([along, across]),
            y=np.concatenate([across, along]),
            mode="lines",
            line={"color": faint, "width": 1},
            hoverinfo="skip",
            showlegend=False,
            name="classes",
            **axes,
        )
        return [heat, lines]


def _cells(factors: GramFactors, classes: Sequence[str]) -> _Cells:
    """Samples in order, those of one class together in cells of as few samples as possible."""
    order = factors.order.numpy()
    labels = np.zeros(factors.n, dtype=int) if factors.labels is None else factors.labels.numpy()
    ordered = labels[order]
    known = np.unique(ordered)
    members = [order[ordered == c] for c in known] if len(known) <= MOST else [order]
    size = -(-factors.n // MOST)
    while sum(-(-len(m) // size) for m in members) > MOST:
        size += 1
    split = [[m[k : k + size] for k in range(0, len(m), size)] for m in members]
    groups = [group for parts in split for group in parts]

    def title(c: int) -> str:
        return classes[c] if c < len(classes) else str(c)

    blocks, start = [], 0
    if factors.labels is not None and len(members) == len(known):
        for c, parts in zip(known, split, strict=True):
            blocks.append((title(int(c)), start, start + len(parts)))
            start += len(parts)
    names = []
    for group in groups:
        many = f"{len(group)} samples, the first no." if len(group) > 1 else "sample"
        which = sorted({title(int(labels[i])) for i in group}) if factors.labels is not None else []
        names.append((f"{', '.join(which)}: " if which else "") + f"{many} {group[0]}")
    return _Cells(groups, names, blocks)


def _axis(cells: _Cells) -> dict[str, Any]:
    """An axis without marks; its ticks are there for the hover text."""
    return {
        "constrain": "domain",
        "showgrid": False,
        "zeroline": False,
        "ticks": "",
        "showticklabels": False,
        "tickmode": "array",
        "tickvals": np.arange(len(cells.names), dtype=np.int32),
        "ticktext": cells.names,
    }


def _class_names(
    cells: _Cells, colors: Colors, number: str, side: float, *, beside: bool
) -> list[dict[str, Any]]:
    """Names at the middle of each class's block: below a map, and on its left if ``beside``."""
    if not cells.blocks:
        return []
    texts = []
    pixel = side / len(cells.groups)
    short = [
        name if len(name) <= LONGEST else name[: LONGEST - 1] + "…" for name, *_ in cells.blocks
    ]
    rooms = [(stop - start) * pixel for _, start, stop in cells.blocks]
    middles = [(start + stop - 1) / 2 for _, start, stop in cells.blocks]
    below = all(len(name) * LETTER + 3 <= room for name, room in zip(short, rooms, strict=True))
    left = beside and all(room >= LINE * 0.8 for room in rooms)
    for name, middle in zip(short, middles, strict=True):
        x_axis, y_axis = f"x{number}", f"y{number}"
        if below:
            texts.append(
                _text(colors, name, xref=x_axis, x=middle, yref=f"{y_axis} domain", y=0)
                | {"yanchor": "top"}
            )
        if left:
            texts.append(
                _text(colors, name, xref=f"{x_axis} domain", x=0, yref=y_axis, y=middle)
                | {"xanchor": "right", "xshift": -2}
            )
    return texts


def _text(colors: Colors, text: str, **place: Any) -> dict[str, Any]:
    font = {"size": 11, "color": colors.text}
    defaults = {"xref": "paper", "yref": "paper", "xanchor": "center", "yanchor": "middle"}
    return {**defaults, "text": text, "showarrow": False, "font": font, **place}


def _title(factors: GramFactors, cells: _Cells) -> str:
    title = f"{factors.n:,} samples" + (", ordered by class" if cells.blocks else "")
    largest = max(len(group) for group in cells.groups)
    if largest > 1:
        title += f"; each cell is the mean over up to {largest} × {largest} pairs"
    return title


def _caption(factors: GramFactors) -> list[str]:
    text = factors.note
    if factors.distance:
        text += f" The product is off by {factors.distance:.1g} of its norm."
    return [SUBSCRIPT.sub(r"<sub>\1</sub>", line) for line in textwrap.wrap(text, 86)]


def _number(value: float) -> str:
    digits = f"{value:,.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"
    return digits.replace("-", "−")
