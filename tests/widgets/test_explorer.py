"""The Explorer without a page: results, newest wins, cache, errors, cancel, pins, export."""

import csv
import io
import json
import socket
import threading
from dataclasses import replace

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from torch import nn

import mrviz
from mrviz.errors import InputError
from mrviz.experiment import Experiment
from mrviz.targets import raw
from mrviz.targets.raw import LABELLED
from mrviz.widgets import explorer as module
from mrviz.widgets.pins import MOST
from mrviz.widgets.presets import PRESETS
from mrviz.workbench import Workbench
from tests.widgets.conftest import (
    LONG,
    SMALL,
    WIDE,
    button,
    control,
    html,
    live,
    ready,
    status,
    tree,
)


def same(result, other):
    return torch.equal(result.spectrum.eigenvalues, other.spectrum.eigenvalues)


# --- results and choices --------------------------------------------------------------------


def test_results_appear_and_agree_with_the_workbench(opened):
    explorer = ready(opened(**SMALL))
    expected = Workbench().run(Experiment(**SMALL), progress=False)
    assert explorer.results.exact and same(explorer.results, expected)
    assert explorer.results.experiment == explorer.experiment == expected.experiment
    shown = html(explorer)
    assert "data-status='ready'" in status(explorer)
    for condition in expected.conditions:
        assert f"data-condition='{condition.id}' data-status='{condition.status}'" in shown
    assert f"{expected.spectrum.rank} of 200" in shown and expected.description in shown
    assert list(live(explorer).data[0].y) == list(explorer.snapshot().data[0].y)


def test_choices_are_attributes(opened):
    explorer = ready(opened(**SMALL))
    assert (explorer.source, explorer.depth, explorer.capacity, explorer.n) == ("dnn", 2, 2, 20)
    explorer.capacity = 1
    assert ready(explorer).results.experiment.capacity == 1 == explorer.capacity
    explorer.seed = 4
    assert ready(explorer).results.experiment.seed == 4
    assert "capacity" in type(explorer).capacity.__doc__


def test_options_are_attributes_too(opened):
    explorer = ready(opened(**SMALL, mapping="bayesian", lam=2))
    assert explorer.lam == 2 and explorer.activation == "sigmoid" and "lam" in dir(explorer)
    explorer.activation = "identity"
    found = ready(explorer).results.experiment
    assert found.options == explorer.options == {"activation": "identity", "lam": 2}
    assert "activation='identity', lam=2.0" in explorer._bridge.code
    before = explorer.state
    explorer._controls.options.widgets["lam"].value = 0.5
    assert ready(explorer).results.experiment.options["lam"] == 0.5
    explorer.state = before
    assert ready(explorer).state == before
    explorer.program = "linear"
    assert ready(explorer).options == {"lam": 2} and not hasattr(explorer, "activation")
    with pytest.raises(InputError, match=r"no choice activation .*'linear' has the options bias"):
        explorer.activation = "identity"
    with pytest.raises(InputError, match="no choice capcity"):
        explorer.capcity = 3


def test_state_can_be_read_changed_and_restored(opened):
    explorer = ready(opened(**SMALL))
    before = explorer.state
    assert {**before, **SMALL} == before and before["capacity"] == 2
    assert explorer.set(program="linear", reduce="trace") is explorer
    assert ready(explorer).results.experiment.program == "linear"
    explorer.state = before
    assert ready(explorer).state == before
    assert explorer.results.experiment == Experiment(**before)


def test_the_users_change_of_a_control_is_followed(opened):
    explorer = ready(opened(**SMALL))
    control(explorer, "program").value = "overlay"
    assert ready(explorer).results.experiment.program == "overlay"
    assert control(explorer, "capacity").disabled


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"sauce": "dnn"}, ["sauce", "source", "capacity"]),
        ({"source": "dnm"}, ["source", "'dnn'", "'resnet'"]),
        ({"target": "mnist"}, ["target", "'digits'", "'mnist-5k'"]),
        ({"program": "boarder"}, ["program", "'border'", "'linear'"]),
        ({"mapping": "magic"}, ["mapping", "'frequency'", "'identity'"]),
        ({"dtype": "float16"}, ["dtype", "float32", "float64"]),
        ({"n": 0}, ["n must be"]),
        ({"seed": -1}, ["seed"]),
    ],
)
def test_an_unknown_choice_names_the_choices_and_changes_nothing(opened, choices, words):
    with pytest.raises(InputError) as failure:
        opened(**{**SMALL, **choices})
    assert all(word in str(failure.value) for word in words)
    explorer = ready(opened(**SMALL))
    before, result = explorer.state, explorer.results
    with pytest.raises(InputError):
        explorer.set(**choices)
    assert ready(explorer).state == before and explorer.results is result


