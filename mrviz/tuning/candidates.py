"""The candidates of a tuning: sources × programs × capacities × mappings, and their prediction."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz.errors import Cancelled, InputError
from mrviz.programs import MAPPINGS, PROGRAMS, ReprogrammedModel, reprogram
from mrviz.programs.registry import build_program
from mrviz.sources import SourceModel, load_source
from mrviz.targets import Target
from mrviz.targets.options import as_choice
from mrviz.theory.prediction import predict_training
from mrviz.theory.ranking.rank import (
    ProgramChoice,
    SourceChoice,
    choice_name,
    named_choice,
)
from mrviz.theory.statistics import wilson_interval
from mrviz.tuning.result import TunedCandidate

FILL = 0.75
"""Share of the source's input that an image takes up in programs that it does not fit into."""
PREDICTED_AS = {"adam": "momentum", "sgd": "gd", "gd": "gd"}
"""Whose steps the prediction simulates, by the optimizer of the trainings.

Adam averages gradients as momentum does. Its steps have no counterpart in the kernel's dynamics,
but heavy-ball steps get about as far as it in the same number, where plain ones lag behind.
"""

Sources = SourceChoice | Sequence[SourceChoice] | Mapping[str, SourceChoice]


@dataclass(frozen=True, eq=False)
class Choice:
    """What a candidate is made of.

    Attributes:
        label: name of the source.
        source: the source.
        program: a name, or a program of the user's own.
        mapping: a name, a mapping or an array.
        options: of the program and the mapping.
    """

    label: str
    source: SourceModel
    program: str | nn.Module
    mapping: Any
    options: Mapping[str, Any]

    def build(self, target: Target, seed: int) -> ReprogrammedModel:
        """The reprogrammed model at its start."""
        own = isinstance(self.program, nn.Module)
        return reprogram(
            self.source,
            target,
            program=copy.deepcopy(self.program) if own else self.program,
            mapping=self.mapping,
            seed=seed,
            **self.options,
        )

    def describe(self) -> dict[str, Any]:
        """What it is made of, as names and plain values."""
        program, mapping = self.program, self.mapping
        return {
            "source": self.label,
            "program": program if isinstance(program, str) else type(program).__name__,
            "mapping": mapping if isinstance(mapping, str) else type(mapping).__name__,
            "options": dict(self.options),
        }


def load_sources(
    sources: Sources, seed: int, cancel: CancelFlag | None
) -> list[tuple[str, SourceModel]]:
    """Sources and what they are called, loaded where they were chosen by name.

    Raises:
        InputError: no source, two of the same name, or a choice that is none.
    """
    if isinstance(sources, Mapping):
        entries = list(sources.items())
    else:
        single = isinstance(sources, str | SourceModel) or (
            isinstance(sources, tuple) and len(sources) == 2 and isinstance(sources[1], Mapping)
        )
        listed: Any = [sources] if single else sources
        if not isinstance(listed, Sequence):
            raise InputError(
                f"source must be a SourceModel, a name, (name, options), or several of them in a "
                f"list or a dict, got {type(sources).__name__}"
            )
        entries = [(choice_name(choice), choice) for choice in listed]
    if not entries:
        raise InputError("there is no source to tune for")
    names = [name for name, _ in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"{len(names)} sources, but {', '.join(twice)} more than once: pass a dict of sources "
            "by names of your own"
        )
    found = []
    for name, choice in entries:
        if not isinstance(choice, SourceModel):
            key, options = named_choice(choice, "source")
            choice = load_source(key, progress=False, cancel=cancel, **{"seed": seed, **options})
        found.append((name, choice))
    return found


def make_choices(
    sources: Sequence[tuple[str, SourceModel]],
    target: Target,
    programs: Sequence[ProgramChoice] | None,
    mappings: Sequence[Any] | None,
    capacities: int,
) -> list[Choice]:
    """All candidates, sources outermost.

    Raises:
        InputError: an unknown name, or no candidate.
    """
    if programs is None:
        programs = [name for name, spec in PROGRAMS.items() if spec.fits(target.shape)]
    if mappings is None:
        mappings = ("frequency", "identity") if target.is_classification else ("identity",)
    for name, given in (("programs", programs), ("mappings", mappings)):
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise InputError(f"{name} must be a list of choices, got {given!r}")
        if not given:
            raise InputError(f"there are no candidates: {name} is empty")
    parted = [_mapping(choice) for choice in mappings]
    found: list[Choice] = []
    for label, source in sources:
        for choice in programs:
            for program, options in _with_capacities(choice, source, target, capacities):
                for mapping, its in parted:
                    found.append(Choice(label, source, program, mapping, {**options, **its}))
    return found


