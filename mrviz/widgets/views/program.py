"""The view of what the program does to an input."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go
from torch import Tensor

from mrviz.experiment import Experiment
from mrviz.figures import message_figure, program_figure
from mrviz.programs import ReprogrammedModel
from mrviz.widgets.views.base import Job, Scene, View
from mrviz.workbench import Result, Workbench
from mrviz.workbench.recent import Recent
from mrviz.workbench.result import as_csv


@dataclass(frozen=True, eq=False)
class Programmed:
    """Samples and what the source sees of them.

    Attributes:
        model: the reprogrammed model, a copy that stays as it is.
        inputs: (n, *target_shape).
        programmed: u, (n, *source_shape).
    """

    model: ReprogrammedModel
    inputs: Tensor
    programmed: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Inputs and programmed inputs as lists."""
        return {"inputs": self.inputs.tolist(), "programmed": self.programmed.tolist()}


class ProgramView(View):
    """A sample, the programmed input that the source sees, and what of it is trainable."""

    name = "program"
    label = "Program"
    tooltip = "What the input program does to a sample before the source sees it"

    def __init__(self, bench: Workbench, changed: Callable[[], None]) -> None:
        super().__init__(bench, changed)
        self._found: Recent[Programmed] = Recent(4)
        self._sample = w.BoundedIntText(
            description="Sample", min=1, max=1_000_000, value=1, tooltip="Which training sample"
        )
        self._sample.observe(lambda _: changed(), "value")
        self.controls = (self._sample,)

    def missing(self, result: Result) -> bool:
        """Whether the programmed inputs are not there yet."""
        return self.details(result) is None

    def work(self, result: Result, job: Job) -> None:
        """Runs the program on the training samples."""
        model = copy.deepcopy(self.bench.model(result.experiment, **job.report))
        x = model.inputs(self.bench.target(result.experiment).x_train[: result.n])
        found = Programmed(model, x.cpu(), model.programmed(x).detach().cpu())
        self._found.put(result.experiment, found)
        job.show()

    def figure(self, scene: Scene) -> go.Figure:
        """The chosen sample."""
        result = scene.result
        found = None if result is None else self.details(result)
        if result is None or found is None:
            text = "" if result is None else "Running the program …"
            return message_figure(text, theme=scene.theme)
        k = self._index(result)
        return program_figure(found.model, found.inputs[k : k + 1], theme=scene.theme)

    def note(self, result: Result) -> str:
        """Which sample of how many."""
        return f"Sample {self._index(result) + 1} of {result.n}."

    def table(self, result: Result) -> str:
        """One row a value of the chosen sample, first of the input, then of the programmed one."""
        found, k = self.details(result), self._index(result)
        rows: list[tuple[Any, ...]] = []
        if found is not None:
            for what, values in (("input", found.inputs[k]), ("programmed", found.programmed[k])):
                rows += [(what, i, value) for i, value in enumerate(values.flatten().tolist())]
        return as_csv(("what", "index", "value"), rows)

    def details(self, result: Result) -> Programmed | None:
        """Samples and programmed inputs."""
        return self._found.get(result.experiment)

    def code(self, experiment: Experiment) -> str:
        """The same picture."""
        k = self._sample.value - 1
        return (
            "\nfrom mrviz.figures import program_figure\n\n"
            f"figure = program_figure(model, x[{k}:{k + 1}])\n"
        )

    def _index(self, result: Result) -> int:
        return min(int(self._sample.value), result.n) - 1
