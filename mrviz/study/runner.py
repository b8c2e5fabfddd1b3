"""Runs a study: every configuration that has no row yet, here or on a Dask cluster."""

from __future__ import annotations

import html
import queue
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from typing import Any

from mrviz._progress import CancelFlag, Progress, ProgressCallback, stop_if_cancelled
from mrviz._words import counted
from mrviz.errors import ClusterError, InputError
from mrviz.study.grid import Configuration, Grid, configurations
from mrviz.study.measure import run_one, versions
from mrviz.study.store import Row, Store

POLL_SECONDS = 0.2
"""How soon a cancelled study stops waiting for a cluster."""

NO_WORKER_SECONDS = 300.0
"""How long a cluster may be without any worker: new ones can take minutes to come."""


@dataclass(frozen=True)
class Study:
    """What a call of :func:`run` did.

    Attributes:
        path: the study's file.
        total: runs in the grid.
        known: of them, how many had a row already.
        done: runs finished now.
        failed: runs that failed now; their rows hold the error.
        seconds: wall-clock time.
    """

    path: str
    total: int
    known: int
    done: int
    failed: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    def __repr__(self) -> str:
        return (
            f"Study({self.path!r}: {counted(self.total, 'run')}, {self.known} known before, "
            f"{self.done} done now, {self.failed} failed, {self.seconds:.1f} s)"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in self.to_dict().items()
        )
        return f"<table><caption>Study</caption>{rows}</table>"


def run(
    grid: Grid,
    path: str | PathLike[str],
    *,
    client: Any = None,
    retry_failed: bool = False,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Study:
    """Trains every configuration of a grid and keeps one row for each in a file.

    A run loads or trains its source, measures the indicators of its reprogrammed model (predicted
    accuracy, conditions, baselines), trains the program, and writes one row. A run that fails
    gets a row with the error, and the study goes on. Runs that have a row are not repeated,
    whichever version of mrviz wrote it: call again with the same grid, or a larger one, to go on
    after the process was ended in whatever way.

    Args:
        grid: see :func:`~mrviz.study.configurations`.
        path: the study's file; made where there is none. Several studies may share one.
        client: a ``dask.distributed.Client``: runs go to its workers, one run at a time in each
            process, and their rows are written here.
        retry_failed: repeat runs whose row holds an error.
        progress: callback (done, total, label), the label with the time left; ``False`` for
            silence; default: a text bar.
        cancel: flag with ``is_set()``; ends the study within a step of the run it is in. Rows
            are kept, and a run that was not finished has none.

    Raises:
        InputError: a grid with choices that do not exist, a file that is something else, or a
            client that is none.
        ClusterError: the cluster went away; the rows finished before are kept.
        Cancelled: ``cancel`` was set.

    Example:
        >>> grid = {"source": "dnn", "depth": [1, 2, 3], "target": "digits", "seed": range(5)}
        >>> mrviz.study.run(grid, "depth.sqlite")  # doctest: +SKIP
        Study('depth.sqlite': 15 runs, 0 known before, 15 done now, 0 failed, 21.3 s)
    """
    started = time.perf_counter()
    wanted = configurations(grid)
    if client is not None:
        _check_client(client)
    with Store(path) as store:
        known = store.status()
        missing = [
            c for c in wanted if c.key not in known or (retry_failed and known[c.key] == "failed")
        ]
        before, failed = len(wanted) - len(missing), 0
        rows = _here(missing, cancel) if client is None else _there(missing, client, cancel)
        with Progress(len(wanted), "study", progress, cancel, before) as bar, closing(rows):
            for done, row in enumerate(rows, start=1):
                store.write(row)
                failed += row.error is not None
                left = (time.perf_counter() - started) / done * (len(missing) - done)
                bar.label = f"study, {_duration(left)} left" if left else "study"
                bar.advance()
    return Study(
        path=fspath(path),
        total=len(wanted),
        known=before,
        done=len(missing) - failed,
        failed=failed,
        seconds=time.perf_counter() - started,
    )


def _here(wanted: Sequence[Configuration], cancel: CancelFlag | None) -> Generator[Row]:
    for configuration in wanted:
        yield run_one(configuration.to_dict(), cancel)


def _there(
    wanted: Sequence[Configuration], client: Any, cancel: CancelFlag | None
) -> Generator[Row]:
    """Rows as a cluster finishes them; a few runs per thread are with it at a time."""
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
    flying: dict[Any, Configuration] = {}
    waiting, finished, seen = iter(wanted), 0, time.monotonic()

    def lost(reason: str) -> ClusterError:
        return ClusterError(
            f"the Dask cluster went away after {finished} of {len(wanted)} runs ({reason}). Their "
            "rows are kept: call again with another client"
        )

    try:
        while True:
            stop_if_cancelled(cancel, f"study, after {finished} of {len(wanted)} runs")
            try:
                threads = sum(client.nthreads().values())
            except Exception as error:
                raise lost("no connection to the scheduler") from error
            now = time.monotonic()
            seen = now if threads else seen
            if now - seen > NO_WORKER_SECONDS:
                raise lost(f"it has had no worker for {NO_WORKER_SECONDS:.0f} seconds")
            while len(flying) < max(4, 2 * threads) and (c := next(waiting, None)) is not None:
                future = client.submit(run_one, c.to_dict(), pure=False)
                flying[future] = c
                future.add_done_callback(ready.put)
            if not flying:
                return
            try:
                future = ready.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            configuration = flying.pop(future)
            if future.status in ("cancelled", "lost"):
                raise lost("the scheduler was closed, or the tasks were cancelled")
            yield _row(future, configuration)
            finished += 1
    finally:
        if flying and client.status == "running":
            client.cancel(list(flying))


def _row(future: Any, configuration: Configuration) -> Row:
    """The row of a finished task; one that ended its worker, for want of memory, failed."""
    try:
        row: Row = future.result()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return Row(configuration.key, configuration.text, error=text, versions=versions())
    return row


def _check_client(client: Any) -> None:
    distributed = sys.modules.get("distributed")  # there is no client that did not load it
    if distributed is None or not isinstance(client, distributed.Client) or client.asynchronous:
        raise InputError(
            f"client must be a dask.distributed.Client, got {type(client).__name__}: pass "
            "Client(cluster) or Client('tcp://scheduler:8786'), not asynchronous"
        )
    if client.status != "running":
        raise InputError(f"client is {client.status}: connect a new one with Client(cluster)")


def _duration(seconds: float) -> str:
    """A time in the unit that people would use.

    Example:
        >>> _duration(8), _duration(200), _duration(9000)
        ('8 s', '3 min', '2.5 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
