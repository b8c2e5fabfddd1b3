"""Runs the notebooks, stores their results and takes the pictures of the README.

Needs the ``test`` extra and Chromium. Run it as ``make notebooks``, or for some of them alone as
``python tools/render.py 04 05``, by the start of their names.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import plotly.graph_objects as go
from nbclient import NotebookClient
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.conftest import (  # noqa: E402
    find_chromium,
    jupyterlab,
    open_notebook,
    run_all,
)

WIDGET = "application/vnd.jupyter.widget-view+json"
FIGURE = "application/vnd.plotly.v1+json"
FIGURE_WIDTH = 900
EXPLORER = "01-explorer"
PICTURES = ROOT / "docs" / "images"
SHOW = """type => {
  const {content} = window.jupyterapp.shell.currentWidget;
  content.scrollToItem(content.model.toJSON().cells.findIndex(
    cell => (cell.outputs || []).some(output => type in (output.data || {}))));
}"""
"""Brings the cell of a widget into view: JupyterLab builds what is shown only."""
NOTE = "The Explorer as it was when this notebook was stored: run the cell to make it live."


def picture_of_the_explorer(name: str) -> bytes:
    """Runs a notebook in JupyterLab and photographs the Explorer in it once it is ready."""
    with tempfile.TemporaryDirectory() as home, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        page = browser.new_page(device_scale_factor=1.5)
        page.set_default_timeout(300_000)
        with jupyterlab(ROOT, Path(home)) as lab:
            open_notebook(page, lab, name, size=(1280, 2700))
            run_all(page)
            page.evaluate(SHOW, WIDGET)
            page.locator(".mrviz-status [data-status=ready]").wait_for()
            page.mouse.move(0, 0)
            page.wait_for_timeout(500)
            picture = page.locator(".mrviz").first.screenshot()
        browser.close()
    return picture


def store(path: Path) -> bytes | None:
    """Executes a notebook from its paired script and writes it with its results.

    Returns:
        The picture of the Explorer, where the notebook shows it.
    """
    notebook = jupytext.read(path.with_suffix(".py"))
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
    }
    nbformat.write(notebook, path)
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": path.parent}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = any(WIDGET in output.get("data", {}) for cell in code for output in cell.outputs)
    picture = picture_of_the_explorer(path.name) if shown else None
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    for cell in code:
        cell.outputs = [_static(output, picture) for output in cell.outputs]
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, path)
    return picture


def _static(output: Any, picture: bytes | None) -> Any:
    """An output that shows without a kernel and on a page of any colour.

    A figure gets a picture on white beside it, a widget is replaced by its picture.
    """
    data = output.get("data", {})
    if FIGURE in data:
        figure = go.Figure(data[FIGURE]).update_layout(paper_bgcolor="white")
        png = figure.to_image("png", width=FIGURE_WIDTH, scale=1.5)
        data["image/png"] = base64.b64encode(png).decode()
    if WIDGET not in data or picture is None:
        return output
    data = {"image/png": base64.b64encode(picture).decode(), "text/plain": NOTE}
    return nbformat.v4.new_output(
        output.output_type,
        data=data,
        **({"execution_count": output.execution_count} if "execution_count" in output else {}),
    )


def refresh_readme() -> None:
    """Puts what ``mrviz spectrum`` prints into the README."""
    command = [sys.executable, "-m", "mrviz.cli", "spectrum"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition("<!-- spectrum -->\n")
    after = rest.partition("<!-- /spectrum -->")[2]
    block = f"```console\n$ mrviz spectrum\n{printed}```\n"
    text = f"{before}<!-- spectrum -->\n{block}<!-- /spectrum -->{after}"
    readme.write_text(text, encoding="utf-8")


def main(names: Sequence[str]) -> None:
    """Every notebook and the README, or the notebooks whose names start with one of ``names``."""
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype"
    os.environ.setdefault("BROWSER_PATH", find_chromium() or "")
    if not names:
        refresh_readme()
    folder = ROOT / "notebooks"
    for script in [*sorted(folder.glob("*.py")), *sorted((folder / "solutions").glob("*.py"))]:
        if names and not script.name.startswith(tuple(names)):
            continue
        print(f"running {script.relative_to(folder)}", flush=True)
        picture = store(script.with_suffix(".ipynb"))
        if script.stem == EXPLORER and picture is not None:
            PICTURES.mkdir(parents=True, exist_ok=True)
            (PICTURES / "explorer.png").write_bytes(picture)


if __name__ == "__main__":
    main(sys.argv[1:])
