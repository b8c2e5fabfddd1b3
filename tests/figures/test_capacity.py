"""The capacity figure: what is drawn at each capacity, and what is never made to look resolved."""

import dataclasses
import re

import numpy as np
import pytest
import torch

import mrviz
from mrviz.figures import capacity_figure
from mrviz.figures.theme import COLORS

QUIET = {"progress": False}
PREDICTED = {1: 0.2, 3: 0.35, 4: float("nan")}


def swept(reduce="full", program="border", n=8):
    source = mrviz.load_source("dnn", depth=2, width=128, input_size=16)
    target = mrviz.load_target("digits", n_train=80, n_test=20, seed=0)
    model = mrviz.reprogram(source, target, program=program)
    x = target.x_train[:n]
    return mrviz.capacity_sweep(model, x, reduce=reduce, dtype=torch.float64, **QUIET)


@pytest.fixture(scope="module")
def sweep():
    """Widths 1 to 4 with 60 to 192 parameters for 80 rows: λ_min is exactly zero at 1 only."""
    found = swept()
    assert [info.n_parameters for info in found.infos] == [60, 112, 156, 192]
    assert [spec.full_rank for spec in found.spectra] == [False, True, True, True]
    return found


def with_spectra(sweep, values, epsilon=1e-7, **changes):
    """The same sweep with other eigenvalues, those of diagonal matrices."""
    spectra = tuple(
        mrviz.spectrum(torch.diag(torch.tensor(v, dtype=torch.float64)), epsilon=epsilon)
        for v in values
    )
    return dataclasses.replace(sweep, spectra=spectra, **changes)


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def parts(figure):
    """Traces of the λ_min panel, without the ring: floor, resolved, unresolved."""
    return [t for t in figure.data if t.yaxis is None and t.name != "current capacity"]


def test_each_panel_shows_its_quantity_at_its_capacities(sweep):
    figure = capacity_figure(sweep, predicted=PREDICTED)
    floor, resolved, unresolved = parts(figure)
    assert list(floor.y) == [spec.floor for spec in sweep.spectra]
    assert list(resolved.y[1:]) == [spec.smallest for spec in sweep.spectra[1:]]
    assert np.isnan(resolved.y[0]) and list(unresolved.x) == [1]
    (rank,) = named(figure, "effective rank")
    assert list(rank.x) == [1, 2, 3, 4] and rank.yaxis == "y2"
    assert list(rank.y) == [spec.effective_rank for spec in sweep.spectra]
    (accuracy,) = named(figure, "predicted held-out accuracy")
    assert list(accuracy.x) == [1, 3] and list(accuracy.y) == [0.2, 0.35]
    assert accuracy.yaxis == "y3" and figure.layout.xaxis.anchor == "y3"
    assert figure.layout.xaxis.title.text == "trainable frame width (pixels)"
    assert figure.layout.xaxis.dtick == 1 and figure.layout.yaxis.type == "log"
    assert "λ<sub>min</sub> = " in resolved.text[1] and "p = 112" in resolved.text[1]


def test_too_few_parameters_are_called_exactly_zero(sweep):
    *_, unresolved = parts(capacity_figure(sweep))
    assert list(unresolved.y) == [sweep[1].floor]
    (text,) = unresolved.text
    assert "exactly zero: p < nC = 80" in text and "p = 60" in text
    assert unresolved.marker.color == "rgba(0,0,0,0)"


def test_enough_parameters_can_still_leave_a_real_kernel_unresolved():
    *_, unresolved = parts(capacity_figure(swept(n=10)))
    says = ["exactly zero: p < nC = 100", *["not resolved: below the noise floor"] * 3]
    assert list(unresolved.x) == [1, 2, 3, 4]
    assert all(words in text for words, text in zip(says, unresolved.text, strict=True))


def test_exactly_zero_holds_even_where_round_off_is_above_the_floor(sweep):
    values = [[4.0, *[1e-3] * 79]] * 4
    _, resolved, unresolved = parts(capacity_figure(with_spectra(sweep, values)))
    assert list(unresolved.x) == [1] and np.isnan(resolved.y[0])


