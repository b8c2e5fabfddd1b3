"""Explorers without a page, and how to look into them."""

import json
import threading
from types import SimpleNamespace

import ipywidgets as w
import plotly.graph_objects as go
import pytest

import mrviz
from mrviz.widgets import explorer as module
from mrviz.workbench import Workbench

SMALL = {
    "source": "dnn",
    "depth": 2,
    "width": 16,
    "input_size": 12,
    "target": "digits",
    "n": 20,
}
WIDE = {**SMALL, "input_size": 16}  # four capacities
LONG = 30


@pytest.fixture
def opened(monkeypatch):
    """Opens Explorers without debounce and closes them in the end."""
    monkeypatch.setattr(module, "DEBOUNCE", 0.0)
    found = []

    def open_explorer(**choices):
        found.append(mrviz.explore(**choices))
        return found[-1]

    yield open_explorer
    for explorer in found:
        explorer.close()


def ready(explorer):
    assert explorer.wait(LONG)
    return explorer


def tree(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from tree(child)


def html(explorer):
    """Everything the Explorer says in HTML."""
    return "\n".join(part.value for part in tree(explorer.widget) if isinstance(part, w.HTML))


def status(explorer):
    return explorer._status.message.value


def control(explorer, name):
    return explorer._controls.widgets[name]


def button(explorer, *descriptions):
    (found,) = (
        part
        for part in tree(explorer.widget)
        if isinstance(part, w.Button) and part.description in descriptions
    )
    return found


def live(explorer):
    (figure,) = (p for p in tree(explorer.widget) if isinstance(p, go.FigureWidget))
    return figure


@pytest.fixture
def gate(monkeypatch):
    """Holds up exact runs of the Workbench while closed; ``entered`` counts them."""
    opened, entered = threading.Event(), threading.Semaphore(0)
    opened.set()
    run = Workbench.run

    def gated(self, experiment, progress=None, cancel=None):
        entered.release()
        assert opened.wait(LONG)
        return run(self, experiment, progress, cancel)

    monkeypatch.setattr(Workbench, "run", gated)
    yield SimpleNamespace(open=opened.set, close=opened.clear, entered=entered)
    opened.set()


def plain(figure):
    """What a figure shows: no identifiers, nothing empty."""

    def strip(value):
        if isinstance(value, dict):
            kept = {k: strip(v) for k, v in value.items() if k != "uid"}
            return {k: v for k, v in kept.items() if v not in ({}, [], None)}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return strip(json.loads(figure.to_json()))
