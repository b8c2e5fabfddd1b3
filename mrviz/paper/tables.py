"""Tables of runs as CSV files: resumable, whole after a kill, refused with other settings."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrviz._cache import write_atomically
from mrviz.errors import InputError
from mrviz.paper.settings import Settings

Task = dict[str, Any]
"""Choices of one task: names and numbers that tell it from the others."""

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]
"""Rows by the name of their table."""

DIGITS = 8
"""Significant digits that are kept of a measured number."""

KEY, MARK, SECONDS = "task", "settings", "seconds"


@dataclass(frozen=True)
class Table:
    """What is measured into one file.

    Attributes:
        name: of the table and its file.
        tasks: all tasks of some settings, those that share a source next to each other.
        measure: rows of one task, on a device ("cpu", "cuda", …).
    """

    name: str
    tasks: Callable[[Settings], list[Task]]
    measure: Callable[[Task, Settings, str], list[dict[str, Any]]]


def name_of(task: Task) -> str:
    """The task in one line, which its rows carry.

    Example:
        >>> name_of({"family": "dnn", "depth": 3, "trained_on": None})
        'family=dnn depth=3'
    """
    return " ".join(f"{name}={value}" for name, value in task.items() if value is not None)


def read(path: Path, mark: str) -> list[dict[str, Any]]:
    """Rows of a table; none where there is no file yet.

    Raises:
        InputError: not a table, or one of other settings.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{k: _value(v) for k, v in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from None
    for row in rows:
        found = str(row.get(MARK))
        if found != mark:
            raise InputError(
                f"{path} holds runs of other settings ({found}, expected {mark}): rows of "
                "different settings do not go together. Name another folder with --folder, or "
                "use the mrviz that made this one"
            )
        if KEY not in row or None in row:
            raise InputError(f"{path} is not a table of this study: it has no column {KEY!r}")
    return rows


def write(path: Path, rows: Sequence[Row]) -> None:
    """Writes a table, all of it or nothing; missing values are empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: _text(v) for k, v in row.items()} for row in rows)
    write_atomically(path, text.getvalue().encode())


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}"
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def _value(text: str | None) -> Any:
    """A number where it is one, nothing where it is empty."""
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def column(rows: Sequence[Row], name: str) -> list[float]:
    """Numbers of a column, NaN where there is none."""
    return [float("nan") if row.get(name) is None else float(row[name]) for row in rows]


def groups(rows: Sequence[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows that share their values in some columns, in the order in which they occur."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(name) for name in names), []).append(row)
    return found


def where(rows: Sequence[Row], **values: Any) -> list[Row]:
    """Rows with these values."""
    return [row for row in rows if all(row.get(name) == v for name, v in values.items())]
