"""The program figure: one sample, the input that a program makes of it, and what is trainable."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from mrviz.errors import InputError
from mrviz.figures.theme import COLORS, PALETTE, Colors, Theme, axis_style, base_layout
from mrviz.programs import Part, Program, ReprogrammedModel
from mrviz.programs.parts import response
from mrviz.sources.base import evaluation_mode

MOST = 128
"""Rows or columns of a matrix beyond this are drawn as means over blocks."""

SEQUENTIAL, DIVERGING = "Cividis", "RdBu_r"
"""Scales that are told apart with every common form of colour blindness."""

NARROWEST = 560
"""Width of the figure, in pixels, at which headings must still fit."""

LETTER, LINE = 6.2, 14
"""Width of a letter and height of a line of headings, in pixels."""

TOLERANCE = 0.02
"""How far inputs may leave 0 to 1 and still be shown on that range."""


@dataclass(frozen=True, eq=False)
class _Panel:
    """One picture or bundle of curves.

    Attributes:
        name: heading.
        values: (h, w) or (h, w, 3) of a picture; (k, length) of curves.
        curves: whether these are curves.
        data: whether these are inputs of the target or the source, not parts of the program.
        blank: what NaN stands for, where that is to be said.
    """

    name: str
    values: np.ndarray
    curves: bool
    data: bool
    blank: str = ""

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest value; 0 to 1 for inputs within it."""
        known = self.values[np.isfinite(self.values)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
        if self.data and low >= -TOLERANCE and high <= 1 + TOLERANCE:
            return 0.0, 1.0
        return low, high

    @property
    def legend(self) -> str:
        """What blank places are, if there are any."""
        return f"; blank: {self.blank}" if self.blank and np.isnan(self.values).any() else ""


def program_figure(
    model: ReprogrammedModel,
    x: Any,
    *,
    theme: Theme = "light",
    height: int | None = None,
) -> go.Figure:
    """A sample, the programmed input u that the source sees, and what of it is trainable.

    Images stand side by side, series below each other as curves. Inputs are drawn from 0 to 1,
    or over their own range where they leave it; what is trainable as the program shows it
    (:meth:`~mrviz.programs.Program.trainable_parts`), blank where it is fixed. A module that is
    no :class:`~mrviz.programs.Program` is shown by how strongly each source input answers to its
    parameters.

    Args:
        model: the reprogrammed model, with its parameters and its capacity as they are.
        x: one target input, or several of which the first is shown.
        theme: "light" or "dark".
        height: in pixels; default: 360 for images, 130 for each row of curves and the caption.

    Raises:
        InputError: no reprogrammed model, or not an input of it.
    """
    if not isinstance(model, ReprogrammedModel):
        raise InputError(f"model must be a ReprogrammedModel, got {type(model).__name__}")
    program = model.program
    samples = torch.as_tensor(np.asarray(x)) if not isinstance(x, torch.Tensor) else x
    own = program.target_shape if isinstance(program, Program) else None
    if own is not None and tuple(samples.shape) == own:
        samples = samples[None]
    samples = model.inputs(samples[:1])
    with evaluation_mode(model):
        with torch.no_grad():
            u = model.programmed(samples)
        if isinstance(program, Program):
            parts, text = program.trainable_parts(samples), program.describe()
        else:
            name = "response of u to the parameters"
            parts = [Part(name, response(program, samples), curves=u.ndim == 3)]
            text = type(program).__name__
    panels = [
        _data_panel("target sample x", samples[0]),
        _data_panel("programmed input u", u[0]),
        *(_part_panel(part) for part in parts),
    ]
    sentence = (
        f"{text[:1].upper()}{text[1:]}: p\u00a0=\u00a0{model.n_parameters:,} trainable parameters."
    )
    caption = textwrap.wrap(sentence, 88)
    stacked = any(panel.curves for panel in panels)
    if height is None:
        height = 60 + 130 * len(panels) if stacked else 360
    draw = _stacked if stacked else _side_by_side
    traces, axes, annotations = draw(panels, COLORS[theme], theme, height, len(caption))
    layout: dict[str, Any] = {
        **base_layout(theme, height),
        **axes,
        "showlegend": False,
        "hovermode": "closest",
    }
    below = {"x": 0, "xanchor": "left", "y": 0, "yanchor": "bottom", "align": "left"}
    caption_text = _text(COLORS[theme], "<br>".join(caption), **below)
    caption_text |= {"yshift": -layout["margin"]["b"] + 4}
    return go.Figure(traces, {**layout, "annotations": [*annotations, caption_text]})


Drawn = tuple[list[Any], dict[str, Any], list[dict[str, Any]]]


def _side_by_side(
    panels: Sequence[_Panel], colors: Colors, theme: Theme, height: int, lines: int
) -> Drawn:
    """Pictures in a row, each with its heading above."""
    gap = 0.03
    share = (1 - gap * (len(panels) - 1)) / len(panels)
    letters = int(share * (NARROWEST - 24) / LETTER)
    headings = [_heading(panel, letters) for panel in panels]
    top = 10 + LINE * max(heading.count("<br>") + 1 for heading in headings)
    margin = {"l": 12, "r": 12, "t": top, "b": 12 + LINE * lines}
    axes: dict[str, Any] = {"margin": margin}
    traces, annotations = [], []
    for k, (panel, heading) in enumerate(zip(panels, headings, strict=True)):
        number = "" if k == 0 else str(k + 1)
        start = k * (share + gap)
        traces.append(_picture(panel, number))
        rows, columns = panel.values.shape[:2]
        blank = {
            "constrain": "domain",
            "showgrid": False,
            "zeroline": False,
            "ticks": "",
            "showticklabels": False,
            "showline": True,
            "mirror": True,
            "linecolor": colors.faint,
        }
        axes[f"xaxis{number}"] = blank | {
            "anchor": f"y{number}",
            "domain": [start, start + share],
            "range": [-0.5, columns - 0.5],
        }
        axes[f"yaxis{number}"] = blank | {
            "anchor": f"x{number}",
            "range": [rows - 0.5, -0.5],
            "scaleanchor": f"x{number}",
            "constraintoward": "top",
        }
        place = {"xref": f"x{number} domain", "x": 0.5, "yref": "paper", "y": 1}
        annotations.append(_text(colors, heading, **place) | {"yanchor": "bottom", "yshift": 3})
    return traces, axes, annotations


def _stacked(
    panels: Sequence[_Panel], colors: Colors, theme: Theme, height: int, lines: int
) -> Drawn:
    """Curves below each other, each with its heading above."""
    margin = {"l": 64, "r": 16, "t": 26, "b": 30 + LINE * (lines + 1)}
    room = height - margin["t"] - margin["b"]
    gap = 44 / max(room, 1)
    share = max((1 - gap * (len(panels) - 1)) / len(panels), 0.02)
    axes: dict[str, Any] = {"margin": margin}
    traces: list[Any] = []
    annotations = []
    for k, panel in enumerate(panels):
        number = "" if k == 0 else str(k + 1)
        end = 1 - k * (share + gap)
        style = axis_style(theme)
        axes[f"xaxis{number}"] = style | {"anchor": f"y{number}", "domain": [0, 1]}
        axes[f"yaxis{number}"] = style | {
            "anchor": f"x{number}",
            "domain": [max(end - share, 0.0), max(end, 0.0)],
            "nticks": 4,
        }
        if panel.curves:
            color = PALETTE[0] if panel.data else PALETTE[1]
            traces += _curves(panel, number, color)
            axes[f"xaxis{number}"]["range"] = [-0.5, panel.values.shape[1] - 0.5]
            least, most = panel.span
            edge = 0.08 * (most - least) or 0.5
            axes[f"yaxis{number}"]["range"] = [least - edge, most + edge]
        else:
            traces.append(_picture(panel, number))
            axes[f"yaxis{number}"]["autorange"] = "reversed"
        place = {"xref": f"x{number} domain", "x": 0, "yref": f"y{number} domain", "y": 1}
        heading = _heading(panel, 90).replace("<br>", "  ")
        annotations.append(
            _text(colors, heading, **place) | {"xanchor": "left", "yanchor": "bottom"}
        )
    return traces, axes, annotations


def _picture(panel: _Panel, number: str) -> Any:
    """A picture in colours, in shades of grey, or as a map of values."""
    axes = {"xaxis": f"x{number}", "yaxis": f"y{number}", "name": panel.name}
    low, high = panel.span
    if panel.values.ndim == 3:
        scaled = (panel.values - low) / ((high - low) or 1.0)
        shades = (255 * scaled.clip(0, 1)).round().astype(np.uint8)
        return go.Image(z=shades, hovertemplate="row %{y}, column %{x}<extra></extra>", **axes)
    scale = "gray" if panel.data else SEQUENTIAL
    if not panel.data and low < 0:
        scale = DIVERGING
        low, high = -max(-low, high), max(-low, high)
    return go.Heatmap(
        z=panel.values.astype(np.float32),
        colorscale=scale,
        zmin=low,
        zmax=high if high > low else low + 1,
        showscale=False,
        hoverongaps=False,
        hovertemplate="row %{y}, column %{x}<br>%{z:.4g}<extra></extra>",
        **axes,
    )


def _curves(panel: _Panel, number: str, color: str) -> list[Any]:
    """A line for each channel; a marker where a value stands alone between fixed ones."""
    colors = [color, *(c for c in PALETTE if c != color)]
    points = np.arange(panel.values.shape[1])
    return [
        go.Scatter(
            x=points,
            y=row.astype(np.float64),
            mode="lines+markers" if np.isnan(row).any() else "lines",
            marker={"size": 3},
            line={"color": colors[k % len(colors)], "width": 1.5},
            name=panel.name,
            hovertemplate="point %{x}: %{y:.4g}<extra></extra>",
            xaxis=f"x{number}",
            yaxis=f"y{number}",
        )
        for k, row in enumerate(panel.values)
    ]


def _data_panel(name: str, values: torch.Tensor) -> _Panel:
    """An input: a picture (in colours where it has three channels), curves, or one curve."""
    array = values.detach().cpu().numpy()
    if array.ndim == 3:
        picture = array.transpose(1, 2, 0) if len(array) == 3 else array.mean(0)
        return _Panel(name, picture, curves=False, data=True)
    return _Panel(name, array if array.ndim == 2 else array.reshape(1, -1), curves=True, data=True)


def _part_panel(part: Part) -> _Panel:
    """A part of the program: channels of a picture as their mean, large matrices in blocks."""
    array = part.values.detach().cpu().numpy().astype(np.float64)
    if part.curves or array.ndim == 1:
        return _Panel(part.name, np.atleast_2d(array), True, False, part.blank)
    name = part.name
    if array.ndim == 3:
        name += ", mean over channels" if len(array) > 1 else ""
        array = array.mean(0)
    rows, columns = (-(-side // MOST) for side in array.shape)
    if max(rows, columns) > 1:
        name += f", means of {rows}×{columns}"
        array = _blocks(array, rows, columns)
    return _Panel(name, array, False, False, part.blank)


def _blocks(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Means over blocks; the last ones may be smaller."""
    height, width = values.shape
    sums = np.add.reduceat(
        np.add.reduceat(values, range(0, height, rows), 0), range(0, width, columns), 1
    )
    sizes = [
        np.diff([*range(0, side, step), side]) for side, step in ((height, rows), (width, columns))
    ]
    return np.asarray(sums / np.outer(*sizes))


def _heading(panel: _Panel, letters: int) -> str:
    """Name and range, in lines of a number of letters."""
    low, high = panel.span
    ends = f"{_number(low)} to {_number(high)}" if high > low else f"all {_number(low)}"
    if not np.isfinite(panel.values).any():
        ends = "none of it"
    ends += panel.legend
    bold = [f"<b>{line}</b>" for line in textwrap.wrap(panel.name, max(letters, 8))]
    return "<br>".join([*bold, *textwrap.wrap(ends, max(letters, 8))])


def _text(colors: Colors, text: str, **place: Any) -> dict[str, Any]:
    font = {"size": 11, "color": colors.text}
    defaults = {"xref": "paper", "yref": "paper", "xanchor": "center", "yanchor": "middle"}
    return {**defaults, "text": text, "showarrow": False, "font": font, **place}


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
