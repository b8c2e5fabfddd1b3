"""How good the source of an experiment is: on its own task, and over the depth of its family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.experiment import Experiment
from mrviz.pairing import task_of_source
from mrviz.sources import SourceModel
from mrviz.sources.families import FAMILIES
from mrviz.sources.training import resized
from mrviz.targets.raw import LABELLED, balanced_split, load_raw
from mrviz.theory import (
    DepthPoint,
    SourceReport,
    distribution_bound,
    source_factors,
    source_report,
    strength_over_depth,
)
from mrviz.theory.factors import needed
from mrviz.workbench.bench import Workbench
from mrviz.workbench.recent import Recent
from mrviz.workbench.result import Result

OWN = "own"
"""Stands for the source's own held-out data among the data sets."""

MANY_OUTPUTS = 100
"""Sources with more outputs are looked at through the sum of their outputs."""

MOST_SAMPLES = 5_000
"""Samples that are resized for a source where a data set has more."""


class SourceStudy:
    """Reports on sources, the last few kept.

    Args:
        bench: whose models are used; not thread-safe, as it.
    """

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._reports: Recent[SourceReport] = Recent(32)
        self._curves: Recent[tuple[DepthPoint, ...]] = Recent(32)
        self._judged: Recent[bool] = Recent(512)

    def report(self, experiment: Experiment, data: str) -> SourceReport | None:
        """Accuracy and spectra of K_S, if they are there already."""
        return self._reports.get((experiment.source_key, data))

    def curve(self, experiment: Experiment, data: str) -> tuple[DepthPoint, ...]:
        """λ_min over depth, as far as it is there already."""
        return self._curves.get(_curve_key(experiment, data)) or ()

    def complete(self, result: Result, data: str) -> bool:
        """Whether there is nothing left to do."""
        experiment = result.experiment
        if self.report(experiment, data) is None:
            return False
        if data == OWN and self._judged.get(experiment) is None:
            return False
        return len(self.curve(experiment, data)) >= len(depths(experiment))

    def work(
        self,
        result: Result,
        data: str,
        show: Callable[[], None],
        progress: ProgressCallback | bool | None = None,
        cancel: CancelFlag | None = None,
    ) -> None:
        """Report, then the curve over depth, then T8, T9 and T10 where the data are the source's.

        Args:
            result: of the experiment.
            data: name of a data set, or ``OWN``.
            show: called when something new is there.
            progress: as in :func:`~mrviz.ntk_gram`.
            cancel: as in :func:`~mrviz.ntk_gram`.

        Raises:
            InputError: the source has no data of its own, or the data do not fit.
        """
        experiment = result.experiment
        model = self._bench.model(experiment, progress, cancel)
        source = model.source
        reduce = "sum" if source.outputs > MANY_OUTPUTS else "trace"
        samples = needed(source, source.test_data if data == OWN else images_for(data, source))
        if self.report(experiment, data) is None:
            report = source_report(
                source,
                samples,
                reduce=reduce,
                seed=experiment.seed,
                progress=progress,
                cancel=cancel,
            )
            if task_of_source(experiment.source) == "forecast":  # its outputs are no classes
                report = replace(report, strength=None)
            self._reports.put((experiment.source_key, data), report)
            show()
        todo = list(depths(experiment))[len(self.curve(experiment, data)) :]
        if todo:

            def point(news: DepthPoint) -> None:
                self._curves.put(
                    _curve_key(experiment, data), (*self.curve(experiment, data), news)
                )
                show()

            strength_over_depth(
                str(experiment.source),
                todo,
                samples,
                width=experiment.width,
                weight_seeds=(experiment.seed,),
                seed=experiment.seed,
                on_point=point,
                progress=progress,
                cancel=cancel,
            )
        if data == OWN and self._judged.get(experiment) is None:
            x = self._bench.target(experiment).x_train[: result.n]
            factors = source_factors(
                model,
                x,
                samples,
                seed=experiment.seed,
                progress=progress,
                cancel=cancel,
                reduce=reduce,
            )
            distribution = distribution_bound(model, x, samples, seed=experiment.seed)
            self._bench.supply(experiment, factors=factors, distribution=distribution)
            self._judged.put(experiment, True)
            show()


def depths(experiment: Experiment) -> range:
    """Depths of the source's family; none for other sources."""
    source = experiment.source
    spec = FAMILIES.get(source) if isinstance(source, str) else None
    if spec is None:
        return range(0)
    return range(spec.ranges["depth"].low, spec.ranges["depth"].high + 1)


def has_own_data(experiment: Experiment) -> bool:
    """Whether the source brings held-out data of its own task."""
    if isinstance(experiment.source, SourceModel):
        return experiment.source.test_data is not None
    return experiment.trained_on in LABELLED  # forecasters are trained on other things


def _curve_key(experiment: Experiment, data: str) -> tuple[object, ...]:
    return experiment.source, experiment.width, data, experiment.seed


def images_for(name: str, source: SourceModel) -> tuple[Tensor, Tensor]:
    """A data set as inputs of the source: resized, one channel repeated over all.

    Of larger sets, ``MOST_SAMPLES`` samples, class-balanced.
    """
    raw = load_raw(name)
    rows = torch.arange(len(raw.y))
    if len(rows) > MOST_SAMPLES:
        rows = balanced_split(raw.y, MOST_SAMPLES, 0, 0, seed=0)[0]
    channels, *_, side = source.input_shape
    x = resized(raw.samples(rows), side)
    return (x if x.shape[1] == channels else x.expand(-1, channels, *x.shape[2:])), raw.y[rows]
