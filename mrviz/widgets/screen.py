"""Everything the Explorer shows, in its place; knows nothing of what is computed when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape

import ipywidgets as w
import plotly.graph_objects as go

from mrviz.widgets.controls import close_tree
from mrviz.widgets.figure import LiveFigure
from mrviz.widgets.panels import conditions_html, formulas_tex, statistics_html
from mrviz.widgets.views import Scene, View
from mrviz.workbench import Result


class Screen:
    """Toolbar, status line, statistics, the figure of the open view, conditions and formulas.

    Args:
        views: by name.
        opened: name of the view that is open.
        controls: widget beside everything else.
        status: widget of the status line.
        pins: widget of the pinned spectra.
        exports: widget of the export buttons.
        on_view: called with the name of a view that was chosen.
        on_click: called with the x of a point that was clicked.
        on_pin: called when the present result is to be pinned.
        presets: names of ready-made comparisons.
        on_preset: called with the name of a preset that was chosen.
    """

    def __init__(
        self,
        views: Mapping[str, View],
        opened: str,
        *,
        controls: w.Widget,
        status: w.Widget,
        pins: w.Widget,
        exports: w.Widget,
        on_view: Callable[[str], None],
        on_click: Callable[[float], None],
        on_pin: Callable[[], None],
        presets: Iterable[str],
        on_preset: Callable[[str], None],
    ) -> None:
        self._pins = pins
        self._views = views
        self.selector = w.ToggleButtons(
            options=[(view.label, name) for name, view in views.items()],
            value=opened,
            tooltips=[view.tooltip for view in views.values()],
        )
        self.selector.style.button_width = "auto"
        self.selector.add_class("mrviz-views")
        self.selector.observe(lambda change: on_view(change["new"]), "value")
        self._view_controls = w.HBox()
        self._view_controls.add_class("mrviz-view-controls")
        # A page that is still loading misses changes: it must begin with the axes of this view.
        first = views[opened].figure(Scene(None, [], "light"))
        self._figure = LiveFigure(first, on_click)
        self._frame = w.VBox([self._figure])
        self._statistics, self._conditions, self._note = w.HTML(), w.HTML(), w.HTML()
        self._note.add_class("mrviz-note")
        self._formulas = w.HTMLMath()
        formulas = w.Accordion([self._formulas], titles=("Formulas",), selected_index=None)
        shown = w.VBox(
            [
                _toolbar(exports, on_pin, presets, on_preset),
                status,
                self._statistics,
                self.selector,
                self._view_controls,
                self._frame,
                pins,
                self._note,
                self._conditions,
                formulas,
            ]
        )
        shown.add_class("mrviz-view")
        main = w.Box([controls, shown])
        main.add_class("mrviz-main")
        self.widget = w.VBox([main])
        self.widget.add_class("mrviz")
        self.open(views[opened])

    def open(self, view: View) -> None:
        """Shows the controls of a view."""
        self._view_controls.children = view.controls
        self._view_controls.layout.display = None if view.controls else "none"
        self._pins.layout.display = None if view.name == "spectrum" else "none"

    def draw(self, figure: go.Figure) -> None:
        """Shows a figure."""
        self._figure.show_figure(figure)

    def tell(self, result: Result, view: View, *, dim: bool) -> None:
        """Shows the numbers, conditions and notes of a result, dimmed while newer ones come."""
        note = "" if result.exact else f"Sketch: {result.sketch}."
        self._statistics.value = statistics_html(result, dim=dim)
        self._conditions.value = conditions_html(result.conditions, note=note, dim=dim)
        self._formulas.value = formulas_tex(result.conditions)
        own = view.note(result)
        own = f"{escape(own, quote=False)}<br>" if own else ""
        self._note.value = f"{own}Program: {escape(result.description, quote=False)}."

    def dim(self, dimmed: bool) -> None:
        """Dims the figure, or ends that."""
        (self._frame.add_class if dimmed else self._frame.remove_class)("mrviz-dim")

    def close(self) -> None:
        """Stops listening and closes the widgets, those of the views included."""
        self.selector.unobserve_all()
        for view in self._views.values():
            view.close()
            for control in view.controls:
                close_tree(control)
        close_tree(self.widget)


def _toolbar(
    exports: w.Widget,
    on_pin: Callable[[], None],
    presets: Iterable[str],
    on_preset: Callable[[str], None],
) -> w.Widget:
    """Presets, Pin and the export buttons."""
    pin = w.Button(description="Pin", tooltip="Keep this spectrum to compare others with it")
    pin.layout.width = "70px"
    pin.on_click(lambda _: on_pin())
    preset = w.Dropdown(
        options=[("Presets…", ""), *((name, name) for name in presets)],
        tooltip="Ready-made comparisons",
    )
    preset.layout.width = "210px"

    def chosen(name: str) -> None:
        if name:
            preset.value = ""  # so that it can be chosen again
            on_preset(name)

    preset.observe(lambda change: chosen(change["new"]), "value")
    toolbar = w.HBox([preset, pin, exports])
    toolbar.add_class("mrviz-toolbar")
    return toolbar
