"""A figure that holds a sentence instead of data."""

from __future__ import annotations

import plotly.graph_objects as go

from mrviz.figures.theme import Theme, message_layout


def message_figure(message: str, *, theme: Theme = "light", height: int = 470) -> go.Figure:
    """A message in the middle of an empty figure.

    Args:
        message: what to say.
        theme: "light" or "dark".
        height: in pixels.
    """
    return go.Figure([], message_layout(theme, height, message))
