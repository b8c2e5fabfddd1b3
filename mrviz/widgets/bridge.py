"""The part that runs in the page: theme, clipboard and saving of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

HERE = Path(__file__).parent


class PageBridge(anywidget.AnyWidget):
    """Row of export buttons that also reports the page's theme.

    Attributes:
        theme: "light" or "dark", set by the page.
        code: text for the clipboard.
    """

    _esm = HERE / "bridge.js"
    _css = HERE / "explorer.css"
    theme = traitlets.Unicode("light").tag(sync=True)
    code = traitlets.Unicode("").tag(sync=True)

    def __init__(self, export: Callable[[str], tuple[str, str, str] | None], **kwargs: Any) -> None:
        """Takes the function from a format's name to (file name, MIME type, text)."""
        super().__init__(**kwargs)
        self._export = export
        self.on_msg(self._received)

    def _received(self, _: Any, content: dict[str, Any], __: Any) -> None:
        if content.get("type") != "export":
            return
        if (file := self._export(content["format"])) is not None:
            name, mime, text = file
            self.send({"type": "file", "name": name, "mime": mime, "text": text})
