"""The Explorer: choose source, target and program, and watch the kernel's spectrum change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go

from mrviz._progress import stop_if_cancelled
from mrviz.errors import InputError, MissingDataError
from mrviz.experiment import Experiment
from mrviz.figures import Curve, Theme
from mrviz.ntk import Gram
from mrviz.pairing import kind_of_target
from mrviz.targets.options import as_choice
from mrviz.targets.raw import LABELLED, load_raw
from mrviz.widgets.bridge import PageBridge
from mrviz.widgets.cells import replace_in_cell
from mrviz.widgets.choices import Choices
from mrviz.widgets.controls import Controls
from mrviz.widgets.export import exported
from mrviz.widgets.pins import Pins
from mrviz.widgets.presets import PRESETS
from mrviz.widgets.screen import Screen
from mrviz.widgets.status import StatusLine
from mrviz.widgets.views import Job, Scene, make_views
from mrviz.widgets.worker import Worker
from mrviz.workbench import Result, Workbench

DEBOUNCE = 0.15
"""Seconds without another change before the expensive work begins."""


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


class Explorer(Choices):
    """A reprogrammed model's tangent kernel and its transfer conditions, live.

    Display it as the last line of a cell; running the cell again replaces it. Everything
    chosen in it can be read and set by name (``explorer.capacity = 4``), and :attr:`results`
    holds what it shows.

    Args:
        view: what the figure shows: "spectrum", "capacity", "learning", "gram", "source",
            "program" or "mapping".
        **choices: fields of :class:`~mrviz.experiment.Experiment`: ``source``, ``target``,
            ``program``, ``capacity``, ``n``, … as names or, for the first three, objects of
            your own; and options of program and mapping by their own names.

    Raises:
        InputError: a choice that does not exist.
    """

    def __init__(self, *, view: str = "spectrum", **choices: Any) -> None:
        experiment = Experiment().changed(**choices)
        self._bench = Workbench()
        self._lock = threading.RLock()
        self._result: Result | None = None
        self._active: Experiment | None = None
        self._controls = Controls(experiment, self._changed)
        self._wanted = self._controls.experiment
        self._status = StatusLine(self._cancel, self._compute_again)
        self._pins = Pins(self._redraw)
        self._bridge = PageBridge(self._export)
        self._bridge.observe(lambda _: self._redraw(), "theme")
        self._views = make_views(self._bench, self._view_changed)
        self._view = self._views[as_choice(view, self._views, "view")]
        self._screen = Screen(
            self._views,
            view,
            controls=self._controls.box,
            status=self._status.box,
            pins=self._pins.box,
            exports=self._bridge,
            on_view=self._view_chosen,
            on_click=self._point_clicked,
            on_pin=self._pin_clicked,
            presets=PRESETS,
            on_preset=self._preset_chosen,
        )
        self._worker = Worker(self._job_failed, self._finished)
        replace_in_cell(self)
        self._request(self._wanted)

    @property
    def widget(self) -> w.Widget:
        """Everything as one widget."""
        return self._screen.widget

    @property
    def experiment(self) -> Experiment:
        """The present choices as one object."""
        return self._controls.experiment

    @property
    def results(self) -> Result | None:
        """What is shown now; ``None`` before the first result."""
        return self._result

    @property
    def view(self) -> str:
        """What the figure shows; can be set."""
        return self._view.name

    @view.setter
    def view(self, name: str) -> None:
        self._screen.selector.value = as_choice(name, self._views, "view")

    @property
    def details(self) -> Any:
        """What the open view shows, as an object or a dict of them; ``None`` before it is there."""
        return None if self._result is None else self._view.details(self._result)

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
            return self._view.figure(self._scene())

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
        self._screen.close()

    def __repr__(self) -> str:
        return f"Explorer({self._controls.experiment.label()})"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget._repr_mimebundle_(**kwargs)

    @_reported
    def _changed(self, _: str) -> None:
        self._request(self._controls.experiment, DEBOUNCE)

    @_reported
    def _view_chosen(self, name: str) -> None:
        with self._lock:
            self._view = self._views[name]
            self._screen.open(self._view)
            self._redraw()
            self._show_panels()
            experiment = self._controls.experiment
            if self._bench.cached(experiment) is not None or not self._worker.busy:
                self._request(experiment)

    @_reported
    def _view_changed(self) -> None:
        with self._lock:
            self._redraw()
            self._request(self._controls.experiment, DEBOUNCE)

    @_reported
    def _point_clicked(self, x: float) -> None:
        if choices := self._view.clicked(x):
            self.set(**choices)

    @_reported
    def _pin_clicked(self) -> None:
        self.pin()

    @_reported
    def _preset_chosen(self, name: str) -> None:
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
                if not self._view.missing(known):
                    if self._active == family:
                        return
                    if not self._unswept(known):
                        self._finished(True)
                        return
            self._start(partial(self._compute, experiment), experiment, delay)

    def _start(
        self, job: Callable[[threading.Event], None], experiment: Experiment, delay: float
    ) -> None:
        if self._bench.cached(experiment) is None:
            self._show_panels(dim=True)
        self._active = replace(experiment, capacity=None)
        self._bridge.code = experiment.code() + self._view.code(experiment)
        self._status.busy("computing")
        self._worker.submit(job, delay)

    def _unswept(self, result: Result) -> bool:
        return result.capacity_range is not None and not self._bench.swept(result.experiment)

    def _compute(self, experiment: Experiment, flag: threading.Event) -> None:
        """Sketches, the exact result, what the view needs, all capacities for instant dragging."""
        report: dict[str, Any] = {"progress": self._status.progress, "cancel": flag}
        if self._bench.cached(experiment) is None:
            for sketch in self._bench.sketches(experiment, **report):
                self._display(sketch, flag, experiment)
        result, view = self._bench.run(experiment, **report), self._view
        self._display(result, flag, experiment)
        if view.missing(result):
            view.work(result, Job(**report, show=partial(self._show_again, result, flag)))
        if not self._unswept(result):
            return
        for _ in self._bench.sweep(result.experiment, **report):
            stop_if_cancelled(flag, "capacities")
        with suppress(MissingDataError):  # so that another target shows without a wait
            for name, spec in LABELLED.items():
                stop_if_cancelled(flag, name)
                if spec.kind == kind_of_target(experiment.target) and not spec.online:
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
            self._bridge.code = experiment.code() + self._view.code(experiment)
            self._redraw()
            self._show_panels()

    def _show_again(self, result: Result, flag: threading.Event) -> None:
        """Something new is known of a result."""
        known = self._bench.cached(result.experiment) or result
        self._display(known, flag, result.experiment)

    def _show_panels(self, *, dim: bool = False) -> None:
        with self._lock:
            self._screen.dim(dim)
            if self._result is not None:
                self._screen.tell(self._result, self._view, dim=dim)

    def _redraw(self) -> None:
        with self._lock:
            self._screen.draw(self._view.figure(self._scene()))

    @property
    def _theme(self) -> Theme:
        return "dark" if self._bridge.theme == "dark" else "light"

    def _scene(self) -> Scene:
        pinned = [
            Curve(name, pin.result.spectrum, pin.result.energy.numpy(), pin.shown.value)
            for name, pin in self._pins.named().items()
        ]
        return Scene(self._result, pinned, self._theme)

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
        with self._lock:
            return exported(form, self._view, result, self.pinned, self.snapshot())
