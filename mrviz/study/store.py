"""The file of a study: an SQLite database with one row for each run."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from mrviz.errors import InputError, MissingDataError

APPLICATION = 0x6D72767A  # "mrvz"
SCHEMA = 2
"""Goes up whenever the table changes."""

BUSY_SECONDS = 60.0
OUTCOMES = (
    *("start_accuracy", "train_accuracy", "val_accuracy", "test_accuracy"),
    *("start_loss", "train_loss", "val_loss", "test_loss"),
)
"""Measured of the parameters kept, and on held-out samples before training (``start_…``)."""

CREATE = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS runs (
    key TEXT PRIMARY KEY,
    config TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('done', 'failed')),
    error TEXT,
    {", ".join(f"{name} REAL" for name in OUTCOMES)},
    diverged INTEGER,
    kept INTEGER,
    lr_used TEXT,
    indicators TEXT NOT NULL,
    notes TEXT NOT NULL,
    versions TEXT NOT NULL,
    seconds REAL NOT NULL,
    cpu_seconds REAL NOT NULL,
    finished TEXT NOT NULL
);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
COMMIT;
"""


@dataclass(frozen=True)
class Row:
    """What one run found.

    Attributes:
        key: hash of the configuration.
        config: the configuration, as JSON.
        outcomes: by the names in ``OUTCOMES``; none where the run failed, or training lost the
            parameters.
        indicators: what was known before training, by name.
        seconds: wall-clock time.
        cpu_seconds: processor time of all threads of the process.
        versions: of Python and the packages that computed it.
        diverged: the step after which numbers were no longer finite, or ``None``.
        kept: the step whose parameters count.
        lr_used: step size, or Adam's step sizes by kind of parameter.
        notes: warnings and what was done differently than planned.
        error: why the run failed, or ``None``.
    """

    key: str
    config: str
    outcomes: Mapping[str, float | None] = field(default_factory=dict)
    indicators: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    diverged: int | None = None
    kept: int | None = None
    lr_used: float | Mapping[str, float] | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None


class Store:
    """A study's file, open for writing; made where there is none. Use as a context manager.

    A row is written in one transaction and forced to disk: a process that is killed loses the
    run it was in and nothing else. Several processes may write to one file.

    Args:
        path: the file.

    Raises:
        InputError: the file is something else, or of another schema; it is left as it is.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(fspath(path))
        if not self.path.parent.is_dir():
            raise InputError(f"there is no folder {self.path.parent} for the study's file")
        if self.path.exists():
            with _reading(self.path):
                pass  # a foreign file is refused before anything is written to it
        self._connection = _connect(self.path, "rwc")
        with _explained(self.path):
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            if not _is_study(self._connection, self.path):
                self._connection.executescript(CREATE)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def status(self) -> dict[str, str]:
        """Status of each run that has a row, by key."""
        return dict(self._connection.execute("SELECT key, status FROM runs"))

    def write(self, row: Row) -> None:
        """Writes a row; a failed run's row is replaced, that of a finished run never."""
        values: dict[str, Any] = {
            "key": row.key,
            "config": row.config,
            "status": "done" if row.error is None else "failed",
            "error": row.error,
            **{name: row.outcomes.get(name) for name in OUTCOMES},
            "diverged": row.diverged,
            "kept": row.kept,
            "lr_used": json.dumps(row.lr_used),
            "indicators": json.dumps(dict(row.indicators)),
            "notes": json.dumps(list(row.notes)),
            "versions": json.dumps(dict(row.versions)),
            "seconds": row.seconds,
            "cpu_seconds": row.cpu_seconds,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        names = ", ".join(values)
        marks = ", ".join(f":{name}" for name in values)
        changes = ", ".join(f"{name} = excluded.{name}" for name in values if name != "key")
        with _explained(self.path), self._connection:
            self._connection.execute(
                f"INSERT INTO runs ({names}) VALUES ({marks}) ON CONFLICT (key) DO UPDATE SET "
                f"{changes} WHERE runs.status = 'failed'",
                values,
            )


def load(path: str | PathLike[str], *, frame: bool = False) -> Any:
    """The rows of a study, in the order in which they were first written.

    Each row is flat: the configuration's choices, the outcomes, the indicators, and ``key``,
    ``status`` ("done" or "failed"), ``error``, ``diverged``, ``kept``, ``lr_used``, ``notes``,
    ``versions``, ``seconds``, ``cpu_seconds`` and ``finished`` (UTC). All rows have the same
    columns; what a run does not have is ``None``. The file may be read while a study writes to it.

    Args:
        path: the study's file.
        frame: a pandas DataFrame instead of a list of dicts.

    Raises:
        InputError: no such file, or not a study's file, or of another schema.
        MissingDataError: pandas is not installed.
    """
    path = Path(fspath(path))
    if not path.is_file():
        raise InputError(f"there is no study in {path}: mrviz.study.run(grid, path) makes one")
    with _reading(path) as connection:
        if connection is None:
            return _as_frame([]) if frame else []
        cursor = connection.execute("SELECT * FROM runs ORDER BY rowid")
        names = [column[0] for column in cursor.description]
        rows = [_flat(dict(zip(names, values, strict=True))) for values in cursor]
    columns = dict.fromkeys(name for row in rows for name in row)
    rows = [{name: row.get(name) for name in columns} for row in rows]
    return _as_frame(rows) if frame else rows


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    for name in ("lr_used", "notes", "versions"):
        row[name] = json.loads(row[name])
    config, indicators = json.loads(row.pop("config")), json.loads(row.pop("indicators"))
    return {**config, **indicators, **row}


def _as_frame(rows: list[dict[str, Any]]) -> Any:
    try:
        import pandas
    except ImportError:
        raise MissingDataError('frame=True needs pandas: pip install "mrviz[lab]"') from None
    return pandas.DataFrame(rows)


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """A study's file, open for reading; ``None`` where it was made and nothing written yet."""
    with closing(_connect(path, "ro")) as connection, _explained(path):
        yield connection if _is_study(connection, path) else None


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    try:
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)
    except sqlite3.Error as error:
        raise InputError(f"the study's file {path} cannot be opened: {error}") from None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into a sentence with the file's name."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise InputError(f"{path} is not a study's file: choose another path") from None
        raise InputError(f"the study's file {path} cannot be used: {error}") from error


def _is_study(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether it is a study; ``False`` for an empty database.

    Raises:
        InputError: it is something else.
    """
    connection.execute("BEGIN")  # one state of the file, while another process may make it
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    connection.rollback()
    if (application, version, tables) == (0, 0, 0):
        return False
    if application != APPLICATION:
        raise InputError(f"{path} is a database of something else, not a study: it is left as is")
    if version != SCHEMA:
        raise InputError(
            f"{path} is a study of schema {version}, this mrviz reads and writes schema {SCHEMA}: "
            "use the mrviz that made it, or another path"
        )
    return True
