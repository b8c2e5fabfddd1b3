"""Real training of the finalists: Optuna chooses candidate and step size of each training."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mrviz._progress import CancelFlag, Progress, ProgressCallback, stop_if_cancelled
from mrviz.errors import Cancelled, MissingDataError
from mrviz.programs import ReprogrammedModel
from mrviz.programs.fit import Fit, Measurement
from mrviz.programs.training import ADAM_RATES, train
from mrviz.programs.training.options import adam_rates
from mrviz.targets import Target
from mrviz.tuning.candidates import Choice
from mrviz.tuning.result import Trial

RATES = {"adam": (0.1, 10.0), "sgd": (0.1, 2.0), "gd": (0.1, 2.0)}
"""Range of step sizes by optimizer, in units of its own: see :func:`unit_rate`."""
MEASURED = 20
"""A training is measured about so often."""
WARM_UP = 0.25
"""Share of a training's steps in which it is not compared with others."""

Judge = Callable[[Measurement], float]


def need_optuna() -> Any:
    """The package optuna.

    Raises:
        MissingDataError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingDataError(
            "autotune searches with the package optuna, which is not installed: "
            'pip install "mrviz[tune]"'
        ) from None
    return optuna


def unit_rate(model: ReprogrammedModel, optimizer: str, predicted: float | None) -> float:
    """The step size that the range of the search is a multiple of.

    For "adam" its default for the model's parameters (0.1 for prompts, 1e-3 for others, the
    geometric mean where it has both), else half of the largest stable one at the start.
    """
    if optimizer != "adam" and predicted is not None:
        return predicted
    names = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return float(np.exp(np.mean([math.log(ADAM_RATES[kind]) for kind in adam_rates(names)])))


class _Stop:
    """The user's flag, and one that ends a single training."""

    def __init__(self, cancel: CancelFlag | None) -> None:
        self.cancel = cancel
        self.pruned = False

    def is_set(self) -> bool:
        return self.pruned or (self.cancel is not None and self.cancel.is_set())


