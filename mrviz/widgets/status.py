"""The status line: what is being done, how long it still takes, Cancel, and every error."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape

import ipywidgets as w

from mrviz.widgets.panels import error_html

INTERVAL = 0.1
"""Progress is shown at most this often, in seconds."""


class StatusLine:
    """Progress, messages and errors, with one button that cancels or computes.

    Args:
        on_cancel: called when the user cancels.
        on_compute: called when the user asks for what was cancelled or failed.
    """

    def __init__(self, on_cancel: Callable[[], None], on_compute: Callable[[], None]) -> None:
        self._on_cancel = on_cancel
        self._on_compute = on_compute
        self._busy = False
        self._label = ""
        self._since = 0.0
        self._shown = 0.0
        self.message = w.HTML()
        self.bar = w.FloatProgress(min=0.0, max=1.0)
        self.button = w.Button(description="Cancel", tooltip="Stop; what is finished stays")
        self.button.layout.width = "92px"
        self.button.on_click(lambda _: self._on_cancel() if self._busy else self._on_compute())
        self.box = w.HBox([self.message, self.bar, self.button])
        self.box.add_class("mrviz-status")

    def busy(self, text: str) -> None:
        """Work has begun."""
        self._busy = True
        self._label = ""
        self.message.value = f"<span data-status='busy'>… {escape(text)}</span>"
        self.bar.value = 0.0
        self.bar.layout.visibility = "visible"
        self.button.description = "Cancel"
        self.button.disabled = False

    def progress(self, done: int, total: int, label: str) -> None:
        """A step of the work is done; shows the share and the time left of this stage."""
        now = time.monotonic()
        if label != self._label:
            self._label, self._since, self._shown = label, now, 0.0
        if now - self._shown < INTERVAL or not self._busy:
            return
        self._shown = now
        share = done / total if total else 0.0
        left = (now - self._since) / share * (1 - share) if share > 0 else 0.0
        wait = f", about {left:.0f} s left" if left >= 1 else ""
        self.message.value = (
            f"<span data-status='busy'>… {escape(label)}: {done} of {total}{wait}</span>"
        )
        self.bar.value = share

    def idle(self, text: str, *, stale: bool = False) -> None:
        """Nothing is being done; ``stale`` offers to compute what is still missing."""
        self._rest(stale)
        state = "stale" if stale else "ready"
        icon = "■" if stale else "✔"
        self.message.value = f"<span data-status='{state}'>{icon} {escape(text)}</span>"

    def error(self, error: Exception) -> None:
        """Something failed; controls stay usable."""
        self._rest(stale=True)
        self.message.value = error_html(error)

    def _rest(self, stale: bool) -> None:
        self._busy = False
        self.bar.layout.visibility = "hidden"
        self.button.description = "Compute"
        self.button.disabled = not stale
