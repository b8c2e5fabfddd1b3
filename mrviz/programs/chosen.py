"""The options of a program and an output mapping that were chosen together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mrviz.errors import InputError
from mrviz.programs.mappings import MAPPINGS
from mrviz.programs.options import Option, Options
from mrviz.programs.registry import PROGRAMS


def declared_by(owner: str, name: Any, taken: Collection[str] = ()) -> dict[str, Option]:
    """What a program or mapping declares of its options.

    Args:
        owner: "program" or "mapping".
        name: its name; anything else has no options.
        taken: names that mean something else where the options are shown, left out.

    Example:
        >>> list(declared_by("program", "border", ["image_size"]))
        ['activation']
    """
    known: Mapping[str, Any] = PROGRAMS if owner == "program" else MAPPINGS
    spec = known.get(name) if isinstance(name, str) else None
    return {} if spec is None else {n: o for n, o in spec.declared.items() if n not in taken}


def checked_options(values: Any, program: Any, mapping: Any, taken: Collection[str]) -> Options:
    """Options in their declared types, without those at their defaults.

    Args:
        values: options by name; ``None`` stands for the default.
        program: name of the program, or an object of one's own.
        mapping: name of the mapping.
        taken: as in :func:`declared_by`.

    Raises:
        InputError: an option that neither has, or a value it cannot have.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"options must be a dict of names and values, got {values!r}")
    known = declared_by("program", program, taken) | declared_by("mapping", mapping, taken)
    if unknown := sorted(set(values) - set(known)):
        there = in_words(program, mapping, taken)
        raise InputError(f"there is no option {', '.join(unknown)} here; {there}")
    found = {}
    for name, value in values.items():
        if value is not None and (value := known[name].checked(value)) != known[name].default:
            found[name] = value
    return Options(found)


def in_words(program: Any, mapping: Any, taken: Collection[str]) -> str:
    """Which options there are, to follow an error, and what is called otherwise."""
    parts = []
    for owner, name in (("program", program), ("mapping", mapping)):
        shown = f"{owner} {name!r}" if isinstance(name, str) else f"a {owner} of your own"
        names = ", ".join(declared_by(owner, name, taken))
        parts.append(f"{shown} has the options {names}" if names else f"{shown} has no options")
    spec = PROGRAMS.get(program) if isinstance(program, str) else None
    if spec is not None and spec.capacity and spec.capacity not in taken:
        parts.append(f"its {spec.capacity} is the choice capacity")
    return "; ".join(parts)
