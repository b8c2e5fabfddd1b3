"""Panels and the live figure: HTML is escaped and honest, the figure becomes any other."""

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

import mrviz
from mrviz.errors import InputError
from mrviz.experiment import Experiment
from mrviz.figures import Curve, spectrum_figure
from mrviz.widgets.figure import LiveFigure
from mrviz.widgets.panels import conditions_html, error_html, formulas_tex, statistics_html
from mrviz.workbench import Workbench
from tests.widgets.conftest import plain


@pytest.fixture(scope="module")
def result():
    choices = {"source": "dnn", "depth": 2, "width": 16, "input_size": 12, "target": "digits"}
    return Workbench().run(Experiment(**choices, n=20), progress=False)


def curve(name, order, seed=0, energy=True):
    values = torch.rand(order, generator=torch.Generator().manual_seed(seed)) + 0.1
    shares = np.full(order, 1 / order) if energy else None
    return Curve(name, mrviz.spectrum(torch.diag(values)), shares)


A, B, C = curve("a", 5), curve("b", 4, 1, energy=False), curve("c", 6, 2)
FIGURES = {
    "none": spectrum_figure([]),
    "one": spectrum_figure([A]),
    "two": spectrum_figure([B, C]),
    "three, dark": spectrum_figure([A, B, C], theme="dark"),
    "other two": spectrum_figure([C, A]),
}


@pytest.fixture
def live():
    figure = LiveFigure(FIGURES["one"])
    yield figure
    figure.close()


@pytest.mark.parametrize("start", FIGURES)
def test_a_live_figure_becomes_any_other(live, start):
    for name, figure in FIGURES.items():
        live.show_figure(FIGURES[start])
        live.show_figure(figure)
        assert plain(live) == plain(figure), (start, name)


def test_an_unchanged_figure_sends_nothing(live, monkeypatch):
    sent = []
    live.show_figure(FIGURES["two"])
    monkeypatch.setattr(live, "send_state", lambda *a, **k: sent.append(a))
    monkeypatch.setattr(live, "send", lambda *a, **k: sent.append(a))
    live.show_figure(spectrum_figure([B, C]))
    assert sent == []
    live.show_figure(FIGURES["other two"])
    assert sent != []


def test_after_a_reload_the_page_gets_todays_data(live):
    live.show_figure(FIGURES["other two"])
    state = live.get_state()
    assert len(state["_widget_data"]) == 6
    sent = state["_widget_data"][0]["y"]
    y = np.frombuffer(sent["buffer"], sent["dtype"]) if isinstance(sent, dict) else sent
    assert list(y) == list(FIGURES["other two"].data[0].y)
    shown = state["_widget_layout"]["xaxis"]["range"]
    assert list(shown) == list(FIGURES["other two"].layout.xaxis.range)


def test_the_figure_it_was_made_from_is_left_alone(live):
    before = go.Figure(FIGURES["one"])
    live.show_figure(FIGURES["three, dark"])
    assert FIGURES["one"] == before


def test_statistics_claim_no_more_than_was_resolved(result):
    text = statistics_html(result)
    assert not result.spectrum.full_rank and "not resolved" in text and "&lt; " in text
    assert f"{result.spectrum.rank} of 200" in text and f"{result.info.n_parameters}" in text
    assert "mrviz-dim" not in text and "mrviz-dim" in statistics_html(result, dim=True)


def test_conditions_show_status_by_icon_and_word(result):
    text = conditions_html(result.conditions, note="a <sketch>")
    assert text.count("<tr data-condition") == len(result.conditions) and "a &lt;sketch&gt;" in text
    for condition in result.conditions:
        icon = {"holds": "✔", "fails": "✘", "undecided": "?"}[condition.status]
        assert f"mrviz-{condition.status}'>{icon} {condition.status}<" in text
    assert formulas_tex(result.conditions).count("$") == 2 * len(result.conditions)


def test_conditions_that_were_not_looked_at_say_which_view_does(result):
    text = conditions_html(result.conditions)
    assert text.count("Open the learning curve above") == 2
    decided = mrviz.theory.Conditions(
        tuple(c for c in result.conditions if c.id not in ("T7", "T12")), result.n
    )
    assert "learning curve" not in conditions_html(decided)


def test_errors_are_escaped_and_only_foreign_ones_have_details():
    ours = error_html(InputError("use <n> below 5"))
    assert "use &lt;n&gt; below 5" in ours and "<details>" not in ours
    foreign = error_html(KeyError("<script>"))
    assert "KeyError" in foreign and "<details>" in foreign and "<script>" not in foreign
    assert all("role='alert'" in text for text in (ours, foreign))


def test_a_page_that_has_not_made_the_plot_yet_gets_it_whole(live, monkeypatch):
    sent = []
    monkeypatch.setattr(live, "send_state", lambda key=None: sent.append(key))

    def whole():
        found = ["_widget_data", "_widget_layout"] in sent
        sent.clear()
        return found

    live.show_figure(FIGURES["two"])
    assert whole()
    state = live.get_state(["_widget_data", "_widget_layout"])
    assert len(state["_widget_data"]) == len(FIGURES["two"].data)
    live._js2py_traceDeltas = {"trace_deltas": [], "trace_edit_id": -1}  # what a page answers
    live.show_figure(FIGURES["one"])
    assert not whole()
    live.get_state()  # asked for by a page that was loaded again
    live.show_figure(FIGURES["two"])
    assert whole()
