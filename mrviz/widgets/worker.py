"""One background thread in which the newest request wins; knows nothing of widgets."""

from __future__ import annotations

import atexit
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from mrviz.errors import Cancelled

Job = Callable[[threading.Event], None]
"""Work that looks at its cancel flag and raises ``Cancelled`` when it is set."""


class Worker:
    """Runs one job at a time; a new one cancels the one before and takes its place.

    Args:
        on_error: called in the worker's thread with the exception a job raised; cancellation is
            not an error.
        on_idle: called in the worker's thread when there is nothing left to do, with whether the
            last job ran to its end.
    """

    def __init__(
        self, on_error: Callable[[Exception], None], on_idle: Callable[[bool], None]
    ) -> None:
        self._on_error = on_error
        self._on_idle = on_idle
        self._changed = threading.Condition()
        self._pending: tuple[Job, float] | None = None
        self._flag = threading.Event()
        self._busy = False
        self._closed = False
        # A thread that is still inside PyTorch when the interpreter ends would abort it.
        atexit.register(self.close)
        self._thread = threading.Thread(target=self._loop, name="mrviz-worker", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        with self._changed:
            return self._busy or self._pending is not None

    @property
    def waiting(self) -> bool:
        """Whether a job waits for its turn."""
        with self._changed:
            return self._pending is not None

    def submit(self, job: Job, delay: float = 0.0) -> None:
        """Starts a job after ``delay`` seconds, unless a newer one comes in the meantime."""
        with self._changed:
            if self._closed:
                return
            self._flag.set()
            self._pending = job, time.monotonic() + delay
            self._changed.notify_all()

    def cancel(self) -> None:
        """Cancels the running job and drops the waiting one."""
        with self._changed:
            self._pending = None
            self._flag.set()
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks until there is nothing left to do; returns whether that was reached in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy and self._pending is None, timeout)

    def close(self) -> None:
        """Cancels everything, ends the thread and waits for it a while."""
        atexit.unregister(self.close)
        with self._changed:
            self._closed = True
            self._pending = None
            self._flag.set()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=10)

    def _next(self) -> tuple[Job, threading.Event] | None:
        """Waits for the next job whose delay has passed; ``None`` at the end."""
        with self._changed:
            while not self._closed:
                if self._pending is None:
                    self._changed.wait()
                    continue
                job, start = self._pending
                left = start - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                self._pending = None
                self._flag = threading.Event()
                self._busy = True
                return job, self._flag
            return None

    def _loop(self) -> None:
        while (following := self._next()) is not None:
            job, flag = following
            finished = False
            try:
                job(flag)
                finished = True
            except Cancelled:
                pass
            except Exception as error:
                if not flag.is_set():
                    _tell(self._on_error, error)
            if self._pending is None and not self._closed:
                _tell(self._on_idle, finished)
            with self._changed:
                self._busy = False
                self._changed.notify_all()


def _tell(callback: Callable[[Any], None], news: Any) -> None:
    """Calls a callback; one that fails must not end the thread and all later work with it."""
    try:
        callback(news)
    except Exception:
        traceback.print_exc()
