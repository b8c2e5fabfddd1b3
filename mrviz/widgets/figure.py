"""A long-lived plotly figure in the page that takes on the look of any new figure."""

from __future__ import annotations

from copy import deepcopy
from threading import RLock
from typing import Any

import plotly.graph_objects as go

from mrviz.figures import CONFIG


class LiveFigure(go.FigureWidget):
    """A FigureWidget that can be redrawn from any thread and survives a page reload."""

    def __init__(self, figure: go.Figure) -> None:
        self._write_lock = RLock()
        super().__init__(figure)
        self._config = CONFIG

    def show_figure(self, figure: go.Figure) -> None:
        """Becomes ``figure``: one message where the number of traces stays, a few otherwise."""
        with self._write_lock:
            shown: tuple[Any, ...] = self.data  # type: ignore[has-type]
            if len(shown) > len(figure.data):
                self.data = shown = shown[: len(figure.data)]
            old = len(shown)
            with self.batch_update():
                for mine, new in zip(shown, figure.data[:old], strict=True):
                    mine.update(new.to_plotly_json(), overwrite=False)
                new_layout = figure.layout.to_plotly_json()
                for listed in ("shapes", "annotations"):
                    self.layout[listed] = new_layout.pop(listed, [])
                self.layout.update(new_layout)
            if len(figure.data) > old:
                self.add_traces(figure.data[old:])

    def get_state(self, *args: Any, **kwargs: Any) -> Any:
        """Widget state with today's data: plotly refreshes these traits on construction only."""
        if hasattr(self, "_layout_obj"):
            with self._write_lock:
                self._trait_values["_widget_data"] = deepcopy(self._data)
                self._trait_values["_widget_layout"] = deepcopy(self._layout_obj._props)
        return super().get_state(*args, **kwargs)
