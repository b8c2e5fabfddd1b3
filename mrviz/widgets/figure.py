"""A long-lived plotly figure in the page that takes on the look of any new figure."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import takewhile
from threading import RLock
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mrviz.figures import CONFIG


class LiveFigure(go.FigureWidget):
    """A FigureWidget that can be redrawn from any thread and survives a page reload."""

    def __init__(self, figure: go.Figure, clicked: Callable[[float], None] | None = None) -> None:
        """Takes the first figure, and what to call with the x of a point that was clicked."""
        self._write_lock = RLock()
        self._clicked = clicked
        self._shown: dict[str, Any] = _parts(figure)
        super().__init__(figure)
        self._config = CONFIG
        self._drawn = False
        self.observe(self._was_drawn, "_js2py_traceDeltas")
        self._listen(0)

    def show_figure(self, figure: go.Figure) -> None:
        """Becomes ``figure``; sends what differs from the last one, in one message if it can."""
        new = _parts(figure)
        with self._write_lock:
            old, self._shown = self._shown, new
            shown: tuple[Any, ...] = self.data  # type: ignore[has-type]
            kinds = ([trace.get("type") for trace in part["data"]] for part in (old, new))
            kept = sum(
                1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*kinds, strict=False))
            )
            if len(new["data"]) > kept:  # before the layout, which names their axes
                self.add_traces(figure.data[kept:])
                self._listen(len(shown))
            layout = _changes(old["layout"], new["layout"])
            traces = [_changes(*p) for p in zip(old["data"][:kept], new["data"], strict=False)]
            differs = bool(layout) or any(traces) or {len(shown), len(new["data"])} != {kept}
            for axis in [key for key in layout if "axis" in key and key not in old["layout"]]:
                self.layout[axis] = layout.pop(axis)  # in a batch the page refuses a new axis
            with self.batch_update():
                for mine, changes in zip(shown, traces, strict=False):
                    mine.update(changes)
                for whole in ("shapes", "annotations", "template"):  # an update would mix them
                    if whole in layout:
                        self.layout[whole] = new["layout"].get(whole)
                        del layout[whole]
                self.layout.update(layout)
            if len(shown) > kept:  # after the layout, which may have named their axes
                self.data = (*shown[:kept], *self.data[len(shown) :])  # type: ignore[has-type]
            if differs and not self._drawn:  # a page that is still loading plotly hears no messages
                self._refresh()
                self.send_state(["_widget_data", "_widget_layout"])

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        """Widget state; the whole of it, asked for after a reload, with today's data.

        plotly refreshes these traits on construction and display only.
        """
        if key is None and hasattr(self, "_layout_obj"):
            with self._write_lock:
                self._drawn = False
                self._refresh()
        return super().get_state(key=key, drop_defaults=drop_defaults)

    def _refresh(self) -> None:
        """Today's data in the traits from which a page makes the plot."""
        self._trait_values["_widget_data"] = deepcopy(self._data)
        self._trait_values["_widget_layout"] = deepcopy(self._layout_obj._props)

    def _was_drawn(self, change: dict[str, Any]) -> None:
        """The page has made the plot: from now on it hears what changes."""
        self._drawn = self._drawn or change["new"] is not None

    def _listen(self, start: int) -> None:
        """Hears clicks on traces from number ``start`` on."""
        if self._clicked is None:
            return
        for trace in self.data[start:]:
            if trace.type == "scatter":
                trace.on_click(self._point_clicked)

    def _point_clicked(self, _: Any, points: Any, __: Any) -> None:
        if points.xs and self._clicked is not None:
            self._clicked(float(points.xs[0]))


def _parts(figure: go.Figure) -> dict[str, Any]:
    """Traces and layout as dicts that keep arrays as arrays."""
    return {
        "data": [trace.to_plotly_json() for trace in figure.data],
        "layout": figure.layout.to_plotly_json(),
    }


def _changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The part of a nested dict that differs from another; ``None`` for what is gone.

    A dict that is gone becomes ``None`` leaf by leaf, as one message to the page must not set
    an attribute in one trace and its parent in another.
    """
    result: dict[str, Any] = {key: _nothing(old[key]) for key in old.keys() - new.keys()}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if nested := _changes(before, value):
                result[key] = nested
        elif not _same(before, value):
            result[key] = value
    return result


def _nothing(value: Any) -> Any:
    return {key: _nothing(v) for key, v in value.items()} if isinstance(value, dict) else None


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        gaps = a.dtype.kind == b.dtype.kind == "f"  # NaN, where a line is interrupted
        return np.array_equal(a, b, equal_nan=gaps)
    return bool(a == b)
