"""Checks of the exercises in notebooks/07-paper: verdicts, rank correlations, many claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mrviz.classroom.answers import Mistake, Unanswered, choice, is_gap, number, run, same
from mrviz.classroom.exercises import exercise
from mrviz.paper.answer import VERDICTS, Answer, kendall, spearman, verdict

Row = Mapping[str, Any]
Pairs = list[tuple[list[float], list[float]]]
"""Values of an indicator and of an outcome, a pair for each group of runs."""

ROUNDED = 0.015
"""A correlation that is given with two digits is accepted."""


@exercise("07.1")
def rule(answer: Callable[[float, float, bool], str], *, answers: Sequence[Answer]) -> str:
    """The rule of the verdicts for a threshold of zero.

    Args:
        answer: a function of both ends of an interval and of whether the claim is "above zero".
        answers: claims whose intervals are tried.
    """
    if not callable(answer):
        raise Mistake("A function `rule(low, high, above)` is asked for.")
    tried = [a for a in answers if a.interval is not None]
    for interval in [(0.2, 0.4), (-0.4, -0.2), (-0.1, 0.3), *(a.interval for a in tried)]:
        assert interval is not None
        for above in (True, False):
            _try_rule(answer, interval, above)
    return f"It gives the same verdict as the study on {len(tried)} intervals, either way round."


@exercise("07.2")
def cannot_tell(answer: Any) -> str:
    """What it means that an interval has zero inside.

    Args:
        answer: "a" to "d".
    """
    wrong = {
        "a": "That would need an interval in which all values are close to zero. This one has "
        "large values in it, too.",
        "b": "The interval does not say how probable values inside of it are, and the claim is "
        "about the sign.",
        "d": "Runs that do not decide are not runs gone wrong: a rule that was fixed before says "
        "so.",
    }
    choice(answer, "c", wrong)
    return "Absence of evidence is not evidence of absence: more runs would decide."


@exercise("07.3")
def spearman_by_hand(answer: Any, *, x: Sequence[float], y: Sequence[float]) -> str:
    """Spearman's ρ of a few runs.

    Args:
        answer: ρ.
        x: an indicator.
        y: an outcome.
    """
    rho = number(answer, "ρ")
    a, b = (np.argsort(np.argsort(values)).astype(float) for values in (x, y))
    n, squares = len(a), float(((a - b) ** 2).sum())
    mistakes: dict[str, float] = {
        "That is Pearson's correlation of the numbers themselves. Take their ranks.": float(
            np.corrcoef(x, y)[0, 1]
        ),
        "That is Kendall's τ, which counts pairs in the same order.": kendall(x, y),
        "One of the two is ranked from the largest to the smallest.": -spearman(x, y),
        "That is Σd², or d is meant otherwise: it goes into 1 − 6 Σd² / (n (n² − 1)).": squares,
        "The 6 is missing.": 1 - squares / (n * (n**2 - 1)),
        "The 1 − is missing.": 6 * squares / (n * (n**2 - 1)),
        "The differences of the ranks are not squared.": (
            1 - 6 * float(np.abs(a - b).sum()) / (n * (n**2 - 1))
        ),
        "The denominator is n (n² − 1), not n² − 1.": 1 - 6 * squares / (n**2 - 1),
    }
    expected = spearman(x, y)
    mistakes = {
        text: wrong for text, wrong in mistakes.items() if abs(wrong - expected) > 2 * ROUNDED
    }
    _close_to(rho, expected, "ρ", mistakes)
    return f"Σd² = {squares:g}, and ρ = 1 − 6 · {squares:g} / {n * (n**2 - 1)} = {expected:.3f}."


@exercise("07.4")
def within_and_across(
    answer: Any, *, rows: Sequence[Row], x: str, y: str, scopes: Mapping[str, Sequence[str]]
) -> str:
    """The mean of Spearman's ρ over groups of runs, for two ways to group them.

    Args:
        answer: the means by the names of the scopes.
        rows: the runs.
        x: column of the indicator.
        y: column of the outcome.
        scopes: for each way, the columns that the runs of a group share.
    """
    if not isinstance(answer, Mapping):
        raise Mistake(f"A dictionary with the keys {', '.join(map(repr, scopes))} is asked for.")
    for scope in scopes:
        if is_gap(answer.get(scope)):
            raise Unanswered(f"{scope.capitalize()} is still missing.")
    means = {scope: _mean(spearman, _groups(rows, x, y, names)) for scope, names in scopes.items()}
    pooled = spearman([row[x] for row in rows], [row[y] for row in rows])
    for scope, names in scopes.items():
        groups = _groups(rows, x, y, names)
        found = [spearman(*group) for group in groups]
        known = [rho for rho in found if math.isfinite(rho)]
        mistakes = {
            "All runs are taken together. Correlate inside each group, then take the mean.": pooled,
            f"Groups in which {x} is the same for all runs have no correlation. Leave them out, "
            "do not count them as zero.": sum(known) / len(found),
            "That is the mean of Pearson's correlation.": _mean(_pearson, groups),
            "That is the mean of Kendall's τ.": _mean(kendall, groups),
            "That is the median over the groups.": float(np.median(known)),
        }
        for other, value in means.items():
            if other != scope:
                mistakes[f"That is the mean for “{other}”."] = value
        mistakes = {
            text: wrong
            for text, wrong in mistakes.items()
            if abs(wrong - means[scope]) > 2 * ROUNDED
        }
        name = f"The mean {scope}"
        _close_to(number(answer[scope], name), means[scope], name, mistakes)
    said = ", ".join(f"{value:+.2f} {scope}" for scope, value in means.items())
    return f"{said}, and {pooled:+.2f} with all runs thrown together."


@exercise("07.5")
def missed_by_chance(answer: Any, *, intervals: int, level: float) -> str:
    """How many intervals miss on average, and the chance that one or more does.

    Args:
        answer: the expected number and the probability.
        intervals: how many there are.
        level: of each.
    """
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Mistake("A pair is asked for: the expected number and the probability.")
    names = ("The expected number", "The probability")
    expected, probability = (number(a, name) for a, name in zip(answer, names, strict=True))
    miss = 1 - level
    same(
        expected,
        intervals * miss,
        name=names[0],
        mistakes={
            "That is how many intervals hold their value on average.": intervals * level,
            "That is the chance of a single interval to miss. There are more of them.": miss,
            "That is the probability that one or more misses, the second number.": (
                1 - level**intervals
            ),
            f"That is in percent, or {level:.0%} was taken for 95.": 100 * intervals * miss,
        },
        tolerance=0.06,
    )
    same(
        probability,
        1 - level**intervals,
        name=names[1],
        mistakes={
            "That is the probability that none misses.": level**intervals,
            "That is the expected number. Two or more may miss at once, so the probability that "
            "one or more does is smaller.": intervals * miss,
            "That is the probability of a single interval.": miss,
            "That is the probability that all of them miss.": miss**intervals,
            "That is in percent.": 100 * (1 - level**intervals),
        },
        tolerance=0.02,
    )
    return (
        f"{intervals * miss:.2g} on average, and with probability {1 - level**intervals:.0%} one "
        "or more, if they were independent. These are not: they share their runs."
    )


@exercise("07.6")
def next_claim(answer: Any, *, answers: Sequence[Answer]) -> str:
    """The undecided claim that needs the smallest factor of runs.

    Args:
        answer: the label of the claim, such as "1a".
        answers: claims with a threshold of zero.
    """
    open_ones = {
        a.question: a
        for a in answers
        if a.verdict == "cannot tell" and a.interval is not None and a.statistic
    }
    if not isinstance(answer, str):
        raise Mistake('The label of a claim is asked for, such as "2a".')
    label = answer.strip().casefold()
    if label not in open_ones:
        known = {a.question: a.verdict for a in answers}
        if label in known:
            raise Mistake(f"{label} is decided already: {known[label]}.")
        raise Mistake(f"There is no claim {answer!r} here.")
    factors = {name: _factor(a) for name, a in open_ones.items()}
    best = min(factors, key=lambda name: factors[name])
    if label == best:
        return (
            f"{factors[best]:.2f} times as many runs, if the statistic stayed where it is. Decide "
            "how many before you look: runs that are added until zero is outside make an interval "
            "that means nothing."
        )
    narrow = min(open_ones, key=lambda name: np.ptp(_interval(open_ones[name])))
    strong = max(open_ones, key=lambda name: abs(open_ones[name].statistic or 0))
    said = f"{label} would need {factors[label]:.3g} times as many runs"
    if label == narrow:
        raise Mistake(f"{said}. Its interval is the narrowest, but its statistic is near zero too.")
    if label == strong:
        raise Mistake(f"{said}. Its statistic is the largest, but its interval is wide.")
    raise Mistake(f"{said}; another claim needs fewer.")


def _try_rule(answer: Callable[..., Any], interval: tuple[float, float], above: bool) -> None:
    """One interval; raises where the verdict is another one."""
    low, high = interval
    said = run(answer, low, high, above, name="`rule`")
    right = verdict(interval, 0.0, above=above)
    if said == right:
        return
    claim = "above" if above else "below"
    case = f"The interval [{low:.3g}, {high:.3g}] and the claim “{claim} zero”"
    if said not in VERDICTS:
        raise Mistake(f"{case}: `rule` returns {said!r}, which is none of {', '.join(VERDICTS)}.")
    if right == "cannot tell":
        raise Mistake(f"{case}: zero is inside, so the runs agree with either sign.")
    if said == "cannot tell":
        raise Mistake(f"{case}: zero is outside, so there is a verdict.")
    hint = "" if above else " Does the rule look at `above`?"
    raise Mistake(f"{case}: `rule` returns {said!r}, the other way round.{hint}")


def _groups(rows: Sequence[Row], x: str, y: str, names: Sequence[str]) -> Pairs:
    groups: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        first, second = groups.setdefault(repr([row[name] for name in names]), ([], []))
        first.append(row[x])
        second.append(row[y])
    return list(groups.values())


def _mean(statistic: Callable[..., float], groups: Pairs) -> float:
    """The mean over the groups in which the statistic is defined."""
    return float(np.nanmean([statistic(*group) for group in groups]))


def _pearson(x: Sequence[float], y: Sequence[float]) -> float:
    return math.nan if np.ptp(x) == 0 or np.ptp(y) == 0 else float(np.corrcoef(x, y)[0, 1])


def _close_to(value: float, expected: float, name: str, mistakes: Mapping[str, float]) -> None:
    """As :func:`~mrviz.classroom.answers.same`, for correlations with two digits."""
    if abs(value - expected) <= ROUNDED:
        return
    for text, wrong in mistakes.items():
        if abs(value - wrong) <= ROUNDED:
            raise Mistake(text)
    raise Mistake(f"{name} is too {'large' if value > expected else 'small'}.")


def _interval(answer: Answer) -> tuple[float, float]:
    assert answer.interval is not None
    return answer.interval


def _factor(answer: Answer) -> float:
    """How many times as many runs move the nearer end of the interval to zero."""
    assert answer.statistic
    low, high = _interval(answer)
    end = low if answer.statistic > 0 else high
    return ((end - answer.statistic) / answer.statistic) ** 2
