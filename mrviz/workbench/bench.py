"""Runs experiments and keeps what the next one can use again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.errors import InputError
from mrviz.experiment import DTYPES, Experiment
from mrviz.ntk import Gram, capacity_grams, ntk_gram, sketch_grams
from mrviz.programs import Program, ReprogrammedModel
from mrviz.sources import SourceModel
from mrviz.spectrum import spectrum
from mrviz.targets import Target
from mrviz.theory import (
    Evidence,
    SourceStrength,
    evaluate_conditions,
    gather_evidence,
    reconsidered,
    residual_energy,
    source_strength,
)
from mrviz.workbench.recent import Recent
from mrviz.workbench.result import Result

SKETCHES = tuple(12 * 4**k for k in range(8))
"""Numbers of samples in the sketches that come before the exact result."""

DIRECTIONS = 16
"""Sketches look at this many output directions where there are more outputs."""


class Workbench:
    """Runs experiments one after another and keeps what the next one can use again.

    Not thread-safe but for :meth:`cached`: one thread runs, others may look.
    """

    def __init__(self) -> None:
        self._sources: Recent[tuple[SourceModel, SourceStrength | None]] = Recent(4)
        self._targets: Recent[Target] = Recent(8)
        self._models: Recent[ReprogrammedModel] = Recent(8)
        self._evidence: Recent[Evidence] = Recent(32)
        self._results: Recent[Result] = Recent(512)
        self._swept: Recent[bool] = Recent(512)

    def cached(self, experiment: Experiment) -> Result | None:
        """The exact result, if it is there already."""
        return self._results.get(experiment)

    def model(
        self,
        experiment: Experiment,
        progress: ProgressCallback | bool | None = None,
        cancel: CancelFlag | None = None,
    ) -> ReprogrammedModel:
        """The reprogrammed model at the experiment's capacity (shared between experiments)."""
        source, _ = self._source(experiment, progress, cancel)
        target = self.target(experiment)
        key = replace(experiment, capacity=None, reduce="full", dtype="float32")
        model = self._models.get(key)
        if model is None:
            model = replace(experiment, capacity=None).build(source, target)
            self._models.put(key, model)
        if isinstance(model.program, Program) and model.program.capacity_range:
            capacity = experiment.capacity
            model.capacity = model.program.capacity_range[1] if capacity is None else capacity
        elif experiment.capacity is not None:
            name = experiment.program
            name = repr(name) if isinstance(name, str) else type(name).__name__
            raise InputError(f"program {name} has no capacity to choose: leave capacity out")
        return model

    def run(
        self,
        experiment: Experiment,
        progress: ProgressCallback | bool | None = None,
        cancel: CancelFlag | None = None,
    ) -> Result:
        """Gram, spectrum and conditions of an experiment.

        Args:
            experiment: the choices.
            progress: callback (done, total, label); ``False`` for silence; default: a text bar.
            cancel: flag with ``is_set()``.
        """
        started = time.perf_counter()
        model = self.model(experiment, progress, cancel)
        experiment = replace(experiment, capacity=model.capacity)
        if (known := self.cached(experiment)) is not None:
            return known
        gram = self._gram(experiment, model, progress, cancel)
        evidence = self._gather(experiment, model, progress, cancel)
        return self._result(experiment, model, gram, evidence, started)

    def sketches(
        self,
        experiment: Experiment,
        progress: ProgressCallback | bool | None = None,
        cancel: CancelFlag | None = None,
    ) -> Iterator[Result]:
        """Ever better sketches of an experiment, from few samples to half of them.

        All of them are exact on what they look at, so the exact result uses their Jacobians;
        only targets of many classes are looked at in some output directions.
        """
        started = time.perf_counter()
        model = self.model(experiment, progress, cancel)
        experiment = replace(experiment, capacity=model.capacity)
        target, reduced = self.target(experiment), experiment.reduce not in ("full", "trace")
        sizes = [size for size in SKETCHES if 1.5 * size < experiment.n]
        if not sizes:
            return
        for sketch in sketch_grams(
            model,
            target.x_train[: experiment.n],
            samples=sizes,
            directions=None if reduced or model.outputs <= DIRECTIONS else DIRECTIONS,
            reduce=experiment.reduce,
            seed=experiment.seed,
            dtype=DTYPES[experiment.dtype],
            progress=progress,
            cancel=cancel,
        ):
            targets = target.targets_of(target.y_train[sketch.samples])
            if sketch.directions is not None:
                targets = targets @ sketch.directions.T
            evidence = gather_evidence(
                sketch.model,
                target.x_train[sketch.samples],
                targets,
                dtype=DTYPES[experiment.dtype],
                strength=self._source(experiment, progress, cancel)[1],
                progress=progress,
                cancel=cancel,
            )
            yield self._result(experiment, model, sketch.gram, evidence, started, sketch.describe())

    def sweep(
        self,
        experiment: Experiment,
        progress: ProgressCallback | bool | None = None,
        cancel: CancelFlag | None = None,
    ) -> Iterator[Result]:
        """Results at every capacity of the program, from one Jacobian pass."""
        started = time.perf_counter()
        model = self.model(experiment, progress, cancel)
        program = model.program
        family = replace(experiment, capacity=None)
        if model.capacity is None or not (isinstance(program, Program) and program.closed_form):
            self._swept.put(family, True)
            return
        x = self.target(experiment).x_train[: experiment.n]
        grams = capacity_grams(
            model,
            x,
            reduce=experiment.reduce,
            dtype=DTYPES[experiment.dtype],
            progress=progress,
            cancel=cancel,
        )
        for capacity, gram in grams:
            at = replace(experiment, capacity=capacity)
            model.capacity = capacity
            yield self.cached(at) or self._result(
                at, model, gram, self._gather(at, model, False, cancel), started
            )
        self._swept.put(family, True)

    def swept(self, experiment: Experiment) -> bool:
        """Whether all capacities were swept."""
        return self._swept.get(replace(experiment, capacity=None)) is not None

    def supply(self, experiment: Experiment, **late: Any) -> Result:
        """The result with conditions judged by evidence that came later.

        Args:
            experiment: with its capacity filled in; it was run before.
            **late: ``prediction``, ``drift``, ``factors`` or ``distribution`` of
                :class:`~mrviz.theory.Evidence`.
        """
        result = self.run(experiment, progress=False)
        model = self.model(experiment)
        evidence = replace(self._gather(experiment, model, False, None), **late)
        result = replace(
            result,
            conditions=reconsidered(result.conditions, result.spectrum, evidence, model.outputs),
        )
        self._keep(result, model)
        return result

    def gram(
        self,
        experiment: Experiment,
        progress: ProgressCallback | bool | None = None,
        cancel: CancelFlag | None = None,
    ) -> Gram:
        """The experiment's Gram matrix, from cached Jacobians where they are still there."""
        return self._gram(experiment, self.model(experiment, progress, cancel), progress, cancel)

    def _gram(
        self,
        experiment: Experiment,
        model: ReprogrammedModel,
        progress: ProgressCallback | bool | None,
        cancel: CancelFlag | None,
    ) -> Gram:
        return ntk_gram(
            model,
            self.target(experiment).x_train[: experiment.n],
            reduce=experiment.reduce,
            dtype=DTYPES[experiment.dtype],
            progress=progress,
            cancel=cancel,
        )

    def _result(
        self,
        experiment: Experiment,
        model: ReprogrammedModel,
        gram: Gram,
        evidence: Evidence,
        started: float,
        sketch: str = "",
    ) -> Result:
        spec = spectrum(gram)
        program = model.program if isinstance(model.program, Program) else None
        result = Result(
            experiment=experiment,
            n=gram.n,
            sketch=sketch,
            spectrum=replace(spec, eigenvectors=None),
            energy=residual_energy(gram, spec, evidence.residual).cpu(),
            conditions=evaluate_conditions(gram, spec, evidence),
            info=gram.info,
            capacity_range=program.capacity_range if program else None,
            capacity_label=program.capacity_label if program else None,
            description=program.describe() if program else str(model.program),
            seconds=time.perf_counter() - started,
        )
        if result.exact:
            self._keep(result, model)
        return result

    def _keep(self, result: Result, model: ReprogrammedModel) -> None:
        self._results.put(result.experiment, result)
        if result.capacity_range and model.capacity == result.capacity_range[1]:
            # The largest is also what is meant where no capacity is chosen.
            self._results.put(replace(result.experiment, capacity=None), result)

    def _gather(
        self,
        experiment: Experiment,
        model: ReprogrammedModel,
        progress: ProgressCallback | bool | None,
        cancel: CancelFlag | None,
    ) -> Evidence:
        key = replace(experiment, capacity=None, reduce="full")
        evidence = self._evidence.get(key)
        if evidence is None:
            target = self.target(experiment)
            evidence = gather_evidence(
                model,
                target.x_train[: experiment.n],
                target.targets_of(target.y_train[: experiment.n]),
                dtype=DTYPES[experiment.dtype],
                strength=self._source(experiment, progress, cancel)[1],
                progress=progress,
                cancel=cancel,
            )
            self._evidence.put(key, evidence)
        if isinstance(model.program, Program) and evidence.features is not None:
            # The one part that depends on the capacity, and it costs nothing.
            x = model.inputs(self.target(experiment).x_train[: experiment.n])
            evidence = replace(evidence, features=model.program.scalar_features(x))
        return evidence

    def _source(
        self,
        experiment: Experiment,
        progress: ProgressCallback | bool | None,
        cancel: CancelFlag | None,
    ) -> tuple[SourceModel, SourceStrength | None]:
        loaded = self._sources.get(experiment.source_key)
        if loaded is None:
            source = experiment.load_source(progress, cancel)
            loaded = source, source_strength(source)
            self._sources.put(experiment.source_key, loaded)
        return loaded

    def target(self, experiment: Experiment) -> Target:
        """The target with the samples of the experiment."""
        key = (experiment.target, experiment.n, experiment.seed)
        target = self._targets.get(key)
        if target is None:
            target = experiment.load_target()
            self._targets.put(key, target)
        return target
