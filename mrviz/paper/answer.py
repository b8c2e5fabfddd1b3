"""Answers to questions: a statistic, its interval, and the verdict a fixed rule gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mrviz._words import counted
from mrviz.errors import InputError
from mrviz.paper.settings import RULES
from mrviz.theory.statistics import wilson_interval

VERDICTS = ("agrees", "disagrees", "cannot tell")

Interval = tuple[float, float]

CORRELATION: Interval = (-1.0, 1.0)
"""What a rank correlation, and a mean of some, lies between."""


@dataclass(frozen=True)
class Answer:
    """What the runs say about one claim.

    Attributes:
        question: number of the question and a letter, such as "1a".
        claim: what is claimed, in words.
        verdict: "agrees", "disagrees" or "cannot tell".
        statistic: the number that the verdict is about; ``None`` where there is none.
        interval: its 95 % interval; ``None`` where it cannot be given.
        runs: rows of the tables behind it.
        text: what was measured, how, and over how many independent units.
    """

    question: str
    claim: str
    verdict: str
    statistic: float | None
    interval: Interval | None
    runs: int
    text: str

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise InputError(f"a verdict is one of {', '.join(VERDICTS)}, got {self.verdict!r}")

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    def numbers(self) -> str:
        """Statistic and interval in one line."""
        if self.statistic is None:
            return "–"
        text = f"{self.statistic:.3g}"
        if self.interval is None:
            return f"{text} (no interval)"
        return f"{text} [{self.interval[0]:.3g}, {self.interval[1]:.3g}]"


def verdict(interval: Interval | None, threshold: float, *, above: bool) -> str:
    """The verdict on "the statistic is above (or below) the threshold".

    Args:
        interval: of the statistic; ``None`` where there is none.
        threshold: from ``RULES``.
        above: whether the claim is that it lies above.

    Example:
        >>> verdict((0.1, 0.5), 0.0, above=True), verdict((0.1, 0.5), 0.0, above=False)
        ('agrees', 'disagrees')
        >>> verdict((-0.1, 0.5), 0.0, above=True)
        'cannot tell'
    """
    if interval is None or not all(map(math.isfinite, interval)):
        return "cannot tell"
    low, high = interval
    if low > threshold:
        return "agrees" if above else "disagrees"
    if high < threshold:
        return "disagrees" if above else "agrees"
    return "cannot tell"


def mean_interval(values: Sequence[float]) -> tuple[float | None, Interval | None]:
    """Mean of independent values and its interval by Student's t.

    Values that are all the same have an interval of that value alone. Fewer than
    ``RULES["fewest"]`` have no interval.

    Example:
        >>> mean_interval([1.0, 1.0, 1.0]), mean_interval([0.5])
        ((1.0, (1.0, 1.0)), (0.5, None))
    """
    from scipy import stats

    found = np.array([value for value in values if math.isfinite(value)], dtype=np.float64)
    if not len(found):
        return None, None
    mean = float(found.mean())
    if len(found) < RULES["fewest"]:
        return mean, None
    error = float(stats.sem(found))
    if error <= 1e-15 * abs(mean):
        return mean, (mean, mean)
    low, high = stats.t.interval(RULES["level"], len(found) - 1, mean, error)
    return mean, (float(low), float(high))


def of_mean(
    question: str,
    claim: str,
    values: Sequence[float],
    threshold: float,
    *,
    above: bool,
    runs: int,
    unit: str,
    text: str,
    limits: Interval | None = None,
) -> Answer:
    """An answer about the mean of one value for each independent unit.

    ``limits`` are what the mean cannot be outside of: the interval ends there.
    """
    mean, interval = mean_interval(values)
    if interval is not None and limits is not None:
        interval = max(interval[0], limits[0]), min(interval[1], limits[1])
    known = sum(map(math.isfinite, values))
    said = f"{text} Mean over {counted(known, unit)}"
    if left := len(values) - known:
        said += f"; {left} without a value"
    if mean is not None and interval is None:
        said += f", fewer than the {RULES['fewest']} that an interval needs"
    found = verdict(interval, threshold, above=above)
    return Answer(question, claim, found, mean, interval, runs, said + ".")


def of_share(
    question: str,
    claim: str,
    yes: int,
    undecided: int,
    total: int,
    threshold: float,
    *,
    above: bool,
    text: str,
    runs: int | None = None,
) -> Answer:
    """An answer about the share of independent units that have a property; Wilson's interval.

    Undecided units count either way: as not having it below, as having it above.
    """
    runs = total if runs is None else runs
    if total < RULES["fewest"]:
        said = f"{text} {counted(total, 'unit')}, {RULES['fewest']} are needed."
        share = yes / total if total else None
        return Answer(question, claim, "cannot tell", share, None, runs, said)
    interval = wilson_interval(yes, total)[0], wilson_interval(yes + undecided, total)[1]
    said = f"{text} {yes} of {total}" + (f", {undecided} undecided." if undecided else ".")
    found = verdict(interval, threshold, above=above)
    return Answer(question, claim, found, yes / total, interval, runs, said)


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's ρ; NaN for fewer than three values or where one column is constant."""
    from scipy import stats

    return _rank(stats.spearmanr, x, y)


def kendall(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's τ_b; NaN for fewer than three values or where one column is constant.

    Example:
        >>> kendall([1, 2, 3, 4], [1, 4, 9, 16])
        1.0
    """
    from scipy import stats

    return _rank(stats.kendalltau, x, y)


def _rank(test: Any, x: Sequence[float], y: Sequence[float]) -> float:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    kept = np.isfinite(a) & np.isfinite(b)
    a, b = a[kept], b[kept]
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(test(a, b).statistic)
