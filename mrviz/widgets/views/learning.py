"""The view of training: predicted from the kernel, then run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go

from mrviz.experiment import Experiment
from mrviz.figures import learning_figure
from mrviz.programs.losses import mean_squared_error
from mrviz.widgets.views.base import Job, Scene, View
from mrviz.workbench import Learning, Result, Schedule, Workbench
from mrviz.workbench.result import as_csv

INTERVAL = 0.15
"""A running training is drawn at most this often, in seconds."""

OPTIMIZERS = (
    ("gradient descent", "gd"),
    ("gradient descent with momentum", "momentum"),
    ("SGD, mini-batches", "sgd"),
    ("Adam, mini-batches", "adam"),
)
LOSSES = (("cross-entropy", "cross_entropy"), ("squared", "squared"))

OTHERS = {"source": "source alone", "seasonal naive": "seasonal naive rule"}
"""Forecasts beside those of the model, by their names in a comparison."""

RATES = tuple((f"{rate:g} × stable", rate) for rate in (0.05, 0.1, 0.25, 0.5, 0.9, 1.1, 2.0, 4.0))


class LearningView(View):
    """Predicted loss and accuracy, and the real training on top of them."""

    name = "learning"
    label = "Learning curve"
    tooltip = "Loss and accuracy predicted from the kernel; Train runs it for real"

    def __init__(self, bench: Workbench, changed: Callable[[], None], learning: Learning) -> None:
        super().__init__(bench, changed)
        self._learning = learning
        self._wanted: tuple[Experiment, Schedule] | None = None
        first = Schedule()
        self._loss = w.Dropdown(
            description="Loss",
            options=LOSSES,
            value=first.loss,
            tooltip="The loss that is trained and predicted",
        )
        self._optimizer = w.Dropdown(
            description="Optimizer",
            options=OPTIMIZERS,
            value=first.optimizer,
            tooltip="SGD and Adam are predicted by full-batch gradient descent",
        )
        self._rate = w.Dropdown(
            description="Step size",
            options=RATES,
            value=first.rate,
            tooltip="As a multiple of the largest stable step; above 1 training may diverge",
        )
        self._steps = w.BoundedIntText(
            description="Steps",
            min=1,
            max=10_000,
            value=first.steps,
            tooltip="Number of steps",
        )
        self._n_test = w.BoundedIntText(
            description="Held-out samples",
            min=1,
            max=10_000,
            value=first.n_test,
            tooltip="Samples on which loss and accuracy are measured beside the training samples",
        )
        self._train = w.Button(description="Train", tooltip="Run this training for real")
        fields = (self._loss, self._optimizer, self._rate, self._steps, self._n_test)
        for field in fields:
            field.observe(lambda _: self._edited(), "value")
        self._train.on_click(lambda _: self._train_clicked())
        self.controls = (*fields, self._train)
        self._result: Result | None = None

    def schedule(self, experiment: Experiment) -> Schedule:
        """The training that the controls show; real-valued targets have the squared loss only."""
        return Schedule(
            loss=self._loss.value if experiment.class_names else "squared",
            optimizer=self._optimizer.value,
            rate=self._rate.value,
            steps=self._steps.value,
            n_test=self._n_test.value,
        )

    def missing(self, result: Result) -> bool:
        """Whether the prediction, or a training asked for, is missing."""
        self._result = result
        self._offer_losses(bool(result.experiment.class_names))
        if self._learning.obstacle(result.experiment):
            return False
        key = (result.experiment, self.schedule(result.experiment))
        return self._learning.prediction(*key) is None or self._wanted == key

    def work(self, result: Result, job: Job) -> None:
        """Predicts, then trains where that was asked for."""
        schedule = self.schedule(result.experiment)
        key = (result.experiment, schedule)
        if self._learning.prediction(*key) is None:
            self._learning.predict(result, schedule, **job.report)
            job.show()
        if self._wanted != key:
            return
        shown = 0.0

        def step() -> None:
            nonlocal shown
            if time.monotonic() - shown > INTERVAL:
                job.show()
                shown = time.monotonic()

        try:
            self._learning.train(result, schedule, step, **job.report)
        finally:
            self._wanted = None  # a training that was cancelled or failed is not begun again
        job.show()

    def figure(self, scene: Scene) -> go.Figure:
        """Predicted curves and what was measured."""
        result = scene.result
        if result is None:
            return learning_figure(None, theme=scene.theme)
        key = (result.experiment, self.schedule(result.experiment))
        prediction = self._learning.prediction(*key)
        history = self._learning.history(*key)
        message = ""
        if prediction is None and not history:
            message = self._learning.obstacle(result.experiment) or "Predicting the training …"
        return learning_figure(
            None if prediction is None else prediction.trajectory,
            history,
            references=self._references(key),
            theme=scene.theme,
            message=message,
        )

    def note(self, result: Result) -> str:
        """What was predicted and what came of it."""
        key = (result.experiment, self.schedule(result.experiment))
        prediction, training = self._learning.prediction(*key), self._learning.training(*key)
        if prediction is None:
            return ""
        parts = [f"Step size {prediction.lr:.3g}, stable below {prediction.stable_step:.3g}"]
        if prediction.accuracy is not None:
            parts.append(f"predicted held-out accuracy {prediction.accuracy:.1%}")
        elif prediction.mse is not None:
            parts.append(f"predicted held-out mean squared error {prediction.mse:.3g}")
        if training is not None:
            last = training.fit.history[-1]
            if last.test_accuracy is not None:
                parts.append(f"measured {last.test_accuracy:.1%}")
            elif training.fit.diverged is None:
                outputs = len(result.experiment.output_names)
                parts.append(f"measured {mean_squared_error(last.test_loss, outputs):.3g}")
            if training.drift is not None:
                parts.append(f"the kernel moved by {training.drift.relative:.2g} of its norm")
            parts += training.fit.notes
        if others := self._others(key):
            errors = (f"{name} {mse:.3g}" for name, mse in others.items())
            parts.append(f"without a program: {', '.join(errors)}")
        return "; ".join([*parts, *prediction.notes]) + "."

    def table(self, result: Result) -> str:
        """One row a recorded step, predicted and measured."""
        found = self.details(result) or {}
        rows: list[tuple[Any, ...]] = []
        if (prediction := found.get("prediction")) is not None:
            curve = prediction.trajectory
            columns = (curve.train_loss, curve.train_accuracy, curve.test_loss, curve.test_accuracy)
            for k, step in enumerate(curve.steps):
                rows.append(("predicted", step, *("" if c is None else c[k] for c in columns)))
        for m in self._learning.history(result.experiment, self.schedule(result.experiment)):
            values = (m.train_loss, m.train_accuracy, m.test_loss, m.test_accuracy)
            rows.append(("measured", m.step, *("" if v is None else v for v in values)))
        key = (result.experiment, self.schedule(result.experiment))
        rows += [(name, "", "", "", loss, "") for name, loss in self._references(key).items()]
        head = ("kind", "step", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
        return as_csv(head, rows)

    def details(self, result: Result) -> dict[str, Any] | None:
        """Prediction, and fit and drift where it was trained."""
        key = (result.experiment, self.schedule(result.experiment))
        prediction, training = self._learning.prediction(*key), self._learning.training(*key)
        if prediction is None:
            return None
        found: dict[str, Any] = {"prediction": prediction}
        if training is not None:
            found |= {"fit": training.fit, "drift": training.drift}
        if (comparison := self._learning.comparison(*key)) is not None:
            found["comparison"] = comparison
        return found

    def code(self, experiment: Experiment) -> str:
        """Prediction and training with the same settings."""
        result, schedule = self._result, self.schedule(experiment)
        if result is None or result.experiment != experiment:
            return ""
        options = ", ".join(
            f"{name}={value!r}" for name, value in self._learning.options(result, schedule).items()
        )
        precision = "" if experiment.dtype == "float32" else f", dtype=torch.{experiment.dtype}"
        compared = ""
        if self._learning.comparison(experiment, schedule) is not None:
            compared = "print(mrviz.programs.compare_forecasts(model, target))\n"
        return (
            "\nprediction = mrviz.predict_training(\n"
            f"    model, target, gram=gram, {options}{precision}\n)\n"
            "fit = mrviz.train(model, target, **prediction.train_options, "
            f"seed={experiment.seed})\n"
            "print(prediction)\nprint(fit)\n"
            "print(mrviz.kernel_drift(gram, mrviz.ntk_gram(model, x, "
            f"reduce={experiment.reduce!r}{precision})))\n" + compared
        )

    def _others(self, key: tuple[Experiment, Schedule]) -> dict[str, float]:
        """Mean squared errors of the forecasts that need no program; none for other targets."""
        comparison = self._learning.comparison(*key)
        scores = () if comparison is None else comparison.scores
        return {OTHERS[score.name]: score.mse for score in scores if score.name in OTHERS}

    def _references(self, key: tuple[Experiment, Schedule]) -> dict[str, float]:
        """The losses of the same."""
        half = len(key[0].output_names) / 2  # from (f − y)² of one output to ½‖f − y‖² of all
        return {name: half * mse for name, mse in self._others(key).items()}

    def _offer_losses(self, labels: bool) -> None:
        """Both losses for class labels, the squared one alone for real values."""
        offered = LOSSES if labels else LOSSES[1:]
        if self._loss.options != offered:
            self._loss.unobserve_all("value")
            self._loss.options = offered
            self._loss.value = offered[0][1]
            self._loss.observe(lambda _: self._edited(), "value")
        self._loss.disabled = not labels

    def _edited(self) -> None:
        self._rate.disabled = self._optimizer.value == "adam"
        self.changed()

    def _train_clicked(self) -> None:
        if self._result is not None:
            self._wanted = (self._result.experiment, self.schedule(self._result.experiment))
            self.changed()