@pytest.mark.parametrize(
    ("reduce", "order", "says"),
    [
        ("sum", 70, "exactly zero: p < n = 70"),
        (3, 70, "exactly zero: p < n = 70"),
        ("trace", 70, "not resolved: below the noise floor"),  # its rank is up to p·C
    ],
)
def test_the_bound_on_the_rank_is_that_of_the_reduction(sweep, reduce, order, says):
    changed = with_spectra(sweep, [[4.0, *[0.0] * (order - 1)]] * 4, reduce=reduce)
    *_, unresolved = parts(capacity_figure(changed))
    assert says in unresolved.text[0]
    assert "not resolved: below the noise floor 2.8e-05" in unresolved.text[1]


def test_a_trace_kernel_with_few_parameters_can_be_resolved():
    found = swept("trace", n=70)
    assert found.infos[0].n_parameters < found.spectra[0].order and found.spectra[0].full_rank
    _, resolved, unresolved = parts(capacity_figure(found))
    assert np.isfinite(resolved.y).all() and not len(unresolved.x)


def test_what_is_not_resolved_never_looks_like_a_value(sweep):
    values = [[3.0, 0.0], [3.0, 1e-12], [3.0, -1e-12], [3.0, 1.0]]
    changed = with_spectra(sweep, values)
    _, resolved, unresolved = parts(capacity_figure(changed))
    assert np.flatnonzero(np.isfinite(resolved.y)).tolist() == [3]
    assert list(unresolved.x) == [1, 2, 3]
    assert list(unresolved.y) == [changed[c].floor for c in (1, 2, 3)]
    assert all("not resolved: below the noise floor 6e-07" in text for text in unresolved.text)
    assert unresolved.name == "λ<sub>min</sub> not resolved or zero"
    assert unresolved.showlegend is True


def test_a_kernel_of_zeros_is_drawn_and_named(sweep):
    changed = with_spectra(sweep, [[0.0, 0.0]] * 2 + [[2.0, 1.0]] * 2)
    figure = capacity_figure(changed)
    *_, unresolved = parts(figure)
    assert (unresolved.y > 0).all() and all("Θ = 0" in text for text in unresolved.text)
    (rank,) = named(figure, "effective rank")
    assert list(rank.y[:2]) == [0, 0]
    every = capacity_figure(with_spectra(sweep, [[0.0, 0.0]] * 4))
    assert np.isfinite(every.layout.yaxis.range).all()


def test_everything_is_inside_the_axes(sweep):
    values = [[3.0, 0.0], [3.0, 1e-3], [3e4, 2e4], [1e5, 1e5]]
    for found in (sweep, with_spectra(sweep, values)):
        layout = capacity_figure(found, current=4).layout
        for trace in capacity_figure(found, current=4).data:
            low, high = layout.yaxis.range if trace.yaxis is None else layout.yaxis2.range
            y = trace.y[np.isfinite(trace.y)]
            y = np.log10(y) if trace.yaxis is None else y
            assert (low <= y).all() and (y <= high).all()
            assert (layout.xaxis.range[0] < trace.x).all()
            assert (trace.x < layout.xaxis.range[1]).all()


@pytest.mark.parametrize("predicted", [None, {}, {2: float("nan")}])
def test_without_predictions_two_panels_take_the_room(sweep, predicted):
    figure = capacity_figure(sweep, predicted=predicted, chance=0.1)
    assert not [t for t in figure.data if t.yaxis == "y3"] and not figure.layout.annotations
    assert "yaxis3" not in figure.layout.to_plotly_json()
    assert figure.layout.xaxis.anchor == "y2"
    three = capacity_figure(sweep, predicted=PREDICTED).layout
    for name in ("yaxis", "yaxis2"):
        assert np.ptp(figure.layout[name].domain) > np.ptp(three[name].domain)


