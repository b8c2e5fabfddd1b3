"""One run of a study: indicators before training, the training, and its outcomes."""

from __future__ import annotations

import platform
import sys
import time
import warnings
from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import scipy
import torch

from mrviz._progress import CancelFlag
from mrviz.errors import Cancelled, InputError
from mrviz.experiment import DTYPES, Experiment
from mrviz.programs import ReprogrammedModel
from mrviz.programs.fit import Fit
from mrviz.programs.training import train
from mrviz.sources import load_source
from mrviz.spectrum import spectrum
from mrviz.study.grid import Configuration
from mrviz.study.store import Row
from mrviz.targets import Target, load_target
from mrviz.theory.baselines import transfer_baselines
from mrviz.theory.prediction import Prediction, predict_training
from mrviz.theory.ranking.table import CONDITIONS
from mrviz.theory.strength import kernel_strength, source_strength
from mrviz.theory.transfer import evaluate_conditions, gather_evidence

KERNEL_CONDITIONS = ("T2", "T4", "T5", "T6", "T11")
"""Conditions whose values are kept as indicators, beside the statuses of all that are known."""

_one_at_a_time = Lock()  # a run switches modules to eval mode and collects warnings


def run_one(values: dict[str, Any], cancel: CancelFlag | None = None) -> Row:
    """One run of a study: its row, with the error where it failed.

    Args:
        values: a configuration, as ``Configuration.to_dict`` gives it.
        cancel: flag that ends it.

    Raises:
        Cancelled: ``cancel`` was set.
    """
    started, started_cpu = time.perf_counter(), time.process_time()
    configuration = Configuration.from_dict(values)
    base: dict[str, Any] = {"key": configuration.key, "config": configuration.text}
    base["versions"] = versions()
    indicators: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    with _one_at_a_time, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit = _trained(configuration, indicators, cancel)
        except Cancelled:
            raise
        except Exception as error:  # of this run, whatever it is; the others go on
            base |= {"error": f"{type(error).__name__}: {error}"}
        else:
            base |= {"outcomes": _outcomes(fit), "diverged": fit.diverged}
            base |= {"lr_used": fit.settings["lr"], "kept": fit.kept}
            notes = fit.notes
        said = [*notes, *(str(warning.message) for warning in caught)]
    return Row(
        **base,
        indicators=indicators,
        notes=tuple(dict.fromkeys(said)),
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - started_cpu,
    )


def versions() -> dict[str, str]:
    """Versions of what computes a row."""
    return {
        "mrviz": sys.modules["mrviz"].__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
    }


def _trained(
    configuration: Configuration, indicators: dict[str, Any], cancel: CancelFlag | None
) -> Fit:
    """Measures and trains; what was measured before a failure stays in ``indicators``."""
    experiment, settings = configuration.experiment, configuration.settings
    source = experiment.load_source(False, cancel)
    target = load_target(
        str(experiment.target),
        n_train=experiment.n,
        n_val=settings.n_val or 0,
        n_test=settings.n_test,
        split=settings.split,
        seed=experiment.seed,
    )
    model = experiment.build(source, target)
    lr = settings.lr
    if settings.indicators or (lr is None and settings.optimizer != "adam"):
        prediction = _predicted(model, target, configuration, cancel)
        lr = prediction.lr if lr is None and settings.optimizer != "adam" else lr
        if settings.indicators:
            _measure(model, target, configuration, prediction, indicators, cancel)
    if settings.source_kernel is not None:
        indicators["source_lambda_min"] = _source_kernel(
            str(experiment.source),
            tuple(experiment.source_options().items()),
            experiment.seed,
            settings.source_kernel,
        )
    chosen = ("loss", "optimizer", "steps", "momentum", "batch_size", "keep")
    options = {key: getattr(settings, key) for key in chosen}
    return train(
        model,
        target,
        **options,
        lr=lr,
        record_every=settings.record_every if settings.chooses else settings.steps,
        seed=experiment.seed,
        progress=False,
        cancel=cancel,
    )


def _predicted(
    model: ReprogrammedModel,
    target: Target,
    configuration: Configuration,
    cancel: CancelFlag | None,
) -> Prediction:
    experiment, settings = configuration.experiment, configuration.settings
    adam = settings.optimizer == "adam"
    return predict_training(
        model,
        target,
        loss=settings.loss,
        optimizer=settings.optimizer,
        lr=None if adam else settings.lr,
        steps=settings.steps,
        momentum=settings.momentum,
        reduce=experiment.reduce,
        dtype=DTYPES[experiment.dtype],
        progress=False,
        cancel=cancel,
    )


def _measure(
    model: ReprogrammedModel,
    target: Target,
    configuration: Configuration,
    prediction: Prediction,
    found: dict[str, Any],
    cancel: CancelFlag | None,
) -> None:
    """Fills in what is known before training: prediction, conditions, baselines."""
    experiment: Experiment = configuration.experiment
    gram, curve = prediction.gram, prediction.trajectory
    spec = spectrum(gram)
    strength = source_strength(model.source)
    evidence = gather_evidence(
        model,
        target.x_train,
        target.targets_of(target.y_train),
        dtype=DTYPES[experiment.dtype],
        strength=strength,
        progress=False,
        cancel=cancel,
    )
    evidence = replace(evidence, prediction=prediction)
    conditions = evaluate_conditions(gram, spec, evidence)
    diverged = curve.diverged is not None
    found |= {
        "predicted_accuracy": None if diverged else prediction.accuracy,
        "predicted_loss": None if diverged or not curve.test_loss else curve.test_loss[-1],
        "ridge_accuracy": prediction.ridge_accuracy,
        "leave_one_out_accuracy": prediction.leave_one_out_accuracy,
        "stable_step": prediction.stable_step,
        "parameters": model.n_parameters,
        "source_accuracy": strength.accuracy if strength else None,
        "source_risk": strength.risk if strength else None,
        "lambda_max": spec.largest,
        "trace": spec.trace,
        "rank": spec.rank,
        "effective_rank": spec.effective_rank,
    }
    found |= {f"{i}_value": conditions[i].value for i in KERNEL_CONDITIONS}
    found |= {f"{i}_status": conditions[i].status for i in CONDITIONS}
    if target.is_classification:
        scores = transfer_baselines(model, target).to_dict()
        found |= {name: value for name, value in scores.items() if name != "n"}


def _outcomes(fit: Fit) -> dict[str, float | None]:
    """Accuracies and losses of the model that is left; none where training lost it."""
    first, kept = fit.history[0], fit.outcome
    found: dict[str, float | None] = {
        "start_accuracy": first.test_accuracy,
        "start_loss": first.test_loss,
    }
    if kept is not None:
        for split in ("train", "val", "test"):
            for what in ("accuracy", "loss"):
                found[f"{split}_{what}"] = getattr(kept, f"{split}_{what}")
    return found


@lru_cache(maxsize=256)
def _source_kernel(
    name: str, options: tuple[tuple[str, Any], ...], seed: int, kind: str
) -> float | None:
    """λ_min[K_S] on the source's own test data, measured once for all programs and targets.

    ``None`` where the source has no data, where λ_min is not resolved, and where there is no
    kernel of this kind, which a warning explains.
    """
    source = load_source(name, seed=seed, progress=False, **dict(options))
    if source.test_data is None:
        return None
    try:
        return kernel_strength(source, source.test_data, kind=kind, progress=False).mean
    except InputError as error:
        warnings.warn(f"no λ_min[K_S]: {error}", stacklevel=2)
        return None
