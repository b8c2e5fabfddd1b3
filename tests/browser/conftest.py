"""A real JupyterLab and a real Chromium, without any outside request.

Tests take the fixtures ``lab``, ``page``, ``screenshot`` and ``console_errors`` and import the
helpers: ``from tests.browser.conftest import open_notebook, plot_data, run_all``.
"""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from mrviz.lab import jupyter_arguments, jupyter_environment

pytest.importorskip("jupyterlab")
playwright = pytest.importorskip("playwright.sync_api")
Page = playwright.Page

ROOT = Path(__file__).parents[2]
TIMEOUT = 90.0  # seconds; a busy machine with two cores starts a kernel in 5
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOCAL_HOSTS = {"127.0.0.1", "localhost", "::1"}
HARMLESS = re.compile(r"favicon|ResizeObserver|net::ERR_ABORTED")


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab; ``root`` holds ``notebooks/``, where a test may write its own."""

    url: str
    token: str
    root: Path
    log: Path

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    def write_notebook(self, name: str, *cells: str) -> str:
        """Writes a notebook of code cells into ``notebooks`` and returns its name."""
        code = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {"kernelspec": kernel},
            "cells": [{**code, "id": f"cell-{i}", "source": s} for i, s in enumerate(cells)],
        }
        (self.notebooks / name).write_text(json.dumps(notebook), encoding="utf-8")
        return name


# --- starting things ------------------------------------------------------------------------


def find_chromium() -> str | None:
    """Path of Chromium or Chrome; the variable MRVIZ_CHROMIUM wins."""
    names = (os.environ.get("MRVIZ_CHROMIUM"), *CHROMIUM)
    return next((path for name in names if name and (path := shutil.which(name))), None)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def clean_environment(folder: Path) -> dict[str, str]:
    """This environment with Jupyter's and IPython's folders in ``folder``, and this checkout."""
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    own = {place: str(folder / place.lower()) for place in places}
    kept = {name: value for name, value in os.environ.items() if name not in jupyter_environment()}
    return {**kept, **own, "PYTHONPATH": str(ROOT)}


@contextmanager
def serving(command: list[str], port: int, token: str, root: Path, home: Path) -> Iterator[Lab]:
    """Runs ``command``, which starts JupyterLab on ``port``, until the block ends.

    Args:
        command: the program to run, in ``root``.
        port: where it will listen.
        token: its access token.
        root: folder it serves.
        home: empty folder for its settings and its log.
    """
    home.mkdir(parents=True, exist_ok=True)
    lab = Lab(f"http://127.0.0.1:{port}", token, root, home / "lab.log")
    with lab.log.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=root,
            env=clean_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_for_server(process, lab)
            yield lab
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_server(process: subprocess.Popen[bytes], lab: Lab) -> None:
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{lab.url}/api", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{lab.log.read_text(errors='replace')[-4000:]}")


@contextmanager
def jupyterlab(root: Path, home: Path) -> Iterator[Lab]:
    """JupyterLab with the settings of ``mrviz lab`` on ``root``, until the block ends."""
    (root / "notebooks").mkdir(exist_ok=True)
    port, token = free_port(), secrets.token_hex(16)
    arguments = jupyter_arguments(root / "notebooks" / "none", server_options(port, token))
    variables = [f"{name}={value}" for name, value in jupyter_environment().items()]
    command = ["env", *variables, sys.executable, "-m", "jupyterlab", *arguments]
    with serving(command, port, token, root, home) as running:
        yield running


def server_options(port: int, token: str) -> list[str]:
    """What a test needs beyond the settings of ``mrviz lab``."""
    return [
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        "--LabApp.expose_app_in_browser=True",
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests that fail are run once more: a busy machine may hold up a page anywhere.

    The summary at the end of the run names those that needed it.
    """
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.flaky(reruns=1))


