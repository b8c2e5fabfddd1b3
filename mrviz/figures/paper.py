"""A figure for each question of the paper's study, from its tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mrviz.figures.study import DASHES, SYMBOLS
from mrviz.figures.theme import COLORS, PALETTE, Theme, axis_style, base_layout, translucent
from mrviz.paper import accuracy, assumptions, bound, indicators, kernels, loss
from mrviz.paper.settings import RULES
from mrviz.paper.tables import Row, Tables, column, groups, where

PROGRAM_COLORS = {"linear": PALETTE[0], "border": PALETTE[1], "linear_border": PALETTE[2]}
NAMES = {"linear": "FC (linear)", "border": "VP (border)", "linear_border": "VP+FC"}
LOG = {"type": "log", "exponentformat": "power", "dtick": 1}


def paper_figures(tables: Tables, *, theme: Theme = "light") -> dict[int, go.Figure]:
    """The figures of all questions whose tables have rows, by number.

    Args:
        tables: rows by table, from :func:`mrviz.paper.study.load`.
        theme: "light" or "dark".
    """
    made: tuple[tuple[tuple[str, ...], Callable[..., go.Figure]], ...] = (
        ((kernels.NAME,), kernels_figure),
        ((accuracy.NAME, loss.NAME), accuracy_figure),
        ((loss.NAME,), loss_figure),
        ((indicators.NAME,), indicators_figure),
        ((assumptions.NAME, assumptions.WIDTH), assumptions_figure),
        ((bound.NAME,), bound_figure),
    )
    return {
        number: draw(tables, theme=theme)
        for number, (names, draw) in enumerate(made, start=1)
        if all(tables.get(name) for name in names)
    }


def kernels_figure(tables: Tables, *, theme: Theme = "light") -> go.Figure:
    """λ_min[K_S] over depth: one curve a draw (infinite width) or a network (empirical).

    Values that are not resolved are not drawn.
    """
    rows = tables[kernels.NAME]
    titles = [f"{kind} kernel" for kind in kernels.KINDS]
    figure = _panels(1, 2, titles, 430, theme, horizontal_spacing=0.08)
    curves = list(groups(rows, "family", "data"))
    for k, (family, data) in enumerate(curves):
        for panel, kind in enumerate(kernels.KINDS, start=1):
            members = where(rows, family=family, data=data, kind=kind)
            units = groups(members, *kernels.UNITS[kind]).values()
            for j, unit in enumerate(units):
                curve = {depth: value for depth, value in kernels.means(unit).items() if value > 0}
                style = _line(k, f"{family}, {data}")
                style["line"]["width"] = 1.4
                style["marker"]["size"] = 5
                figure.add_scatter(
                    x=list(curve),
                    y=list(curve.values()),
                    **style,
                    showlegend=panel == 1 and j == 0,
                    opacity=0.8,
                    row=1,
                    col=panel,
                )
    figure.update_xaxes(title_text="depth", dtick=1)
    figure.update_yaxes(**LOG)
    figure.update_yaxes(title_text="λ<sub>min</sub>[K<sub>S</sub>]", col=1)
    return figure


def accuracy_figure(tables: Tables, *, theme: Theme = "light") -> go.Figure:
    """Source and target accuracy over depth, mean and standard deviation over seeds."""
    plain = tables[loss.NAME]
    plain = where(plain, input_size=min(int(row["input_size"]) for row in plain))
    panels: dict[str, Sequence[Row]] = {
        f"EfficientNet features, {head} head": members
        for (head,), members in groups(tables[accuracy.NAME], "head").items()
    }
    panels |= {f"plain {family}": m for (family,), m in groups(plain, "family").items()}
    columns = 2
    lines = math.ceil(len(panels) / columns)
    figure = _panels(lines, columns, list(panels), 130 + 250 * lines, theme, shared_yaxes=True)
    shown: set[str] = set()
    for k, rows in enumerate(panels.values()):
        place = {"row": k // columns + 1, "col": k % columns + 1}
        programs = list(dict.fromkeys(str(row["program"]) for row in rows))
        curves = {"source": (where(rows, program=programs[0]), "source_accuracy", "text")}
        curves |= {
            NAMES[p]: (where(rows, program=p), "test_accuracy", PROGRAM_COLORS[p]) for p in programs
        }
        for j, (name, (members, outcome, color)) in enumerate(curves.items()):
            by_depth = {
                int(d): np.array(column(m, outcome)) for (d,), m in groups(members, "depth").items()
            }
            depths = sorted(by_depth)
            color = COLORS[theme].text if color == "text" else color
            spread = [float(np.nanstd(by_depth[d], ddof=1)) for d in depths]
            figure.add_scatter(
                x=depths,
                y=[float(np.nanmean(by_depth[d])) for d in depths],
                error_y={"array": spread, "thickness": 1.2, "width": 3},
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=name not in shown,
                line={"color": color, "width": 2, "dash": DASHES[j % len(DASHES)]},
                marker={"symbol": SYMBOLS[j], "size": 7},
                **place,
            )
            shown.add(name)
    figure.update_xaxes(dtick=1)
    figure.update_xaxes(title_text="depth", row=lines)
    figure.update_yaxes(tickformat=".0%")
    figure.update_yaxes(title_text="accuracy", col=1)
    return figure


def loss_figure(tables: Tables, *, theme: Theme = "light") -> go.Figure:
    """Training loss of the target against λ_min[K_S], one line a sweep over the depths."""
    rows = tables[loss.NAME]
    programs = [p for p in NAMES if where(rows, program=p)]
    figure = _panels(1, len(programs), [NAMES[p] for p in programs], 470, theme, shared_yaxes=True)
    keys = list(groups(rows, "family", "input_size"))
    for panel, program in enumerate(programs, start=1):
        for k, (family, size) in enumerate(keys):
            members = where(rows, program=program, family=family, input_size=size)
            for j, sweep in enumerate(groups(members, "seed").values()):
                known = [r for r in sweep if r["wide_lambda_min"] and r["train_loss"]]
                known.sort(key=lambda row: float(row["wide_lambda_min"]))
                figure.add_scatter(
                    x=column(known, "wide_lambda_min"),
                    y=column(known, "train_loss"),
                    text=[f"depth {r['depth']}, seed {r['seed']}" for r in known],
                    hovertemplate="%{text}: λ %{x:.3g}, loss %{y:.3g}",
                    **_line(k, f"{family}, {size}×{size}"),
                    showlegend=panel == 1 and j == 0,
                    opacity=0.75,
                    row=1,
                    col=panel,
                )
    figure.update_xaxes(**LOG, title_text="λ<sub>min</sub>[K<sub>S</sub>], infinite width")
    figure.update_yaxes(**LOG)
    figure.update_yaxes(title_text="target loss after training", col=1)
    return figure


def indicators_figure(tables: Tables, *, theme: Theme = "light") -> go.Figure:
    """Rank correlation of each indicator with accuracy, with intervals, in both scopes."""
    table = indicators.correlations(tables[indicators.NAME])
    scopes = list(indicators.SCOPES)
    figure = _panels(1, 2, scopes, 520, theme, shared_yaxes=True, horizontal_spacing=0.04)
    kinds = {"all": "all runs", "image": "images", "series": "series"}
    labels = list(indicators.INDICATORS.values())
    for panel, scope in enumerate(scopes, start=1):
        for k, (kind, name) in enumerate(kinds.items()):
            found = [
                r
                for r in table
                if (r["scope"], r["kind"]) == (scope, kind) and r["value"] is not None
            ]
            ends = [r["interval"] or (r["value"], r["value"]) for r in found]
            color = COLORS[theme].text if kind == "all" else PALETTE[k - 1]
            figure.add_scatter(
                x=[r["value"] for r in found],
                y=[labels.index(r["label"]) + 0.22 * (k - 1) for r in found],
                error_x={
                    "array": [high - r["value"] for r, (_, high) in zip(found, ends, strict=True)],
                    "arrayminus": [
                        r["value"] - low for r, (low, _) in zip(found, ends, strict=True)
                    ],
                    "symmetric": False,
                    "thickness": 1.5,
                    "width": 4,
                },
                text=[f"{r['label']}, {r['runs']} runs, {r['sources']} sources" for r in found],
                hovertemplate="%{text}: ρ %{x:.2f}",
                mode="markers",
                name=name,
                showlegend=panel == 1,
                marker={"color": color, "symbol": SYMBOLS[k], "size": 8},
                row=1,
                col=panel,
            )
    figure.add_vline(x=0, line={"color": COLORS[theme].faint, "width": 1.5})
    figure.update_xaxes(title_text="mean Spearman's ρ with held-out accuracy", range=[-1.05, 1.05])
    figure.update_yaxes(
        tickvals=list(range(len(labels))),
        ticktext=[_subscripts(label) for label in labels],
        range=[len(labels) - 0.5, -0.5],
        automargin=True,
    )
    return figure


def assumptions_figure(tables: Tables, *, theme: Theme = "light") -> go.Figure:
    """Both sides of Assumption 3, the gap of Proposition 1 over width, Eq. 16 and the drift."""
    rows, gaps = tables[assumptions.NAME], tables[assumptions.WIDTH]
    titles = ["Assumption 3", "Proposition 1", "Eq. 16 and lazy training"]
    figure = _panels(1, 3, titles, 470, theme, horizontal_spacing=0.09)
    kinds = list(groups(rows, "family", "depth", "trained_on"))
    labels = {kind: _source_label(*kind) for kind in kinds}
    ends: list[float] = []
    for k, kind in enumerate(kinds):
        members = where(rows, family=kind[0], depth=kind[1], trained_on=kind[2])
        known = [r for r in members if r["motion_lambda_min"] and r["source_lambda_min"]]
        style = _line(k, labels[kind]) | {"mode": "markers"}
        x, y = column(known, "source_lambda_min"), column(known, "motion_lambda_min")
        figure.add_scatter(x=x, y=y, **style, row=1, col=1)
        ends += [*x, *(value for value in y if value > 0)]
        for j, (name, label) in enumerate((("distance", "Eq. 16"), ("drift", "drift"))):
            values = [max(value, 1e-16) for value in column(members, name)]
            figure.add_scatter(
                x=[j + (k - len(kinds) / 2) * 0.09] * len(values),
                y=values,
                text=[f"{labels[kind]}, {label}"] * len(values),
                hovertemplate="%{text}: %{y:.3g}",
                **style | {"showlegend": False},
                row=1,
                col=3,
            )
    if ends:
        span = [min(ends), max(ends)]
        figure.add_scatter(
            x=span, y=span, **_dashed("equal", theme), showlegend=False, row=1, col=1
        )
    for k, (family, trained) in enumerate(groups(gaps, "family", "trained_on")):
        weights = "trained" if trained else "random"
        for j, unit in enumerate(
            groups(where(gaps, family=family, trained_on=trained), "program", "seed").values()
        ):
            style = _line(k, f"gap, {family} {weights}")
            style["line"]["width"] = 1.2
            figure.add_scatter(
                x=column(unit, "width"),
                y=column(unit, "gap"),
                **style,
                opacity=0.7,
                showlegend=j == 0,
                row=1,
                col=2,
            )
    figure.update_xaxes(type="log", exponentformat="power")
    figure.update_yaxes(type="log", exponentformat="power")
    figure.update_xaxes(title_text="λ<sub>min</sub>[K<sub>S</sub>]", col=1)
    figure.update_yaxes(title_text="smallest λ<sub>min</sub>[∇Φᵀ∇Φ] of the inputs", col=1)
    figure.update_xaxes(title_text="width of the source", col=2)
    figure.update_yaxes(title_text="relative gap of the spectra", col=2)
    figure.update_xaxes(
        type="linear",
        tickvals=[0, 1],
        ticktext=["Eq. 16 against Θ<sub>T</sub>", "drift of Θ<sub>T</sub>"],
        range=[-0.6, 1.6],
        col=3,
    )
    figure.update_yaxes(title_text="relative distance", dtick=2, col=3)
    figure.add_hline(y=RULES["spectrum_gap"], line=_dash(theme), col=2, row=1)
    figure.add_hline(y=RULES["drift"], line=_dash(theme), col=3, row=1)
    return figure


def bound_figure(tables: Tables, *, theme: Theme = "light") -> go.Figure:
    """The bound against the target risk that was measured, each run a point."""
    rows = tables[bound.NAME]
    figure = _panels(1, 1, [""], 560, theme)
    pairs = list(groups(rows, *bound.PAIR))
    programs = list(dict.fromkeys(str(row["program"]) for row in rows))
    for k, pair in enumerate(pairs):
        for j, program in enumerate(programs):
            members = [r for r in rows if tuple(r[n] for n in bound.PAIR) == pair]
            members = where(members, program=program)
            if not members:
                continue
            figure.add_scatter(
                x=column(members, "target_risk"),
                y=column(members, "bound"),
                error_y={
                    "array": np.subtract(column(members, "bound_high"), column(members, "bound")),
                    "arrayminus": np.subtract(
                        column(members, "bound"), column(members, "bound_low")
                    ),
                    "symmetric": False,
                    "thickness": 1,
                    "width": 3,
                },
                mode="markers",
                name=f"{pair[0]}, {pair[1]} → {pair[2]}, {program}".replace("ucr:", ""),
                marker={
                    "color": translucent(PALETTE[k % len(PALETTE)], 0.85),
                    "symbol": SYMBOLS[j % len(SYMBOLS)],
                    "size": 8,
                },
            )
    limit = RULES["risk"]
    span = np.linspace(0.02, limit, 60)
    figure.add_scatter(x=span, y=span, **_dashed("bound = risk", theme))
    figure.add_hline(y=limit, line=_dash(theme), layer="below")
    figure.add_annotation(
        x=limit,
        y=math.log10(limit),  # plotly places annotations on a log axis by the logarithm
        text="√2: no risk is larger",
        showarrow=False,
        xanchor="right",
        yanchor="bottom",
    )
    figure.update_xaxes(title_text="target risk after training, held-out", range=[0, limit])
    figure.update_yaxes(**LOG, title_text="bound: source risk + 2√K·W₁")
    lowest = min(0.1, *column(rows, "bound"))
    highest = max(column(rows, "bound_high"))
    figure.update_yaxes(range=[math.log10(lowest), math.log10(1.5 * highest)])
    figure.update_layout(margin={"b": 160})
    return figure


def _panels(
    rows: int, columns: int, titles: Sequence[str], height: int, theme: Theme, **options: Any
) -> go.Figure:
    from plotly.subplots import make_subplots

    figure = make_subplots(rows, columns, subplot_titles=titles, **options)
    figure.update_annotations(font={"size": 13})
    figure.update_xaxes(axis_style(theme))
    figure.update_yaxes(axis_style(theme))
    figure.update_layout(
        base_layout(theme, height)
        | {
            "margin": {"l": 64, "r": 16, "t": 36, "b": 110},
            "hovermode": "closest",
            "legend": {
                "orientation": "h",
                "x": 0,
                "yref": "container",
                "y": 0.01,
                "yanchor": "bottom",
                "bgcolor": "rgba(0,0,0,0)",
            },
        }
    )
    return figure


def _line(k: int, name: str) -> dict[str, Any]:
    color = PALETTE[k % len(PALETTE)]
    return {
        "mode": "lines+markers",
        "name": name,
        "legendgroup": name,
        "line": {"color": color, "width": 1.6, "dash": DASHES[k % len(DASHES)]},
        "marker": {"color": color, "symbol": SYMBOLS[k % len(SYMBOLS)], "size": 7},
    }


def _dash(theme: Theme) -> Mapping[str, Any]:
    return {"color": COLORS[theme].faint, "width": 1.5, "dash": "dash"}


def _dashed(name: str, theme: Theme) -> dict[str, Any]:
    return {"mode": "lines", "name": name, "line": _dash(theme), "hoverinfo": "skip"}


def _source_label(family: str, depth: int, trained: str | None) -> str:
    if family == assumptions.REGIME:
        return family
    return f"{family} {depth}, {'trained' if trained else 'random'}"


def _subscripts(text: str) -> str:
    return text.replace("_min", "<sub>min</sub>").replace("_T", "<sub>T</sub>")
