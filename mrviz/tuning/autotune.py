"""One call that chooses source, program, capacity, mapping and step size, and trains the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.errors import Cancelled, InputError
from mrviz.programs.losses import accuracy, check_loss, sample_losses
from mrviz.programs.training import STEPS
from mrviz.programs.training.options import check_keep
from mrviz.targets import Target
from mrviz.targets.options import as_choice, as_count
from mrviz.theory.ranking.rank import ProgramChoice
from mrviz.tuning.candidates import Choice, Sources, load_sources, make_choices, screen
from mrviz.tuning.result import TunedCandidate, Tuning
from mrviz.tuning.search import MEASURED, RATES, Search, need_optuna
from mrviz.tuning.split import validation_split, without_test

SCREENED, PREDICTED = 100, 200
"""Training samples in the kernel of a prediction, and validation samples predicted, by default."""

WORDS = {"adam": "gradient descent with momentum", "sgd": "gradient descent"}


def autotune(
    source: Sources,
    target: Target,
    budget: int = 20 * STEPS,
    *,
    programs: Sequence[ProgramChoice] | None = None,
    mappings: Sequence[Any] | None = None,
    capacities: int = 3,
    finalists: int = 4,
    audit: int = 0,
    steps: int = STEPS,
    loss: str | None = None,
    optimizer: str = "adam",
    batch_size: int | None = None,
    keep: str | None = None,
    patience: int | None = 5,
    validation: float = 0.2,
    n: int | None = None,
    n_val: int | None = None,
    seed: int = 0,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Tuning:
    """Chooses source, program, capacity, mapping and step size, and trains the best.

    First every candidate's training is predicted from its tangent kernel, without training
    (:func:`~mrviz.predict_training`): that of gradient descent, which is what
    :func:`~mrviz.rank_programs` ranks by too, and for "adam" that of gradient descent with
    momentum, at half of the largest stable step. The best predicted are then trained for real.
    Of several whose kernels say the same, such as an overlay and a patch that is as large as the
    image, one is. Optuna's tree-structured Parzen estimator (Bergstra
    et al. 2011, with a seed) chooses finalist and step size of each training once each finalist
    was trained at its default, and its median rule ends trainings that lag behind. Everything is
    decided on validation samples. Test samples are not in the data that decides: they are measured
    once, for the chosen model.

    The budget counts gradient steps and not seconds: with the same seed the same steps are made
    on any day and on a busy machine, which no limit of time can promise. A training's steps are at
    most ``steps``, those of all together exactly ``budget``; the result says how many seconds that
    took, so that the next budget can be chosen by it. Screening is not part of it: its time is
    reported beside it.

    Args:
        source: the frozen source, a name, or (name, options) of :func:`~mrviz.load_source`; or
            several of these in a list, or in a dict by names of your own.
        target: the target data set. Where it has no validation samples, a share of the training
            samples of each class becomes them, see :func:`~mrviz.tuning.validation_split`.
        budget: gradient steps of all trainings of the finalists; at least ``finalists * steps``.
        programs: names, (name, options), or programs of your own, which are copied; default:
            every name of :data:`~mrviz.programs.PROGRAMS` that works on the target's inputs. An
            image that does not fit into a program's source is made three quarters of its size.
        mappings: names, (name, options), mappings or arrays as in :func:`~mrviz.reprogram`;
            default: "frequency" and "identity", for real-valued targets "identity" alone.
        capacities: candidates for each program that has a capacity, evenly from its largest to
            its smallest on a log scale; a capacity among a program's options is left alone.
        finalists: candidates that are trained, those with the best prediction.
        audit: train so many candidates, drawn at random among those that were rejected, to
            see whether the screening missed a better one. Each gets as many trainings as a
            finalist had on average, in full, one at the default step size and the others at random
            ones. Beside the budget.
        steps: steps of a training, and of its prediction.
        loss: "cross_entropy" or "squared"; default: squared for real-valued targets only.
        optimizer: "adam", "sgd" or "gd" of :func:`~mrviz.train`. Step sizes are searched from a
            tenth to ten times Adam's default, for the others from a tenth to twice the
            predicted step size, which is half of the largest stable one.
        batch_size: of "adam" and "sgd"; default: as in :func:`~mrviz.train`.
        keep: what decides, "val_accuracy" (of equals the lower loss) or "val_loss"; default:
            the accuracy where there are labels. It also says at which step a training is best.
        patience: end a training after so many measurements without a better one; it is measured
            about twenty times. ``None``: never.
        validation: share of the training samples to validate on where the target has no
            validation samples.
        n: training samples in the kernel of a prediction; default: at most 100.
        n_val: validation samples that are predicted; default: at most 200.
        seed: of sources loaded by name, splits, start values, batches and the search.
        progress: callback (done, total, label), for screening, training and audit in turn;
            ``False`` for silence; default: a text bar.
        cancel: flag with ``is_set()``.

    Returns:
        The best model, all candidates with what was predicted and measured, what it cost, and an
        estimate of what the screening saved.

    Raises:
        InputError: no candidates, none that can be trained, unknown names, a budget that is too
            small, or options that do not fit the target.
        MissingDataError: Optuna is not installed.
        Cancelled: ``cancel`` was set. Its attribute ``tuning`` is the result so far, with the
            best model so far, where any was trained.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> x, y = torch.rand(30, 1, 2, 2), [0, 1, 2] * 10
        >>> target = mrviz.Target(x, y, x, y)
        >>> tuning = autotune(source, target, 60, programs=["border", "linear"], finalists=2,
        ...     steps=10, progress=False)
        >>> tuning.steps, len(tuning.candidates)
        (60, 4)
    """
    need_optuna()
    for name, value, least in (
        ("budget", budget, 1),
        ("capacities", capacities, 1),
        ("finalists", finalists, 1),
        ("audit", audit, 0),
        ("steps", steps, 1),
        ("seed", seed, 0),
    ):
        as_count(value, name, least)
    split = validation_split(target, validation, seed)
    known, n_val_known = len(split.x_train), 0 if split.x_val is None else len(split.x_val)
    labels = target.is_classification
    settings: dict[str, Any] = {
        "target": target.name,
        "budget": budget,
        "finalists": finalists,
        "audit": audit,
        "steps": steps,
        "loss": ("cross_entropy" if labels else "squared") if loss is None else loss,
        "optimizer": as_choice(optimizer, RATES, "optimizer"),
        "batch_size": batch_size,
        "keep": ("val_accuracy" if labels else "val_loss") if keep is None else keep,
        "patience": patience,
        "record_every": -(-steps // MEASURED),
        "validation": validation,
        "n": _at_most(n, "n", known, SCREENED, "training"),
        "n_val": _at_most(n_val, "n_val", n_val_known, PREDICTED, "validation"),
        "seed": seed,
    }
    check_loss(settings["loss"], target, target.n_classes)
    as_choice(settings["keep"], ("val_loss", "val_accuracy"), "keep")
    check_keep(settings["keep"], patience, split)
    if batch_size is not None:
        as_count(batch_size, "batch_size", 1)
        if optimizer == "gd":
            raise InputError("batch_size does not apply to optimizer='gd': leave it out")
    sources = load_sources(source, seed, cancel)
    choices = make_choices(sources, split, programs, mappings, capacities)
    settings["finalists"] = finalists = min(finalists, len(choices))
    if budget < finalists * steps:
        raise InputError(
            f"budget={budget} gradient steps do not train {finalists} finalists for {steps} steps "
            f"once: pass budget={finalists * steps} or more, fewer finalists, or fewer steps"
        )
    search_on = without_test(split)
    search = Search((), (), search_on, settings, cancel)
    run = _Run(choices, settings, search, _notes(target, split, settings))
    try:
        try:
            screen(choices, search_on, settings, run.rows, progress, cancel)
        finally:
            run.sort()
        run.choose(finalists)
        run.search.run(run.places("finalist"), progress)
        run.audit(audit, progress)
    except Cancelled as reason:
        reason.tuning = run.result()
        raise
    return run.tested(target)


class _Run:
    """A tuning in progress."""

    def __init__(
        self,
        choices: list[Choice],
        settings: dict[str, Any],
        search: Search,
        notes: tuple[str, ...],
    ) -> None:
        self.notes = notes
        self.choices = choices
        self.settings = settings
        self.search = search
        self.rows: list[TunedCandidate] = []

    def sort(self) -> None:
        """The best prediction first, those that failed last."""
        order = sorted(range(len(self.rows)), key=lambda k: _order(self.rows[k]))
        self.rows = [self.rows[k] for k in order]
        self.choices = [self.choices[k] for k in order]

    def choose(self, finalists: int) -> None:
        """Says who is trained.

        Raises:
            InputError: all of them failed.
        """
        sound = sum(row.role != "failed" for row in self.rows)
        if not sound:
            raise InputError(
                f"none of {len(self.rows)} candidates can be trained. The first, "
                f"{self.rows[0].name}: {self.rows[0].error}"
            )
        taken: list[TunedCandidate] = []
        for place, row in enumerate(self.rows[:sound]):
            twin = next((other for other in taken if _alike(row, other)), None)
            chosen = len(taken) < finalists and twin is None
            if chosen:
                taken.append(row)
            notes = row.notes if twin is None else (*row.notes, f"predicted as {twin.name} is")
            role = "finalist" if chosen else "rejected"
            self.rows[place] = replace(row, role=role, notes=notes)
        self.search.choices = self.choices
        self.search.predicted = [row.predicted_lr for row in self.rows]

    def places(self, role: str) -> list[int]:
        """Places of the candidates of a role."""
        return [place for place, row in enumerate(self.rows) if row.role == role]

    def audit(self, wanted: int, progress: ProgressCallback | bool | None) -> None:
        """Trains some of those rejected, as often as a finalist on average."""
        rejected = self.places("rejected")
        if not wanted or not rejected:
            return
        rng = np.random.default_rng(self.settings["seed"])
        drawn = rng.choice(rejected, min(wanted, len(rejected)), replace=False)
        trainings = max(1, round(len(self.search.trials) / len(self.places("finalist"))))
        self.search.audit(sorted(int(place) for place in drawn), trainings, progress)

    def result(self) -> Tuning:
        """What is known by now, without test samples."""
        search, trials = self.search, self.search.trials
        by_accuracy = self.settings["keep"] == "val_accuracy"
        rows = []
        for place, row in enumerate(self.rows):
            own = [trial for trial in trials if trial.candidate == place]
            measured = [trial for trial in own if trial.val_loss is not None]
            top = max(measured, key=lambda trial: trial.rank(by_accuracy), default=None)
            rows.append(
                replace(
                    row,
                    trainings=len(own),
                    steps=sum(trial.steps for trial in own),
                    val_accuracy=None if top is None else top.val_accuracy,
                    val_loss=None if top is None else top.val_loss,
                    audited=any(trial.audit for trial in own),
                )
            )
        chosen = None if search.best is None else self.choices[search.best.candidate]
        own_parts = (
            []
            if chosen is None
            else [
                kind
                for kind in ("program", "mapping")
                if not isinstance(getattr(chosen, kind), str)
            ]
        )
        return Tuning(
            model=search.model,
            candidates=tuple(rows),
            trials=tuple(trials),
            best=search.best,
            settings={**self.settings, "own": own_parts},
            screening_seconds=sum(row.screening_seconds for row in rows),
            training_seconds=sum(trial.seconds for trial in trials if not trial.audit),
            audit_seconds=sum(trial.seconds for trial in trials if trial.audit),
            notes=self.notes,
        )

    def tested(self, target: Target) -> Tuning:
        """The result, with the one measurement on test samples."""
        found = self.result()
        if found.model is None:
            raise InputError(
                "no training gave finite validation losses: look at the sources' outputs"
            )
        outputs = found.model.predict(target.x_test)
        values = target.targets_of(target.y_test).to(outputs.device)
        return replace(
            found,
            test_accuracy=accuracy(outputs, values) if target.is_classification else None,
            test_loss=float(sample_losses(outputs, values, self.settings["loss"]).mean()),
        )


def _notes(target: Target, split: Target, settings: dict[str, Any]) -> tuple[str, ...]:
    found = []
    if target.x_val is None:
        n, kept = len(target.x_train), len(split.x_train)
        how = ", the same share of each class" if target.is_classification else ""
        found.append(f"{n - kept} of {n} training samples served for validation{how}")
    if settings["optimizer"] != "gd":
        found.append(
            f"screened by the prediction of full-batch {WORDS[settings['optimizer']]}, trained by "
            f"{settings['optimizer']!r}: the prediction orders candidates only roughly"
        )
    return tuple(found)


def _order(row: TunedCandidate) -> tuple[float, float]:
    if row.role == "failed" or row.predicted_loss is None:
        return 2.0, 0.0
    return -(row.predicted_accuracy or 0.0), row.predicted_loss


def _alike(one: TunedCandidate, other: TunedCandidate) -> bool:
    """Whether two candidates are one and the same to the kernel."""
    return (
        (one.source, one.mapping, one.parameters) == (other.source, other.mapping, other.parameters)
        and one.predicted_accuracy == other.predicted_accuracy
        and math.isclose(one.predicted_loss or 0.0, other.predicted_loss or 0.0, rel_tol=1e-6)
    )


def _at_most(value: int | None, name: str, known: int, default: int, kind: str) -> int:
    size = min(known, default) if value is None else as_count(value, name, 1)
    if size > known:
        raise InputError(f"{name}={size}, but there are {known} {kind} samples")
    return size
