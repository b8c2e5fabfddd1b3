"""Checks of names and counts that users choose, with messages that list the choices."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable
from typing import Any

from mrviz.errors import InputError


def as_choice(value: Any, choices: Iterable[str], name: str) -> str:
    """Returns ``value`` if it is one of ``choices``, else raises and names the nearest one."""
    known = list(choices)
    if isinstance(value, str) and value in known:
        return value
    near = difflib.get_close_matches(str(value).lower(), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(repr(k) for k in known)
    raise InputError(f"{name} must be one of {listed}, got {value!r}.{hint}")


def as_count(value: Any, name: str, minimum: int) -> int:
    """Returns ``value`` as an int of at least ``minimum``, else raises."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise InputError(f"{name} must be an integer, got {value!r}")
    if number < minimum:
        raise InputError(f"{name} must be at least {minimum}, got {number}")
    return number