def test_the_current_capacity_is_marked_in_every_panel_that_has_it(sweep):
    figure = capacity_figure(sweep, predicted=PREDICTED, current=3)
    rings = named(figure, "current capacity")
    assert [ring.yaxis for ring in rings] == [None, "y2", "y3"]
    assert [ring.y[0] for ring in rings] == [sweep[3].smallest, sweep[3].effective_rank, 0.35]
    assert all(list(ring.x) == [3] for ring in rings)
    assert [ring.showlegend for ring in rings] == [True, False, False]
    (line,) = figure.layout.shapes
    assert (line.x0, line.x1, line.yref, line.y0, line.y1) == (3, 3, "paper", 0, 1)

    unresolved = named(capacity_figure(sweep, predicted=PREDICTED, current=1), "current capacity")
    assert unresolved[0].y[0] == sweep[1].floor
    elsewhere = named(capacity_figure(sweep, predicted={1: 0.5}, current=2), "current capacity")
    assert [ring.yaxis for ring in elsewhere] == [None, "y2"]
    outside = capacity_figure(sweep, current=9)
    assert not named(outside, "current capacity") and outside.layout.xaxis.range[1] > 9


def test_rings_do_not_take_the_hover_and_click_from_the_markers(sweep):
    figure = capacity_figure(sweep, predicted=PREDICTED, current=2)
    for trace in figure.data:
        decoration = trace.name in ("current capacity", "noise floor")
        assert (trace.hoverinfo == "skip") == decoration
        assert bool(trace.hovertemplate) == (not decoration)


def test_chance_is_a_line_with_a_label(sweep):
    figure = capacity_figure(sweep, predicted=PREDICTED, chance=0.1)
    (line,) = figure.layout.shapes
    assert (line.yref, line.y0, line.y1, line.line.dash) == ("y3", 0.1, 0.1, "dot")
    (label,) = figure.layout.annotations
    assert (label.text, label.yref, label.y) == ("chance 10%", "y3", 0.1)


@pytest.mark.parametrize("sweep_at_hand", [None, "empty"])
def test_without_a_sweep_there_is_a_message(sweep, sweep_at_hand):
    if sweep_at_hand:
        sweep_at_hand = dataclasses.replace(sweep, capacities=(), spectra=(), infos=())
    figure = capacity_figure(sweep_at_hand, predicted=PREDICTED, current=2, message="None here")
    (note,) = figure.layout.annotations
    assert not figure.data and (note.text, note.x, note.y) == ("None here", 0.5, 0.5)
    assert figure.layout.xaxis.visible is figure.layout.yaxis.visible is False


def test_a_single_capacity_and_a_long_range(sweep):
    one = dataclasses.replace(
        sweep, capacities=(2,), spectra=sweep.spectra[1:2], infos=sweep.infos[1:2]
    )
    low, high = capacity_figure(one).layout.xaxis.range
    assert low < 2 < high
    long = swept(program="low_rank")
    figure = capacity_figure(long)
    assert len(long.capacities) == 64 and figure.layout.xaxis.dtick is None
    assert parts(figure)[1].marker.size < parts(capacity_figure(sweep))[1].marker.size


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_themes_and_types(sweep, theme):
    figure = capacity_figure(
        sweep, predicted=PREDICTED, current=1, chance=0.1, theme=theme, height=500
    )
    assert figure.layout.font.color == COLORS[theme].text and figure.layout.height == 500
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    for trace in figure.data:
        assert trace.type == "scatter"
        assert trace.x.dtype == np.int32 and trace.y.dtype == np.float64
    text = figure.to_json()
    assert "$" not in "".join(t.name for t in figure.data)
    found = re.findall(r'"(?:\w*color)":"([^"]+)"', text)
    valid = re.compile(r"#[0-9A-Fa-f]{6}$|white$|rgba?\([\d., ]+\)$")
    assert found and [c for c in found if not valid.match(c)] == []


def test_mean_squared_errors_in_place_of_accuracies(sweep):
    errors = {1: 4.0, 3: 0.02, 4: float("nan")}
    figure = capacity_figure(sweep, predicted=errors, measure="mean squared error", current=3)
    (outcome,) = named(figure, "predicted held-out mean squared error")
    assert list(outcome.x) == [1, 3] and list(outcome.y) == [4.0, 0.02]
    axis = figure.layout.yaxis3
    assert axis.title.text == "predicted<br>MSE" and axis.range[0] == 0 and axis.range[1] > 4
    assert axis.tickformat is None and "%}" not in outcome.hovertemplate
