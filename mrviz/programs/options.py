"""Options of programs and mappings: what their signatures declare, and the values chosen."""

from __future__ import annotations

import ast
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mrviz.errors import InputError

YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Between:
    """Values that a slider offers for a number; which it takes is up to the program itself.

    Attributes:
        low: the smallest.
        high: the largest.
        step: from one to the next.
    """

    low: float
    high: float
    step: float = 1

    @property
    def values(self) -> tuple[float, ...]:
        """All of them, whole numbers where all three are.

        Example:
            >>> Between(0.1, 0.5, 0.2).values
            (0.1, 0.3, 0.5)
        """
        count = round((self.high - self.low) / self.step)
        return tuple(round(self.low + k * self.step, 9) for k in range(count + 1))


@dataclass(frozen=True)
class Option:
    """What a signature declares about one option.

    ``bias: Annotated[bool, "whether there is a β"] = True`` is a checkbox in the Explorer,
    ``Literal["a", "b"]`` a dropdown and ``Annotated[int, Between(1, 8), "copies"]`` a slider;
    where the default is ``None``, both have an entry for it. Any other annotation, or none,
    declares an option for Python and the command line alone.

    Attributes:
        name: the keyword.
        default: value where none is given; ``None`` for what fits the shapes.
        help: what it is, for people who choose.
        kind: ``bool``, ``int``, ``float`` or ``str``; ``None`` where nothing is declared.
        choices: all values it may have, where they are declared.
        between: what a slider offers.
    """

    name: str
    default: Any
    help: str = ""
    kind: type | None = None
    choices: tuple[Any, ...] = ()
    between: Between | None = None

    @property
    def offered(self) -> tuple[Any, ...]:
        """Values to choose from, ``None`` first where that is the default; none for free ones."""
        values = self.choices or (self.between.values if self.between else ())
        if self.kind is float:
            values = tuple(map(float, values))
        return (None, *values) if values and self.default is None else values

    def checked(self, value: Any) -> Any:
        """The value in its declared type.

        Raises:
            InputError: a value of another type, or none of the choices.
        """
        if self.choices:
            found = [c for c in self.choices if c == value and isinstance(c, bool) == _truth(value)]
            if found:
                return found[0]
            listed = ", ".join(repr(choice) for choice in self.choices)
            raise InputError(f"{self.name} must be one of {listed}, got {value!r}")
        if self.kind is bool:
            if _truth(value):
                return bool(value)
            raise InputError(f"{self.name} must be True or False, got {value!r}")
        if self.kind is int:
            try:
                whole = None if _truth(value) else operator.index(value)
            except TypeError:
                whole = None
            if whole is None:
                raise InputError(f"{self.name} must be a whole number, got {value!r}")
            return whole
        if self.kind is float:
            if isinstance(value, Real) and not _truth(value) and math.isfinite(value):
                return float(value)
            raise InputError(f"{self.name} must be a number, got {value!r}")
        if isinstance(value, str | bool | int) or (
            isinstance(value, float) and math.isfinite(value)
        ):
            return value
        raise InputError(f"{self.name} must be a name, a number, True or False, got {value!r}")

    def parsed(self, text: str) -> Any:
        """The value that a text stands for on the command line.

        Raises:
            InputError: it stands for none.
        """
        if self.choices:
            return {str(choice): choice for choice in self.choices}.get(text, text)
        if self.kind is bool:
            known = {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)}
            return known.get(text.lower(), text)
        if self.kind is str:
            return text
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text

    @property
    def values(self) -> str:
        """Which values it has, in a few words, as on the command line."""
        if self.choices:
            shown = "|".join(map(str, self.choices))
        elif self.kind is bool:
            shown = "true|false"
        else:
            words = {int: "whole number", float: "number", str: "text"}
            shown = words.get(self.kind or NoneType, "value")
        default = str(self.default).lower() if isinstance(self.default, bool) else self.default
        return f"{shown}, default: {'what fits' if default is None else default}"


class Options(Mapping[str, Any]):
    """Values of options by name that cannot be changed, so that they can be part of a key.

    Example:
        >>> Options({"m": 2, "lam": 0.5}) == {"lam": 0.5, "m": 2}
        True
    """

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> None:
        self._values = dict(sorted(dict(values).items()))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return repr(self._values)


def declared(make: Callable[..., Any], names: Iterable[str]) -> dict[str, Option]:
    """What the signature of a class or function declares about some of its parameters.

    Example:
        >>> def make(*, rows: Annotated[int, Between(1, 4), "trainable rows"] = 2): ...
        >>> declared(make, ["rows"])["rows"].offered
        (1, 2, 3, 4)
    """
    function = make.__init__ if isinstance(make, type) else make  # type: ignore[misc]
    parameters = inspect.signature(make).parameters
    return {name: _option(parameters[name], getattr(function, "__globals__", {})) for name in names}


def _option(parameter: inspect.Parameter, names: dict[str, Any]) -> Option:
    name, default = parameter.name, parameter.default
    default = None if default is inspect.Parameter.empty else default
    try:
        one = SimpleNamespace(__annotations__={name: parameter.annotation})
        hint = get_type_hints(one, names, include_extras=True)[name]
    except (NameError, TypeError):  # no annotation, or one of names known to a type checker alone
        return Option(name, default)
    types, notes = _taken_apart(hint)
    types = [t for t in types if t is not NoneType]
    note = next((n for n in notes if isinstance(n, str)), "")
    between = next((n for n in notes if isinstance(n, Between)), None)
    if len(types) != 1:
        return Option(name, default, note)
    if get_origin(types[0]) is Literal:
        choices = tuple(choice for choice in get_args(types[0]) if choice is not None)
        return Option(name, default, note, choices=choices)
    kind = types[0] if types[0] in (bool, int, float, str) else None
    return Option(name, default, note, kind, between=between)


def _taken_apart(hint: Any) -> tuple[list[Any], list[Any]]:
    """Types of a union, and the notes of ``Annotated`` around and in it."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        types, more = _taken_apart(inner)
        return types, [*notes, *more]
    if get_origin(hint) in (Union, UnionType):
        parts = [_taken_apart(part) for part in get_args(hint)]
        return [t for types, _ in parts for t in types], [n for _, notes in parts for n in notes]
    return [hint], []


def _truth(value: Any) -> bool:
    """Whether this is True or False, of Python or numpy."""
    return type(value).__name__ in ("bool", "bool_")
