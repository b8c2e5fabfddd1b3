"""Files that hold the grid of a study, JSON or TOML, and an example of one."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from mrviz.errors import InputError
from mrviz.study import configurations
from mrviz.study.grid import Configuration

PARTS = "grids"
"""Key of a list of tables: each is a grid, together with the choices beside the list."""

SHARED: dict[str, Any] = {
    "source": "dnn",
    "depth": [2, 3, 4],
    "width": 64,
    "input_size": 16,
    "trained_on": "mnist-5k",
    "target": "digits",
    "n": 50,
    "n_test": 200,
    "optimizer": "adam",
    "steps": 50,
    "seed": [0, 1],
}
GRIDS: list[dict[str, Any]] = [
    {"program": "border"},
    {"program": "low_rank", "capacity": [2, 16]},
]


def read_grid(path: str | PathLike[str]) -> tuple[Configuration, ...]:
    """The runs of a grid in a file.

    The file holds a table of choices, each with a value or a list of values, as
    :func:`mrviz.study.configurations` takes them. A list of tables under ``grids`` joins
    several, each together with the choices beside it; in JSON the whole file may be such a list.

    Args:
        path: a file that ends in .json or .toml.

    Raises:
        InputError: no such file, one that is neither JSON nor TOML, or no valid grid.
    """
    path = Path(fspath(path))
    parse = READERS.get(path.suffix.lower())
    if parse is None:
        raise InputError(
            f"a grid is a file that ends in .json or .toml, got {path}: "
            "'mrviz study example' prints one to start from"
        )
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"there is no file {path}: 'mrviz study example > {path}' makes one to start from"
            if path.suffix.lower() == ".toml"
            else f"there is no file {path}: 'mrviz study example --json' prints one to start from"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # of either parser, and of bytes that are no text
        kind = path.suffix[1:].upper()
        raise InputError(f"{path} is not valid {kind}: {error}") from None
    try:
        return configurations(_joined(found))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def example(kind: str) -> str:
    """A small grid as the text of a file, "json" or "toml"."""
    if kind == "json":
        return json.dumps({**SHARED, PARTS: GRIDS}, indent=2) + "\n"
    lines = [
        "# A study of 18 small runs; it takes about a minute. Each choice has a value or a list of",
        "# values, and every combination is one run.",
        "",
        *(f"{name} = {json.dumps(value)}" for name, value in SHARED.items()),
    ]
    for part in GRIDS:
        lines += ["", f"[[{PARTS}]]  # together with everything above"]
        lines += [f"{name} = {json.dumps(value)}" for name, value in part.items()]
    return "\n".join(lines) + "\n"


def _joined(found: Any) -> list[dict[str, Any]]:
    """The tables of a file, each with the choices it shares with the others."""
    if isinstance(found, list):
        return found
    if not isinstance(found, Mapping):
        raise InputError(
            f"a grid is a table of choices, or a list of such tables, got {json.dumps(found)}"
        )
    shared = {name: value for name, value in found.items() if name != PARTS}
    parts = found.get(PARTS, [{}])
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise InputError(f"{PARTS} must be a list of tables of choices, got {parts!r}")
    for part in parts:
        if twice := sorted(set(shared) & set(part)):
            raise InputError(
                f"{', '.join(twice)} is given both beside {PARTS} and in it: leave one out"
            )
    return [{**shared, **part} for part in parts]


def _json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a number of JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"{max(names, key=names.count)!r} is given more than once")
        return table

    return json.loads(text, parse_constant=refuse, object_pairs_hook=unique)


READERS: dict[str, Callable[[str], Any]] = {".json": _json, ".toml": tomllib.loads}
"""How a file is read, by the end of its name."""
