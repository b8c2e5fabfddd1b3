"""The learning figure: what is predicted, what is measured, and axes that stand still."""

import dataclasses

import numpy as np
import pytest

import mrviz
from mrviz.figures import learning_figure
from mrviz.figures.theme import COLORS, PALETTE
from mrviz.programs.fit import Measurement

QUIET = {"progress": False}
EVERY = (
    "predicted, training",
    "predicted, held-out",
    "measured, training",
    "measured, held-out",
)


@pytest.fixture(scope="module")
def task():
    source = mrviz.load_source("dnn", depth=2, width=64, input_size=12)
    target = mrviz.load_target("digits", n_train=20, n_test=40, seed=0)
    return mrviz.reprogram(source, target, program="linear"), target


@pytest.fixture(scope="module")
def results(task):
    """A predicted trajectory and the record of the training that was predicted."""
    model, target = task
    prediction = mrviz.predict_training(model, target, steps=40, **QUIET)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    fit = mrviz.train(model, target, **prediction.train_options, **QUIET)
    model.load_state_dict(start)
    return prediction.trajectory, fit.history


@pytest.fixture(scope="module")
def diverging(task):
    model, target = task
    stable = mrviz.predict_training(model, target, loss="squared", steps=1, **QUIET).stable_step
    found = mrviz.predict_training(
        model, target, loss="squared", lr=50 * stable, steps=300, **QUIET
    ).trajectory
    assert found.diverged is not None
    return found


def curves(figure, axis=None):
    return {trace.name: trace for trace in figure.data if (trace.yaxis or "y") == (axis or "y")}


def measured(losses, accuracies=None):
    shares = accuracies or [None] * len(losses)
    pairs = enumerate(zip(losses, shares, strict=True))
    return [Measurement(5 * k, v, a, v, a) for k, (v, a) in pairs]


def test_predicted_and_measured_curves_are_what_was_given(results):
    trajectory, history = results
    figure = learning_figure(trajectory, history)
    loss, accuracy = curves(figure), curves(figure, "y2")
    assert tuple(loss) == tuple(accuracy) == EVERY
    assert tuple(loss["predicted, training"].y) == trajectory.train_loss
    assert tuple(loss["predicted, held-out"].y) == trajectory.test_loss
    assert tuple(accuracy["predicted, training"].y) == trajectory.train_accuracy
    assert tuple(accuracy["predicted, held-out"].y) == trajectory.test_accuracy
    assert list(loss["measured, training"].y) == [m.train_loss for m in history]
    assert list(loss["measured, held-out"].y) == [m.test_loss for m in history]
    assert list(accuracy["measured, training"].y) == [m.train_accuracy for m in history]
    assert list(accuracy["measured, held-out"].y) == [m.test_accuracy for m in history]
    for panel in (loss, accuracy):
        for name, trace in panel.items():
            steps = trajectory.steps if "predicted" in name else [m.step for m in history]
            assert list(trace.x) == list(steps)


def test_looks_tell_curves_apart_and_each_is_in_the_legend_once(results):
    figure = learning_figure(*results)
    assert [t.name for t in figure.data if t.showlegend] == list(EVERY)
    assert all(trace.legendgroup == trace.name for trace in figure.data)
    for trace in figure.data:
        assert trace.line.color == PALETTE["held-out" in trace.name]
        if "predicted" in trace.name:
            assert trace.mode == "lines" and trace.line.dash is None
        else:
            assert "markers" in trace.mode and trace.line.dash == "dot"
        assert "step %{x}" in trace.hovertemplate and "%{y" in trace.hovertemplate
    widths = {t.name: t.line.width for t in figure.data}
    assert widths["predicted, held-out"] > widths["predicted, training"]


def test_axes_stand_still_while_training_runs(results):
    trajectory, history = results
    assert len(history) > 20
    layouts = [learning_figure(trajectory, history[:k]).layout for k in range(len(history) + 1)]
    assert len({layout.xaxis.range for layout in layouts}) == 1
    assert len({layout.yaxis2.range for layout in layouts}) == 1
    assert len({layout.yaxis.range for layout in layouts}) <= 2
    low, high = layouts[0].xaxis.range
    assert low < 0 and trajectory.steps[-1] < high < 1.1 * trajectory.steps[-1]
    low, high = layouts[0].yaxis2.range
    assert -0.05 < low <= 0 and 1 <= high < 1.05


def test_without_a_prediction_the_steps_end_at_a_round_number():
    ends = {
        learning_figure(None, measured([2.0] * k)).layout.xaxis.range[1] / 1.02
        for k in range(2, 30)
    }
    assert len(ends) < 15 and all(end.is_integer() for end in ends)
    assert all(
        learning_figure(None, measured([2.0] * k)).layout.xaxis.range[1] > 5 * (k - 1)
        for k in range(1, 30)
    )


def test_training_that_goes_on_beyond_the_prediction_is_shown(results):
    trajectory, history = results
    longer = [*history, dataclasses.replace(history[-1], step=73)]
    assert learning_figure(trajectory, longer).layout.xaxis.range[1] > 73


