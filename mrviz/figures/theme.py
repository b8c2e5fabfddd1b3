"""Colours and layout shared by all figures, for the light and the dark theme of JupyterLab."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Theme = Literal["light", "dark"]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, told apart with every common form of colour blindness."""


@dataclass(frozen=True)
class Colors:
    """Colours that depend on the theme."""

    text: str
    grid: str
    faint: str
    shade: str
    panel: str


COLORS: dict[Theme, Colors] = {
    "light": Colors(
        text="#24292f",
        grid="rgba(0,0,0,0.10)",
        faint="rgba(110,110,110,0.55)",
        shade="rgba(0,0,0,0.07)",
        panel="rgba(255,255,255,0.75)",
    ),
    "dark": Colors(
        text="#e6e6e6",
        grid="rgba(255,255,255,0.14)",
        faint="rgba(190,190,190,0.55)",
        shade="rgba(255,255,255,0.09)",
        panel="rgba(17,17,17,0.75)",
    ),
}

CONFIG = {"displaylogo": False, "showSendToCloud": False, "responsive": True}
"""Plotly's configuration for every figure: nothing leaves the page."""


def base_layout(theme: Theme, height: int) -> dict[str, Any]:
    """Layout that every figure starts from."""
    colors = COLORS[theme]
    return {
        "template": "plotly_dark" if theme == "dark" else "plotly_white",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": colors.text, "size": 12},
        "height": height,
        "autosize": True,
        "margin": {"l": 64, "r": 16, "t": 36, "b": 48},
        "hoverlabel": {"namelength": -1},
    }


def translucent(color: str, alpha: float) -> str:
    """A hex colour with an opacity, as plotly wants it."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
