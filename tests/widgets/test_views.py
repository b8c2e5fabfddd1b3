"""The Explorer's views: what each computes, shows, exports and reproduces as code."""

import csv
import importlib.util
import io
import json
import threading

import plotly.graph_objects as go
import pytest
import torch

import mrviz
from mrviz.errors import InputError
from mrviz.experiment import Experiment
from mrviz.programs import compare_forecasts
from mrviz.theory import gram_factors, source_report
from mrviz.widgets.views import learning as learning_module
from mrviz.workbench import Schedule, Workbench
from tests.widgets.conftest import LONG, SMALL, WIDE, button, html, live, plain, ready, status, tree

VIEWS = ("spectrum", "capacity", "learning", "gram", "source", "program", "mapping")
TRAINED = {**SMALL, "trained_on": "digits", "input_size": 16}


def field(explorer, description):
    (found,) = (p for p in tree(explorer.widget) if getattr(p, "description", "") == description)
    return found


def rows(explorer):
    return list(csv.DictReader(io.StringIO(explorer._export("CSV")[2])))


def verdict(explorer, condition):
    return explorer.results.conditions[condition].status


def rebuilt(experiment):
    """Model, target and inputs from the code that the Explorer gives."""
    scope = {}
    exec(compile(experiment.code(), "copied", "exec"), scope)
    return scope


def run_code(explorer):
    """Runs what Copy code gives; the names it leaves."""
    scope = {}
    exec(compile(explorer._bridge.code, "copied", "exec"), scope)
    return scope


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_opens_exports_and_gives_code_that_runs(opened, view, capsys):
    explorer = ready(opened(**WIDE, view=view))
    assert explorer.view == view and "data-status='ready'" in status(explorer)
    shown = explorer.snapshot()
    assert type(shown) is go.Figure and len(shown.data) > 0
    assert [t.type for t in live(explorer).data] == [t.type for t in shown.data]
    assert len(rows(explorer)) > 0
    assert explorer._export("CSV")[0] == f"{view}.csv"
    found = json.loads(explorer._export("JSON")[2])
    assert found["current"]["experiment"]["source"] == "dnn"
    assert view == "spectrum" or found[view]
    assert "Plotly.newPlot" in explorer._export("HTML")[2]
    assert explorer.details is not None
    run_code(explorer)
    assert capsys.readouterr().out


def test_views_can_be_changed_by_name_and_by_button(opened):
    explorer = ready(opened(**WIDE))
    for view in (*VIEWS, *VIEWS[::-1]):
        explorer.view = view
        assert ready(explorer).view == view
        shown = explorer.snapshot()
        assert plain(live(explorer)) == plain(shown)
    with pytest.raises(InputError, match="'spectrum'"):
        explorer.view = "spektrum"
    with pytest.raises(InputError, match="view"):
        opened(**SMALL, view="nothing")


def test_pins_are_shown_with_the_spectrum_only(opened):
    explorer = ready(opened(**WIDE))
    explorer.pin("kept")
    pins = explorer._pins.box
    explorer.view = "gram"
    assert pins.layout.display == "none"
    explorer.view = "spectrum"
    assert ready(explorer) and pins.layout.display is None
    assert len(live(explorer).data) == 6


# --- capacity -------------------------------------------------------------------------------


def test_capacity_shows_every_capacity_as_the_library_finds_it(opened):
    explorer = ready(opened(**WIDE, view="capacity"))
    sweep, predicted = explorer.details["sweep"], explorer.details["predicted_accuracy"]
    scope = rebuilt(explorer.experiment)
    expected = mrviz.capacity_sweep(scope["model"], scope["x"], progress=False)
    assert sweep.capacities == expected.capacities == (1, 2, 3, 4)
    for mine, theirs in zip(sweep.spectra, expected.spectra, strict=True):
        assert torch.allclose(mine.eigenvalues, theirs.eigenvalues, atol=theirs.floor)
    schedule = Schedule()
    for capacity in sweep.capacities:
        scope["model"].capacity = capacity
        found = mrviz.predict_training(
            scope["model"],
            scope["target"],
            n=20,
            n_test=schedule.n_test,
            steps=schedule.steps,
            progress=False,
        )
        assert predicted[capacity] == pytest.approx(found.accuracy, abs=1.01 / schedule.n_test)
    assert [int(row["capacity"]) for row in rows(explorer)] == [1, 2, 3, 4]


