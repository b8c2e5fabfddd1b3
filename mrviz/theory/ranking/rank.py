"""Programs or sources ranked by the matched prediction of their training."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz.errors import Cancelled, InputError
from mrviz.programs import PROGRAMS, ReprogrammedModel, reprogram
from mrviz.programs.losses import check_loss
from mrviz.programs.training import STEPS, check_rate, split_sizes
from mrviz.sources import SourceModel, load_source
from mrviz.spectrum import spectrum
from mrviz.targets import Target
from mrviz.targets.options import as_count
from mrviz.theory.baselines import transfer_baselines
from mrviz.theory.prediction import predict_training
from mrviz.theory.ranking.table import CONDITIONS, Candidate, Ranking
from mrviz.theory.statistics import wilson_interval
from mrviz.theory.strength import SourceStrength, source_strength
from mrviz.theory.transfer import evaluate_conditions, gather_evidence

ProgramChoice = str | tuple[str, Mapping[str, Any]] | nn.Module
"""A name of :data:`~mrviz.programs.PROGRAMS`, a name with options, or a program."""

SourceChoice = str | tuple[str, Mapping[str, Any]] | SourceModel
"""A name that :func:`~mrviz.load_source` knows, a name with options, or a source."""

LEVEL = 0.05
"""A candidate is tied with the best where the exact paired test does not reach this level."""


def rank_programs(
    source: SourceModel,
    target: Target,
    candidates: Sequence[ProgramChoice] | None = None,
    *,
    mapping: Any = "frequency",
    loss: str = "cross_entropy",
    lr: float | None = None,
    steps: int = STEPS,
    n: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Ranking:
    """Ranks programs for a source and a target by the matched prediction, without training.

    Args:
        source: the frozen source.
        target: the target data set, with class labels.
        candidates: names, (name, options), or programs, which are copied; default: every name of
            :data:`~mrviz.programs.PROGRAMS` that works on the target's inputs. One that
            fails is kept in the table with its error.
        mapping: as in :func:`~mrviz.reprogram`.
        loss: "cross_entropy" or "squared".
        lr: step size of gradient descent; default: half of each candidate's largest stable one.
        steps: number of steps.
        n: use the first ``n`` training samples; default: all.
        n_test: predict for the first ``n_test`` held-out samples; default: all.
        seed: of the programs' start values.
        progress: callback (done, total, label); ``False`` for silence; default: a text bar.
        cancel: flag with ``is_set()``.

    Raises:
        InputError: no candidates, real-valued targets, or settings that no candidate can meet.
        Cancelled: ``cancel`` was set.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> x, y = torch.rand(9, 1, 2, 2), [0, 1, 2] * 3
        >>> target = mrviz.Target(x, y, x, y)
        >>> ranking = rank_programs(source, target, ["border", ("low_rank", {"rank": 1})], steps=9)
        >>> sorted(row.name for row in ranking)
        ['border', 'low_rank (rank=1)']
    """
    if not isinstance(source, SourceModel):
        raise InputError(f"source must be a SourceModel, got {type(source).__name__}")
    strength = source_strength(source)
    named: dict[str, Any] = {"mapping": mapping, "seed": seed}

    def make(choice: ProgramChoice) -> Callable[[], tuple[ReprogrammedModel, Any]]:
        return lambda: (_reprogrammed(source, target, choice, named), strength)

    if candidates is None and isinstance(target, Target):
        candidates = [name for name, spec in PROGRAMS.items() if spec.fits(target.shape)]
    chosen = tuple(PROGRAMS) if candidates is None else tuple(candidates)
    entries = [(choice_name(choice), make(choice)) for choice in chosen]
    settings = {"loss": loss, "lr": lr, "steps": steps, "n": n, "n_test": n_test, **named}
    return _rank("program", entries, target, settings, progress, cancel)


def rank_sources(
    sources: Sequence[SourceChoice],
    target: Target,
    program: ProgramChoice = "border",
    *,
    mapping: Any = "frequency",
    loss: str = "cross_entropy",
    lr: float | None = None,
    steps: int = STEPS,
    n: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Ranking:
    """Ranks sources for a target and a program; everything else as in :func:`rank_programs`.

    Args:
        sources: names, (name, options) for :func:`~mrviz.load_source`, or sources.
        target: the target data set, with class labels.
        program: a name, (name, options), or a program, which then fits sources of one shape.
        mapping: as in :func:`~mrviz.reprogram`; fitted to each source anew.
        loss: "cross_entropy" or "squared".
        lr: step size of gradient descent; default: half of each candidate's largest stable one.
        steps: number of steps.
        n: use the first ``n`` training samples; default: all.
        n_test: predict for the first ``n_test`` held-out samples; default: all.
        seed: of the program's start values, and of sources loaded by name.
        progress: callback (done, total, label); ``False`` for silence; default: a text bar.
        cancel: flag with ``is_set()``.

    Raises:
        InputError: no candidates, real-valued targets, or settings that no candidate can meet.
        Cancelled: ``cancel`` was set.
    """
    named: dict[str, Any] = {"mapping": mapping, "seed": seed}

    def make(choice: SourceChoice) -> Callable[[], tuple[ReprogrammedModel, Any]]:
        def build() -> tuple[ReprogrammedModel, Any]:
            source = choice
            if not isinstance(source, SourceModel):
                name, options = named_choice(source, "source")
                options = {"seed": seed, **options}
                source = load_source(name, progress=False, cancel=cancel, **options)
            return _reprogrammed(source, target, program, named), source_strength(source)

        return build

    entries = [(choice_name(choice), make(choice)) for choice in sources]
    settings = {"loss": loss, "lr": lr, "steps": steps, "n": n, "n_test": n_test, **named}
    return _rank("source", entries, target, settings, progress, cancel)


def _rank(
    kind: str,
    entries: Sequence[tuple[str, Callable[[], tuple[ReprogrammedModel, Any]]]],
    target: Target,
    settings: dict[str, Any],
    progress: ProgressCallback | bool | None,
    cancel: CancelFlag | None,
) -> Ranking:
    """Predicts every candidate; what no candidate could meet is an error at once."""
    started = time.perf_counter()
    if not entries:
        raise InputError(f"there is no {kind} to rank")
    if not isinstance(target, Target):
        raise InputError(f"target must be a Target, got {type(target).__name__}")
    if not target.is_classification:
        raise InputError(
            f"target {target.name!r} has real-valued outputs: a ranking by accuracy needs labels"
        )
    check_loss(settings["loss"], target, target.n_classes)
    check_rate(settings["lr"])
    as_count(settings["steps"], "steps", 1)
    settings["n"], settings["n_test"] = split_sizes(target, settings["n"], settings["n_test"])
    found: list[tuple[Candidate, Tensor | None]] = []
    with Progress(len(entries), f"ranking {kind}s", progress, cancel) as bar:
        for name, build in entries:
            began, row, correct = time.perf_counter(), Candidate(name), None
            try:
                model, strength = build()
                row, correct = _candidate(name, model, target, strength, settings, cancel)
            except Cancelled:
                raise
            except Exception as error:  # of this candidate, whatever it is; the others go on
                row = replace(row, error=f"{type(error).__name__}: {error}")
            found.append((replace(row, seconds=time.perf_counter() - began), correct))
            bar.advance()
    found.sort(key=lambda item: _order(item[0]))
    best = found[0][1]
    rows = tuple(
        row if best is None or right is None else replace(row, tied=_tied(best, right))
        for row, right in found
    )
    mapping = settings["mapping"]
    settings["mapping"] = mapping if isinstance(mapping, str) else type(mapping).__name__
    return Ranking(rows, kind, settings, time.perf_counter() - started)


def _order(row: Candidate) -> tuple[float, float]:
    if row.accuracy is None or row.loss is None:
        return 2.0, 0.0
    return -row.accuracy, row.loss


def _tied(best: Tensor, other: Tensor) -> bool:
    """Whether two predictions on the same samples differ by no more than chance."""
    from scipy.stats import binomtest

    won, lost = int((best & ~other).sum()), int((other & ~best).sum())
    return won + lost == 0 or float(binomtest(won, won + lost).pvalue) > LEVEL


def _candidate(
    name: str,
    model: ReprogrammedModel,
    target: Target,
    strength: SourceStrength | None,
    settings: Mapping[str, Any],
    cancel: CancelFlag | None,
) -> tuple[Candidate, Tensor]:
    """A row of the table, and which held-out samples are predicted right."""
    n, n_test = settings["n"], settings["n_test"]
    silent: dict[str, Any] = {"progress": False, "cancel": cancel}
    options = {key: settings[key] for key in ("loss", "lr", "steps", "n", "n_test")}
    predicted = predict_training(model, target, **options, **silent)
    curve = predicted.trajectory
    if curve.diverged is not None or curve.test_outputs is None or curve.test_loss is None:
        raise InputError(
            f"predicted training diverges at step {curve.diverged} with lr={predicted.lr:.4g}: "
            f"the largest stable step is {predicted.stable_step:.4g}"
        )
    right = curve.test_outputs.cpu().argmax(1) == target.y_test[:n_test]
    correct = int(right.sum())
    x, values = target.x_train[:n], target.targets_of(target.y_train[:n])
    evidence = gather_evidence(model, x, values, strength=strength, **silent)
    evidence = replace(evidence, prediction=predicted)
    conditions = evaluate_conditions(predicted.gram, spectrum(predicted.gram), evidence)
    row = Candidate(
        name=name,
        accuracy=correct / n_test,
        interval=wilson_interval(correct, n_test),
        loss=curve.test_loss[-1],
        train_accuracy=None if curve.train_accuracy is None else curve.train_accuracy[-1],
        lr=predicted.lr,
        conditions={i: conditions[i].status for i in CONDITIONS},
        baselines=transfer_baselines(model, target, n),
        source_accuracy=strength.accuracy if strength else None,
        parameters=model.n_parameters,
        passes=model.outputs * (n + n_test),
        notes=predicted.notes,
    )
    return row, right


def _reprogrammed(
    source: SourceModel, target: Target, choice: ProgramChoice, named: Mapping[str, Any]
) -> ReprogrammedModel:
    if isinstance(choice, nn.Module):
        return reprogram(source, target, program=copy.deepcopy(choice), **named)
    name, options = named_choice(choice, "program")
    return reprogram(source, target, program=name, **{**named, **options})


def named_choice(choice: Any, kind: str) -> tuple[str, dict[str, Any]]:
    """Name and options of a choice that is not an object."""
    name, options = choice if isinstance(choice, tuple) and len(choice) == 2 else (choice, {})
    if not isinstance(name, str) or not isinstance(options, Mapping):
        raise InputError(f"a {kind} must be a name, (name, options) or an object, got {choice!r}")
    return name, dict(options)


def choice_name(choice: Any) -> str:
    """What a candidate is called in the table."""
    if isinstance(choice, SourceModel):
        return choice.name
    if isinstance(choice, nn.Module):
        return type(choice).__name__
    if isinstance(choice, tuple) and len(choice) == 2 and isinstance(choice[1], Mapping):
        options = ", ".join(f"{key}={value!r}" for key, value in choice[1].items())
        return f"{choice[0]} ({options})" if options else str(choice[0])
    return str(choice)
