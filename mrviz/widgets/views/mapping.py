"""The view of the output mapping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go
from torch import Tensor

from mrviz.experiment import DTYPES, Experiment
from mrviz.figures import mapping_figure, message_figure
from mrviz.pairing import mapping_fits
from mrviz.programs import MAPPINGS
from mrviz.theory import MappingEffect, mapping_effect
from mrviz.widgets.views.base import Job, Scene, View
from mrviz.workbench import Result, Workbench
from mrviz.workbench.recent import Recent
from mrviz.workbench.result import as_csv


class MappingView(View):
    """Source outputs against target outputs, and what another mapping would do to the kernel."""

    name = "mapping"
    label = "Mapping"
    tooltip = "Which source outputs stand for which target outputs; what another mapping changes"

    def __init__(self, bench: Workbench, changed: Callable[[], None]) -> None:
        super().__init__(bench, changed)
        self._weights: Recent[Tensor] = Recent(64)
        self._effects: Recent[MappingEffect] = Recent(64)
        self._other = w.Dropdown(
            description="Compare the kernel with",
            options=[(spec.label, name) for name, spec in MAPPINGS.items()],
            tooltip="By how much would the kernel change with this mapping?",
        )
        self._other.observe(lambda _: changed(), "value")
        self.controls = (self._other,)

    def missing(self, result: Result) -> bool:
        """Whether the matrix or the comparison is not there yet."""
        return self.details(result) is None or (
            self._compares(result.experiment) and self._effects.get(self._key(result)) is None
        )

    def work(self, result: Result, job: Job) -> None:
        """Reads the matrix, then computes the kernel with the other mapping."""
        experiment = result.experiment
        model = self.bench.model(experiment, **job.report)
        self._weights.put(experiment, model.weights.detach().double().cpu())
        job.show()
        if (
            not self._compares(result.experiment)
            or self._effects.get(self._key(result)) is not None
        ):
            return
        effect = mapping_effect(
            model,
            self.bench.target(experiment),
            self._other.value,
            gram=self.bench.gram(experiment, **job.report),
            n=result.n,
            reduce=experiment.reduce,
            seed=experiment.seed,
            dtype=DTYPES[experiment.dtype],
            **job.report,
        )
        self._effects.put(self._key(result), effect)
        job.show()

    def figure(self, scene: Scene) -> go.Figure:
        """The matrix as a heat map."""
        result = scene.result
        weights = None if result is None else self._weights.get(result.experiment)
        if result is None or weights is None:
            text = "" if result is None else "Reading the mapping …"
            return message_figure(text, theme=scene.theme)
        return mapping_figure(
            weights,
            target_classes=result.experiment.output_names,
            theme=scene.theme,
            labels=bool(result.experiment.class_names),
        )

    def note(self, result: Result) -> str:
        """What the other mapping does to the kernel."""
        if not self._compares(result.experiment):
            if self._other.value == result.experiment.mapping:
                return ""
            return (
                f"{MAPPINGS[self._other.value].label} is made from class labels, and this target "
                "has real values: the kernel is not compared with it."
            )
        effect = self._effects.get(self._key(result))
        return "" if effect is None else f"Mapping {effect.describe()}."

    def table(self, result: Result) -> str:
        """One row a weight that is not zero."""
        weights = self._weights.get(result.experiment)
        rows: list[tuple[Any, ...]] = []
        if weights is not None:
            names = result.experiment.output_names
            for c, s in weights.nonzero().tolist():
                rows.append((names[c], s, float(weights[c, s])))
        return as_csv(("target_class", "source_class", "weight"), rows)

    def details(self, result: Result) -> dict[str, Any] | None:
        """The matrix (C, c_S), and the comparison where it is there."""
        weights = self._weights.get(result.experiment)
        if weights is None:
            return None
        found: dict[str, Any] = {"weights": weights.tolist()}
        if (
            self._compares(result.experiment)
            and (effect := self._effects.get(self._key(result))) is not None
        ):
            found["effect"] = effect
        return found

    def code(self, experiment: Experiment) -> str:
        """The matrix and the comparison."""
        lines = ["", "print(model.weights)"]
        if self._compares(experiment):
            lines += ["from mrviz.theory import mapping_effect", ""]
            lines.append(
                f"print(mapping_effect(model, target, {self._other.value!r}, gram=gram, "
                f"reduce={experiment.reduce!r}, seed={experiment.seed}))"
            )
        return "\n".join(lines) + "\n"

    def _compares(self, experiment: Experiment) -> bool:
        """Whether there is another mapping that the target has all for."""
        other = self._other.value
        return other != experiment.mapping and mapping_fits(other, {}, experiment.target)

    def _key(self, result: Result) -> tuple[Experiment, str]:
        return result.experiment, str(self._other.value)
