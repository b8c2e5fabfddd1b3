"""What checks do with answers: numbers, words, arrays, functions, and named mistakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrviz._words import counted, verb

TOLERANCE = 1e-4
"""Difference that is accepted, relative to the largest expected entry: float32 passes."""


class Mistake(Exception):
    """An answer is wrong; the text says what is wrong with it, to the student."""


class Unanswered(Exception):
    """A part of an answer is still a gap; the text says which."""


def is_gap(answer: Any) -> bool:
    """Whether an answer is still missing: ``...`` or ``None``."""
    return answer is None or answer is ...


def number(answer: Any, name: str = "The answer") -> float:
    """An answer as a finite number.

    Raises:
        Mistake: something else.
        Unanswered: a gap.

    Example:
        >>> number(torch.tensor(2.5))
        2.5
    """
    if is_gap(answer):
        raise Unanswered(f"{name} is still missing.")
    if callable(answer):
        raise Mistake(f"{name} is a function; a number is asked for. Call it first.")
    if isinstance(answer, bool | str):
        raise Mistake(f"{name} is {answer!r}; a number is asked for.")
    try:
        values = _array(answer)
    except (TypeError, ValueError, RuntimeError):
        raise Mistake(f"{name} is a {type(answer).__name__}; a number is asked for.") from None
    if values.numel() != 1:
        raise Mistake(f"{name} has shape {tuple(values.shape)}; a single number is asked for.")
    if not bool(values.isfinite()):
        raise Mistake(f"{name} is {values.item()}; a finite number is asked for.")
    return float(values)


def whole(answer: Any, name: str = "The answer") -> int:
    """An answer as a whole number.

    Raises:
        Mistake: something else.
        Unanswered: a gap.
    """
    value = number(answer, name)
    if value != round(value):
        raise Mistake(f"{name} is {value:g}; a whole number is asked for.")
    return round(value)


def choice(answer: Any, right: str, wrong: Mapping[str, str], name: str = "The answer") -> None:
    """An answer that is one of a few words or letters; capitals do not matter.

    Args:
        answer: what the student chose.
        right: the right choice.
        wrong: what is wrong with each of the others.
        name: how the message calls the answer, at the start of a sentence.

    Raises:
        Mistake: another choice, or none of them.
        Unanswered: a gap.

    Example:
        >>> choice("A", "a", {"b": "It is the other way round."})
    """
    if is_gap(answer):
        raise Unanswered(f"{name} is still missing.")
    words = {word.casefold(): word for word in (right, *wrong)}
    known = words.get(answer.strip().casefold()) if isinstance(answer, str) else None
    if known is None:
        offered = ", ".join(repr(word) for word in sorted(words.values()))
        raise Mistake(f"{name} is {answer!r}; one of {offered} is asked for.")
    if known != right:
        raise Mistake(wrong[known])


def tensor(
    answer: Any,
    shape: Sequence[int],
    name: str = "The answer",
    axes: Sequence[str] = (),
) -> Tensor:
    """An answer as a finite float64 tensor of a known shape.

    Args:
        answer: a tensor, an array or nested lists.
        shape: the shape it should have.
        name: how the message calls it, at the start of a sentence.
        axes: names of the axes, for the message.

    Raises:
        Mistake: something else; the message tells a transposed matrix, a missing or a
            superfluous axis, and flattened axes.
        Unanswered: a gap.

    Example:
        >>> tensor([[1, 2, 3]], (1, 3)).dtype
        torch.float64
    """
    if is_gap(answer):
        raise Unanswered(f"{name} is still missing.")
    if callable(answer) and not isinstance(answer, Tensor):
        raise Mistake(f"{name} is a function; an array is asked for. Call it first.")
    try:
        values = _array(answer)
    except (TypeError, ValueError, RuntimeError):
        raise Mistake(
            f"{name} is a {type(answer).__name__}; a tensor, an array or nested lists of numbers "
            "of equal length are asked for."
        ) from None
    if (found := tuple(values.shape)) != (wanted := tuple(shape)):
        meaning = f" ({', '.join(axes)})" if axes else ""
        raise Mistake(
            f"{name} has shape {found}; {wanted}{meaning} is asked for.{_shape_hint(found, wanted)}"
        )
    if not bool(values.isfinite().all()):
        raise Mistake(f"{name} holds NaN or infinite values.")
    return values


def same(
    answer: Tensor | float,
    expected: Tensor | float,
    *,
    name: str = "The answer",
    mistakes: Mapping[str, Tensor | float] | None = None,
    tolerance: float = TOLERANCE,
) -> None:
    """Compares an answer with what it should be.

    Args:
        answer: a number, or a tensor in the shape of ``expected``.
        expected: computed from what the student was given.
        name: how the message calls the answer, at the start of a sentence.
        mistakes: sentences on mistakes one can make, with the value that each would give; the
            first that fits is the message.
        tolerance: difference that is accepted, relative to the largest expected entry.

    Raises:
        Mistake: they differ. Where no named mistake fits, the message of an array says how: sign,
            constant factor, constant shift, transposed, or which entries; that of a number only
            whether it is too small or too large.

    Example:
        >>> gram = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
        >>> same(2 * gram, gram, name="The Gram matrix")
        Traceback (most recent call last):
            ...
        mrviz.classroom.answers.Mistake: The Gram matrix is 2 times what it should be everywhere.
    """
    a = torch.as_tensor(answer, dtype=torch.float64)
    b = torch.as_tensor(expected, dtype=torch.float64)
    if not bool(a.isfinite().all()):
        raise Mistake(f"{name} holds NaN or infinite values.")
    if _close(a, b, tolerance):
        return
    for sentence, wrong in (mistakes or {}).items():
        candidate = torch.as_tensor(wrong, dtype=torch.float64)
        if candidate.shape == a.shape and _close(a, candidate, tolerance):
            raise Mistake(sentence)
    raise Mistake(_difference(a, b, name, tolerance))


def run(function: Callable[..., Any], *args: Any, name: str = "Your function") -> Any:
    """Calls something that a student wrote.

    Raises:
        Mistake: it raised an exception, which the message repeats.
        Unanswered: it returned nothing.
    """
    try:
        result = function(*args)
    except Exception as error:
        raise Mistake(f"{name} raised {type(error).__name__}: {error}") from None
    if is_gap(result):
        raise Unanswered(f"{name} returns nothing yet.")
    return result


def _array(answer: Any) -> Tensor:
    if isinstance(answer, Tensor):
        return answer.detach().to("cpu", torch.float64)
    if isinstance(answer, list | tuple):
        parts = [_array(part) for part in answer]
        return torch.stack(parts) if parts else torch.empty(0, dtype=torch.float64)
    return torch.as_tensor(np.asarray(answer, dtype=np.float64).copy())


def _shape_hint(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if len(found) == len(wanted) == 2 and found == wanted[::-1]:
        return " It is transposed."
    if len(found) == len(wanted) and sorted(found) == sorted(wanted):
        return " The axes are in another order."
    if found == wanted[1:]:
        return " The first axis is missing."
    if found == wanted[:-1]:
        return " The last axis is missing."
    if tuple(s for s in found if s != 1) == tuple(s for s in wanted if s != 1):
        return " An axis of length 1 is missing or one too many."
    if np.prod(found) == np.prod(wanted):
        return " The number of entries is right; reshape it."
    return ""


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if not bool(b.isfinite().all()):
        return False
    scale = float(b.abs().max()) if b.numel() else 0.0
    return bool((a - b).abs().max() <= tolerance * scale) if b.numel() else True


def _difference(a: Tensor, b: Tensor, name: str, tolerance: float) -> str:
    if a.ndim == 0:
        return f"{name} is too {'large' if float(a) > float(b) else 'small'}."
    if not bool(a.any()):
        return f"{name} is zero everywhere."
    if _close(-a, b, tolerance):
        return f"{name} has the wrong sign."
    factor = float((a * b).sum() / b.square().sum()) if bool(b.any()) else 0.0
    if factor and _close(a / factor, b, tolerance):
        return f"{name} is {factor:.3g} times what it should be everywhere."
    if a.ndim == 2 and a.shape[0] == a.shape[1] and _close(a.T, b, tolerance):
        return f"{name} is transposed."
    shift = float((a - b).mean())
    if _close(a - shift, b, tolerance) and b.numel() > 1:
        return f"{name} is shifted by the same number, {shift:.3g}, everywhere."
    wrong = (a - b).abs() > tolerance * b.abs().max()
    first = tuple(wrong.nonzero()[0].tolist())
    where = first[0] if len(first) == 1 else first
    count = int(wrong.sum())
    return (
        f"In {name[0].lower()}{name[1:]} {counted(count, 'entry').replace('entrys', 'entries')} "
        f"of {b.numel():,} {verb(count, 'is', 'are')} not right, the first at index {where}."
    )
