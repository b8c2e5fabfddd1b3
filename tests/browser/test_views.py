"""The Explorer's views in a real page: each draws what it should, after any other."""

import pytest

from tests.browser.conftest import open_notebook, plot_data, run_all, set_theme

pytestmark = pytest.mark.browser

READY = ".mrviz-status [data-status=ready]"
OPENED = (
    "import mrviz\n"
    "explorer = mrviz.explore(source='dnn', depth=2, width=32, input_size=16, target='digits',\n"
    "                         trained_on='digits', n=30, program='low_rank')\n"
    "explorer"
)
AXES = {  # titles by view, top to bottom or left to right
    "Spectrum": ["eigenvalue λ<sub>k</sub>", "residual<br>energy"],
    "Capacity": ["λ<sub>min</sub>", "effective<br>rank", "predicted<br>accuracy"],
    "Learning curve": ["loss", "accuracy"],
    "Gram and factors": [],
    "Source": ["eigenvalue λ<sub>k</sub>[K<sub>S</sub>]", "λ<sub>min</sub>[K<sub>S</sub>]"],
}


def choose(page, view):
    """Opens a view and waits until it draws what it should, and all work is done."""
    page.get_by_role("button", name=view, exact=True).click()
    page.wait_for_function(
        """titles => {
            const layout = document.querySelector('.js-plotly-plot').layout;
            const axes = Object.keys(layout).filter(key => key.startsWith('yaxis')).sort();
            const shown = axes.filter(key => layout[key].visible !== false)
                              .map(key => layout[key].title?.text).filter(text => text);
            return JSON.stringify(shown) === JSON.stringify(titles);
        }""",
        arg=AXES[view],
    )
    page.locator(READY).wait_for()


def measured(page):
    data = plot_data(page)["data"]
    return [trace for trace in data if trace["name"].startswith("measured")]


@pytest.fixture
def opened(lab, page):
    """A page with an Explorer on a small trained source, computed to the end."""
    lab.write_notebook("views.ipynb", OPENED)
    open_notebook(page, lab, "views.ipynb", size=(1280, 1250))
    run_all(page)
    page.locator(READY).wait_for()
    return page


def status(page, condition):
    return page.locator(f"tr[data-condition={condition}]").get_attribute("data-status")


def test_every_view_after_every_other(opened, screenshot, console_errors):
    first = plot_data(opened)["data"]
    for view in AXES:
        choose(opened, view)
        screenshot(opened, f"view-{view.split()[0].lower()}-1280-light")
    kinds = [trace["type"] for trace in plot_data(opened)["data"]]
    assert set(kinds) == {"scatter"}
    for view in ("Gram and factors", "Capacity", "Source", "Learning curve", "Spectrum"):
        choose(opened, view)
        types = {trace["type"] for trace in plot_data(opened)["data"]}
        assert ("heatmap" in types) == (view == "Gram and factors")
    again = plot_data(opened)["data"]
    assert [(t["name"], t["x"], t["y"]) for t in again] == [
        (t["name"], t["x"], t["y"]) for t in first
    ]
    assert console_errors == []


@pytest.mark.parametrize("view", ["learning", "gram"])
def test_an_explorer_may_open_with_any_view(lab, page, view):
    choices = "source='dnn', depth=2, width=32, input_size=16, target='digits', n=20"
    lab.write_notebook("first.ipynb", f"import mrviz\nmrviz.explore({choices}, view={view!r})")
    open_notebook(page, lab, "first.ipynb", size=(1280, 1250))
    run_all(page)
    page.locator(READY).wait_for()
    layout = plot_data(page)["layout"]
    titles = [(layout[axis].get("title") or {}).get("text") for axis in ("xaxis", "yaxis")]
    assert not any("eigenvalue" in title or "index" in title for title in titles if title)
    assert layout["yaxis"].get("type") != "log"  # as in the spectrum


