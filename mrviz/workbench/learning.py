"""Predicted and real training of an experiment."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.experiment import DTYPES, Experiment
from mrviz.ntk import capacity_grams, ntk_gram
from mrviz.programs import ForecastComparison, Program, compare_forecasts
from mrviz.programs.fit import Fit, Measurement
from mrviz.programs.training import train
from mrviz.targets import ForecastTarget
from mrviz.theory import Drift, Prediction, kernel_drift, predict_training, stable_step
from mrviz.workbench.bench import Workbench
from mrviz.workbench.recent import Recent
from mrviz.workbench.result import Result

MEASURED = 25
"""A real training is measured about so often: measuring can cost as much as a step."""


@dataclass(frozen=True)
class Schedule:
    """How an experiment is trained.

    Attributes:
        loss: "cross_entropy" or "squared".
        optimizer: "gd", "momentum", "sgd" or "adam".
        rate: step size as a share of the largest stable one; of no meaning for "adam".
        steps: number of steps.
        n_test: number of held-out samples.
    """

    loss: str = "cross_entropy"
    optimizer: str = "gd"
    rate: float = 0.5
    steps: int = 100
    n_test: int = 200


@dataclass(frozen=True, eq=False)
class Training:
    """A real training and how far it moved the kernel, where it did not diverge."""

    fit: Fit
    drift: Drift | None


class Learning:
    """Predictions and trainings of experiments, the last few kept.

    Args:
        bench: whose models and Grams are used; not thread-safe, as it.
    """

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._predictions: Recent[Prediction] = Recent(4)  # each holds a Gram
        self._outcomes: Recent[float] = Recent(512)
        self._comparisons: Recent[ForecastComparison] = Recent(64)
        self._histories: Recent[tuple[Measurement, ...]] = Recent(64)
        self._trainings: Recent[Training] = Recent(64)

    def obstacle(self, experiment: Experiment) -> str:
        """Why the training of an experiment cannot be predicted; empty where it can."""
        if isinstance(experiment.reduce, int):
            what = "class" if experiment.class_names else "output"
            return (
                f"The kernel of {what} {experiment.reduce} alone does not say how the other "
                "outputs move: choose the kernel full, trace or sum."
            )
        return ""

    def prediction(self, experiment: Experiment, schedule: Schedule) -> Prediction | None:
        """The prediction, if it is there already."""
        return self._predictions.get((experiment, schedule))

    def outcome(self, experiment: Experiment, schedule: Schedule) -> float | None:
        """The predicted held-out accuracy, if it is there already.

        Of real-valued targets it is the mean squared error; NaN where training diverges.
        """
        return self._outcomes.get((experiment, schedule))

    def comparison(self, experiment: Experiment, schedule: Schedule) -> ForecastComparison | None:
        """Forecasts before training, of the source alone and of the naive rule, if there already.

        There are none for targets that are no forecasts.
        """
        return self._comparisons.get(_start(experiment, schedule))

    def history(self, experiment: Experiment, schedule: Schedule) -> tuple[Measurement, ...]:
        """What was measured of the real training so far; empty before it."""
        return self._histories.get((experiment, schedule)) or ()

    def training(self, experiment: Experiment, schedule: Schedule) -> Training | None:
        """The real training, if it was finished."""
        return self._trainings.get((experiment, schedule))

    def options(self, result: Result, schedule: Schedule) -> dict[str, Any]:
        """The arguments of :func:`~mrviz.predict_training` that a schedule stands for.

        Of held-out samples there are as many as asked for, or all.
        """
        available = len(self._bench.target(result.experiment).x_test)
        options: dict[str, Any] = {
            "loss": schedule.loss,
            "optimizer": schedule.optimizer,
            "steps": schedule.steps,
            "n_test": min(schedule.n_test, available),
        }
        if schedule.optimizer != "adam":
            beta = 0.9 if schedule.optimizer == "momentum" else None
            edge = stable_step(result.spectrum.largest, result.n, loss=schedule.loss, momentum=beta)
            options["lr"] = schedule.rate * edge
        return options

    def predict(
        self,
        result: Result,
        schedule: Schedule,
        progress: ProgressCallback | bool | None = None,
        cancel: CancelFlag | None = None,
    ) -> Prediction:
        """Predicts a training; the result's T7 is judged by it."""
        experiment = result.experiment
        key = (experiment, schedule)
        prediction = self._predictions.get(key)
        if prediction is None:
            gram = self._bench.gram(experiment, progress, cancel)
            report: dict[str, Any] = {"progress": progress, "cancel": cancel}
            prediction = self._predict(result, schedule, gram=gram, **report)
        return prediction

    def predict_capacities(
        self,
        result: Result,
        schedule: Schedule,
        progress: ProgressCallback | bool | None = None,
        cancel: CancelFlag | None = None,
    ) -> Iterator[int]:
        """Predicts outcomes at all capacities; yields each when it is there.

        Both parts of the kernel, of training and of held-out samples, come from one Jacobian
        pass for all capacities. A program without a closed form is predicted at the present one.
        """
        experiment = result.experiment
        model, target = self._bench.model(experiment), self._bench.target(experiment)
        if not (isinstance(model.program, Program) and model.program.closed_form):
            self.predict(result, schedule, progress, cancel)
            if experiment.capacity is not None:
                yield experiment.capacity
            return
        x = target.x_train[: result.n]
        options: dict[str, Any] = {
            "reduce": experiment.reduce,
            "dtype": DTYPES[experiment.dtype],
            "progress": progress,
            "cancel": cancel,
        }
        x_test = target.x_test[: schedule.n_test]
        grams = capacity_grams(model, x, **options)
        crosses = capacity_grams(model, x_test, x2=x, **options)
        for (capacity, gram), (_, cross) in zip(grams, crosses, strict=True):
            at = self._bench.cached(replace(experiment, capacity=capacity))
            if at is None or self.outcome(at.experiment, schedule) is not None:
                continue
            self._predict(at, schedule, gram=gram, cross=cross, progress=False, cancel=cancel)
            yield capacity

    def train(
        self,
        result: Result,
        schedule: Schedule,
        on_step: Callable[[], None],
        progress: ProgressCallback | bool | None = None,
        cancel: CancelFlag | None = None,
    ) -> Training:
        """Trains for real, a copy of the model; the result's T12 is judged by it.

        Args:
            result: of the experiment.
            schedule: how it is trained.
            on_step: called when the history has grown.
            progress: as in :func:`~mrviz.train`.
            cancel: as in :func:`~mrviz.train`; what was measured until then is kept.
        """
        experiment = result.experiment
        key = (experiment, schedule)
        prediction = self.predict(result, schedule, progress, cancel)
        model = copy.deepcopy(self._bench.model(experiment))
        target = self._bench.target(experiment)
        self._histories.put(key, ())

        def measured(news: Measurement) -> None:
            self._histories.put(key, (*self.history(experiment, schedule), news))
            on_step()

        fit = train(
            model,
            target,
            **prediction.train_options,
            seed=experiment.seed,
            record_every=max(1, schedule.steps // MEASURED),
            progress=progress,
            cancel=cancel,
            on_step=measured,
        )
        drift = None
        if fit.diverged is None:
            after = ntk_gram(
                model,
                target.x_train[: result.n],
                reduce=experiment.reduce,
                dtype=DTYPES[experiment.dtype],
                progress=progress,
                cancel=cancel,
            )
            drift = kernel_drift(prediction.gram, after)
            self._bench.supply(experiment, drift=drift)
        training = Training(fit, drift)
        self._trainings.put(key, training)
        return training

    def _predict(self, result: Result, schedule: Schedule, **given: Any) -> Prediction:
        """Predicts from Grams that are there, on the held-out samples there are, and keeps it."""
        experiment, key = result.experiment, (result.experiment, schedule)
        model, target = self._bench.model(experiment), self._bench.target(experiment)
        options = self.options(result, schedule)
        prediction = predict_training(
            model, target, dtype=DTYPES[experiment.dtype], **options, **given
        )
        start = _start(experiment, schedule)
        if isinstance(target, ForecastTarget) and self._comparisons.get(start) is None:
            self._comparisons.put(start, compare_forecasts(model, target, n=options["n_test"]))
        self._predictions.put(key, prediction)
        outcome = prediction.accuracy if target.is_classification else prediction.mse
        self._outcomes.put(key, math.nan if outcome is None else outcome)
        self._bench.supply(experiment, prediction=prediction)
        return prediction


def _start(experiment: Experiment, schedule: Schedule) -> tuple[Experiment, int]:
    """What decides the forecasts before training, which no capacity changes."""
    return replace(experiment, capacity=None), schedule.n_test
