"""How long does a user of the Explorer wait? Measured in a real JupyterLab with Chromium.

Starts with empty caches and the default choices (EfficientNet-Lite0 at 64 pixels, MNIST, border
prompt, 64 samples) and prints: from running the cell (import included) to the first spectrum
and to the exact one; from a key press on the capacity slider to the redrawn figure; and from
other changes to something new on the screen. Needs the ``test`` extra and Chromium.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.conftest import (  # noqa: E402
    PANEL,
    find_chromium,
    jupyterlab,
    open_notebook,
)

READY = ".mrviz-status [data-status=ready]"
REDRAW = """async key => {
  const plot = document.querySelector('.js-plotly-plot');
  const handle = document.querySelector('.mrviz-control-capacity .noUi-handle');
  const started = performance.now();
  const drawn = new Promise(done => plot.once('plotly_afterplot', done));
  handle.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
  await drawn;
  return performance.now() - started;
}"""
CHANGED = """before => document.querySelector('.mrviz-tiles:not(.mrviz-dim)')
  && document.querySelector('.mrviz-tiles').innerText !== before"""


def first_spectrum(page: Any) -> dict[str, float]:
    """Seconds from running the cell to the sketch and to the exact result."""
    started = time.perf_counter()
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.locator(".mrviz-tiles").wait_for()
    sketch = time.perf_counter() - started
    page.wait_for_function("document.querySelector('.mrviz-tile b').innerText.endsWith('of 640')")
    exact = time.perf_counter() - started
    page.locator(READY).wait_for()
    return {"first spectrum": sketch, "exact spectrum": exact}


def capacity_changes(page: Any, presses: int = 24) -> dict[str, float]:
    """Seconds from a key press to the redrawn figure, all capacities in the cache."""
    times = []
    for k in range(presses):
        key = "ArrowLeft" if k < presses // 2 else "ArrowRight"
        times.append(page.evaluate(REDRAW, key) / 1000)
        page.wait_for_timeout(300)
    return {
        "capacity change, median": statistics.median(times),
        "capacity change, slowest": max(times),
    }


def other_changes(page: Any) -> dict[str, float]:
    """Seconds from a choice in a dropdown to new numbers above the figure."""
    times = {}
    for name, label in (
        ("program", "overlay"),
        ("program", "linear"),
        ("mapping", "identity (first C)"),
        ("reduce", "trace: mean over classes"),
        ("target", "Digits (8 × 8)"),
        ("source", "CNN"),
        ("source", "EfficientNet-Lite1"),
    ):
        before = page.locator(".mrviz-tiles").inner_text()
        started = time.perf_counter()
        page.locator(f".mrviz-control-{name} select").select_option(label=label)
        page.wait_for_function(CHANGED, arg=before)
        times[f"{name}: {label}"] = time.perf_counter() - started
        page.locator(READY).wait_for()
    return times


def main() -> None:
    """Runs all three and prints a table and JSON."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        os.environ["MRVIZ_CACHE_DIR"] = f"{folder}/cache"
        root = Path(folder) / "root"
        root.mkdir()
        browser = driver.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        with jupyterlab(root, Path(folder) / "home") as lab:
            lab.write_notebook("explorer.ipynb", "import mrviz\n\nmrviz.explore()")
            open_notebook(page, lab, "explorer.ipynb", size=(1280, 1300))
            page.evaluate(f"() => {PANEL}.activate()")
            found = first_spectrum(page) | capacity_changes(page) | other_changes(page)
        browser.close()
    for name, seconds in found.items():
        print(f"{name:40}{seconds:8.3f} s")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
