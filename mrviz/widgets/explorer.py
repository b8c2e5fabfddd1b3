"""The Explorer: choose source, target and program, and watch the kernel's spectrum change."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial, wraps
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go

from mrviz._progress import stop_if_cancelled
from mrviz.errors import InputError, MissingDataError
from mrviz.experiment import Experiment
from mrviz.figures import CONFIG, Curve, Theme, spectrum_figure
from mrviz.ntk import Gram
from mrviz.targets import TARGETS
from mrviz.targets.raw import load_raw
from mrviz.widgets.bridge import PageBridge
from mrviz.widgets.cells import replace_in_cell
from mrviz.widgets.controls import Controls, close_tree
from mrviz.widgets.figure import LiveFigure
from mrviz.widgets.panels import conditions_html, formulas_tex, statistics_html
from mrviz.widgets.pins import Pins
from mrviz.widgets.presets import PRESETS
from mrviz.widgets.status import StatusLine
from mrviz.widgets.worker import Worker
from mrviz.workbench import Result, Workbench

DEBOUNCE = 0.15
"""Seconds without another change before the expensive work begins."""

NAMES = tuple(f.name for f in fields(Experiment))


def _reported(method: Callable[..., Any]) -> Callable[..., Any]:
    """A callback whose errors reach the status line: nobody else would see them."""

    @wraps(method)
    def guarded(self: Explorer, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self._failed(error)
            return None

    return guarded


class Explorer:
    """The spectrum of a reprogrammed model's tangent kernel and its transfer conditions, live.

    Display it as the last line of a cell; running the cell again replaces it. Everything
    chosen in it can be read and set by name (``explorer.capacity = 4``), and :attr:`results`
    holds what it shows.

    Args:
        **choices: fields of :class:`~mrviz.experiment.Experiment`: ``source``, ``target``,
            ``program``, ``capacity``, ``n``, … as names or, for the first three, objects of
            your own.

    Raises:
        InputError: a choice that does not exist.
    """

    def __init__(self, **choices: Any) -> None:
        experiment = Experiment().changed(**choices)
        self._bench = Workbench()
        self._lock = threading.RLock()
        self._result: Result | None = None
        self._swept: set[Experiment] = set()
        self._active: Experiment | None = None
        self._controls = Controls(experiment, self._changed)
        self._wanted = self._controls.experiment
        self._status = StatusLine(self._cancel, self._compute_again)
        self._pins = Pins(self._redraw)
        self._bridge = PageBridge(self._export)
        self._bridge.observe(lambda _: self._redraw(), "theme")
        self._figure = LiveFigure(spectrum_figure([]))
        self._frame = w.VBox([self._figure])
        self._statistics, self._conditions, self._program = w.HTML(), w.HTML(), w.HTML()
        self._formulas = w.HTMLMath()
        self._worker = Worker(self._job_failed, self._finished)
        self.widget = self._arrange()
        replace_in_cell(self)
        self._request(self._wanted)

    @property
    def state(self) -> dict[str, Any]:
        """The present choices by name; assign a dict to change several at once."""
        return {name: getattr(self._controls.experiment, name) for name in NAMES}

    @state.setter
    def state(self, choices: dict[str, Any]) -> None:
        self.set(**choices)

    @property
    def experiment(self) -> Experiment:
        """The present choices as one object."""
        return self._controls.experiment

    @property
    def results(self) -> Result | None:
        """What is shown now; ``None`` before the first result."""
        return self._result

    @property
    def pinned(self) -> dict[str, Result]:
        """Pinned results by name."""
        return {name: pin.result for name, pin in self._pins.named().items()}

    def set(self, **choices: Any) -> Explorer:
        """Changes choices by name, as the controls would; returns the Explorer itself."""
        self._controls.set(self._controls.experiment.changed(**choices))
        self._request(self._controls.experiment)
        return self

    def gram(self) -> Gram:
        """The Gram matrix behind the present choices."""
        return Workbench().gram(self._controls.experiment)

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks until nothing is being computed; returns whether that was reached in time."""
        return self._worker.wait(timeout)

    def snapshot(self) -> go.Figure:
        """The figure as it is now, as a plain plotly figure that needs no kernel."""
        with self._lock:
            return spectrum_figure(self._curves(), theme=self._theme)

    def pin(self, name: str | None = None) -> None:
        """Keeps the present result in the figure, to compare others with it."""
        with self._lock:
            if self._result is None:
                raise InputError("there is no result to pin yet: wait for the first spectrum")
            self._pins.add(self._result, name)

    def close(self) -> None:
        """Cancels all work, stops listening and closes the widgets."""
        self._worker.close()
        self._bridge.unobserve_all()
        self._controls.close()
        self._pins.close()
        close_tree(self.widget)

    def __repr__(self) -> str:
        return f"Explorer({self._controls.experiment.label()})"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget._repr_mimebundle_(**kwargs)

    def _arrange(self) -> w.Box:
        pin = w.Button(description="Pin", tooltip="Keep this spectrum to compare others with it")
        pin.layout.width = "70px"
        pin.on_click(lambda _: self._pin_clicked())
        preset = w.Dropdown(
            options=[("Presets…", ""), *((name, name) for name in PRESETS)],
            tooltip="Ready-made comparisons",
        )
        preset.layout.width = "210px"
        preset.observe(lambda change: self._preset_chosen(change["new"], preset), "value")
        toolbar = w.HBox([preset, pin, self._bridge])
        toolbar.add_class("mrviz-toolbar")
        self._program.add_class("mrviz-note")
        formulas = w.Accordion([self._formulas], titles=("Formulas",), selected_index=None)
        view = w.VBox(
            [
                toolbar,
                self._status.box,
                self._statistics,
                self._frame,
                self._pins.box,
                self._program,
                self._conditions,
                formulas,
            ]
        )
        view.add_class("mrviz-view")
        main = w.Box([self._controls.box, view])
        main.add_class("mrviz-main")
        root = w.VBox([main])
        root.add_class("mrviz")
        return root

    @_reported
    def _changed(self, _: str) -> None:
        self._request(self._controls.experiment, DEBOUNCE)

    @_reported
    def _pin_clicked(self) -> None:
        self.pin()

    @_reported
    def _preset_chosen(self, name: str, control: w.Dropdown) -> None:
        if not name:
            return
        control.value = ""
        *pinned, (_, last) = PRESETS[name]
        with self._lock:
            self._controls.set(last)
            self._wanted = wanted = self._controls.experiment
            self._start(partial(self._run_preset, pinned, wanted), wanted, 0.0)

    def _request(self, experiment: Experiment, delay: float = 0.0) -> None:
        """Shows what is cached at once; starts the work for what is not."""
        with self._lock:  # a result that arrives meanwhile must not be taken for what is wanted
            self._wanted = experiment
            known = self._bench.cached(experiment)
            family = replace(experiment, capacity=None)
            if known is not None:
                if self._active != family:
                    self._worker.cancel()
                    self._active = None
                self._display(known, None)
                if self._active == family:
                    return
                if not self._missing(known, family):
                    self._finished(True)
                    return
            self._start(partial(self._compute, experiment), experiment, delay)

    def _start(
        self, job: Callable[[threading.Event], None], experiment: Experiment, delay: float
    ) -> None:
        if self._bench.cached(experiment) is None:
            self._show_panels(dim=True)
        self._active = replace(experiment, capacity=None)
        self._bridge.code = experiment.code()
        self._status.busy("computing")
        self._worker.submit(job, delay)

    def _missing(self, result: Result, family: Experiment) -> bool:
        return result.capacity_range is not None and family not in self._swept

    def _compute(self, experiment: Experiment, flag: threading.Event) -> None:
        """Sketches, then the exact result, then all other capacities for instant dragging."""
        report: dict[str, Any] = {"progress": self._status.progress, "cancel": flag}
        if self._bench.cached(experiment) is None:
            for sketch in self._bench.sketches(experiment, **report):
                self._display(sketch, flag, experiment)
        self._display(self._bench.run(experiment, **report), flag, experiment)
        family = replace(experiment, capacity=None)
        if family in self._swept:
            return
        for _ in self._bench.sweep(experiment, **report):
            stop_if_cancelled(flag, "capacities")
        self._swept.add(family)
        with suppress(MissingDataError):  # so that another target shows without a wait
            for name in TARGETS:
                stop_if_cancelled(flag, name)
                load_raw(name)

    def _run_preset(
        self,
        pinned: list[tuple[str, Experiment]],
        last: Experiment,
        flag: threading.Event,
    ) -> None:
        for name, experiment in pinned:
            result = self._bench.run(experiment, progress=self._status.progress, cancel=flag)
            with self._lock:
                stop_if_cancelled(flag, name)
                self._pins.add(result, name)
        self._compute(last, flag)

    def _display(
        self, result: Result, flag: threading.Event | None, wanted: Experiment | None = None
    ) -> None:
        """Shows a result, unless the job is cancelled or something newer is wanted."""
        with self._lock:
            stop_if_cancelled(flag, "display")
            if wanted is not None and self._wanted != wanted:
                return
            self._result = result
            if wanted is None or result.exact:
                self._wanted = result.experiment
            experiment = result.experiment
            self._controls.show_capacity(
                result.capacity_label, result.capacity_range, experiment.capacity
            )
            self._bridge.code = experiment.code()
            self._redraw()
            self._show_panels()

    def _show_panels(self, *, dim: bool = False) -> None:
        with self._lock:
            (self._frame.add_class if dim else self._frame.remove_class)("mrviz-dim")
            result = self._result
            if result is None:
                return
            note = "" if result.exact else f"Sketch: {result.sketch}."
            self._statistics.value = statistics_html(result, dim=dim)
            self._conditions.value = conditions_html(result.conditions, note=note, dim=dim)
            self._formulas.value = formulas_tex(result.conditions)
            self._program.value = f"Program: {result.description}."

    def _redraw(self) -> None:
        with self._lock:
            self._figure.show_figure(spectrum_figure(self._curves(), theme=self._theme))

    @property
    def _theme(self) -> Theme:
        return "dark" if self._bridge.theme == "dark" else "light"

    def _curves(self) -> list[Curve]:
        curves = []
        if (result := self._result) is not None:
            name = result.experiment.label()
            name += "" if result.exact else f" (sketch: {result.n} samples)"
            curves.append(Curve(f"now: {name}", result.spectrum, result.energy.numpy()))
        for name, pin in self._pins.named().items():
            found = pin.result
            curves.append(Curve(name, found.spectrum, found.energy.numpy(), pin.shown.value))
        return curves

    @_reported
    def _cancel(self) -> None:
        self._worker.cancel()
        self._active = None
        shown = (
            ""
            if self._result is None
            else (
                f"; the figure shows {self._result.experiment.label()}"
                + ("" if self._result.exact else f", sketched from {self._result.n} samples")
            )
        )
        self._status.idle(f"Cancelled{shown}", stale=True)

    @_reported
    def _compute_again(self) -> None:
        self._request(self._controls.experiment)

    def _failed(self, error: Exception) -> None:
        self._active = None
        self._status.error(error)

    def _job_failed(self, error: Exception) -> None:
        with self._lock:
            if not self._worker.waiting:  # else it failed for something nobody wants any more
                self._failed(error)

    def _finished(self, completed: bool) -> None:
        """The worker has nothing left to do."""
        with self._lock:
            result = self._result
            if not completed or result is None or self._worker.waiting:
                return
            self._active = None
            info = result.info
            notes = "".join(f"; {note}" for note in info.notes)
            self._status.idle(
                f"{result.n} samples, {info.method} kernel in {info.dtype} on {info.device}, "
                f"{result.seconds:.1f} s{notes}"
            )

    @_reported
    def _export(self, form: str) -> tuple[str, str, str] | None:
        """File name, MIME type and text of what is shown; errors go to the status line."""
        result = self._result
        if result is None:
            self._failed(InputError("there is nothing to export yet: wait for the first spectrum"))
            return None
        if form == "CSV":
            return "spectrum.csv", "text/csv", result.to_csv()
        if form == "JSON":
            pins = {name: pinned.to_dict() for name, pinned in self.pinned.items()}
            text = json.dumps({"current": result.to_dict(), "pinned": pins}, indent=1)
            return "spectrum.json", "application/json", text
        page = self.snapshot().to_html(include_plotlyjs=True, config=CONFIG)
        return "spectrum.html", "text/html", page


def _choice(name: str) -> property:
    """A property that reads and sets one choice of the Explorer."""
    return property(
        lambda self: getattr(self.experiment, name),
        lambda self, value: self.set(**{name: value}),
        doc=f"The choice {name!r}; can be set.",
    )


for _name in NAMES:
    setattr(Explorer, _name, _choice(_name))
