"""The Explorer in a real JupyterLab: first spectrum, keyboard, errors, Cancel, themes, export."""

import json

import pytest

from tests.browser.conftest import (
    open_notebook,
    plot_data,
    run_all,
    set_theme,
    show_cell,
    wait_until_idle,
)

pytestmark = pytest.mark.browser

READY = ".mrviz-status [data-status=ready]"
SMALL = (
    "import mrviz\n"
    "explorer = mrviz.explore(source='dnn', width=64, input_size=24, target='digits', n=40)\n"
    "explorer"
)
COUNT = "from ipywidgets.widgets import widget\nlen(widget._instances)"


def tiles(page):
    """The numbers above the figure, by their names."""
    found = page.locator(".mrviz-tile")
    texts = [found.nth(k).inner_text().split("\n") for k in range(found.count())]
    return {name: value for value, name in texts}


def statuses(page):
    rows = page.locator(".mrviz-conditions tr[data-condition]")
    pairs = rows.evaluate_all("rows => rows.map(r => [r.dataset.condition, r.dataset.status])")
    return dict(pairs)


def handle(page, name):
    return page.locator(f".mrviz-control-{name} .noUi-handle")


def type_number(page, name, value):
    """Types a number into the read-out of a slider."""
    readout = page.locator(f".mrviz-control-{name} .widget-readout")
    readout.fill(str(value))
    readout.press("Enter")


def choose(page, name, label):
    page.locator(f".mrviz-control-{name} select").select_option(label=label)


def wait_for_parameters(page, value):
    page.locator(".mrviz-tile", has_text="parameters p").filter(has_text=value).wait_for()


def wait_for_label(page, text):
    page.wait_for_function(
        "t => document.querySelector('.js-plotly-plot').data[0].name.includes(t)", arg=text
    )


def wait_for_status(page, condition, status):
    page.locator(f"tr[data-condition={condition}][data-status={status}]").wait_for()


@pytest.fixture
def small(lab, page):
    """A page with an Explorer on a small source, computed to the end."""
    lab.write_notebook("small.ipynb", SMALL)
    open_notebook(page, lab, "small.ipynb", size=(1280, 1200))
    run_all(page)
    page.locator(READY).wait_for()
    return page


def test_the_notebook_from_opening_to_dragging(lab, page, screenshot, console_errors):
    open_notebook(page, lab, "01-explorer.ipynb", size=(1280, 1300))
    run_all(page)
    show_cell(page, 1)
    page.locator(READY).wait_for()
    first = tiles(page)
    spectrum = plot_data(page)
    eigenvalues = spectrum["data"][0]["y"]
    assert spectrum["layout"]["yaxis"]["type"] == "log"
    assert eigenvalues == sorted(eigenvalues, reverse=True)
    assert first["rank (resolved)"] == f"{len(eigenvalues)} of 640"
    assert first["parameters p"] == "9,936"
    assert statuses(page)["T1"] == "holds"
    screenshot(page, "explorer-1280-light")

    handle(page, "capacity").press("Home")
    wait_for_parameters(page, "756")
    narrow = plot_data(page)["data"][0]["y"]
    assert narrow[0] < eigenvalues[0] and len(narrow) < len(eigenvalues)
    assert statuses(page)["T1"] == "holds"

    type_number(page, "n", 80)
    wait_for_status(page, "T1", "fails")
    wait_for_status(page, "T2", "fails")
    page.locator(READY).wait_for()
    assert "at least 44 of 800 eigenvalues are exactly zero" in page.content()
    handle(page, "capacity").press("End")
    wait_for_parameters(page, "9,936")
    wait_for_status(page, "T1", "holds")
    assert console_errors == []


def test_an_impossible_choice_says_what_to_do_and_can_be_mended(small, screenshot):
    before = plot_data(small)["data"][0]["y"]
    choose(small, "source", "VGG")
    wait_for_label(small, "VGG")  # its controls have arrived
    small.locator(READY).wait_for()
    type_number(small, "groups", 4)
    type_number(small, "input_size", 8)
    alert = small.locator(".mrviz-error[role=alert]")
    alert.wait_for()
    assert "input_size" in alert.inner_text()
    screenshot(small, "explorer-error")
    assert plot_data(small)["data"][0]["y"], "the last spectrum stays"
    type_number(small, "groups", 1)
    small.locator(READY).wait_for()
    assert small.locator(".mrviz-error").count() == 0
    assert plot_data(small)["data"][0]["y"] != before


def test_cancel_stops_and_compute_goes_on(lab, page, screenshot):
    lab.write_notebook("cancel.ipynb", "import mrviz\nexplorer = mrviz.explore(n=200)\nexplorer")
    open_notebook(page, lab, "cancel.ipynb")
    run_all(page)
    page.locator(".mrviz-status", has_text="source Jacobians").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.locator("[data-status=stale]").wait_for()
    assert "Cancelled" in page.locator(".mrviz-status").inner_text()
    screenshot(page, "explorer-cancelled")
    type_number(page, "n", 20)
    page.locator(READY).wait_for()
    assert tiles(page)["rank (resolved)"].endswith("of 200")
    assert page.get_by_role("button", name="Compute").is_disabled()


