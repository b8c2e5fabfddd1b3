"""Which notebook cell an Explorer belongs to: running the cell again replaces it."""

from __future__ import annotations

import sys
from typing import Any, Protocol


class Closable(Protocol):
    """Anything with ``close()``."""

    def close(self) -> None:
        """Frees what it holds."""


_owned: dict[str, tuple[str, list[Closable]]] = {}


def replace_in_cell(item: Closable) -> None:
    """Closes what an earlier run of the present cell made, and remembers ``item``.

    Widgets are never collected: without this, every run of a cell would leave megabytes of
    state that each new page loads again. Does nothing outside a notebook.
    """
    if (place := _present_cell()) is None:
        return
    cell, run = place
    earlier_run, items = _owned.get(cell, (run, []))
    if earlier_run != run:
        for old in items:
            old.close()
        items = []
    _owned[cell] = run, [*items, item]


def _present_cell() -> tuple[str, str] | None:
    """Ids of the cell that is being executed and of this execution of it."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return None
    parent = kernel.get_parent("shell")
    cell = parent.get("metadata", {}).get("cellId")
    run = parent.get("header", {}).get("msg_id")
    return (cell, run) if cell and run else None
