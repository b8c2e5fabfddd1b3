"""Picture of the prediction study: predicted against measured accuracy, a panel an optimizer."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from _prediction import KEY, MEASURED, Row, column, correlation, interval, with_interval

TITLES = {"gd": "Gradient descent", "sgd": "SGD", "adam": "Adam"}
SYMBOLS = {"trained": "circle", "random": "circle-open", "pretrained": "star"}
SEVENTH = "#24292f"
"""The palette of the figures has six colours, and there are seven programs."""
KINDS = (".png", ".svg", ".html")
SIZE = {"width": 1200, "height": 520}
SCALE = 1.5
LEGEND = {"orientation": "h", "x": 0.5, "xanchor": "center", "yanchor": "top"}
RANGE = [0.0, 1.0]
INSTALL = 'pip install "mrviz[lab]"'


def check_picture(path: Path) -> None:
    """Refuses, before anything runs, a picture that could not be made."""
    if path.suffix not in KINDS:
        raise SystemExit(f"--figure {path}: the name must end in {', '.join(KINDS)}")
    needed = ("plotly",) if path.suffix == ".html" else ("plotly", "kaleido")
    for name in needed:
        if importlib.util.find_spec(name) is None:
            other = "" if name == "plotly" else ", or name a .html file"
            raise SystemExit(f"--figure {path} needs {name}: {INSTALL}{other}")


def figure(rows: Sequence[Row]) -> Any:
    """A plotly figure on white: colour by program, marker by weights, the diagonal dashed."""
    from plotly.subplots import make_subplots

    from mrviz.figures.theme import COLORS, PALETTE, SHARE, axis_style, base_layout

    rows = [row for row in rows if not row["skipped"]]
    x = column(rows, "predicted")
    titles = []
    for name in MEASURED:
        rho = with_interval(correlation(x, column(rows, name)), interval(rows, "predicted", name))
        titles.append(f"<b>{TITLES[name]}</b><br>ρ = {rho}")
    picture = make_subplots(1, 3, subplot_titles=titles, horizontal_spacing=0.055)
    programs = dict.fromkeys(row["program"] for row in rows)
    colors = dict(zip(programs, itertools.cycle((*PALETTE, SEVENTH)), strict=False))
    for place, name in enumerate(MEASURED, 1):
        diagonal = {"color": COLORS["light"].faint, "width": 1.5, "dash": "dash"}
        line = {"mode": "lines", "line": diagonal, "hoverinfo": "skip"}
        picture.add_scatter(
            x=RANGE, y=RANGE, name="equal", showlegend=place == 1, **line, row=1, col=place
        )
        for program, color in colors.items():
            group = [row for row in rows if row["program"] == program]
            picture.add_scatter(
                x=column(group, "predicted"),
                y=column(group, name),
                mode="markers",
                name=program.replace("_", " "),
                legendgroup=program,
                showlegend=False,
                marker={
                    "color": color,
                    "symbol": [SYMBOLS[row["weights"]] for row in group],
                    "size": [13 if row["weights"] == "pretrained" else 8 for row in group],
                    "opacity": 0.85,
                    "line": {"width": 1.5, "color": color},
                },
                text=[" ".join(row[part] for part in KEY) for row in group],
                hovertemplate="%{text}<br>predicted %{x:.3f}, measured %{y:.3f}<extra></extra>",
                row=1,
                col=place,
            )
    for legend, group, color, symbol in _entries(rows, colors):
        picture.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=f"{group} source" if legend == "legend2" else group.replace("_", " "),
            legend=legend,
            legendgroup=group,
            marker={
                "color": color,
                "symbol": symbol,
                "size": 10,
                "line": {"width": 1.5, "color": color},
            },
        )
    style = axis_style("light") | SHARE | {"dtick": 0.2, "showline": True}
    picture.update_xaxes(style | {"title": {"text": "predicted held-out accuracy"}})
    picture.update_yaxes(style)
    for place in range(1, 4):
        suffix = "" if place == 1 else str(place)
        picture.update_yaxes(scaleanchor=f"x{suffix}", constrain="domain", col=place)
    picture.update_yaxes(title={"text": "measured held-out accuracy"}, col=1)
    picture.update_layout(
        base_layout("light", SIZE["height"])
        | {"paper_bgcolor": "white", "plot_bgcolor": "white", "autosize": False, **SIZE}
        | {"margin": {"l": 64, "r": 16, "t": 60, "b": 112}}
        | {
            "legend": LEGEND | {"y": -0.17},
            "legend2": LEGEND | {"y": -0.245, "itemclick": False, "itemdoubleclick": False},
        }
    )
    return picture


def _entries(rows: Sequence[Row], colors: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Legend, group, colour and symbol of what the legends explain."""
    for program, color in colors.items():
        yield "legend", program, color, "square"
    for weights in dict.fromkeys(row["weights"] for row in rows):
        yield "legend2", weights, SEVENTH, SYMBOLS[weights]


def save(picture: Any, path: Path) -> None:
    """Writes the picture in the format that the name says."""
    if path.suffix == ".html":
        picture.write_html(path)
        return
    try:
        drawn = picture.to_image(path.suffix[1:], scale=SCALE)
    except RuntimeError as error:  # no Chrome or Chromium
        raise SystemExit(f"--figure {path}: {str(error).strip()}") from None
    path.write_bytes(drawn)
