"""Pinned results: kept for comparison, named, hidden, removed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ipywidgets as w

from mrviz.figures import PALETTE
from mrviz.widgets.controls import close_tree
from mrviz.workbench import Result

MOST = len(PALETTE) - 1
"""As many results can be pinned as there are colours left."""


@dataclass(eq=False)
class Pin:
    """One pinned result with its row of widgets."""

    result: Result
    name: w.Text
    shown: w.Checkbox
    row: w.HBox
    swatch: w.HTML


class Pins:
    """The list of pinned results.

    Args:
        on_change: called after a pin was added, renamed, hidden, shown or removed.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self.items: list[Pin] = []
        self.box = w.VBox()
        self.box.add_class("mrviz-pins")

    def add(self, result: Result, name: str | None = None) -> None:
        """Pins a result; the oldest pin goes when there is no colour left."""
        if len(self.items) == MOST:
            self._drop(self.items[0])
        label = name or result.experiment.label()
        text = w.Text(value=label, placeholder="name", continuous_update=False)
        shown = w.Checkbox(value=True, description="show", indent=False)
        shown.layout.width = "70px"
        remove = w.Button(description="Remove", tooltip=f"Remove {label}")
        remove.layout.width = "80px"
        swatch = w.HTML()
        row = w.HBox([swatch, text, shown, remove])
        row.add_class("mrviz-pin")
        pin = Pin(result, text, shown, row, swatch)
        self.items.append(pin)
        remove.on_click(lambda _: self.remove(pin))
        text.observe(lambda _: self._on_change(), "value")
        shown.observe(lambda _: self._on_change(), "value")
        self._arrange()

    def named(self) -> dict[str, Pin]:
        """The pins by name; one that has an earlier pin's name gets a number."""
        found: dict[str, Pin] = {}
        for pin in self.items:
            name, number = pin.name.value, 1
            while name in found:
                number += 1
                name = f"{pin.name.value} ({number})"
            found[name] = pin
        return found

    def remove(self, pin: Pin) -> None:
        """Removes one pin."""
        self._drop(pin)
        self._arrange()

    def close(self) -> None:
        """Stops listening."""
        for pin in self.items:
            pin.name.unobserve_all()
            pin.shown.unobserve_all()

    def _drop(self, pin: Pin) -> None:
        self.items.remove(pin)
        pin.name.unobserve_all()
        pin.shown.unobserve_all()

    def _arrange(self) -> None:
        for k, pin in enumerate(self.items, start=1):
            pin.swatch.value = (
                f"<span class='mrviz-swatch' style='background:{PALETTE[k % len(PALETTE)]}'></span>"
            )
        before = self.box.children
        self.box.children = rows = [pin.row for pin in self.items]
        for row in before:
            if row not in rows:
                close_tree(row)
        self._on_change()