def test_gram_is_that_of_the_present_choices(opened):
    explorer = ready(opened(**SMALL))
    found = mrviz.spectrum(explorer.gram(), eigenvectors=False)
    assert torch.allclose(found.eigenvalues, explorer.results.spectrum.eigenvalues)


# --- liveness -------------------------------------------------------------------------------


def test_a_sketch_comes_first_and_says_so(opened, gate):
    gate.close()
    explorer = opened(**{**SMALL, "n": 40})
    assert gate.entered.acquire(timeout=LONG)
    sketch = explorer.results
    assert not sketch.exact and sketch.n < 40 == sketch.experiment.n
    assert f"Sketch: {sketch.n} of 40 samples" in html(explorer)
    assert "sketch" in explorer.snapshot().data[0].name
    gate.open()
    assert ready(explorer).results.exact and explorer.results.n == 40
    assert "ketch" not in html(explorer) + explorer.snapshot().data[0].name


def test_the_newest_request_wins(opened, gate):
    explorer = ready(opened(**SMALL))
    while gate.entered.acquire(blocking=False):
        pass
    gate.close()
    explorer.seed = 1
    assert gate.entered.acquire(timeout=LONG)
    explorer.seed = 2
    explorer.seed = 3
    gate.open()
    assert ready(explorer).results.experiment.seed == 3 == explorer.seed
    assert "data-status='ready'" in status(explorer)
    assert explorer._bench.cached(replace(explorer.experiment, seed=2)) is None  # never begun


def test_a_capacity_from_the_cache_needs_no_worker(opened, gate):
    explorer = ready(opened(**WIDE))
    assert control(explorer, "capacity").max == 4
    gate.close()  # whatever needs the worker would wait now
    for capacity in (1, 3, 2):
        control(explorer, "capacity").value = capacity
        assert explorer.results.experiment.capacity == capacity
        assert explorer.results.exact and "data-status='ready'" in status(explorer)
        y = explorer.snapshot().data[0].y
        assert len(y) == explorer.results.spectrum.rank == len(live(explorer).data[0].y)


def test_what_was_seen_before_comes_back_at_once(opened, gate):
    explorer = ready(opened(**{**WIDE, "n": 40}))
    first = explorer.results
    explorer.program = "linear"
    assert ready(explorer).results is not first
    gate.close()
    explorer.program = "border"  # at its largest capacity again, not as a sketch
    assert explorer.results is first and explorer.capacity == 4


def test_going_back_while_something_else_is_computed_ends_ready(opened, gate):
    explorer = ready(opened(**SMALL))
    first = explorer.results
    while gate.entered.acquire(blocking=False):
        pass
    gate.close()
    explorer.seed = 1
    assert gate.entered.acquire(timeout=LONG) and "data-status='busy'" in status(explorer)
    explorer.seed = 0
    assert explorer.results is first
    gate.open()
    assert ready(explorer).results is first
    assert "data-status='ready'" in status(explorer)
    explorer.seed = 1
    assert ready(explorer).results.experiment.seed == 1


# --- errors and cancel ----------------------------------------------------------------------


def test_an_impossible_combination_says_what_to_do_and_is_recovered_from(opened):
    explorer = ready(opened(**SMALL))
    first, figure = explorer.results, explorer.snapshot()
    explorer.image_size = 40
    ready(explorer)
    assert "role='alert'" in status(explorer)
    assert "does not fit" in status(explorer) and "image_size" in status(explorer)
    assert explorer.results is first and explorer.snapshot() == figure
    assert not any(widget.disabled for n, widget in _controls(explorer) if n != "capacity")
    control(explorer, "image_size").value = 6
    assert ready(explorer).results.experiment.image_size == 6
    assert "role='alert'" not in status(explorer) and "mrviz-dim" not in html(explorer)


def _controls(explorer):
    return explorer._controls.widgets.items()


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"capacity": 99}, "1 to 2"),
        ({"program": "linear", "capacity": 3}, "leave capacity out"),
        ({"reduce": 12}, "0 to 9"),
        ({"n": 5}, "at least 10"),
        ({"device": "cuda:77"}, "cuda:77"),
    ],
)
def test_choices_out_of_range_are_errors_in_the_status_line(opened, choices, words):
    explorer = ready(opened(**SMALL))
    first = explorer.results
    ready(explorer.set(**choices))
    assert "role='alert'" in status(explorer) and words in status(explorer)
    assert explorer.results is first
    back = {"reduce": "full", "n": 20, "device": None, "program": "border", "capacity": None}
    ready(explorer.set(**back))
    assert explorer.results is first and "data-status='ready'" in status(explorer)