@pytest.mark.parametrize(
    ("losses", "kind", "ends"),
    [
        ([2.3, 0.5], None, (0.5, 2.5)),
        ([2.3, 2.21], None, (2.2, 2.3)),
        ([3.0, 0.15], None, (0, 3)),
        ([3.0, 0.1], "log", (-1, 1)),
        ([300.0, 0.002], "log", (-3, 3)),
        ([3.0, 0.0], None, (0, 3)),
        ([3.0, float("inf"), 2.0], None, (2, 3)),
        ([float("nan")], None, (0, 1)),
        ([0.7], None, (0.6, 0.8)),
    ],
)
def test_the_loss_axis(losses, kind, ends):
    axis = learning_figure(None, measured(losses)).layout.yaxis
    assert axis.type == kind and axis.range == pytest.approx(ends)


def test_ticks_of_a_short_log_axis_are_plain_numbers():
    axis = learning_figure(None, measured([3.0, 0.1])).layout.yaxis
    assert axis.tickvals == pytest.approx([0.1, 0.2, 0.5, 1, 2, 5, 10])
    assert axis.tickformat == "~g" and axis.dtick is None
    assert learning_figure(None, measured([300.0, 0.002])).layout.yaxis.dtick == 1


def test_values_that_are_not_finite_are_gaps():
    history = measured([3.0, float("inf"), float("nan"), 2.0], [0.1, None, float("nan"), 0.4])
    figure = learning_figure(None, history)
    for axis in (None, "y2"):
        y = curves(figure, axis)["measured, training"].y
        assert np.isnan(y).tolist() == [False, True, True, False]
        assert curves(figure, axis)["measured, training"].connectgaps is None


def test_without_accuracies_the_loss_takes_all_room(results):
    trajectory, history = results
    bare = dataclasses.replace(trajectory, train_accuracy=None, test_accuracy=None)
    real_valued = [dataclasses.replace(m, train_accuracy=None, test_accuracy=None) for m in history]
    figure = learning_figure(bare, real_valued)
    assert tuple(curves(figure)) == EVERY and not curves(figure, "y2")
    layout = figure.layout
    assert layout.yaxis.domain == (0, 1) and layout.xaxis.anchor == "y"
    assert "yaxis2" not in layout.to_plotly_json()
    with_both = learning_figure(trajectory).layout
    assert with_both.yaxis.domain[0] > with_both.yaxis2.domain[1]


def test_without_held_out_samples_only_training_is_predicted(results):
    bare = dataclasses.replace(results[0], test_loss=None, test_accuracy=None, test_outputs=None)
    figure = learning_figure(bare)
    assert [t.name for t in figure.data] == ["predicted, training"] * 2


def test_a_prediction_that_diverges_says_where(diverging):
    figure = learning_figure(diverging)
    (line,), (label,) = figure.layout.shapes, figure.layout.annotations
    assert line.x0 == line.x1 == diverging.diverged < figure.layout.xaxis.range[1]
    assert label.text == f"predicted to diverge by step {diverging.diverged}"
    assert np.isfinite(figure.layout.yaxis.range).all() and figure.layout.yaxis.type == "log"


def test_nothing_to_draw_is_a_message():
    figure = learning_figure(None, message="Not computed yet")
    (note,) = figure.layout.annotations
    assert not figure.data and note.text == "Not computed yet"
    assert figure.layout.xaxis.visible is False


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_themes_and_types(results, theme):
    figure = learning_figure(*results, theme=theme, height=500)
    assert figure.layout.font.color == COLORS[theme].text and figure.layout.height == 500
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    for trace in figure.data:
        assert trace.type == "scatter"
        assert trace.x.dtype == np.int32 and trace.y.dtype == np.float64


def test_references_are_level_lines_within_the_axis(results):
    trajectory, history = results
    highest = max(*trajectory.train_loss, *trajectory.test_loss)
    levels = {"source alone": 3 * highest, "naive rule": 0.5 * highest}
    figure = learning_figure(trajectory, history, references=levels)
    lines = {t.name: t for t in figure.data if t.name.startswith("held-out, ")}
    assert list(lines) == ["held-out, source alone", "held-out, naive rule"]
    for name, loss in levels.items():
        line = lines[f"held-out, {name}"]
        assert list(line.y) == [loss, loss] and list(line.x) == [0, trajectory.steps[-1]]
        assert line.showlegend is not False and line.yaxis == "y"
    top = figure.layout.yaxis.range[1]
    assert (10**top if figure.layout.yaxis.type == "log" else top) >= 3 * highest
    looks = {(line.line.color, line.line.dash) for line in lines.values()}
    assert len(looks) == 2 and not {t.line.color for t in figure.data[:2]} & {c for c, _ in looks}
    plain = learning_figure(trajectory, history)
    assert [t.name for t in plain.data] == [t.name for t in figure.data if t.name not in lines]
