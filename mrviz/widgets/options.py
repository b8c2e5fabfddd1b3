"""The group "Options": widgets for what the chosen program and mapping declare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as w

from mrviz.programs.options import Option

AUTOMATIC = ("auto", "")
"""Stands for ``None``, what fits the shapes; short, as it stands beside a slider."""


class OptionControls:
    """A widget for each option; the box is hidden where there is none.

    Options of which only Python and the command line know values have no widget, and keep theirs.

    Args:
        on_change: called after every change by the user, with the name of the option.
    """

    def __init__(self, on_change: Callable[[str], None]) -> None:
        self._on_change = on_change
        self._known: dict[str, Option] = {}
        self._rest: dict[str, Any] = {}
        self.widgets: dict[str, Any] = {}
        self._title = w.HTML("Options")
        self._title.add_class("mrviz-heading")
        self.box = w.VBox([self._title])
        self.box.add_class("mrviz-group")

    @property
    def values(self) -> dict[str, Any]:
        """All options with their values."""
        shown = {n: None if v.value == AUTOMATIC[1] else v.value for n, v in self.widgets.items()}
        return {**self._rest, **shown}

    def show(self, known: Mapping[str, Option], values: Mapping[str, Any]) -> None:
        """Shows other options, or other values; what has no value is at its default."""
        if self._known != known:
            old, self._known = self.widgets, dict(known)
            made = {name: _widget(option) for name, option in known.items()}
            self.widgets = {name: widget for name, widget in made.items() if widget is not None}
            for name, widget in self.widgets.items():
                widget.add_class(f"mrviz-control-{name}")
                widget.observe(lambda _, name=name: self._on_change(name), "value")
            self.box.children = [self._title, *self.widgets.values()]
            self.box.layout.display = None if self.widgets else "none"
            for widget in old.values():
                widget.unobserve_all()
                widget.close()
        chosen = {name: values.get(name, option.default) for name, option in known.items()}
        self._rest = {name: v for name, v in chosen.items() if name not in self.widgets}
        for name, widget in self.widgets.items():
            _select(widget, chosen[name])

    def close(self) -> None:
        """Stops listening."""
        for widget in self.widgets.values():
            widget.unobserve_all()


def _widget(option: Option) -> Any:
    """Dropdown, slider, checkbox or number, whichever the option declares; ``None`` for none."""
    name = option.name.replace("_", " ")
    named: dict[str, Any] = {
        "description": name[0].upper() + name[1:] if len(name) > 1 else name,
        "tooltip": option.help or f"Option {option.name}",
    }
    if option.offered:
        kind = w.Dropdown if option.choices else w.SelectionSlider
        offered = [_entry(value) for value in option.offered]
        widget = (
            kind(options=offered, value=_entry(option.default)[1], **named)
            if (option.default in option.offered)
            else kind(options=offered, **named)
        )
        if kind is w.SelectionSlider:
            widget.continuous_update = False
        return widget
    if option.default is None:
        return None
    if option.kind is bool:
        return w.Checkbox(indent=False, **named)
    numbers = {int: w.IntText, float: w.FloatText}
    return numbers[option.kind](**named) if option.kind in numbers else None


def _entry(value: Any) -> tuple[str, Any]:
    if value is None:
        return AUTOMATIC
    return (f"{value:g}" if isinstance(value, float) else str(value)), value


def _select(widget: Any, value: Any) -> None:
    """Gives a widget a value; one that it does not offer yet is added in its place."""
    value = AUTOMATIC[1] if value is None else value
    if isinstance(widget, w.Dropdown | w.SelectionSlider):
        values = [known for _, known in widget.options]
        if value not in values:
            first = [AUTOMATIC] if AUTOMATIC[1] in values else []
            numbers = sorted([*(v for v in values if v != AUTOMATIC[1]), value])
            widget.options = [*first, *map(_entry, numbers)]
    widget.value = value