class Search:
    """Trains candidates and keeps the best model.

    Args:
        choices: what the candidates are made of, in the order of their places.
        predicted: step size of each candidate's prediction.
        target: a target whose test samples are its validation samples: none decide.
        settings: checked settings of the tuning.
        cancel: flag with ``is_set()``.

    Attributes:
        trials: what was trained so far.
        model: the best model so far of a finalist.
        best: its trial.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        predicted: Sequence[float | None],
        target: Target,
        settings: Mapping[str, Any],
        cancel: CancelFlag | None,
    ) -> None:
        self.choices = choices
        self.predicted = predicted
        self.target = target
        self.settings = settings
        self.cancel = cancel
        self.trials: list[Trial] = []
        self.model: ReprogrammedModel | None = None
        self.best: Trial | None = None
        by_accuracy = settings["keep"] == "val_accuracy"
        self.judge: Judge = (
            (lambda m: m.val_accuracy or 0.0) if by_accuracy else (lambda m: m.val_loss or 0.0)
        )

    def run(self, finalists: Sequence[int], progress: ProgressCallback | bool | None) -> None:
        """Spends the budget on the finalists: each at its default step size, then as Optuna says.

        Args:
            finalists: their places.
            progress: as everywhere.
        """
        settings, low_high = self.settings, RATES[self.settings["optimizer"]]
        optuna, study = self._study(len(finalists))
        for place in finalists:
            study.enqueue_trial({"candidate": place, "rate": 1.0})
        left = settings["budget"]
        with Progress(left, "training finalists", progress) as bar:
            while left > 0:
                stop_if_cancelled(self.cancel, f"tuning with {left} gradient steps left")
                asked = study.ask()
                place = asked.suggest_categorical("candidate", list(finalists))
                rate = asked.suggest_float("rate", *low_high, log=True)

                def watch(measured: Measurement, asked: Any = asked) -> bool:
                    value = self.judge(measured)
                    asked.report(value, measured.step)
                    return bool(asked.should_prune())

                first = len(self.trials) < len(finalists)
                steps = min(settings["steps"], left)
                trial, model = self.train(place, None if first else rate, steps, bar, watch)
                left -= trial.steps
                value = trial.val_accuracy if self._by_accuracy else trial.val_loss
                states = optuna.trial.TrialState
                if value is None:
                    study.tell(asked, state=states.FAIL)
                elif trial.ended == "pruned":
                    study.tell(asked, state=states.PRUNED)
                else:
                    study.tell(asked, value)
                self._keep(trial, model)

    def audit(
        self, places: Sequence[int], trainings: int, progress: ProgressCallback | bool | None
    ) -> None:
        """Trains candidates that were not chosen, each so many times, at the full length.

        The first training is made at the default step size, the others at random ones of the
        range that was searched.
        """
        low, high = (math.log(rate) for rate in RATES[self.settings["optimizer"]])
        rng = np.random.default_rng(self.settings["seed"])
        steps = self.settings["steps"]
        total = len(places) * trainings * steps
        with Progress(total, "auditing the screening", progress) as bar:
            for place in places:
                for turn in range(trainings):
                    stop_if_cancelled(self.cancel, "auditing the screening")
                    rate = math.exp(rng.uniform(low, high)) if turn else None
                    self.train(place, rate, steps, bar, audit=True)

    def train(
        self,
        place: int,
        rate: float | None,
        steps: int,
        bar: Progress,
        watch: Callable[[Measurement], bool] | None = None,
        audit: bool = False,
    ) -> tuple[Trial, ReprogrammedModel]:
        """One training, from the candidate's start; Cancel keeps it up to there.

        Args:
            place: the candidate.
            rate: step size as a multiple of the candidate's own; ``None``: the default.
            steps: at most so many.
            bar: advanced by each step.
            watch: told every measurement; ends the training where it returns true.
            audit: whether it is part of an audit.
        """
        started, settings, stop = time.perf_counter(), self.settings, _Stop(self.cancel)
        model = self.choices[place].build(self.target, settings["seed"])
        optimizer = settings["optimizer"]
        unit = unit_rate(model, optimizer, self.predicted[place])
        lr = unit * rate if rate is not None else None if optimizer == "adam" else unit
        made = 0

        def count(done: int, total: int, label: str) -> None:
            nonlocal made
            bar.advance(done - made)
            made = done

        def see(measured: Measurement) -> None:
            if watch is not None and measured.step > 0:
                stop.pruned = watch(measured)

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # divergence is in the record
                fit = train(
                    model,
                    self.target,
                    lr=lr,
                    steps=steps,
                    n_test=1,  # these samples are validation samples, measured as such anyway
                    **train_options(settings),
                    progress=count,
                    cancel=stop,
                    on_step=see,
                )
            ended = "diverged" if fit.diverged is not None else fit.stopped or "done"
        except Cancelled as reason:
            if reason.fit is None:
                raise
            fit, ended = reason.fit, "pruned"
            if self.cancel is not None and self.cancel.is_set():
                trial = _trial(place, lr, fit, "cancelled", made, started, audit)
                self.trials.append(trial)
                self._keep(trial, model)
                raise
        trial = _trial(place, lr, fit, ended, max(1, made), started, audit)
        bar.advance(trial.steps - made)
        self.trials.append(trial)
        return trial, model

    @property
    def _by_accuracy(self) -> bool:
        return bool(self.settings["keep"] == "val_accuracy")

    def _keep(self, trial: Trial, model: ReprogrammedModel) -> None:
        """Remembers the model of a trial that is better than all before it."""
        if trial.audit or trial.val_loss is None:
            return
        if self.best is None or trial.rank(self._by_accuracy) > self.best.rank(self._by_accuracy):
            self.best, self.model = trial, model

    def _study(self, finalists: int) -> tuple[Any, Any]:
        optuna = need_optuna()
        sampler = optuna.samplers.TPESampler(
            seed=self.settings["seed"], n_startup_trials=2 * finalists
        )
        pruner = optuna.pruners.MedianPruner(
            n_startup_trials=finalists,
            n_warmup_steps=math.ceil(WARM_UP * self.settings["steps"]),
        )
        direction = "maximize" if self._by_accuracy else "minimize"
        with _quiet(optuna):
            study = optuna.create_study(sampler=sampler, pruner=pruner, direction=direction)
        return optuna, study


def train_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`~mrviz.train` that are the same in every training of a tuning."""
    names = ("loss", "optimizer", "seed", "keep", "patience", "record_every")
    options = {name: settings[name] for name in names}
    if settings["batch_size"] is not None:
        options["batch_size"] = settings["batch_size"]
    return options


def _trial(
    place: int, lr: float | None, fit: Fit, ended: str, steps: int, started: float, audit: bool
) -> Trial:
    kept = fit.outcome
    return Trial(
        candidate=place,
        lr=lr,
        steps=steps,
        kept=None if kept is None else kept.step,
        val_accuracy=None if kept is None else kept.val_accuracy,
        val_loss=None if kept is None else kept.val_loss,
        ended=ended,
        seconds=time.perf_counter() - started,
        audit=audit,
    )


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """No message about a study that is ours alone; Optuna's level is as before afterwards."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
