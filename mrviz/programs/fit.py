"""The record of a training: losses and accuracies, step by step."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mrviz._words import counted
from mrviz.targets.options import as_count

RECORDS = 100
"""At most so many steps after the first are recorded where nothing else is asked for."""


@dataclass(frozen=True)
class Measurement:
    """Losses and accuracies after some number of steps.

    Attributes:
        step: steps made before it; 0 is the start.
        train_loss: mean loss of the training samples in use.
        train_accuracy: share of correct arg-max predictions; ``None`` for real-valued targets.
        test_loss: mean loss of the held-out samples.
        test_accuracy: the same on held-out samples.
        val_loss: mean loss of the target's validation samples; ``None`` where it has none.
        val_accuracy: the same on validation samples.
    """

    step: int
    train_loss: float
    train_accuracy: float | None
    test_loss: float
    test_accuracy: float | None
    val_loss: float | None = None
    val_accuracy: float | None = None


@dataclass(frozen=True)
class Fit:
    """What training did. The parameters themselves are in the model.

    Attributes:
        history: measurements at step 0, at every recorded step and after the last one; those
            before numbers ceased to be finite, where training diverged.
        settings: what was run: loss, optimizer, lr, momentum, steps, batch_size, n, n_test, seed,
            and the other options of :func:`~mrviz.train` that change the result.
        seconds: wall-clock time, measurements included.
        diverged: the step after which a loss or a gradient was no longer finite and training
            stopped, or ``None``.
        notes: what had to be done differently than planned.
        kept: the step whose parameters the model has; ``None`` where they were lost.
        stopped: "patience" or "cancelled" where training ended before its last step.
    """

    history: tuple[Measurement, ...]
    settings: Mapping[str, Any]
    seconds: float
    diverged: int | None = None
    notes: tuple[str, ...] = ()
    kept: int | None = None
    stopped: str | None = None

    @property
    def outcome(self) -> Measurement | None:
        """What was measured of the parameters that the model has, where it was measured."""
        return next((m for m in self.history if m.step == self.kept), None)

    @property
    def steps(self) -> tuple[int, ...]:
        """Step numbers of the history."""
        return tuple(m.step for m in self.history)

    @property
    def train_loss(self) -> tuple[float, ...]:
        """Mean training loss at those steps."""
        return tuple(m.train_loss for m in self.history)

    @property
    def test_loss(self) -> tuple[float, ...]:
        """Mean held-out loss at those steps."""
        return tuple(m.test_loss for m in self.history)

    @property
    def train_accuracy(self) -> tuple[float | None, ...]:
        """Training accuracy at those steps."""
        return tuple(m.train_accuracy for m in self.history)

    @property
    def test_accuracy(self) -> tuple[float | None, ...]:
        """Held-out accuracy at those steps."""
        return tuple(m.test_accuracy for m in self.history)

    @property
    def val_loss(self) -> tuple[float | None, ...]:
        """Mean validation loss at those steps."""
        return tuple(m.val_loss for m in self.history)

    @property
    def val_accuracy(self) -> tuple[float | None, ...]:
        """Validation accuracy at those steps."""
        return tuple(m.val_accuracy for m in self.history)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            **self.settings,
            "seconds": self.seconds,
            "diverged": self.diverged,
            "kept": self.kept,
            "stopped": self.stopped,
            "notes": list(self.notes),
            "history": [asdict(m) for m in self.history],
        }

    def __repr__(self) -> str:
        first, last = self.history[0], self.history[-1]
        parts = [
            f"{self.settings['optimizer']}, {counted(last.step, 'step')}",
            f"training loss {first.train_loss:.4g} → {last.train_loss:.4g}",
            f"held-out loss {first.test_loss:.4g} → {last.test_loss:.4g}",
        ]
        if first.test_accuracy is not None and last.test_accuracy is not None:
            parts.append(f"held-out accuracy {first.test_accuracy:.1%} → {last.test_accuracy:.1%}")
        if self.diverged is not None:
            parts.append(f"diverged after step {self.diverged}")
        if self.stopped is not None:
            parts.append({"patience": "stopped early"}.get(self.stopped, self.stopped))
        if self.outcome is not None and self.outcome is not last:
            parts.append(f"parameters of step {self.kept} kept")
        return f"Fit({', '.join(parts)}, {self.seconds:.2f} s)"

    def _repr_html_(self) -> str:
        values = {k: v for k, v in self.to_dict().items() if k not in ("history", "notes")}
        for kind in ("loss", "accuracy"):
            for key in (f"train_{kind}", f"val_{kind}", f"test_{kind}"):
                column = getattr(self, key)
                if column[0] is None:
                    continue
                values[key.replace("_", " ")] = f"{column[0]:.4g} → {column[-1]:.4g}"
        entries = [*values.items(), *(("note", note) for note in self.notes)]
        rows = "".join(f"<tr><th>{k}</th><td>{html.escape(str(v))}</td></tr>" for k, v in entries)
        return f"<table><caption>Training</caption>{rows}</table>"


def recorded_steps(steps: int, every: int | None = None) -> tuple[int, ...]:
    """Steps at which training and its prediction are measured: 0, every so many, and the last.

    Example:
        >>> recorded_steps(10, 4)
        (0, 4, 8, 10)
    """
    every = -(-steps // RECORDS) if every is None else as_count(every, "record_every", 1)
    return (*range(0, steps, every), steps)