def test_a_click_on_a_capacity_goes_there(opened, console_errors):
    choose(opened, "Capacity")
    rank = next(t for t in plot_data(opened)["data"] if t["name"] == "effective rank")
    place = opened.evaluate(
        """x => {
            const plot = document.querySelector('.js-plotly-plot');
            const k = plot.data.findIndex(trace => trace.name === 'effective rank');
            const trace = plot.data[k], full = plot._fullLayout;
            const i = Array.from(trace.x).indexOf(x), box = plot.getBoundingClientRect();
            return [box.left + full.xaxis._offset + full.xaxis.d2p(x),
                    box.top + full.yaxis2._offset + full.yaxis2.d2p(trace.y[i])];
        }""",
        arg=rank["x"][20],
    )
    opened.mouse.move(*place)
    opened.mouse.click(*place)
    opened.wait_for_function(
        "x => document.querySelector('.mrviz-control-capacity .widget-readout').innerText == x",
        arg=str(int(rank["x"][20])),
    )
    opened.locator(READY).wait_for()
    assert console_errors == []


def test_training_is_drawn_on_its_prediction(opened, screenshot, console_errors):
    choose(opened, "Learning curve")
    assert measured(opened) == [] or all(len(trace["x"]) == 0 for trace in measured(opened))
    before = status(opened, "T12")
    opened.get_by_role("button", name="Train", exact=True).click()
    opened.wait_for_function(
        """() => document.querySelector('.js-plotly-plot').data.some(
            trace => trace.name.startsWith('measured') && trace.x.length > 10)"""
    )
    opened.locator("tr[data-condition=T12]:not([data-status=undecided])").wait_for()
    opened.locator(READY).wait_for()
    assert before == "undecided" and len(measured(opened)) >= 2
    opened.wait_for_function(
        """() => document.querySelector('.js-plotly-plot').data.filter(
            trace => trace.name.startsWith('measured')).every(trace => trace.x.at(-1) === 100)"""
    )
    screenshot(opened, "view-trained-1280-light")
    assert console_errors == []


def test_views_in_the_dark_and_in_a_narrow_window(opened, screenshot, console_errors):
    set_theme(opened, "dark")
    opened.set_viewport_size({"width": 900, "height": 1400})
    for view in AXES:
        choose(opened, view)
        overflow = opened.evaluate(
            "() => { const e = document.querySelector('.mrviz');"
            " return e.scrollWidth - e.clientWidth }"
        )
        screenshot(opened, f"view-{view.split()[0].lower()}-900-dark")
        assert overflow <= 1, view
    assert console_errors == []


def test_the_views_are_reached_by_keyboard(opened):
    opened.get_by_role("button", name="Capacity", exact=True).focus()
    opened.keyboard.press("Enter")
    opened.locator(".mrviz-views .mod-active", has_text="Capacity").wait_for()
    opened.locator(READY).wait_for()


def test_program_and_mapping_are_drawn(opened, screenshot, console_errors):
    opened.get_by_role("button", name="Program", exact=True).click()
    opened.wait_for_function(
        "() => document.querySelector('.js-plotly-plot').data.length > 0 &&"
        " document.querySelector('.mrviz-note').innerText.includes('Sample 1 of 30')"
    )
    opened.locator(READY).wait_for()
    screenshot(opened, "view-program-1280-light")
    opened.get_by_role("button", name="Mapping", exact=True).click()
    opened.wait_for_function(
        "() => document.querySelector('.js-plotly-plot').data.some(t => t.type === 'heatmap')"
        " && !document.querySelector('.mrviz-note').innerText.includes('Sample')"
    )
    opened.locator(".mrviz-view-controls select").select_option(label="random")
    opened.locator(".mrviz-note", has_text="changes the kernel by").wait_for()
    opened.locator(READY).wait_for()
    screenshot(opened, "view-mapping-1280-light")
    set_theme(opened, "dark")
    opened.set_viewport_size({"width": 900, "height": 1400})
    opened.wait_for_timeout(500)
    screenshot(opened, "view-mapping-900-dark")
    opened.get_by_role("button", name="Program", exact=True).click()
    opened.locator(".mrviz-note", has_text="Sample 1 of 30").wait_for()
    opened.wait_for_timeout(500)
    screenshot(opened, "view-program-900-dark")
    assert console_errors == []
