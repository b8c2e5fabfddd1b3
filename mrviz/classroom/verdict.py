"""What a check says of an answer."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Literal

Outcome = Literal["right", "wrong", "open"]

WORDS: dict[Outcome, str] = {
    "right": "✓ Right.",
    "wrong": "✗ Not right yet.",
    "open": "… Not answered yet.",
}
COLORS: dict[Outcome, str] = {"right": "#009E73", "wrong": "#D55E00", "open": "#767676"}


@dataclass(frozen=True)
class Verdict:
    """The outcome of one exercise and a sentence about it.

    Attributes:
        exercise: number of the exercise, such as "04.1".
        outcome: "right", "wrong" or "open", that is, not answered yet.
        message: what is wrong or missing, or what the right answer shows; `` `code` `` is set as
            code.

    Example:
        >>> Verdict("04.1", "wrong", "The Gram matrix is twice too large.")
        04.1 ✗ Not right yet. The Gram matrix is twice too large.
    """

    exercise: str
    outcome: Outcome
    message: str = ""

    @property
    def right(self) -> bool:
        """Whether the answer was accepted."""
        return self.outcome == "right"

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    def __repr__(self) -> str:
        return f"{self.exercise} {WORDS[self.outcome]} {self.message}".rstrip()

    def _repr_html_(self) -> str:
        message = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(self.message))
        return (
            f"<div style='border-left: 4px solid {COLORS[self.outcome]}; padding: 4px 10px'>"
            f"<b>{self.exercise} {WORDS[self.outcome]}</b> {message}</div>"
        )
