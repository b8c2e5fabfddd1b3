"""What a transfer condition is, its thresholds, and what `transfer_conditions` returns."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mrviz.errors import InputError, MissingDataError
from mrviz.programs.training import STEPS
from mrviz.theory.prediction import LR_FRACTION

Status = Literal["holds", "fails", "undecided"]
ICONS: dict[Status, str] = {"holds": "✔", "fails": "✘", "undecided": "?"}
"""Shown beside the word, so that a status never depends on colour alone."""


@dataclass(frozen=True)
class Thresholds:
    """Numbers that a condition is compared with and that are conventions, not theorems.

    Attributes:
        loss_fraction: T4: ε, the fraction of the initial squared loss to reach.
        steps: T4: how many steps may be spent on it; default: those of :func:`~mrviz.train`.
        step_fraction: T4: step size as a fraction of the largest stable one, below 1; default:
            that of :func:`~mrviz.theory.predict_training`, the fastest without overshooting.
        complexity: T6: bounds of 1 or more say nothing about a loss between 0 and 1.
        accuracy: T7: predicted accuracy to exceed; default: chance for balanced classes, 1/C.
        assumption_share: T9: where Assumption 3 holds at every sampled input, the 95 % interval
            of its share must lie above this (16 samples are enough for 0.8).
        risk: T10: bounds of √2 or more say nothing, as no risk is larger.
        spectrum_gap: T11: largest relative distance of two spectra taken as equal.
        drift: T12: largest relative change of the kernel taken as lazy training.
        generalization: T13: bounds of 1 or more say nothing about a loss between 0 and 1.
    """

    loss_fraction: float = 0.1
    steps: int = STEPS
    step_fraction: float = LR_FRACTION
    complexity: float = 1.0
    accuracy: float | None = None
    assumption_share: float = 0.8
    risk: float = 2**0.5
    spectrum_gap: float = 0.1
    drift: float = 0.1
    generalization: float = 1.0

    def __post_init__(self) -> None:
        for name in ("loss_fraction", "step_fraction", "assumption_share"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        for name in ("steps", "complexity", "risk", "spectrum_gap", "drift", "generalization"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        if self.accuracy is not None and not 0 <= self.accuracy <= 1:
            raise InputError(f"accuracy must lie between 0 and 1, got {self.accuracy}")


@dataclass(frozen=True)
class BoundConstants:
    """Constants of Theorem 2 of the paper, which no measurement gives (docs/theory.md, section 3).

    Attributes:
        rho: ρ.
        B: B.
        T: training time.
        L: L, the Lipschitz constant of Assumption 1.
        Gamma: Γ₀.
        delta: δ: the bound holds with probability 1 − δ.
    """

    rho: float
    B: float
    T: float
    L: float
    Gamma: float
    delta: float = 0.05

    def __post_init__(self) -> None:
        for name in ("rho", "B", "T", "L", "Gamma"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 < self.delta < 1:
            raise InputError(f"delta must lie between 0 and 1, got {self.delta}")


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
        source: where the condition comes from: "paper", "lit" or "derived", a colon, and the
            reference.
        sentence: what it means here, for a student.
        why: the reason for the status.
        details: further numbers behind it, by name.
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
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def tag(self) -> str:
        """Kind of source: "paper", "lit" or "derived"."""
        return self.source.split(":")[0]

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
