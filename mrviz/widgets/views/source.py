"""The view of the source on its own task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go

from mrviz.experiment import Experiment
from mrviz.figures import message_figure, source_figure
from mrviz.pairing import DEFAULTS, kind_of_source, task_of_source
from mrviz.targets import Kind
from mrviz.targets.raw import LABELLED
from mrviz.widgets.views.base import Job, Scene, View
from mrviz.workbench import OWN, Result, SourceStudy, Workbench, depths, has_own_data
from mrviz.workbench.result import as_csv


class SourceView(View):
    """Source accuracy, the spectrum of K_S, and λ_min[K_S] over the depth of its family."""

    name = "source"
    label = "Source"
    tooltip = "How good the source is: accuracy, spectrum of its kernel K_S, λ_min over depth"

    def __init__(self, bench: Workbench, changed: Callable[[], None]) -> None:
        super().__init__(bench, changed)
        self._study = SourceStudy(bench)
        self._data = w.Dropdown(
            description="Source data",
            options=_choices("image"),
            tooltip="The samples in K_S: 10 of each class, drawn three times",
        )
        self._data.observe(lambda _: changed(), "value")
        self.controls = (self._data,)

    def missing(self, result: Result) -> bool:
        """Whether report, depth curve or conditions are not there yet."""
        return not self._lacks(result.experiment) and not self._study.complete(
            result, self._name(result.experiment)
        )

    def work(self, result: Result, job: Job) -> None:
        """Report, curve over depth, and the conditions that need the source's own data."""
        self._study.work(result, self._name(result.experiment), job.show, **job.report)

    def figure(self, scene: Scene) -> go.Figure:
        """Spectrum of K_S and λ_min over depth."""
        result = scene.result
        if result is not None:
            self._offer(_kind(result.experiment))
        found = None if result is None else self.details(result)
        if result is None or found is None:
            text = "" if result is None else self._lacks(result.experiment)
            text = text or ("" if result is None else "Looking at the source …")
            return message_figure(text, theme=scene.theme)
        return source_figure(
            found["report"],
            found["depths"],
            depth=result.experiment.depth,
            theme=scene.theme,
        )

    def note(self, result: Result) -> str:
        """Accuracy, and whose data these are."""
        found = self.details(result)
        if found is None:
            return ""
        report, name = found["report"], self._name(result.experiment)
        parts = []
        if name == OWN:
            strength = report.strength
            low, high = strength.interval
            parts.append(
                f"Source accuracy on its own task {strength.accuracy:.1%} (95 % interval "
                f"{low:.1%} to {high:.1%}, {strength.n:,} held-out samples)"
            )
        else:
            parts.append(
                f"K_S on {LABELLED[name].label}, not on the source's own task, so that T8 to T10 "
                "stay as they are"
            )
        if found["depths"]:
            parts.append("λ_min over depth is that of random weights")
        return "; ".join([*parts, *report.notes]) + "."

    def table(self, result: Result) -> str:
        """Eigenvalues of K_S by kind and draw, then λ_min by depth, kind and draw."""
        found = self.details(result)
        rows: list[tuple[Any, ...]] = []
        for kernel in found["report"].kernels if found else ():
            for draw, spec in enumerate(kernel.spectra, start=1):
                for k, value in enumerate(spec.eigenvalues.tolist(), start=1):
                    rows.append(("spectrum", kernel.kind, "", draw, k, value, value > spec.floor))
        for point in found["depths"] if found else ():
            for strength in point.strengths:
                pairs = zip(strength.smallest, strength.floors, strict=True)
                for draw, (value, floor) in enumerate(pairs, start=1):
                    row = ("smallest", strength.kind, point.depth, draw, strength.order)
                    rows.append((*row, value, value > floor))
        head = ("what", "kind", "depth", "draw", "index", "eigenvalue", "resolved")
        return as_csv(head, rows)

    def details(self, result: Result) -> dict[str, Any] | None:
        """The report and the points over depth."""
        experiment = result.experiment
        name = self._name(experiment)
        report = self._study.report(experiment, name)
        if report is None:
            return None
        return {"report": report, "depths": self._study.curve(experiment, name)}

    def code(self, experiment: Experiment) -> str:
        """The report, and the curve over depth where the family has one."""
        if self._lacks(experiment):
            return ""
        name = self._name(experiment)
        lines = ["", "from mrviz.theory import source_report, strength_over_depth"]
        if name == OWN:
            lines += ["", "data = source.test_data"]
        else:
            lines += ["from mrviz.workbench.source import images_for", ""]
            lines.append(f"data = images_for({name!r}, source)")
        lines.append(f"print(source_report(source, data, seed={experiment.seed}))")
        if depths(experiment):
            width = "" if experiment.width is None else f", width={experiment.width}"
            lines.append(
                f"print(*strength_over_depth({experiment.source!r}, None, data{width}, "
                f"weight_seeds=({experiment.seed},), seed={experiment.seed}), sep='\\n')"
            )
        return "\n".join(lines) + "\n"

    def _name(self, experiment: Experiment) -> str:
        """The data set in use: another one where the source brings none or takes another kind."""
        name, kind = str(self._data.value), _kind(experiment)
        if name == OWN and (has_own_data(experiment) or _forecasts(experiment)):
            return name
        if name == OWN or LABELLED[name].kind != kind:
            return DEFAULTS[kind]["target"]
        return name

    def _lacks(self, experiment: Experiment) -> str:
        """Why there is nothing to look at; empty where there is."""
        if self._name(experiment) != OWN or has_own_data(experiment):
            return ""
        return (
            "A forecaster has no accuracy and no labelled data of its own, which T8, T9 and T10 "
            "need. Choose labelled data above to see its kernel K_S on them; that of fracast "
            "takes minutes."
        )

    def _offer(self, kind: Kind) -> None:
        """Offers the data sets of a kind; what is chosen stays where it is one of them."""
        choices, kept = _choices(kind), self._data.value
        if list(self._data.options) == choices:
            return
        self._data.unobserve_all("value")
        self._data.options = choices
        self._data.value = kept if kept in [value for _, value in choices] else OWN
        self._data.observe(lambda _: self.changed(), "value")


def _forecasts(experiment: Experiment) -> bool:
    return task_of_source(experiment.source) == "forecast"


def _kind(experiment: Experiment) -> Kind:
    """The kind of data offered: series where the source takes them, otherwise images."""
    return "series" if kind_of_source(experiment.source) == "series" else "image"


def _choices(kind: Kind) -> list[tuple[str, str]]:
    sets = [(spec.label, name) for name, spec in LABELLED.items() if spec.kind == kind]
    return [("the source's own, where it has some", OWN), *sets]