def test_a_click_goes_to_the_capacity(opened):
    explorer = ready(opened(**WIDE, view="capacity"))
    explorer._point_clicked(2.0)
    assert ready(explorer).capacity == 2 == explorer.results.experiment.capacity
    explorer.view = "spectrum"
    explorer._point_clicked(1.0)
    assert ready(explorer).capacity == 2  # a mode is no choice


def test_a_program_without_capacity_says_so(opened):
    explorer = ready(opened(**SMALL, program="overlay", view="capacity"))
    assert "no capacity" in explorer.snapshot().layout.annotations[0].text
    assert explorer.details is None and "data-status='ready'" in status(explorer)


# --- learning curve -------------------------------------------------------------------------


def test_the_prediction_and_the_real_training_on_top_of_it(opened):
    explorer = ready(opened(**SMALL, view="learning"))
    conditions = explorer.results.conditions
    assert conditions["T7"].value is not None and conditions["T12"].value is None
    before = len(live(explorer).data)
    field(explorer, "Steps").value = 12
    ready(explorer)
    prediction = explorer.details["prediction"]
    assert prediction.settings["steps"] == 12 and "fit" not in explorer.details
    button(explorer, "Train").click()
    ready(explorer)
    fit, drift = explorer.details["fit"], explorer.details["drift"]
    assert fit.settings["steps"] == 12 and fit.settings["lr"] == prediction.lr
    assert len(live(explorer).data) >= before
    assert verdict(explorer, "T12") in ("holds", "fails")
    assert f"{drift.relative:.2g}" in html(explorer)
    scope = rebuilt(explorer.experiment)
    expected = mrviz.train(scope["model"], scope["target"], **prediction.train_options)
    assert fit.test_loss[-1] == pytest.approx(expected.test_loss[-1], rel=1e-4)
    kinds = {row["kind"] for row in rows(explorer)}
    assert kinds == {"predicted", "measured"}


def test_training_is_shown_live_and_stays_after_cancel(opened, monkeypatch):
    explorer = ready(opened(**SMALL, view="learning"))
    monkeypatch.setattr(learning_module, "INTERVAL", 0.0)
    field(explorer, "Steps").value = 5000
    assert ready(explorer)
    drawn, enough = [], threading.Event()
    show = explorer._display

    def seen(result, flag, wanted=None):
        show(result, flag, wanted)
        drawn.append(sum(len(trace.x) for trace in live(explorer).data if "measured" in trace.name))
        if len(set(drawn)) >= 4:
            enough.set()

    monkeypatch.setattr(explorer, "_display", seen)
    button(explorer, "Train").click()
    assert enough.wait(LONG)
    button(explorer, "Cancel").click()
    assert explorer.wait(LONG)
    assert "Cancelled" in status(explorer)
    kept = [row for row in rows(explorer) if row["kind"] == "measured"]
    assert len(kept) > 1 and int(kept[-1]["step"]) < 5000
    assert "fit" not in explorer.details
    button(explorer, "Compute").click()
    assert ready(explorer) and "fit" not in explorer.details  # nobody asked for it again


def test_a_step_above_the_stable_one_is_said_to_be_unstable(opened):
    explorer = ready(opened(**SMALL, view="learning"))
    field(explorer, "Loss").value = "squared"
    field(explorer, "Step size").value = 4.0
    ready(explorer)
    assert "unstable" in html(explorer)
    field(explorer, "Optimizer").value = "adam"
    assert ready(explorer) and field(explorer, "Step size").disabled
    assert "approximation" in html(explorer)


def test_the_kernel_of_one_class_cannot_predict_and_says_so(opened):
    explorer = ready(opened(**SMALL, reduce=3, view="learning"))
    assert "data-status='ready'" in status(explorer)
    assert "class 3 alone" in explorer.snapshot().layout.annotations[0].text
    explorer.view = "capacity"
    assert ready(explorer).details["predicted_accuracy"] == {}
    assert "class 3 alone" in html(explorer)


