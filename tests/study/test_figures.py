"""Figures of studies and rankings: what is drawn, and what is said about it."""

import numpy as np
import pytest

import mrviz
from mrviz.figures.study import correlation_figure, depth_figure, ranking_figure
from mrviz.figures.theme import COLORS, PALETTE
from mrviz.study import correlate
from mrviz.theory.ranking import Candidate, Ranking


def made(n=12, **more):
    rng = np.random.default_rng(0)
    return [
        {
            "leep": float(x),
            "test_accuracy": 0.5 + 0.1 * float(x) + 0.02 * float(rng.normal()),
            "program": "border" if k % 2 else "linear",
            "source": "dnn",
            "depth": 1 + k % 3,
            "seed": k,
            **more,
        }
        for k, x in enumerate(rng.normal(size=n))
    ]


def ranking():
    rows = (
        Candidate("linear", 0.8, (0.7, 0.87), True, 0.5, parameters=1000, seconds=1.0),
        Candidate("overlay", 0.3, (0.2, 0.4), False, 2.0, parameters=64, seconds=1.0),
        Candidate("border", error="InputError: " + "no frame " * 30),
    )
    return Ranking(rows, "program", {"loss": "cross_entropy"}, 3.0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_scatter_with_its_line_and_correlation(theme):
    rows = [*made(), {"leep": None, "test_accuracy": 0.4}, {"leep": 1.0, "test_accuracy": None}]
    figure = correlation_figure(rows, "leep", theme=theme)
    *groups, line = figure.data
    assert [g.name for g in groups] == ["linear", "border"]
    assert sum(len(g.x) for g in groups) == 12
    assert groups[0].marker.symbol != groups[1].marker.symbol  # never by colour alone
    slope, height = np.polyfit(*np.array([[r["leep"], r["test_accuracy"]] for r in rows[:12]]).T, 1)
    assert list(line.y) == pytest.approx([height + slope * x for x in line.x])
    item = correlate(rows, ["leep"], ["test_accuracy"])["leep", "test_accuracy"]
    assert figure.layout.title.text == f"Spearman: {item.describe()}"
    assert figure.layout.font.color == COLORS[theme].text


def test_logarithmic_axis_and_a_correlation_of_ones_own():
    rows = [{"T2_value": 10.0**-k, "test_accuracy": 0.9 - 0.1 * k} for k in range(5)]
    rows.append({"T2_value": 0.0, "test_accuracy": 0.1})
    item = correlate(rows, ["T2_value"], ["test_accuracy"], method="kendall", bootstrap=9)
    item = item["T2_value", "test_accuracy"]
    figure = correlation_figure(rows, "T2_value", correlation=item, log_x=True)
    points, line = figure.data
    assert len(points.x) == 5 and "1 not positive, not drawn" in figure.layout.title.text
    assert figure.layout.title.text.startswith(f"Kendall: {item.describe()}")
    assert list(line.x) == pytest.approx([1e-4, 1]) and list(line.y) == pytest.approx([0.5, 0.9])
    with pytest.raises(mrviz.InputError, match="not of leep"):
        correlation_figure(made(), "leep", correlation=item)


def test_a_constant_indicator_has_no_line_and_is_called_undefined():
    rows = made(6, leep=1.0)
    figure = correlation_figure(rows, "leep")
    assert all(trace.name != "least squares" for trace in figure.data)
    assert "undefined" in figure.layout.title.text


def test_ranking_has_bars_with_intervals_and_reasons():
    figure = ranking_figure(ranking())
    best, below = figure.data
    assert list(best.y) == ["1. linear"] and list(below.y) == ["2. overlay"]
    assert best.error_x.array[0] == pytest.approx(0.07)
    assert best.error_x.arrayminus[0] == pytest.approx(0.1)
    assert (best.marker.pattern.shape or "") != below.marker.pattern.shape
    (note,) = figure.layout.annotations
    assert note.y == "3. border" and note.text.startswith("failed: InputError")
    assert len(note.text) < 110
    assert list(figure.layout.yaxis.categoryarray)[-1] == "1. linear"
    assert ranking_figure(Ranking((), "source", {}, 0.0)).layout.height > 100


def test_depth_curves_are_mean_and_spread():
    rows = [
        {"depth": d, "test_accuracy": v, "source": "cnn", "program": p, "seed": s}
        for p, shift in (("border", 0.0), ("linear", 0.2))
        for d in (3, 1)
        for s, v in enumerate((0.1 * d + shift, 0.1 * d + 0.1 + shift))
    ]
    rows += [{**rows[0], "depth": 6}, {**rows[0], "depth": None}]
    figure = depth_figure(rows)
    band, curve, _, other = figure.data
    assert curve.name == "cnn · border" and other.name == "cnn · linear"
    assert list(curve.x) == [1, 3, 6] and list(curve.y) == pytest.approx([0.15, 0.35, 0.3])
    spread, counts = np.array(curve.customdata).T
    assert spread == pytest.approx([np.std([0, 0.1], ddof=1)] * 2 + [0])
    assert list(counts) == [2, 2, 1]
    assert list(band.y[:3]) == pytest.approx(list(np.array(curve.y) + spread))
    assert curve.line.color == PALETTE[0] and other.line.color == PALETTE[1]
    assert curve.line.dash != other.line.dash
    assert figure.layout.xaxis.dtick == 1
    assert not depth_figure([]).data


def test_widths_stand_on_a_log_axis_with_a_tick_each():
    rows = [
        {"width": width, "drift": 0.1 * seed, "trained": "weights", "seed": seed}
        for width in (16, 64, 256, 0)
        for seed in range(2)
    ]
    figure = depth_figure(rows, "drift", x="width", by=["trained"], log_x=True)
    assert list(figure.data[1].x) == [16, 64, 256]
    assert figure.layout.xaxis.type == "log"
    assert list(figure.layout.xaxis.tickvals) == [16, 64, 256]
    assert list(figure.layout.xaxis.ticktext) == ["16", "64", "256"]