def test_pinned_spectra_stay_for_comparison(small, screenshot):
    small.get_by_role("button", name="Pin", exact=True).click()
    small.locator(".mrviz-pin").wait_for()
    pinned = plot_data(small)["data"][0]["y"]
    choose(small, "program", "linear")
    wait_for_parameters(small, "37,440")
    small.locator(READY).wait_for()
    small.wait_for_function("document.querySelector('.js-plotly-plot').data.length === 6")
    data = plot_data(small)["data"]
    assert data[3]["y"] == pinned and data[0]["y"] != pinned
    screenshot(small, "explorer-pinned")
    small.locator(".mrviz-pin input[type=checkbox]").uncheck()
    small.wait_for_function("document.querySelector('.js-plotly-plot').data[3].visible === false")
    small.get_by_role("button", name="Remove").click()
    small.wait_for_function("document.querySelector('.js-plotly-plot').data.length === 3")


def test_dark_theme_and_a_narrow_window(small, screenshot, console_errors):
    light = plot_data(small)["layout"]["font"]["color"]
    set_theme(small, "dark")
    small.wait_for_function(
        "c => document.querySelector('.js-plotly-plot').layout.font.color !== c", arg=light
    )
    screenshot(small, "explorer-1280-dark")
    small.set_viewport_size({"width": 900, "height": 1500})
    small.wait_for_function(
        """() => { const plot = document.querySelector('.js-plotly-plot .main-svg');
                   const view = document.querySelector('.mrviz-view');
                   return Math.abs(plot.clientWidth - view.clientWidth) < 40; }"""
    )
    overflow = small.evaluate(
        "() => { const e = document.querySelector('.mrviz'); return e.scrollWidth - e.clientWidth }"
    )
    screenshot(small, "explorer-900-dark")
    assert overflow <= 1
    set_theme(small, "light")
    small.wait_for_function(
        "c => document.querySelector('.js-plotly-plot').layout.font.color === c", arg=light
    )
    screenshot(small, "explorer-900-light")
    assert console_errors == []


def test_what_is_shown_can_be_copied_and_saved(small):
    small.context.grant_permissions(["clipboard-read", "clipboard-write"])
    small.get_by_role("button", name="Copy code").click()
    small.get_by_role("button", name="Copied").wait_for()
    code = small.evaluate("() => navigator.clipboard.readText()")
    assert "mrviz.load_source('dnn'" in code and "mrviz.transfer_conditions(" in code

    def saved(name):
        with small.expect_download() as download:
            small.get_by_role("button", name=name, exact=True).click()
        return download.value.path().read_text(encoding="utf-8")

    shown = plot_data(small)["data"][0]["y"]
    rows = saved("CSV").splitlines()
    assert rows[0] == "index,eigenvalue,resolved,residual_energy" and len(rows) == 401
    assert float(rows[1].split(",")[1]) == pytest.approx(shown[0])
    found = json.loads(saved("JSON"))["current"]
    assert found["spectrum"]["eigenvalues"][: len(shown)] == pytest.approx(shown)
    assert found["conditions"].keys() == {"n", *(f"T{k}" for k in range(1, 14))}
    page = saved("HTML")
    assert "Plotly.newPlot" in page and 'src="http' not in page


def test_the_figure_survives_a_reload_of_the_page(small):
    handle(small, "capacity").press("Home")
    wait_for_parameters(small, "92")
    shown = plot_data(small)["data"][0]["y"]
    small.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    small.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    small.reload()
    small.wait_for_function("() => window.jupyterapp?.shell?.currentWidget")
    wait_until_idle(small)
    wait_for_parameters(small, "92")
    assert plot_data(small)["data"][0]["y"] == shown
    assert tiles(small)["parameters p"] == "92"


def test_running_the_cell_again_replaces_the_explorer(lab, page):
    lab.write_notebook("again.ipynb", SMALL, COUNT)
    open_notebook(page, lab, "again.ipynb", size=(1280, 1200))
    first = run_all(page)[-1]["data"]["text/plain"]
    page.locator(READY).wait_for()
    second = run_all(page)[-1]["data"]["text/plain"]
    page.locator(READY).wait_for()
    assert int(second) == int(first) > 0
    handle(page, "capacity").press("Home")
    wait_for_parameters(page, "92")


def test_presets_compare_experiments(small, screenshot):
    small.locator(".mrviz-toolbar select").select_option(label="Does depth help?")
    small.wait_for_function("document.querySelectorAll('.mrviz-pin').length === 2")
    small.locator(READY).wait_for()
    assert statuses(small)["T8"] == "holds"
    screenshot(small, "explorer-preset")