# --- fixtures -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[Lab]:
    """JupyterLab on a copy of the repository's notebooks, with the settings of ``mrviz lab``."""
    root = tmp_path_factory.mktemp("lab")
    if (ROOT / "notebooks").is_dir():
        hidden = shutil.ignore_patterns(".*")
        shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=hidden)
    with jupyterlab(root, tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh_kernels(lab: Lab) -> Iterator[None]:
    """Shuts all kernels down after a test, so that none meets the widgets of another."""
    yield
    headers = {"Authorization": f"token {lab.token}"}

    def ask(path: str, method: str) -> Any:
        request = urllib.request.Request(f"{lab.url}/api/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    for session in ask("sessions", "GET"):
        ask(f"sessions/{session['id']}", "DELETE")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    path = find_chromium()
    if path is None:
        reason = "no Chromium found: install chromium, or set MRVIZ_CHROMIUM to its path"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def console_errors() -> list[str]:
    """Errors the page logged or threw, in order."""
    return []


@pytest.fixture
def page(browser: Any, console_errors: list[str]) -> Iterator[Page]:
    """A fresh browser page; the test fails when it asked for anything from outside."""
    outside: list[str] = []

    def guard(route: Any) -> None:
        address = urlsplit(route.request.url)
        if address.scheme in ("http", "https", "ws", "wss") and address.hostname not in LOCAL_HOSTS:
            outside.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    def note(message: Any) -> None:
        if message.type == "error" and not HARMLESS.search(message.text):
            console_errors.append(message.text)

    context = browser.new_context(service_workers="block", accept_downloads=True)
    context.route("**/*", guard)
    context.set_default_timeout(TIMEOUT * 1000)
    fresh = context.new_page()
    fresh.on("console", note)
    fresh.on("pageerror", lambda error: console_errors.append(str(error)))
    yield fresh
    context.close()
    assert not outside, f"the page asked for addresses outside this machine: {sorted(set(outside))}"


Screenshot = Callable[[Page, str], Path]


# --- helpers --------------------------------------------------------------------------------

PANEL = "window.jupyterapp.shell.currentWidget"


def open_notebook(
    page: Page,
    lab: Lab,
    name: str,
    *,
    theme: str = "light",
    size: tuple[int, int] = (1280, 900),
) -> None:
    """Opens ``notebooks/name`` in a clean workspace and waits until its kernel is idle.

    Args:
        page: the browser page.
        lab: the running JupyterLab.
        name: file name of the notebook.
        theme: "light" or "dark".
        size: size of the window in pixels.
    """
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(f"{lab.url}/lab/tree/notebooks/{quote(name)}?token={lab.token}&reset")
    page.wait_for_function(
        f"() => window.jupyterapp && {PANEL}?.context?.path?.endsWith({json.dumps(name)})"
    )
    wait_until_idle(page)
    set_theme(page, theme)
    if page.locator("#jp-left-stack").is_visible():
        page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
        page.locator("#jp-left-stack").wait_for(state="hidden")


def set_theme(page: Page, theme: str) -> None:
    """Switches JupyterLab's theme to "light" or "dark"."""
    name = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}[theme]
    if page.evaluate("() => document.body.dataset.jpThemeName") != name:
        page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name
        )
        page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)
    page.locator("#jupyterlab-splash").wait_for(state="detached")


def wait_until_idle(page: Page) -> None:
    """Waits until the kernel of the open notebook has nothing left to do."""
    page.wait_for_function(
        f"""() => {PANEL}?.sessionContext?.isReady
            && {PANEL}.sessionContext.session?.kernel?.status === 'idle'
            && document.querySelector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')"""
    )


def run_all(page: Page) -> list[Any]:
    """Runs every cell of the open notebook; fails with the traceback of a cell that fails.

    Returns:
        The outputs of all cells in order, as the notebook would store them.
    """
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    wait_until_idle(page)
    cells = page.evaluate(f"() => {PANEL}.content.model.toJSON().cells")
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    for output in outputs:
        if output["output_type"] == "error":
            trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output["traceback"]))
            pytest.fail(f"a cell failed: {output['ename']}: {output['evalue']}\n{trace}")
    return outputs


def show_cell(page: Page, index: int) -> None:
    """Scrolls to a cell of the open notebook: JupyterLab builds what is in view only."""
    page.evaluate(f"index => {PANEL}.content.scrollToItem(index)", index)


_PLAIN = """([selector, index]) => {
  const types = {i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array,
                 i4: Int32Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array};
  const decode = ({dtype, bdata, shape}) => {
    if (typeof bdata === 'string') bdata = Uint8Array.from(atob(bdata), c => c.charCodeAt(0));
    const bytes = ArrayBuffer.isView(bdata)
      ? bdata.buffer.slice(bdata.byteOffset, bdata.byteOffset + bdata.byteLength) : bdata;
    const flat = Array.from(new types[dtype.replace(/^[<|=]/, '')](bytes));
    const sizes = shape === undefined ? [] : String(shape).split(',').map(Number);
    return sizes.slice(1).reduceRight((list, size) => Array.from(
      {length: list.length / size}, (_, i) => list.slice(i * size, (i + 1) * size)), flat);
  };
  const plain = v => {
    if (ArrayBuffer.isView(v)) return Array.from(v);
    if (Array.isArray(v)) return v.map(plain);
    if (v === null || typeof v !== 'object') return typeof v === 'function' ? null : v;
    if (v.bdata !== undefined) return decode(v);
    return Object.fromEntries(Object.entries(v).filter(([k]) => !k.startsWith('_'))
      .map(([k, x]) => [k, plain(x)]));
  };
  const plot = document.querySelectorAll(selector)[index];
  return {data: plain(plot.data), layout: plain(plot.layout)};
}"""


def plot_data(page: Page, index: int = 0, selector: str = ".js-plotly-plot") -> dict[str, Any]:
    """``data`` and ``layout`` of a plot on the page once it rests, all arrays as plain lists."""
    page.locator(selector).nth(index).wait_for(state="attached")
    found: dict[str, Any] = page.evaluate(_PLAIN, [selector, index])
    for _ in range(50):
        page.wait_for_timeout(200)
        before, found = found, page.evaluate(_PLAIN, [selector, index])
        if found == before:
            return found
    pytest.fail("the plot was still changing after 10 seconds")


@pytest.fixture
def screenshot(tmp_path: Path) -> Screenshot:
    """Saves what the page shows as NAME.png, in $MRVIZ_SCREENSHOTS if set."""

    def save(page: Page, name: str) -> Path:
        folder = Path(os.environ.get("MRVIZ_SCREENSHOTS") or tmp_path)
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png")
        return folder / f"{name}.png"

    return save
