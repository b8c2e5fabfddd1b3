"""The table of a ranking: one row a candidate, best predicted accuracy first."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mrviz.errors import MissingDataError
from mrviz.theory.baselines import Baselines
from mrviz.theory.conditions import ICONS, Status

CONDITIONS = ("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T11")
"""Conditions that need no more than what the prediction has computed already."""


@dataclass(frozen=True)
class Candidate:
    """One row of a :class:`Ranking`.

    Attributes:
        name: program or source, with its options.
        accuracy: predicted held-out accuracy; ``None`` where the candidate failed.
        interval: its 95 % Wilson interval: the error of so many held-out samples, not that of
            the linearisation.
        tied: whether it cannot be told from the best on these held-out samples (exact McNemar
            test on the samples on which the two predictions differ, level 5 %).
        loss: predicted held-out loss.
        train_accuracy: predicted training accuracy.
        lr: step size that was simulated.
        conditions: status of the conditions that cost nothing more, by id.
        baselines: LogME, H-score, LEEP and NCE; ``None`` where the candidate failed.
        source_accuracy: accuracy of the source on its own task, where it is known.
        parameters: p.
        passes: backward passes through the source that the prediction needs, C for each training
            and held-out sample; cached ones are not made again.
        seconds: wall-clock time.
        notes: what is approximate or was done differently than planned.
        error: why it failed, or ``None``.
    """

    name: str
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    tied: bool = False
    loss: float | None = None
    train_accuracy: float | None = None
    lr: float | None = None
    conditions: Mapping[str, Status] | None = field(default=None, hash=False)
    baselines: Baselines | None = None
    source_accuracy: float | None = None
    parameters: int | None = None
    passes: int | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return {
            **asdict(self),
            "interval": None if self.interval is None else list(self.interval),
            "conditions": None if self.conditions is None else dict(self.conditions),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Ranking:
    """Candidates from the best predicted accuracy down; those that failed come last.

    Iterate over it, or index it by place: ``ranking[0]`` is the best.

    Attributes:
        rows: the candidates.
        kind: "program" or "source".
        settings: what was predicted: loss, lr (``None``: half of each candidate's own largest
            stable step), steps, n, n_test, mapping, seed.
        seconds: wall-clock time.
    """

    rows: tuple[Candidate, ...]
    kind: str
    settings: Mapping[str, Any] = field(hash=False)
    seconds: float

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Candidate:
        return self.rows[place]

    @property
    def best(self) -> tuple[Candidate, ...]:
        """The first candidate and those that cannot be told from it; empty if all failed."""
        return tuple(row for row in self.rows if row.tied)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "kind": self.kind,
            **self.settings,
            "seconds": self.seconds,
            "rows": [row.to_dict() for row in self.rows],
        }

    def to_frame(self) -> Any:
        """A pandas DataFrame, one row a candidate; conditions and baselines as columns.

        Raises:
            MissingDataError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingDataError('to_frame needs pandas: pip install "mrviz[lab]"') from None
        rows = []
        for row in self.rows:
            values = row.to_dict()
            scores, statuses = values.pop("baselines") or {}, values.pop("conditions") or {}
            values["low"], values["high"] = values.pop("interval") or (None, None)
            scores.pop("n", None)
            rows.append({self.kind: values.pop("name"), **values, **scores, **statuses})
        return pandas.DataFrame(rows)

    def __repr__(self) -> str:
        width = max((len(row.name) for row in self.rows), default=0)
        lines = [f"Ranking of {len(self)} {self.kind}s by predicted held-out accuracy"]
        for row in self.rows:
            if row.accuracy is None or row.interval is None:
                lines.append(f"   {row.name:{width}}  failed: {row.error}")
                continue
            mark = "=" if row.tied else " "
            low, high = row.interval
            lines.append(
                f" {mark} {row.name:{width}}  {row.accuracy:6.1%} ({low:.1%} to {high:.1%})  "
                f"p = {row.parameters:,}, {row.seconds:.2f} s"
            )
        return "\n".join([*lines, " = not told from the best on these held-out samples"])

    def _repr_html_(self) -> str:
        ids = [i for i in CONDITIONS if any(i in (row.conditions or {}) for row in self.rows)]
        titles = [self.kind, "predicted accuracy", "95 % interval", "with the best", "p", "seconds"]
        titles += ["source accuracy", "LogME", "H-score", "LEEP", "NCE", *ids]
        head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
        body = "".join(f"<tr>{self._cells(row, ids, len(titles))}</tr>" for row in self.rows)
        caption = f"{self.kind.capitalize()}s by predicted held-out accuracy"
        return f"<table><caption>{caption}</caption><tr>{head}</tr>{body}</table>"

    @staticmethod
    def _cells(row: Candidate, ids: Sequence[str], columns: int) -> str:
        name = f"<th>{html.escape(row.name)}</th>"
        if row.accuracy is None or row.interval is None:
            return f"{name}<td colspan='{columns - 1}'>failed: {html.escape(str(row.error))}</td>"
        scores = row.baselines.to_dict() if row.baselines else {}
        values = [
            f"{row.accuracy:.1%}",
            "{:.1%} to {:.1%}".format(*row.interval),
            "tied" if row.tied else "below",
            f"{row.parameters:,}",
            f"{row.seconds:.2f}",
            "" if row.source_accuracy is None else f"{row.source_accuracy:.1%}",
            *(f"{scores[k]:.4g}" for k in ("logme", "h_score", "leep", "nce")),
            *(f"{ICONS[s]} {s}" for s in (row.conditions or {}).values()),
        ]
        return name + "".join(f"<td>{value}</td>" for value in values)
