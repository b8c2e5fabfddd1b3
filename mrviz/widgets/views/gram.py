"""The view of the Gram matrix and its factors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import plotly.graph_objects as go

from mrviz.experiment import DTYPES, Experiment
from mrviz.figures import gram_figure, message_figure
from mrviz.theory import GramFactors, gram_factors
from mrviz.widgets.views.base import Job, Scene, View
from mrviz.workbench import Result, Workbench
from mrviz.workbench.recent import Recent
from mrviz.workbench.result import as_csv

HEIGHT = 390
"""Three maps side by side are this high, in pixels."""


class GramView(View):
    """Heat maps of the program kernel, the source Jacobian Gram and the trace kernel."""

    name = "gram"
    label = "Gram and factors"
    tooltip = "The kernel matrix ordered by class, and what program and source make of it"

    def __init__(self, bench: Workbench, changed: Callable[[], None]) -> None:
        super().__init__(bench, changed)
        self._found: Recent[GramFactors] = Recent(64)

    def missing(self, result: Result) -> bool:
        """Whether the factors are not there yet."""
        return self.details(result) is None

    def work(self, result: Result, job: Job) -> None:
        """Computes the factors from cached Jacobians."""
        experiment = result.experiment
        factors = gram_factors(
            self.bench.model(experiment),
            self.bench.target(experiment),
            n=result.n,
            dtype=DTYPES[experiment.dtype],
            **job.report,
        )
        self._found.put(_key(experiment), factors)
        job.show()

    def figure(self, scene: Scene) -> go.Figure:
        """One heat map, or three where the kernel is a product."""
        result = scene.result
        factors = None if result is None else self.details(result)
        if result is None or factors is None:
            return message_figure(
                "" if result is None else "Computing the factors …", theme=scene.theme
            )
        return gram_figure(
            factors,
            classes=result.experiment.class_names,
            theme=scene.theme,
            height=470 if factors.program is None else HEIGHT,
        )

    def table(self, result: Result) -> str:
        """One row a pair of samples."""
        factors = self.details(result)
        head = ("i", "j", "class_i", "class_j", "kernel", "source", "program")
        if factors is None:
            return as_csv(head, [])
        labels = [""] * factors.n if factors.labels is None else factors.labels.tolist()
        program = [[""] * factors.n] * factors.n
        if factors.program is not None:
            program = factors.program.tolist()
        kernel, source = factors.kernel.tolist(), factors.source.tolist()
        return as_csv(
            head,
            [
                (i, j, labels[i], labels[j], kernel[i][j], source[i][j], program[i][j])
                for i in range(factors.n)
                for j in range(factors.n)
            ],
        )

    def details(self, result: Result) -> GramFactors | None:
        """The factors."""
        return self._found.get(_key(result.experiment))

    def code(self, experiment: Experiment) -> str:
        """The factors of the same samples."""
        return (
            "\nfrom mrviz.theory import gram_factors\n\n"
            f"print(gram_factors(model, target, n={experiment.n}))\n"
        )


def _key(experiment: Experiment) -> Experiment:
    """The factors are those of the trace kernel, whatever the reduction."""
    return replace(experiment, reduce="trace")
