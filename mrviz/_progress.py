"""Progress reports and cancellation, shared by everything that can take longer than a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from mrviz.errors import Cancelled

ProgressCallback = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what is being done)."""


class CancelFlag(Protocol):
    """Anything with ``is_set()``, such as :class:`threading.Event`."""

    def is_set(self) -> bool: ...


class Progress:
    """Counts steps, reports them and stops when the caller cancels.

    Args:
        total: number of steps.
        label: what is being done, in a few words.
        report: a callback, ``False`` for silence, or ``None`` for a text bar that appears
            after one second (needs the package ``tqdm``; silent without it).
        cancel: flag that ends the work with :class:`~mrviz.errors.Cancelled` at the next step.
        done: steps that were done before; the time left is reckoned from the others.
    """

    def __init__(
        self,
        total: int,
        label: str,
        report: ProgressCallback | bool | None = None,
        cancel: CancelFlag | None = None,
        done: int = 0,
    ) -> None:
        self.total = total
        self.label = label
        self.done = done
        self._cancel = cancel
        self._callback = report if callable(report) else None
        self._bar = _text_bar(total, label, done) if report is None or report is True else None

    def __enter__(self) -> Progress:
        self.advance(0)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def describe(self, label: str) -> None:
        """Says what is being done from now on."""
        self.label = label
        if self._bar is not None:
            self._bar.set_description_str(label, refresh=False)

    def advance(self, steps: int = 1) -> None:
        """Reports ``steps`` more steps as done; raises ``Cancelled`` if the caller gave up."""
        stop_if_cancelled(self._cancel, f"{self.label}, after {self.done} of {self.total} steps")
        self.done += steps
        if self._bar is not None:
            self._bar.update(steps)
        if self._callback is not None:
            self._callback(self.done, self.total, self.label)


def stop_if_cancelled(cancel: CancelFlag | None, label: str) -> None:
    """Raises ``Cancelled`` if the flag is set."""
    if cancel is not None and cancel.is_set():
        raise Cancelled(f"cancelled: {label}")


def _text_bar(total: int, label: str, done: int) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc=label, initial=done, delay=1.0, leave=False)