def test_a_target_that_cannot_be_downloaded_says_so_and_is_recovered_from(
    opened, monkeypatch, tmp_path
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, closed)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("SCIKIT_LEARN_DATA", "MRVIZ_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    explorer = ready(opened(**SMALL))
    first = explorer.results
    control(explorer, "target").value = "svhn"
    ready(explorer)
    assert "role='alert'" in status(explorer) and "internet" in status(explorer)
    assert "41081" in status(explorer) and "Traceback" not in status(explorer)
    assert explorer.results is first
    control(explorer, "target").value = "digits"
    assert ready(explorer).results.experiment.target == "digits"
    assert "role='alert'" not in status(explorer)


def test_nothing_is_downloaded_unasked(opened, monkeypatch):
    asked = []
    monkeypatch.setattr(raw, "load_online", asked.append)
    ready(opened(**WIDE))
    assert asked == []


def test_an_unforeseen_error_shows_its_details(opened, monkeypatch):
    explorer = ready(opened(**SMALL))
    first = explorer.results

    def broken(*args, **kwargs):
        raise RuntimeError("the <moon> is full")

    with monkeypatch.context() as patch:
        patch.setattr(Workbench, "model", broken)
        explorer.seed = 1
        ready(explorer)
    for words in ("RuntimeError", "the &lt;moon&gt; is full", "<details>", "Traceback", "broken"):
        assert words in status(explorer)
    assert explorer.results is first
    retry = button(explorer, "Compute")
    assert not retry.disabled
    retry.click()
    assert ready(explorer).results.experiment.seed == 1


def test_cancel_leaves_a_stale_state_and_compute_finishes_it(opened, gate):
    gate.close()
    explorer = opened(**{**SMALL, "n": 40})
    assert gate.entered.acquire(timeout=LONG)
    sketch = explorer.results
    button(explorer, "Cancel").click()
    gate.open()
    assert ready(explorer).results is sketch
    assert "data-status='stale'" in status(explorer) and "Cancelled" in status(explorer)
    assert f"sketched from {sketch.n} samples" in status(explorer)
    compute = button(explorer, "Compute")
    assert not compute.disabled
    compute.click()
    assert ready(explorer).results.exact and "data-status='ready'" in status(explorer)
    assert button(explorer, "Compute").disabled


# --- pins and presets -----------------------------------------------------------------------


def test_pins_are_named_hidden_and_removed(opened):
    explorer = ready(opened(**SMALL))
    first = explorer.results
    explorer.pin("VP")
    ready(explorer.set(program="linear"))
    button(explorer, "Pin").click()
    assert list(explorer.pinned) == ["VP", explorer.results.experiment.label()]
    assert explorer.pinned["VP"] is first
    assert len(live(explorer).data) == 9
    text, show = explorer._pins.items[0].name, explorer._pins.items[0].shown
    text.value = "visual prompt"
    assert next(iter(explorer.pinned)) == "visual prompt"
    assert "visual prompt" in [trace.name for trace in live(explorer).data]
    show.value = False
    visible = {t.name: t.visible for t in live(explorer).data}
    assert visible["visual prompt"] is False
    explorer._pins.remove(explorer._pins.items[0])
    assert len(explorer.pinned) == 1 and len(live(explorer).data) == 6
    assert "visual prompt" not in [trace.name for trace in live(explorer).data]


def test_pins_of_one_name_are_all_kept(opened):
    explorer = ready(opened(**SMALL))
    explorer.pin("same")
    ready(explorer.set(seed=1))
    explorer.pin("same")
    assert [r.experiment.seed for r in explorer.pinned.values()] == [0, 1]
    assert set(json.loads(explorer._export("JSON")[2])["pinned"]) == set(explorer.pinned)


def test_there_are_as_many_pins_as_colours_left(opened):
    explorer = ready(opened(**SMALL))
    for k in range(MOST + 2):
        explorer.pin(f"pin {k}")
    assert list(explorer.pinned) == [f"pin {k}" for k in range(2, MOST + 2)]
    colors = [trace.line.color for trace in explorer.snapshot().data[::3]]
    assert len(set(colors)) == len(colors) == MOST + 1


def test_pinning_before_the_first_result_is_an_error_with_advice(opened, gate):
    gate.close()
    explorer = opened(**SMALL)
    with pytest.raises(InputError, match="wait"):
        explorer.pin()
    button(explorer, "Pin").click()
    assert "wait for the first spectrum" in status(explorer)
    assert explorer._export("CSV") is None


def test_series_instead_of_images_and_back(opened):
    pytest.importorskip("aeon", reason="aeon is not installed")
    explorer = ready(opened(**SMALL))
    explorer.program = "convolution"
    ready(explorer)
    explorer.source = "fcn"
    ready(explorer)
    assert (explorer.target, explorer.program) == ("ucr:GunPoint", "linear")
    assert explorer.results.spectrum.order == 2 * 20
    explorer.view = "source"
    ready(explorer)
    offered = [value for _, value in explorer._views["source"].controls[0].options]
    assert offered[1:] == [name for name, spec in LABELLED.items() if spec.kind == "series"]
    assert "FCN" in explorer.results.experiment.label()
    assert explorer.view == "source" and "data-status='ready'" in status(explorer)
    explorer.source = "dnn"
    ready(explorer)
    assert (explorer.target, explorer.program) == ("mnist-5k", "border")


def test_presets_run_to_the_end_and_again(opened, monkeypatch):
    small = Experiment(**SMALL)
    monkeypatch.setattr(
        module,
        "PRESETS",
        {
            "programs": (("VP", small), ("FC", replace(small, program="linear"))),
            "widths": (("all", small), ("one", replace(small, capacity=1))),
        },
    )
    explorer = ready(opened(**SMALL, seed=5))
    (menu,) = (
        p
        for p in tree(explorer.widget)
        if isinstance(p, w.Dropdown) and "programs" in dict(p.options)
    )
    pins = []
    for name, first, last in [
        ("programs", "VP", "linear"),
        ("widths", "all", "border"),
        ("programs", "VP", "linear"),
        ("widths", "all", "border"),
    ]:
        menu.value = name
        pins.append(first)
        ready(explorer)
        assert menu.value != name  # the same one can be chosen again
        assert explorer.results.experiment.program == last == explorer.program
        assert [pin.name.value for pin in explorer._pins.items] == pins
        assert "data-status='ready'" in status(explorer)
    assert explorer.capacity == 1 == explorer.results.experiment.capacity


@pytest.mark.parametrize("name", PRESETS)
def test_the_real_presets_are_valid(name):
    assert len(PRESETS[name]) >= 2
    for label, experiment in PRESETS[name]:
        assert label and isinstance(experiment, Experiment)
        compile(experiment.code(), label, "exec")
        controls = module.Controls(experiment, lambda _: None)
        shown = controls.experiment
        controls.close()
        filled = {k: v for k, v in experiment.to_dict().items() if v is not None}
        assert {**shown.to_dict(), **filled} == shown.to_dict()


# --- export, theme, life --------------------------------------------------------------------


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_exports_agree_with_the_results(opened):
    explorer = ready(opened(**SMALL))
    explorer.pin("kept")
    ready(explorer.set(program="overlay"))
    result = explorer.results
    name, mime, text = explorer._export("CSV")
    assert name.endswith(".csv") and mime == "text/csv"
    rows = list(csv.DictReader(io.StringIO(text)))
    values = torch.tensor([float(row["eigenvalue"]) for row in rows], dtype=torch.float64)
    assert torch.equal(values, result.spectrum.eigenvalues)
    energy = [float(row["residual_energy"]) for row in rows]
    assert energy == result.energy.tolist()
    assert [row["resolved"] for row in rows].count("True") == result.spectrum.rank

    name, mime, text = explorer._export("JSON")
    assert name.endswith(".json") and mime == "application/json"
    found = json.loads(text, parse_constant=refuse)
    assert found["current"]["spectrum"]["eigenvalues"] == result.spectrum.eigenvalues.tolist()
    assert found["current"]["experiment"]["program"] == "overlay"
    assert found["pinned"]["kept"]["experiment"]["program"] == "border"

    name, mime, text = explorer._export("HTML")
    assert name.endswith(".html") and mime == "text/html"
    assert "Plotly.newPlot" in text and len(text) > 1_000_000  # plotly itself is inside
    assert '"showSendToCloud": false' in text


def test_the_page_gets_files_and_code(opened, monkeypatch):
    explorer = ready(opened(**SMALL))
    bridge, sent = explorer._bridge, []
    monkeypatch.setattr(bridge, "send", sent.append)
    bridge._handle_custom_msg({"type": "export", "format": "CSV"}, [])
    assert [m["type"] for m in sent] == ["file"] and sent[0]["text"] == explorer.results.to_csv()
    assert bridge.code == explorer.results.experiment.code()


def test_a_snapshot_is_a_plain_figure(opened):
    explorer = ready(opened(**SMALL))
    figure = explorer.snapshot()
    assert type(figure) is go.Figure
    resolved = explorer.results.spectrum.eigenvalues[: explorer.results.spectrum.rank]
    assert np.array_equal(figure.data[0].y, resolved.numpy())


def test_the_figure_follows_the_theme(opened):
    explorer = ready(opened(**SMALL))
    light = live(explorer).layout.font.color
    explorer._bridge.theme = "dark"
    assert live(explorer).layout.font.color == explorer.snapshot().layout.font.color != light
    explorer._bridge.theme = "light"
    assert live(explorer).layout.font.color == light


def test_two_explorers_do_not_disturb_each_other_and_close_takes_only_its_own(opened):
    before = set(w.widgets.widget._instances)
    one, two = opened(**SMALL), opened(**SMALL, program="linear")
    ready(one), ready(two)
    one.pin("mine")
    assert one.results.experiment.program == "border" and two.pinned == {}
    one.close()
    one.close()
    assert one.widget.comm is None and two.widget.comm is not None
    two.seed = 3
    assert ready(two).results.experiment.seed == 3
    two.close()
    assert set(w.widgets.widget._instances) - before == set()


def test_close_in_the_middle_of_work(opened, gate):
    gate.close()
    explorer = opened(**SMALL)
    assert gate.entered.acquire(timeout=LONG)
    threading.Timer(0.1, gate.open).start()
    explorer.close()
    assert explorer.wait(LONG)
    assert explorer.results is None or not explorer.results.exact


def test_it_is_displayed_and_named(opened):
    explorer = opened(**SMALL)
    assert "application/vnd.jupyter.widget-view+json" in explorer._repr_mimebundle_()
    assert repr(explorer).startswith("Explorer(DNN depth 2 (random)")


# --- objects of one's own -------------------------------------------------------------------


class Brighter(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, 6, 6))

    def forward(self, x):
        return x * self.gain


