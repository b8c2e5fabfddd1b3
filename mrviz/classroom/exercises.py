"""Exercises by number: how a module makes a check known, and how a student runs one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from mrviz.classroom.answers import Mistake, Unanswered, is_gap
from mrviz.classroom.verdict import Verdict
from mrviz.errors import InputError

Check = Callable[..., str]
Made = TypeVar("Made", bound=Check)

EXERCISES: dict[str, Check] = {}
"""Checks by the number of the exercise, such as "04.1": notebook, point, exercise."""


def exercise(number: str) -> Callable[[Made], Made]:
    """Decorator that makes a function the check of an exercise.

    The function takes the answer, and by name what else it needs of the student's notebook. It
    returns a sentence on what a right answer shows. For a wrong one it raises
    :class:`~mrviz.classroom.answers.Mistake` with a sentence on what is wrong; the helpers of
    :mod:`mrviz.classroom.answers` do so. It computes what it compares with from what it is given
    and stores no solution.

    Args:
        number: of the exercise, such as "04.1".

    Raises:
        InputError: the number is taken by another check.
    """

    def add(made: Made) -> Made:
        known = EXERCISES.get(number)
        if known is not None and _origin(known) != _origin(made):
            raise InputError(f"exercise {number} is checked by {'.'.join(_origin(known))} already")
        EXERCISES[number] = made
        return made

    return add


def check(number: str, answer: Any, **given: Any) -> Verdict:
    """Looks at the answer to an exercise of a class notebook and says what is wrong with it.

    Whatever the answer is, nothing is raised for it.

    Args:
        number: of the exercise, such as "04.1".
        answer: the student's answer; ``...`` stands for none yet.
        **given: what the answer is about, by the names that the notebook uses.

    Raises:
        InputError: no such exercise, or something it needs was not given.

    Example:
        >>> check("04.2", 120, parameters=2, n=40, outputs=3)  # doctest: +ELLIPSIS
        04.2 ✗ Not right yet. 120 is the order nC of the matrix. ...
    """
    if number not in EXERCISES:
        raise InputError(f"there is no exercise {number!r}; there are {', '.join(EXERCISES)}")
    function = EXERCISES[number]
    try:
        inspect.signature(function).bind(answer, **given)
    except TypeError as error:
        needs = ", ".join(list(inspect.signature(function).parameters)[1:]) or "the answer alone"
        raise InputError(f"the check of exercise {number} needs {needs}: {error}") from None
    if is_gap(answer):
        return Verdict(number, "open")
    try:
        return Verdict(number, "right", function(answer, **given))
    except Unanswered as error:
        return Verdict(number, "open", str(error))
    except Mistake as error:
        return Verdict(number, "wrong", str(error))
    except Exception as error:  # a student should read a sentence, not a traceback
        return Verdict(
            number, "wrong", f"The check cannot use this answer ({type(error).__name__}: {error})."
        )


def _origin(function: Check) -> tuple[str, str]:
    return function.__module__, function.__qualname__
