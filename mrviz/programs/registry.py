"""Programs by name: how a program's file makes it known, and how one is made by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from mrviz.errors import InputError
from mrviz.programs.base import Program
from mrviz.programs.options import Option, declared
from mrviz.targets import Kind, kind_of

Make = TypeVar("Make", bound=Callable[..., Program])


@dataclass(frozen=True)
class ProgramSpec:
    """One entry of :data:`PROGRAMS`: what a program's class declares, and how it is made.

    Attributes:
        label: short name shown to people.
        make: called with source shape, target shape and options.
        capacity: the option that chooses the capacity, where there is one.
        capacity_label: what the capacity counts, where there is one.
        framed: whether the image must leave a frame of the canvas free.
        takes: kinds of input that it works on.
    """

    label: str
    make: Callable[..., Program]
    capacity: str | None = None
    capacity_label: str | None = None
    framed: bool = False
    takes: tuple[Kind, ...] = ("image", "series", "other")

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options."""
        names = inspect.signature(self.make).parameters
        return tuple(name for name in names if not name.endswith("_shape"))

    @cached_property
    def declared(self) -> dict[str, Option]:
        """The options but the capacity and the seed, with what their annotations declare."""
        return declared(self.make, [n for n in self.options if n not in (self.capacity, "seed")])

    def fits(self, target_shape: Sequence[int]) -> bool:
        """Whether it works on inputs of this shape."""
        return kind_of(target_shape) in self.takes


PROGRAMS: dict[str, ProgramSpec] = {}
"""Programs by the name used in :func:`~mrviz.reprogram`, the Explorer and the command line."""


def register(
    kind: type[Program], *, key: str | None = None, label: str | None = None
) -> Callable[[Make], Make]:
    """Decorator that makes a program known by name: to ``reprogram``, Explorer, command line.

    What is known of it is what ``kind`` declares: ``key``, ``label``, ``capacity_option``,
    ``capacity_label``, ``framed`` and ``takes``.

    Args:
        kind: the class that declares; a class decorates itself with :func:`program`.
        key: another name, for a function that makes a program of several.
        label: the name for people that goes with it.

    Raises:
        InputError: the name is taken by another program.
    """

    def add(make: Make) -> Make:
        name = key or kind.key
        known = PROGRAMS.get(name)
        if known is not None and _origin(known.make) != _origin(make):
            raise InputError(
                f"program {name!r} is {'.'.join(_origin(known.make))} already: choose another key"
            )
        PROGRAMS[name] = ProgramSpec(
            label=label or kind.label,
            make=make,
            capacity=kind.capacity_option,
            capacity_label=kind.capacity_label,
            framed=kind.framed,
            takes=kind.takes,
        )
        return make

    return add


Class = TypeVar("Class", bound=type[Program])


def program(cls: Class) -> Class:
    """Class decorator that makes a program known by the name it declares; see :func:`register`.

    Example:
        >>> from mrviz.programs import PROGRAMS
        >>> PROGRAMS["border"].make.__name__, PROGRAMS["border"].capacity
        ('Border', 'width')
    """
    for name in ("key", "label"):
        if not isinstance(getattr(cls, name, None), str):
            raise InputError(f"program {cls.__name__} needs a class attribute {name!r}, a string")
    return register(cls)(cls)


def build_program(
    name: str,
    source_shape: tuple[int, ...],
    target_shape: tuple[int, ...],
    **options: Any,
) -> Program:
    """A program by name; ``seed`` is dropped for programs that start without randomness.

    Raises:
        InputError: an unknown name, inputs of a kind the program does not take, or an option it
            does not have.
    """
    if name not in PROGRAMS:
        raise InputError(f"program must be one of {', '.join(PROGRAMS)}, got {name!r}")
    spec = PROGRAMS[name]
    known = spec.options
    if "seed" not in known:
        options.pop("seed", None)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(
            f"program {name!r} has no option {', '.join(unknown)}; its options are "
            f"{', '.join(known) or 'none'}"
        )
    if not spec.fits(target_shape):
        others = [n for n, other in PROGRAMS.items() if other.fits(target_shape)]
        raise InputError(
            f"program {name!r} takes {' or '.join(KINDS[kind] for kind in spec.takes)}, but the "
            f"target's inputs have shape {tuple(target_shape)}: choose one of {', '.join(others)}"
        )
    return spec.make(source_shape, target_shape, **options)


KINDS: dict[Kind, str] = {
    "image": "images (channels, height, width)",
    "series": "series (channels, length)",
    "other": "any inputs",
}


def _origin(make: Callable[..., Any]) -> tuple[str, str]:
    return make.__module__, make.__qualname__
