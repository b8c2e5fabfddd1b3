"""What the Explorer shows, as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from mrviz.figures import CONFIG
from mrviz.widgets.views import View
from mrviz.workbench import Result


def exported(
    form: str, view: View, result: Result, pinned: Mapping[str, Result], figure: go.Figure
) -> tuple[str, str, str]:
    """File name, MIME type and text.

    Args:
        form: "CSV", "JSON" or "HTML".
        view: the open view.
        result: what is shown.
        pinned: results kept for comparison, by name.
        figure: as it is shown.
    """
    if form == "CSV":
        return f"{view.name}.csv", "text/csv", view.table(result)
    if form == "JSON":
        found = {
            "current": result.to_dict(),
            view.name: _plain(view.details(result)),
            "pinned": {name: pin.to_dict() for name, pin in pinned.items()},
        }
        if view.details(result) is result:
            del found[view.name]
        return f"{view.name}.json", "application/json", json.dumps(found, indent=1)
    page = figure.to_html(include_plotlyjs=True, config=CONFIG)
    return f"{view.name}.html", "text/html", page


def _plain(value: Any) -> Any:
    """Result objects and collections of them as plain values."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.to_dict() if hasattr(value, "to_dict") else value
