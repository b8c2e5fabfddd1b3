"""The view over the whole range of capacities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go

from mrviz.experiment import Experiment
from mrviz.figures import capacity_figure
from mrviz.spectrum import CapacitySweep
from mrviz.widgets.views.base import Job, Scene, View
from mrviz.workbench import Learning, Result, Schedule, Workbench
from mrviz.workbench.result import as_csv

SCHEDULE = Schedule()
"""The training whose outcome is predicted at every capacity; on real values, squared loss."""


class CapacityView(View):
    """λ_min, effective rank and predicted outcome at every capacity; a click goes there."""

    name = "capacity"
    label = "Capacity"
    tooltip = "λ_min, effective rank and predicted outcome at every capacity; click to go there"

    def __init__(self, bench: Workbench, changed: Callable[[], None], learning: Learning) -> None:
        super().__init__(bench, changed)
        self._learning = learning

    def missing(self, result: Result) -> bool:
        """Whether a capacity was not looked at yet."""
        if result.capacity_range is None:
            return False
        if not self.bench.swept(result.experiment):
            return True
        if not self._predicts(result):
            return False
        return len(self._predicted(result)) < len(self._results(result))

    def work(self, result: Result, job: Job) -> None:
        """Sweeps the capacities, then predicts training at each, coarse to fine."""
        if not self.bench.swept(result.experiment):
            for _ in self.bench.sweep(result.experiment, **job.report):
                job.show()
        if self._predicts(result):
            schedule = _schedule(result.experiment)
            for _ in self._learning.predict_capacities(result, schedule, **job.report):
                job.show()

    def figure(self, scene: Scene) -> go.Figure:
        """Three curves over the capacity."""
        sweep, result = None, scene.result
        if result is not None:
            sweep = self._sweep(result)
        if result is None or sweep is None:
            return capacity_figure(None, theme=scene.theme, message=self._why_not(result))
        classes = len(result.experiment.class_names)
        return capacity_figure(
            sweep,
            predicted=self._predicted(result),
            measure="accuracy" if classes else "mean squared error",
            current=result.experiment.capacity,
            chance=1 / classes if classes else None,
            theme=scene.theme,
        )

    def note(self, result: Result) -> str:
        """What the predicted outcome means."""
        if self._sweep(result) is None or not self._predicted(result):
            return self._learning.obstacle(result.experiment)
        labels = bool(result.experiment.class_names)
        what = "accuracy" if labels else "mean squared error (MSE)"
        return (
            f"Predicted {what} on the held-out samples, at most {SCHEDULE.n_test}, after "
            f"{SCHEDULE.steps} steps of full-batch gradient descent on the "
            f"{'cross-entropy' if labels else 'squared loss'}, at half the largest stable step. "
            "Click a point to go to its capacity."
        )

    def table(self, result: Result) -> str:
        """One row a capacity."""
        predicted = self._predicted(result)
        return as_csv(
            (
                "capacity",
                "parameters",
                "smallest",
                "resolved",
                "rank",
                "effective_rank",
                _measure(result.experiment),
            ),
            [
                (
                    at.experiment.capacity,
                    at.info.n_parameters,
                    at.spectrum.smallest if at.spectrum.full_rank else "",
                    at.spectrum.full_rank,
                    at.spectrum.rank,
                    at.spectrum.effective_rank,
                    predicted.get(at.experiment.capacity or 0, ""),
                )
                for at in self._results(result)
            ],
        )

    def details(self, result: Result) -> dict[str, Any] | None:
        """The sweep and the predicted outcomes by capacity."""
        sweep = self._sweep(result)
        if sweep is None:
            return None
        name = f"predicted_{_measure(result.experiment)}"
        return {"sweep": sweep, name: self._predicted(result)}

    def code(self, experiment: Experiment) -> str:
        """A sweep, and the prediction at each of its capacities."""
        precision = "" if experiment.dtype == "float32" else f", dtype=torch.{experiment.dtype}"
        loss = "" if experiment.class_names else "loss='squared', "
        return (
            f"\nsweep = mrviz.capacity_sweep(model, x, reduce={experiment.reduce!r}{precision})\n"
            "print(sweep)\n"
            "for capacity in sweep.capacities:\n"
            "    model.capacity = capacity\n"
            f"    found = mrviz.predict_training(model, target, n={experiment.n}, {loss}"
            f"steps={SCHEDULE.steps}, n_test=min({SCHEDULE.n_test}, len(target.x_test)), "
            f"reduce={experiment.reduce!r})\n"
            f"    print(capacity, found.{_measure(experiment)})\n"
        )

    def clicked(self, x: float) -> dict[str, Any]:
        """The capacity of the point."""
        return {"capacity": round(x)}

    def _results(self, result: Result) -> list[Result]:
        """Results at all capacities that are there, increasing."""
        if result.capacity_range is None:
            return []
        low, high = result.capacity_range
        found = (
            self.bench.cached(replace(result.experiment, capacity=capacity))
            for capacity in range(low, high + 1)
        )
        return [at for at in found if at is not None]

    def _sweep(self, result: Result) -> CapacitySweep | None:
        found = self._results(result)
        if not found:
            return None
        return CapacitySweep(
            capacities=tuple(at.experiment.capacity or 0 for at in found),
            spectra=tuple(at.spectrum for at in found),
            infos=tuple(at.info for at in found),
            capacity_label=result.capacity_label or "capacity",
            reduce=result.experiment.reduce,
        )

    def _predicts(self, result: Result) -> bool:
        return not self._learning.obstacle(result.experiment)

    def _predicted(self, result: Result) -> dict[int, float]:
        found = {}
        for at in self._results(result):
            outcome = self._learning.outcome(at.experiment, _schedule(at.experiment))
            if outcome is not None and at.experiment.capacity is not None:
                found[at.experiment.capacity] = outcome
        return found

    def _why_not(self, result: Result | None) -> str:
        if result is None:
            return ""
        if result.capacity_range is None:
            return "This program has no capacity to choose."
        return "The capacities are shown once the exact spectrum is there."


def _schedule(experiment: Experiment) -> Schedule:
    return SCHEDULE if experiment.class_names else replace(SCHEDULE, loss="squared")


def _measure(experiment: Experiment) -> str:
    return "accuracy" if experiment.class_names else "mse"
