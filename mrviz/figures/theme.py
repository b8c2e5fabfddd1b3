"""Colours and layout shared by all figures, for the light and the dark theme of JupyterLab."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import plotly.io as pio

Theme = Literal["light", "dark"]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, told apart with every common form of colour blindness."""

SHARE = {"range": [-0.02, 1.02], "tickformat": ".0%"}
"""An axis for accuracies, with room for a line along 0 or 1."""

UNUSED = ("polar", "scene", "ternary", "geo", "mapbox", "coloraxis", "colorscale")
"""Parts of plotly's templates for what no figure here has."""


@dataclass(frozen=True)
class Colors:
    """Colours that depend on the theme."""

    text: str
    grid: str
    faint: str
    shade: str
    panel: str


COLORS: dict[Theme, Colors] = {
    "light": Colors(
        text="#24292f",
        grid="rgba(0,0,0,0.10)",
        faint="rgba(110,110,110,0.55)",
        shade="rgba(0,0,0,0.07)",
        panel="rgba(255,255,255,0.75)",
    ),
    "dark": Colors(
        text="#e6e6e6",
        grid="rgba(255,255,255,0.14)",
        faint="rgba(190,190,190,0.55)",
        shade="rgba(255,255,255,0.09)",
        panel="rgba(17,17,17,0.75)",
    ),
}

CONFIG = {"displaylogo": False, "showSendToCloud": False, "responsive": True}
"""Plotly's configuration for every figure: nothing leaves the page."""


def base_layout(theme: Theme, height: int) -> dict[str, Any]:
    """Layout that every figure starts from."""
    colors = COLORS[theme]
    return {
        "template": _template("plotly_dark" if theme == "dark" else "plotly_white"),
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": colors.text, "size": 12},
        "height": height,
        "autosize": True,
        "margin": {"l": 64, "r": 16, "t": 36, "b": 48},
        "hoverlabel": {"namelength": -1},
        "modebar": {
            "bgcolor": "rgba(0,0,0,0)",
            "color": colors.faint,
            "activecolor": colors.text,
        },
    }


@cache
def _template(name: str) -> dict[str, Any]:
    """The part of a plotly template that flat figures use.

    plotly checks and copies a template for every figure made: the whole of one takes more than
    ten milliseconds, most of them for traces and axes that no figure here has.
    """
    whole = pio.templates[name].to_plotly_json()
    return {
        "data": {kind: whole["data"][kind] for kind in ("bar", "scatter")},
        "layout": {key: value for key, value in whole["layout"].items() if key not in UNUSED},
    }


def axis_style(theme: Theme) -> dict[str, Any]:
    """Look that every axis starts from."""
    colors = COLORS[theme]
    return {"gridcolor": colors.grid, "zeroline": False, "linecolor": colors.faint}


def room_below(height: int) -> dict[str, Any]:
    """Margins and a legend below the title of the last axis, with room for two rows.

    However many rows the width needs, the axes stay where they are.
    """
    return {
        "margin": {"l": 88, "r": 16, "t": 28, "b": 100},
        "showlegend": True,
        "legend": {
            "orientation": "h",
            "x": 0,
            "yref": "container",
            "y": 52 / height,
            "yanchor": "top",
            "bgcolor": "rgba(0,0,0,0)",
        },
    }


def decade_ticks(low: float, high: float, most: int) -> int:
    """Decades from tick to tick of a log axis so that about ``most`` intervals cover it.

    Example:
        >>> decade_ticks(-9, 0, 4)
        3
    """
    return max(1, math.ceil((high - low) / most))


def message_layout(theme: Theme, height: int, message: str) -> dict[str, Any]:
    """Layout of a figure that has nothing to draw and says why."""
    return {
        **base_layout(theme, height),
        "xaxis": {"visible": False, "range": [0, 1]},
        "yaxis": {"visible": False, "range": [0, 1]},
        "annotations": [
            {
                "text": "<br>".join(textwrap.wrap(message, 80)),
                "showarrow": False,
                "xref": "paper",
                "yref": "paper",
                "x": 0.5,
                "y": 0.5,
                "font": {"size": 14, "color": COLORS[theme].text},
            }
        ],
    }


def translucent(color: str, alpha: float) -> str:
    """A hex colour with an opacity, as plotly wants it."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