def test_real_valued_targets_have_losses_alone(opened):
    x = torch.rand(24, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = torch.randn(24, 2, generator=torch.Generator().manual_seed(1))
    target = mrviz.Target(x[:16], y[:16], x[16:], y[16:], name="series")
    explorer = ready(
        opened(
            source="dnn", width=8, input_size=8, target=target, mapping="identity", view="learning"
        )
    )
    assert field(explorer, "Loss").disabled
    assert explorer.details["prediction"].accuracy is None, status(explorer)
    for view in VIEWS:
        explorer.view = view
        assert "data-status='ready'" in status(ready(explorer)), view


FORECAST = {"source": "conv-forecaster", "input_size": 24, "width": 4, "n": 8}
needs_aeon = pytest.mark.skipif(
    not importlib.util.find_spec("aeon"), reason="aeon is not installed"
)


@needs_aeon
def test_every_view_holds_for_a_forecast(opened, capsys):
    explorer = ready(opened(**FORECAST, program="low_rank", max_rank=3, capacity=2))
    assert (explorer.target, explorer.mapping) == ("airline", "identity")
    for view in VIEWS:
        explorer.view = view
        assert "data-status='ready'" in status(ready(explorer)), view
        shown = explorer.snapshot()
        assert type(shown) is go.Figure and (len(shown.data) > 0 or view == "source")
        assert (len(rows(explorer)) > 0) is (view != "source")
        capsys.readouterr()
        run_code(explorer)
        assert capsys.readouterr().out
        if view == "capacity":
            assert len(explorer.details["predicted_mse"]) == 3
            assert shown.layout.yaxis3.title.text == "predicted<br>MSE"
            assert "mean squared error" in html(explorer) and "squared loss" in html(explorer)
        elif view == "mapping":
            assert shown.layout.yaxis.ticktext[0] == "t+1"
            assert shown.layout.yaxis.title.text == "target output"
            assert "made from class labels" in html(explorer)
            field(explorer, "Compare the kernel with").value = "random"
            assert ready(explorer).details["effect"].relative > 0
        elif view == "source":
            assert "A forecaster has no accuracy" in shown.layout.annotations[0].text
            assert explorer.details is None


@needs_aeon
def test_a_forecast_beside_those_of_its_source_and_of_the_naive_rule(opened, capsys):
    explorer = ready(opened(**FORECAST, program="lag_affine", view="learning"))
    assert field(explorer, "Loss").disabled
    field(explorer, "Steps").value = 5
    ready(explorer)
    button(explorer, "Train").click()
    found = ready(explorer).details
    scope = rebuilt(explorer.experiment)
    expected = compare_forecasts(scope["model"], scope["target"])
    assert found["comparison"].to_dict() == expected.to_dict()
    levels = {
        t.name: t.y[0] for t in explorer.snapshot().data if t.name.endswith(("alone", "rule"))
    }
    for name, score in (("source alone", "source"), ("seasonal naive rule", "seasonal naive")):
        assert levels[f"held-out, {name}"] == pytest.approx(6 * expected[score].mse)
        assert f"{name} {expected[score].mse:.3g}" in html(explorer)
    predicted, measured = found["prediction"].trajectory.test_loss[-1] / 6, found["fit"].test_loss
    assert found["prediction"].mse == pytest.approx(predicted)
    assert f"mean squared error {predicted:.3g}; measured {measured[-1] / 6:.3g}" in html(explorer)
    assert {"source alone", "seasonal naive rule"} < {row["kind"] for row in rows(explorer)}
    why = explorer.results.conditions["T7"].why
    assert f"mean squared error is {found['prediction'].mse:.3g} (18 held-out samples)" in why
    run_code(explorer)
    assert "Forecasts of 18 test windows of airline" in capsys.readouterr().out


@needs_aeon
def test_the_kernel_of_a_forecaster_on_labelled_series(opened):
    small = {**FORECAST, "target": "ucr:ItalyPowerDemand", "view": "source"}
    explorer = ready(opened(**small))
    assert explorer.details is None and "data-status='ready'" in status(explorer)
    field(explorer, "Source data").value = "ucr:ItalyPowerDemand"
    report = ready(explorer).details["report"]
    assert report.strength is None and report.kernels[0].order == 20
    assert "accuracy" not in explorer.snapshot().layout.title.text


# --- Gram and source ------------------------------------------------------------------------


def test_the_factors_are_those_of_the_library(opened):
    explorer = ready(opened(**SMALL, program="linear", view="gram"))
    scope = rebuilt(explorer.experiment)
    expected = gram_factors(scope["model"], scope["target"], n=20, progress=False)
    found = explorer.details
    assert torch.allclose(found.kernel, expected.kernel, rtol=1e-5)
    assert torch.equal(found.labels, expected.labels) and found.distance < 1e-5
    assert [t.type for t in live(explorer).data].count("heatmap") == 3
    assert len(rows(explorer)) == 400


def test_a_trained_source_is_judged_on_its_own_task(opened):
    explorer = ready(opened(**TRAINED, view="source"))
    source = Workbench().model(explorer.experiment, progress=False).source
    expected = source_report(source, progress=False)
    report = explorer.details["report"]
    assert report.strength == expected.strength
    assert report.kernels[0].strength.smallest == pytest.approx(
        expected.kernels[0].strength.smallest, rel=1e-6
    )
    assert [point.depth for point in explorer.details["depths"]] == [1, 2, 3, 4, 5, 6]
    assert f"{expected.strength.accuracy:.1%}" in html(explorer)
    assert all(
        verdict(explorer, c) != "undecided" or explorer.results.conditions[c].value
        for c in ("T8", "T9", "T10")
    )
    assert explorer.results.conditions["T10"].value is not None


def test_a_source_without_data_of_its_own_is_looked_at_on_others(opened):
    explorer = ready(opened(**SMALL, view="source"))
    assert "not on the source's own task" in html(explorer)
    assert explorer.results.conditions["T10"].value is None
    first = explorer.details["report"]
    field(explorer, "Source data").value = "digits"
    assert ready(explorer).details["report"] is not first
    assert "Digits" in html(explorer)


def test_a_view_from_the_cache_needs_no_worker(opened, gate):
    explorer = ready(opened(**WIDE))
    for view in VIEWS:
        explorer.view = view
        ready(explorer)
    gate.close()  # whatever needs the worker would wait now
    for view in VIEWS[::-1]:
        explorer.view = view
        assert "data-status='ready'" in status(explorer)


def test_all_views_hold_for_experiments_of_every_kind(opened):
    for choices in (
        {"program": "convolution"},
        {"program": "scale", "reduce": "sum"},
        {"program": "low_rank", "dtype": "float64"},
        {"source": "cnn", "depth": 1, "width": 4, "input_size": 12, "reduce": "trace"},
    ):
        explorer = ready(opened(**{**SMALL, "depth": None, "width": None, **choices}))
        for view in VIEWS:
            if view == "source":
                continue

            explorer.view = view
            assert "data-status='ready'" in status(ready(explorer)), (choices, view)
            assert isinstance(explorer.experiment, Experiment)
        explorer.close()


# --- program and mapping --------------------------------------------------------------------


def test_the_program_shows_the_chosen_sample(opened):
    explorer = ready(opened(**SMALL, view="program"))
    scope = rebuilt(explorer.experiment)
    expected = scope["model"].programmed(scope["x"])
    assert torch.allclose(explorer.details.programmed, expected)
    first = plain(explorer.snapshot())
    field(explorer, "Sample").value = 7
    assert plain(ready(explorer).snapshot()) != first
    assert "Sample 7 of 20" in html(explorer)
    values = [float(row["value"]) for row in rows(explorer) if row["what"] == "programmed"]
    assert values == pytest.approx(expected[6].flatten().tolist())
    field(explorer, "Sample").value = 1000
    assert "Sample 20 of 20" in html(ready(explorer))


def test_the_mapping_and_what_another_one_changes(opened):
    explorer = ready(opened(**SMALL, view="mapping"))
    scope = rebuilt(explorer.experiment)
    assert explorer.details["weights"] == scope["model"].weights.double().tolist()
    assert "effect" not in explorer.details
    field(explorer, "Compare the kernel with").value = "random"
    effect = ready(explorer).details["effect"]
    other = mrviz.reprogram(
        scope["source"], scope["target"], program="border", mapping="random", seed=0
    )
    drift = mrviz.kernel_drift(scope["gram"], mrviz.ntk_gram(other, scope["x"]))
    assert effect.relative == pytest.approx(drift.relative, rel=1e-4)
    assert effect.describe() in html(explorer)
    assert len(rows(explorer)) == 10