def own_source(net=None):
    torch.manual_seed(0)
    net = net or nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 5))
    return mrviz.SourceModel(net, (1, 6, 6), name="my_source")


def own_target():
    x = torch.rand(27, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    y = torch.arange(27) % 3
    return mrviz.Target(x[:18], y[:18], x[18:], y[18:], name="my_target")


def test_objects_of_ones_own(opened):
    source, target, program = own_source(), own_target(), Brighter()
    explorer = ready(opened(source=source, target=target, program=program))
    assert explorer.results is not None, status(explorer)
    assert (explorer.source, explorer.target, explorer.program) == (source, target, program)
    assert explorer.results.n == 18 and explorer.results.spectrum.order == 54
    model = mrviz.reprogram(source, target, program=program)
    expected = mrviz.spectrum(mrviz.ntk_gram(model, target.x_train))
    assert torch.allclose(explorer.results.spectrum.eigenvalues, expected.eigenvalues)
    assert "my_source" in repr(explorer)
    json.loads(explorer._export("JSON")[2], parse_constant=refuse)


def test_a_program_without_closed_form_but_with_capacity_is_not_an_error(opened):
    class Generic(mrviz.programs.Border):
        closed_form = False

    program = Generic((1, 12, 12), (1, 8, 8))
    explorer = ready(opened(**SMALL, program=program))
    assert "data-status='ready'" in status(explorer)
    control(explorer, "capacity").value = 1
    assert ready(explorer).results.experiment.capacity == 1
    assert "data-status='ready'" in status(explorer)


def test_a_source_that_does_not_listen_has_a_zero_kernel_and_clean_exports(opened):
    class Deaf(nn.Module):
        def forward(self, u):
            return torch.arange(5.0).expand(len(u), 5) + 0 * u.flatten(1).sum(1, keepdim=True)

    explorer = ready(opened(source=own_source(Deaf()), target=own_target(), program="overlay"))
    assert explorer.results is not None, status(explorer)
    assert explorer.results.spectrum.rank == 0
    assert "data-status='fails'" in html(explorer) and "0 of 54" in html(explorer)
    json.loads(explorer._export("JSON")[2], parse_constant=refuse)
