"""Takes the pictures of the gallery: views of the Explorer in Chromium, and a figure of the paper.

Needs the ``test`` extra and Chromium. Run it as ``make gallery``, or for some pictures alone as
``python tools/gallery.py capacity gram``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, TimeoutError, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mrviz import paper  # noqa: E402
from mrviz.figures.paper import paper_figures  # noqa: E402
from tests.browser.conftest import (  # noqa: E402
    Lab,
    find_chromium,
    jupyterlab,
    open_notebook,
    plot_data,
    run_all,
)

PICTURES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1240, 660
"""Of a picture, in pixels of the page: the Explorer without its table of conditions."""

TRAINED = {"source": "dnn", "trained_on": "mnist-5k", "target": "digits", "n": 60}
VIEWS: dict[str, tuple[str, dict[str, Any]]] = {
    "spectrum": ("Spectrum", {}),
    "capacity": ("Capacity", {"source": "dnn", "target": "digits"}),
    "learning": ("Learning curve", {**TRAINED, "program": "linear"}),
    "gram": ("Gram and factors", {**TRAINED, "program": "linear"}),
    "source": ("Source", TRAINED),
}
"""The button of each view, and what is chosen in the Explorer for its picture."""

CLAIM = 4
"""The question of docs/paper.md whose figure is shown."""

READY = ".mrviz-status [data-status=ready]"
DRAWN = "() => document.querySelector('.js-plotly-plot')?.data?.length > 0"

TRIES = 4
"""How often a page that did not draw its plot is opened anew."""


def take(page: Page, lab: Lab, button: str, choices: Mapping[str, Any]) -> bytes:
    """The Explorer with a view open, once everything is computed; its training is run too.

    Raises:
        TimeoutError: the page did not draw the plot, as may happen on a busy machine.
    """
    arguments = ", ".join(f"{name}={value!r}" for name, value in choices.items())
    name = lab.write_notebook("gallery.ipynb", f"import mrviz\nmrviz.explore({arguments})")
    open_notebook(page, lab, name, size=(WIDTH + 120, HEIGHT + 1200))
    run_all(page)
    page.locator(READY).wait_for()
    page.wait_for_function(DRAWN, timeout=30_000)
    page.get_by_role("button", name=button, exact=True).click()
    page.locator(READY).wait_for()
    plot_data(page)  # waits until it rests
    if button == "Learning curve":
        page.get_by_role("button", name="Train", exact=True).click()
        page.locator("tr[data-condition=T12]:not([data-status=undecided])").wait_for()
        page.locator(READY).wait_for()
    page.mouse.move(0, 0)
    plot_data(page)
    box = page.locator(".mrviz").first.bounding_box()
    assert box is not None
    return page.screenshot(clip={**box, "height": min(HEIGHT, box["height"])})


def main(names: Sequence[str]) -> None:
    """Every picture, or those that are named: views of the Explorer, or "paper"."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    views = {view: shown for view, shown in VIEWS.items() if not names or view in names}
    if views:
        with (
            tempfile.TemporaryDirectory() as root,
            tempfile.TemporaryDirectory() as home,
            sync_playwright() as driver,
            jupyterlab(Path(root), Path(home)) as lab,
        ):
            browser = driver.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
            for view, (button, choices) in views.items():
                for left in reversed(range(TRIES)):
                    page = browser.new_page(device_scale_factor=1.25)
                    page.set_default_timeout(300_000)
                    try:
                        picture = take(page, lab, button, choices)
                        break
                    except TimeoutError:
                        if not left:
                            raise
                    finally:
                        page.close()
                (PICTURES / f"view-{view}.png").write_bytes(picture)
                print(f"docs/images/view-{view}.png", flush=True)
            browser.close()
    if not names or "paper" in names:
        os.environ.setdefault("BROWSER_PATH", find_chromium() or "")
        figure = paper_figures(paper.load())[CLAIM].update_layout(paper_bgcolor="white")
        figure.write_image(PICTURES / "paper.png", width=WIDTH, scale=1)
        print("docs/images/paper.png")


if __name__ == "__main__":
    main(sys.argv[1:])
