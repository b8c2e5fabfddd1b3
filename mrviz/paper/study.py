"""Runs all tables of the study, or what is left of them, and answers from stored ones."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from mrviz._cache import write_atomically
from mrviz._checks import as_device
from mrviz.errors import InputError
from mrviz.paper import accuracy, assumptions, bound, indicators, kernels, loss
from mrviz.paper.answer import Answer
from mrviz.paper.settings import SIZES, Settings, mark_of, settings_of
from mrviz.paper.tables import KEY, MARK, SECONDS, Row, Table, Tables, name_of, read, write
from mrviz.study.measure import versions

STORED = Path(__file__).with_name("results")
"""Tables of the default size that come with mrviz."""

ABOUT = "about.json"
ANSWERS = "answers"


@dataclass(frozen=True)
class Question:
    """One question: what it asks, the tables it reads, and how it is answered.

    Attributes:
        number: from 1.
        title: the question.
        tables: names of the tables its answers read.
        answers: from rows by table.
    """

    number: int
    title: str
    tables: tuple[str, ...]
    answers: Callable[[Tables], tuple[Answer, ...]]


TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        kernels.TABLE,
        assumptions.TABLE,
        assumptions.WIDTH_TABLE,
        bound.TABLE,
        indicators.TABLE,
        accuracy.TABLE,
        loss.TABLE,
    )
}
"""In the order in which they are run: short ones first."""

QUESTIONS = (
    Question(1, "Does λ_min[K_S] grow with depth?", (kernels.NAME,), kernels.answers),
    Question(
        2,
        "Do source and target accuracy rise with depth?",
        (accuracy.NAME, loss.NAME),
        accuracy.answers,
    ),
    Question(3, "Does the target loss fall as λ_min[K_S] grows?", (loss.NAME,), loss.answers),
    Question(
        4,
        "What, known before training, goes with the accuracy after it?",
        (indicators.NAME,),
        indicators.answers,
    ),
    Question(
        5,
        "Do Assumption 3, Eq. 16, Proposition 1 and lazy training hold on real sources?",
        (assumptions.NAME, assumptions.WIDTH),
        assumptions.answers,
    ),
    Question(6, "How loose is the bound of Voice2Series?", (bound.NAME,), bound.answers),
)


def run(
    folder: Path,
    size: str = "default",
    *,
    settings: Settings | None = None,
    tables: Sequence[str] | None = None,
    device: str = "cpu",
    command: str = "",
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Makes the runs that have no row yet; a row is kept as soon as its task is done.

    Args:
        folder: where tables and ``about.json`` go; made where there is none.
        size: "default", "quick" or "full".
        settings: other settings than those of the size.
        tables: names of the tables to run; default: all.
        device: where to compute.
        command: what was typed, kept beside the results.
        report: called with a line for each finished task.

    Raises:
        InputError: an unknown size or table, or a folder with runs of other settings.
        DeviceError: there is no such device.
    """
    settings = settings_of(size) if settings is None else settings
    names = list(TABLES) if tables is None else list(tables)
    if unknown := sorted(set(names) - set(TABLES)):
        raise InputError(
            f"there is no table {', '.join(unknown)}; the tables are {', '.join(TABLES)}"
        )
    as_device(device, torch.device("cpu"))
    mark = mark_of(settings)
    kept = {name: read(folder / f"{name}.csv", mark) for name in TABLES}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror or error}") from None
    _write_about(folder, size, settings, command, device)
    for name in names:
        table, rows = TABLES[name], kept[name]
        done = {str(row[KEY]) for row in rows}
        wanted = table.tasks(settings)
        todo = [task for task in wanted if name_of(_shown(task)) not in done]
        report(f"{name}: {len(wanted)} tasks, {len(wanted) - len(todo)} done before")
        for k, task in enumerate(todo, start=1):
            started = time.perf_counter()
            found = table.measure(task, settings, device)
            seconds = time.perf_counter() - started
            ends = {SECONDS: seconds / len(found), MARK: mark}
            key = {KEY: name_of(_shown(task))}
            rows += [{**key, **_shown(task), **row, **ends} for row in found]
            write(folder / f"{name}.csv", rows)
            report(f"{name} {k}/{len(todo)}: {key[KEY]}, {seconds:.1f} s")
    write_answers(folder, answers(load(folder, settings=settings)))
    _write_about(folder, size, settings, command, device)


def _shown(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task without what its measurement alone needs."""
    return {name: value for name, value in task.items() if not name.startswith("_")}


def load(folder: Path = STORED, *, settings: Settings | None = None) -> dict[str, list[Any]]:
    """Rows of all tables in a folder, by name; none for a table that is not there yet.

    Args:
        folder: default: the results that come with mrviz.
        settings: those of the rows; default: those of the size that ``about.json`` names.

    Raises:
        InputError: no results there, or of other settings.
    """
    if settings is None:
        settings = settings_of(about(folder)["size"])
    mark = mark_of(settings)
    return {name: read(folder / f"{name}.csv", mark) for name in TABLES}


def about(folder: Path = STORED) -> dict[str, Any]:
    """How the results in a folder were made.

    Raises:
        InputError: there are none.
    """
    try:
        found: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(
            f"there are no results in {folder}: 'mrviz study paper --folder {folder}' makes them"
        ) from None
    if found.get("size") not in SIZES:
        raise InputError(f"{folder / ABOUT} names no size of this study: {found.get('size')!r}")
    return found


def missing(folder: Path, settings: Settings) -> dict[str, int]:
    """How many tasks of each table have no rows yet, where any has none."""
    mark, found = mark_of(settings), {}
    for name, table in TABLES.items():
        done = {str(row[KEY]) for row in read(folder / f"{name}.csv", mark)}
        left = sum(name_of(_shown(task)) not in done for task in table.tasks(settings))
        if left:
            found[name] = left
    return found


def answers(tables: Tables) -> tuple[Answer, ...]:
    """Answers to all questions whose tables have rows, in the order of the questions."""
    return tuple(
        answer
        for question in QUESTIONS
        if all(tables[name] for name in question.tables)
        for answer in question.answers(tables)
    )


def write_answers(folder: Path, found: Sequence[Answer]) -> None:
    """Keeps the verdicts as a small table of their own."""
    rows: list[Row] = []
    for answer in found:
        row = {k: v for k, v in answer.to_dict().items() if k not in ("interval", "text")}
        row["low"], row["high"] = answer.interval or (None, None)
        rows.append({**row, "text": answer.text})
    write(folder / f"{ANSWERS}.csv", rows)


def _write_about(folder: Path, size: str, settings: Settings, command: str, device: str) -> None:
    """Settings, versions and machine, and when it was begun and last gone on with."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    path = folder / ABOUT
    begun = now
    if path.exists():
        begun = json.loads(path.read_text(encoding="utf-8")).get("begun", now)
    rows = {name: read(folder / f"{name}.csv", mark_of(settings)) for name in TABLES}
    found = {
        "size": size,
        "mark": mark_of(settings),
        "command": command,
        "begun": begun,
        "latest": now,
        "minutes": {
            name: round(sum(float(row[SECONDS]) for row in part) / 60, 2)
            for name, part in rows.items()
        },
        "rows": {name: len(part) for name, part in rows.items()},
        "versions": versions(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": device,
            "system": platform.system(),
        },
        "settings": settings,
    }
    write_atomically(path, (json.dumps(found, indent=1) + "\n").encode())


def _processor() -> str:
    """Name of the processor, where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