def _mapping(choice: Any) -> tuple[Any, dict[str, Any]]:
    """A mapping and its options."""
    named = isinstance(choice, tuple) and len(choice) == 2 and isinstance(choice[0], str)
    if not named and not isinstance(choice, str):
        return choice, {}
    name, options = named_choice(choice, "mapping")
    return as_choice(name, MAPPINGS, "mapping"), options


def _with_capacities(
    choice: ProgramChoice, source: SourceModel, target: Target, several: int
) -> list[tuple[str | nn.Module, dict[str, Any]]]:
    """A program at several of its capacities, where none was chosen.

    One that cannot be built is kept as it is: its prediction will say why.
    """
    if isinstance(choice, nn.Module):
        return [(choice, {})]
    name, options = named_choice(choice, "program")
    spec = PROGRAMS[as_choice(name, PROGRAMS, "program")]
    shapes = source.input_shape, target.shape
    try:
        program = build_program(name, *shapes, **options)
    except InputError:
        if "image_size" not in spec.options or "image_size" in options:
            return [(name, options)]
        options["image_size"] = max(1, int(FILL * min(source.input_shape[1:])))
        try:
            program = build_program(name, *shapes, **options)
        except InputError:
            del options["image_size"]
            return [(name, options)]
    if spec.capacity is None or spec.capacity in options or program.capacity_range is None:
        return [(name, options)]
    low, high = program.capacity_range
    return [(name, {**options, spec.capacity: c}) for c in _spread(low, high, several)]


def _spread(low: int, high: int, several: int) -> list[int]:
    """So many capacities, largest first, evenly spread on a log scale.

    Example:
        >>> _spread(1, 64, 3), _spread(1, 2, 3), _spread(1, 9, 1)
        ([64, 8, 1], [2, 1], [9])
    """
    shares = [k / (several - 1) for k in range(several)] if several > 1 else [0.0]
    found = [round(high * math.exp(share * math.log(low / high))) for share in shares]
    return sorted(set(found), reverse=True)


def screen(
    choices: Sequence[Choice],
    target: Target,
    settings: Mapping[str, Any],
    rows: list[TunedCandidate],
    progress: ProgressCallback | bool | None,
    cancel: CancelFlag | None,
) -> None:
    """Predicts the training of every candidate; rows are added as they are known."""
    with Progress(len(choices), "screening candidates", progress, cancel) as bar:
        for choice in choices:
            started, found = time.perf_counter(), {}
            try:
                found = _predicted(choice, target, settings, cancel)
            except Cancelled:
                raise
            except Exception as error:  # of this candidate, whatever it is; the others go on
                found = {"error": f"{type(error).__name__}: {error}", "role": "failed"}
            seconds = time.perf_counter() - started
            rows.append(TunedCandidate(**choice.describe(), **found, screening_seconds=seconds))
            bar.advance()


def _predicted(
    choice: Choice, target: Target, settings: Mapping[str, Any], cancel: CancelFlag | None
) -> dict[str, Any]:
    """What is known of a candidate before training."""
    model = choice.build(target, settings["seed"])
    prediction = predict_training(
        model,
        target,
        loss=settings["loss"],
        optimizer=PREDICTED_AS[settings["optimizer"]],
        steps=settings["steps"],
        n=settings["n"],
        n_test=settings["n_val"],
        progress=False,
        cancel=cancel,
    )
    curve = prediction.trajectory
    if curve.diverged is not None or curve.test_loss is None:
        raise InputError(f"the predicted training diverges at step {curve.diverged}")
    share, n = prediction.accuracy, settings["n_val"]
    return {
        "predicted_accuracy": share,
        "predicted_interval": None if share is None else wilson_interval(round(share * n), n),
        "predicted_loss": curve.test_loss[-1],
        "predicted_lr": prediction.lr,
        "parameters": model.n_parameters,
        "notes": prediction.notes,
    }
