"""Figures of the paper's study: what is drawn is what the tables hold."""

import json

import pytest

pytest.importorskip("plotly")

from mrviz.figures.paper import (
    bound_figure,
    indicators_figure,
    kernels_figure,
    loss_figure,
    paper_figures,
)
from mrviz.paper import indicators, kernels
from mrviz.paper.tables import where


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_there_is_a_figure_for_each_question(rows, theme):
    figures = paper_figures(rows, theme=theme)
    assert list(figures) == [1, 2, 3, 4, 5, 6]
    for figure in figures.values():
        assert len(figure.data) > 0 and figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
        assert "NaN" not in json.dumps(figure.layout.to_plotly_json())
        shown = [trace.name for trace in figure.data if trace.showlegend is not False]
        assert len(set(shown)) == len(shown), "an entry twice in the legend"


def test_questions_without_rows_have_no_figure(rows):
    assert list(paper_figures({**rows, "depth": [], "bound": []})) == [1, 4, 5]


def test_curves_are_the_means_over_the_draws(rows):
    figure = kernels_figure(rows)
    members = where(rows["kernels"], family="dnn", kind="empirical", weight_seed=2)
    curve = kernels.means(members)
    drawn = [t for t in figure.data if t.name == "dnn, digits" and t.xaxis == "x2"]
    assert len(drawn) == 3
    assert any(tuple(t.y) == tuple(curve.values()) for t in drawn)


def test_the_loss_is_drawn_against_the_smallest_eigenvalue(rows):
    figure = loss_figure(rows)
    points = {(x, y) for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True)}
    wanted = {
        (row["wide_lambda_min"], row["train_loss"]) for row in rows["depth"] if row["train_loss"]
    }
    assert points == wanted


def test_correlations_are_drawn_with_their_ends(rows):
    figure = indicators_figure(rows)
    table = indicators.correlations(rows["indicators"])
    found = [
        r
        for r in table
        if (r["scope"], r["kind"]) == ("within one source", "all") and r["value"] is not None
    ]
    trace = next(t for t in figure.data if t.name == "all runs" and t.xaxis == "x")
    assert list(trace.x) == [r["value"] for r in found]
    ends = [r["interval"] for r in found]
    for k, interval in enumerate(ends):
        if interval:
            assert trace.x[k] + trace.error_x.array[k] == pytest.approx(interval[1])
            assert trace.x[k] - trace.error_x.arrayminus[k] == pytest.approx(interval[0])


def test_every_run_of_the_bound_is_a_point(rows):
    figure = bound_figure(rows)
    points = [
        pair
        for trace in figure.data
        if trace.mode == "markers"
        for pair in zip(trace.x, trace.y, strict=True)
    ]
    assert sorted(points) == sorted((r["target_risk"], r["bound"]) for r in rows["bound"])
