"""``mrviz lab`` in an empty folder, and the harness the other browser tests stand on."""

import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mrviz.lab import NOTEBOOK
from tests.browser.conftest import (
    PANEL,
    Lab,
    Page,
    Screenshot,
    free_port,
    open_notebook,
    plot_data,
    run_all,
    server_options,
    serving,
    set_theme,
    wait_until_idle,
)

pytestmark = pytest.mark.browser

START = "import sys; from mrviz.lab import launch; launch(source=sys.argv[1], extra=sys.argv[2:])"

TOY = """
import ipywidgets, numpy, plotly.graph_objects as go
figure = go.FigureWidget(go.Scatter(y=numpy.array([3.0, 1.0, 2.0])))
figure.update_layout(template="plotly_white", height=300)
slider = ipywidgets.IntSlider(1, 1, 9, description="factor")
def follow(change):
    figure.data[0].y = change["new"] * numpy.array([3.0, 1.0, 2.0])
slider.observe(follow, "value")
ipywidgets.VBox([slider, figure])
"""


def start_mrviz_lab(folder: Path, source: Path, home: Path) -> AbstractContextManager[Lab]:
    """What a person gets who types ``mrviz lab`` in ``folder``."""
    port, token = free_port(), secrets.token_hex(16)
    command = [sys.executable, "-c", START, str(source), *server_options(port, token)]
    return serving(command, port, token, folder, home)


def dialogs(page: Page) -> list[str]:
    """Texts of everything that asks for attention: dialogs and notifications."""
    found = page.locator(".jp-Dialog, .jp-Notification-Toast, .Toastify__toast")
    return [text.strip() for text in found.all_inner_texts()]


@pytest.fixture
def source(tmp_path: Path, lab: Lab) -> Iterator[Path]:
    """A folder with one small explorer notebook."""
    lab.write_notebook("toy-source.ipynb", "40 + 2")
    folder = tmp_path / "shipped"
    folder.mkdir()
    (lab.notebooks / "toy-source.ipynb").rename(folder / NOTEBOOK)
    yield folder


def test_mrviz_lab_in_an_empty_folder(
    source: Path, tmp_path: Path, page: Page, console_errors: list[str]
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    with start_mrviz_lab(folder, source, tmp_path / "home") as lab:
        assert (folder / "notebooks" / NOTEBOOK).read_text() == (source / NOTEBOOK).read_text()
        assert f"Address: {lab.url}/lab/tree/notebooks/{NOTEBOOK}" in lab.log.read_text()
        page.goto(f"{lab.url}/?token={lab.token}")
        page.wait_for_function(f"() => window.jupyterapp && {PANEL}?.context?.path")
        wait_until_idle(page)
        assert page.evaluate(f"() => {PANEL}.context.path") == f"notebooks/{NOTEBOOK}"
        assert run_all(page)[0]["data"]["text/plain"] == "42"
        page.locator(".jp-OutputArea-output").get_by_text("42", exact=True).wait_for()
        page.wait_for_timeout(2000)  # the news prompt comes about a second after the start
        assert dialogs(page) == []
    assert console_errors == []


def test_a_second_start_keeps_a_changed_notebook(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "course"
    mine = folder / "notebooks" / NOTEBOOK
    mine.parent.mkdir(parents=True)
    changed = json.loads((source / NOTEBOOK).read_text())
    changed["cells"][0]["source"] = "my own notes"
    mine.write_text(json.dumps(changed))
    with start_mrviz_lab(folder, source, tmp_path / "home"):
        assert json.loads(mine.read_text()) == changed


def test_a_widget_drives_a_figure(lab: Lab, page: Page, screenshot: Screenshot) -> None:
    open_notebook(page, lab, lab.write_notebook("toy.ipynb", TOY), theme="dark", size=(900, 700))
    run_all(page)
    assert plot_data(page)["data"][0]["y"] == [3, 1, 2]
    page.locator("[role=slider]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.js-plotly-plot').data[0].y[0] === 6")
    assert plot_data(page)["data"][0]["y"] == [6, 2, 4]
    assert plot_data(page)["layout"]["height"] == 300
    screenshot(page, "toy-dark")
    set_theme(page, "light")
    screenshot(page, "toy-light")


def test_a_failing_cell_fails_the_test_with_its_traceback(lab: Lab, page: Page) -> None:
    open_notebook(page, lab, lab.write_notebook("fails.ipynb", "1 / 0"))
    with pytest.raises(pytest.fail.Exception, match="ZeroDivisionError"):
        run_all(page)
