"""What a tuning found: the best model, every candidate and training, and what screening saved."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mrviz._words import counted
from mrviz.errors import MissingDataError
from mrviz.programs import ReprogrammedModel

TITLES = ("candidate", "predicted", "95 % interval", "validation", "trainings", "steps", "")


@dataclass(frozen=True)
class TunedCandidate:
    """One candidate of a :class:`Tuning`.

    Attributes:
        source: name of the source.
        program: name of the program.
        mapping: name of the mapping.
        options: of program and mapping, the capacity among them.
        role: "finalist", "rejected" by the screening, "failed" in it, or "screened" where the
            tuning ended before there were finalists.
        predicted_accuracy: predicted accuracy on the validation samples in use; ``None`` for
            real-valued targets and where it failed.
        predicted_interval: its 95 % Wilson interval: the error of so many samples, not that of
            the prediction.
        predicted_loss: predicted loss on them.
        predicted_lr: step size that was simulated, half of the largest stable one.
        parameters: p.
        screening_seconds: wall-clock time of the prediction.
        trainings: how often it was trained, the audit included.
        steps: gradient steps in all.
        val_accuracy: best validation accuracy of its trainings.
        val_loss: validation loss that goes with it.
        audited: whether it was rejected and trained all the same, to see what was missed.
        notes: what is approximate in the prediction.
        error: why it failed.
    """

    source: str
    program: str
    mapping: str
    options: Mapping[str, Any] = field(hash=False)
    role: str = "screened"
    predicted_accuracy: float | None = None
    predicted_interval: tuple[float, float] | None = None
    predicted_loss: float | None = None
    predicted_lr: float | None = None
    parameters: int | None = None
    screening_seconds: float = 0.0
    trainings: int = 0
    steps: int = 0
    val_accuracy: float | None = None
    val_loss: float | None = None
    audited: bool = False
    notes: tuple[str, ...] = ()
    error: str | None = None

    @property
    def name(self) -> str:
        """Program with its options, and mapping."""
        options = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return f"{self.program}{f' ({options})' if options else ''}, {self.mapping}"

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        interval = self.predicted_interval
        return {
            **asdict(self),
            "options": dict(self.options),
            "predicted_interval": None if interval is None else list(interval),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Trial:
    """One training of a :class:`Tuning`.

    Attributes:
        candidate: its place among the candidates.
        lr: step size; ``None``: Adam's defaults.
        steps: gradient steps made.
        kept: the step with the best validation value, whose parameters count.
        val_accuracy: validation accuracy there; ``None`` for real-valued targets.
        val_loss: validation loss there.
        ended: "done", "patience", "pruned" (worse than the median of the trainings before at
            that step), "diverged" or "cancelled".
        seconds: wall-clock time, measurements included.
        audit: whether it was part of the audit.
    """

    candidate: int
    lr: float | None
    steps: int
    kept: int | None
    val_accuracy: float | None
    val_loss: float | None
    ended: str
    seconds: float
    audit: bool = False

    def rank(self, by_accuracy: bool) -> tuple[float, ...]:
        """Larger is better: accuracy and then loss, or loss alone."""
        loss = float("inf") if self.val_loss is None else self.val_loss
        return (self.val_accuracy or 0.0, -loss) if by_accuracy else (-loss,)


@dataclass(frozen=True)
class Savings:
    """What it would have cost to give every rejected candidate what a finalist got on average.

    An estimate: it takes trainings of rejected candidates to cost what those of finalists did.

    Attributes:
        candidates: how many were rejected.
        trainings: trainings not made.
        steps: their gradient steps.
        seconds: their time.
        screening_seconds: what the screening of all candidates took.
    """

    candidates: int
    trainings: float
    steps: float
    seconds: float
    screening_seconds: float

    @property
    def net_seconds(self) -> float:
        """Seconds saved less those of the screening; negative where it cost more."""
        return self.seconds - self.screening_seconds


@dataclass(frozen=True, eq=False)
class Tuning:
    """The outcome of :func:`~mrviz.autotune`.

    Attributes:
        model: the best model, with the parameters of its best step; ``None`` where the tuning
            was cancelled before any training.
        candidates: from the best prediction down, those that failed last.
        trials: trainings in the order in which they were made.
        best: the trial of the best model.
        settings: what was run.
        screening_seconds: time of all predictions.
        training_seconds: time of the finalists' trainings.
        audit_seconds: time of the audit's trainings.
        test_accuracy: accuracy of the best model on the target's test samples, which were used
            for nothing else; ``None`` for real-valued targets, and where it was not measured.
        test_loss: its loss on them.
        notes: what is to be known.
    """

    model: ReprogrammedModel | None
    candidates: tuple[TunedCandidate, ...]
    trials: tuple[Trial, ...]
    best: Trial | None
    settings: Mapping[str, Any]
    screening_seconds: float
    training_seconds: float
    audit_seconds: float = 0.0
    test_accuracy: float | None = None
    test_loss: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> TunedCandidate | None:
        """The candidate of the best model."""
        return None if self.best is None else self.candidates[self.best.candidate]

    @property
    def val_accuracy(self) -> float | None:
        """Validation accuracy of the best model: it was chosen by it, so it is optimistic."""
        return None if self.best is None else self.best.val_accuracy

    @property
    def val_loss(self) -> float | None:
        """Validation loss of the best model."""
        return None if self.best is None else self.best.val_loss

    @property
    def steps(self) -> int:
        """Gradient steps of the finalists' trainings; at most the budget."""
        return sum(trial.steps for trial in self.trials if not trial.audit)

    @property
    def audit_steps(self) -> int:
        """Gradient steps of the audit, beside the budget."""
        return sum(trial.steps for trial in self.trials if trial.audit)

    @property
    def saved(self) -> Savings:
        """What the screening saved."""
        finalists = sum(c.role == "finalist" for c in self.candidates)
        rejected = sum(c.role == "rejected" for c in self.candidates)
        made = [trial for trial in self.trials if not trial.audit]
        share = rejected / finalists if finalists else 0.0
        return Savings(
            candidates=rejected,
            trainings=share * len(made),
            steps=share * self.steps,
            seconds=share * self.training_seconds,
            screening_seconds=self.screening_seconds,
        )

    @property
    def regret(self) -> float | None:
        """How much better the best audited candidate is than the chosen one, at least 0.

        In validation accuracy, or in validation loss where that decided. ``None`` where nothing
        was audited. Rejected candidates that were not audited may be better still.
        """
        audited = [t for t in self.trials if t.audit and t.val_loss is not None]
        if self.best is None or not audited:
            return None
        by_accuracy = self.settings["keep"] == "val_accuracy"
        values = [t.rank(by_accuracy)[0] for t in audited]
        return max(0.0, max(values) - self.best.rank(by_accuracy)[0])

    def code(self) -> str:
        """The lines of Python that make the best model again; empty where there is none."""
        from mrviz.tuning.code import lines

        return lines(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model, as plain values."""
        return {
            **self.settings,
            "chosen": None if self.chosen is None else self.chosen.to_dict(),
            "best": None if self.best is None else asdict(self.best),
            "test_accuracy": self.test_accuracy,
            "test_loss": self.test_loss,
            "steps": self.steps,
            "audit_steps": self.audit_steps,
            "screening_seconds": self.screening_seconds,
            "training_seconds": self.training_seconds,
            "audit_seconds": self.audit_seconds,
            "saved": {**asdict(self.saved), "net_seconds": self.saved.net_seconds},
            "regret": self.regret,
            "notes": list(self.notes),
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "trials": [asdict(trial) for trial in self.trials],
        }

    def to_frame(self) -> Any:
        """A pandas DataFrame, one row a candidate.

        Raises:
            MissingDataError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingDataError('to_frame needs pandas: pip install "mrviz[lab]"') from None
        rows = []
        for candidate in self.candidates:
            values = candidate.to_dict()
            values["low"], values["high"] = values.pop("predicted_interval") or (None, None)
            rows.append({"name": candidate.name, **values, "chosen": candidate is self.chosen})
        return pandas.DataFrame(rows)

    def __repr__(self) -> str:
        rows: list[tuple[str, ...]] = [TITLES, *self._rows()]
        widths = [max(len(row[k]) for row in rows) for k in range(len(TITLES))]
        table = [
            "  ".join(
                cell.ljust(width) if k in (0, len(TITLES) - 1) else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*self.summary(), "", *table])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(title)}</th>" for title in TITLES)
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
            for row in self._rows()
        )
        text = "".join(f"<p>{html.escape(line)}</p>" for line in self.summary())
        return f"{text}<table><caption>Candidates</caption><tr>{head}</tr>{body}</table>"

    def summary(self) -> Sequence[str]:
        """What was chosen, what it cost, and what the screening saved, a sentence each."""
        chosen, best, saved = self.chosen, self.best, self.saved
        lines = []
        if chosen is None or best is None:
            lines.append(f"Tuning of {counted(len(self.candidates), 'candidate')}: none trained")
        else:
            lr = "the default step sizes of Adam" if best.lr is None else f"lr={best.lr:.3g}"
            lines.append(f"Chosen: {chosen.source}: {chosen.name}; {lr}, step {best.kept}")
            lines.append(f"Validation: {_scores(best.val_accuracy, best.val_loss)}")
            if self.test_loss is not None:
                scores = _scores(self.test_accuracy, self.test_loss)
                lines.append(f"Test, measured once for this model: {scores}")
        trainings = sum(not trial.audit for trial in self.trials)
        lines.append(
            f"Cost: {counted(len(self.candidates), 'candidate')} screened in "
            f"{self.screening_seconds:.1f} s, {counted(trainings, 'training')} with "
            f"{counted(self.steps, 'step')} in {self.training_seconds:.1f} s"
        )
        lines.append(
            f"Saved, estimated: {counted(saved.candidates, 'candidate')} not trained, at the "
            f"finalists' mean {saved.steps:,.0f} steps and {saved.seconds:.1f} s, less "
            f"{saved.screening_seconds:.1f} s of screening"
        )
        return [*lines, self._missed(), *self.notes]

    def _missed(self) -> str:
        """What is known of the candidates that screening rejected."""
        if self.regret is None:
            return (
                "Whether a rejected candidate is better was not measured: audit=k trains k of them"
            )
        n, rejected = sum(c.audited for c in self.candidates), self.saved.candidates
        unit = (
            f"{100 * self.regret:.1f} points of validation accuracy"
            if self.settings["keep"] == "val_accuracy"
            else f"{self.regret:.4g} in validation loss"
        )
        return (
            f"Audit: the best of {n} out of {rejected} rejected candidates is better by {unit} "
            f"({counted(self.audit_steps, 'step')}, {self.audit_seconds:.1f} s)"
        )

    def _rows(self) -> list[tuple[str, ...]]:
        several = len({c.source for c in self.candidates}) > 1
        rows: list[tuple[str, ...]] = []
        for c in self.candidates:
            name = f"{c.source}: {c.name}" if several else c.name
            interval = c.predicted_interval
            role = "chosen" if c is self.chosen else c.role
            if c.role == "failed":
                role = f"failed: {c.error}"
            rows.append(
                (
                    name,
                    _score(c.predicted_accuracy, c.predicted_loss),
                    "" if interval is None else "{:.1%} to {:.1%}".format(*interval),
                    _score(c.val_accuracy, c.val_loss),
                    str(c.trainings or ""),
                    f"{c.steps:,}" if c.steps else "",
                    role + (", audited" if c.audited else ""),
                )
            )
        return rows


def _score(accuracy: float | None, loss: float | None) -> str:
    if accuracy is not None:
        return f"{accuracy:.1%}"
    return "" if loss is None else f"loss {loss:.4g}"


def _scores(accuracy: float | None, loss: float | None) -> str:
    parts = [] if accuracy is None else [f"accuracy {accuracy:.1%}"]
    return ", ".join(parts + ([] if loss is None else [f"loss {loss:.4g}"]))
