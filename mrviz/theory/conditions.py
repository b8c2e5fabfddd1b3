"""What a transfer condition is, and the collection that `transfer_conditions` returns."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mrviz.errors import InputError, MissingDataError

Status = Literal["holds", "fails", "undecided"]
ICONS: dict[Status, str] = {"holds": "✔", "fails": "✘", "undecided": "?"}
"""Shown beside the word, so that a status never depends on colour alone."""


@dataclass(frozen=True)
class Condition:
    """One indicator of docs/theory.md, section 4, evaluated.

    Attributes:
        id: "T1" … "T13".
        name: a word or two.
        value: what was measured; ``None`` where it could not be.
        threshold: what the value is compared with.
        error: estimated error of the value, in its own units; inside it nothing is decided.
        status: "holds", "fails" or "undecided".
        formula: LaTeX.
        source: where the condition comes from.
        sentence: what it means here, for a student.
        why: the reason for the status.
    """

    id: str
    name: str
    value: float | None
    threshold: float | None
    error: float | None
    status: Status
    formula: str
    source: str
    sentence: str
    why: str

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    def __repr__(self) -> str:
        return f"{self.id} {self.name}: {ICONS[self.status]} {self.status} ({self.why})"


@dataclass(frozen=True)
class Conditions:
    """Transfer conditions of one reprogrammed model on one target data set.

    Iterate over it, or index it by id: ``conditions["T2"]``.

    Attributes:
        items: in the order of their ids.
        n: number of target samples behind them.
    """

    items: tuple[Condition, ...]
    n: int

    def __iter__(self) -> Iterator[Condition]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: str) -> Condition:
        for item in self.items:
            if item.id == key:
                return item
        raise InputError(f"no condition {key!r} here; there are {', '.join(i.id for i in self)}")

    def to_dict(self) -> dict[str, Any]:
        """Conditions by id, as plain values."""
        return {"n": self.n, **{item.id: item.to_dict() for item in self}}

    def to_frame(self) -> Any:
        """A pandas DataFrame, one row a condition.

        Raises:
            MissingDataError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingDataError('to_frame needs pandas: pip install "mrviz[lab]"') from None
        return pandas.DataFrame([item.to_dict() for item in self]).set_index("id")

    def __repr__(self) -> str:
        return "\n".join([f"Conditions on {self.n} target samples", *map(repr, self)])

    def _repr_html_(self) -> str:
        head = "<tr><th>id</th><th>condition</th><th>status</th><th>why</th></tr>"
        rows = "".join(
            f"<tr><td>{i.id}</td><td>{html.escape(i.name)}</td>"
            f"<td>{ICONS[i.status]} {i.status}</td><td>{html.escape(i.why)}</td></tr>"
            for i in self
        )
        return (
            f"<table><caption>Conditions on {self.n} target samples</caption>{head}{rows}</table>"
        )
