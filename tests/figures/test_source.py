"""The source figure: both kinds of K_S, what is not resolved, and the curve over depth."""

import numpy as np
import pytest
import torch

import mrviz
from mrviz.figures import source_figure
from mrviz.figures.theme import COLORS
from mrviz.theory import DepthPoint, KernelSpectra, KernelStrength, SourceReport, SourceStrength


def kernel(kind, *draws):
    spectra = tuple(
        mrviz.spectrum(torch.diag(torch.tensor(values, dtype=torch.float64)), eigenvectors=False)
        for values in draws
    )
    return KernelSpectra(kind, spectra)


def point(depth, **means):
    """λ_min of each kind; a negative value stands for a floor that hides it."""
    strengths = [
        KernelStrength(
            kind=kind.replace("_", "-"),
            smallest=(0.9 * m, 1.1 * m) if m > 0 else (0.0, 0.0),
            floors=(1e-14, 1e-14) if m > 0 else (-m, -m),
            largest=(10.0, 10.0),
            order=20,
        )
        for kind, m in means.items()
    ]
    return DepthPoint("dnn", depth, tuple(strengths), 0.0)


STRENGTH = SourceStrength(0.913, (0.88, 0.94), 0.2, 200)


def report(*kernels, strength=STRENGTH):
    return SourceReport("a source", strength, kernels)


FULL = report(
    kernel("empirical", [9.0, 4.0, 2.0], [8.0, 3.0, 1.0]),
    kernel("infinite-width", [0.9, 0.4, 0.2], [0.8, 0.3, 0.1]),
)
DEFICIENT = report(kernel("empirical", [9.0, 4.0, 0.0, -1e-17], [8.0, 0.0, 0.0, 0.0]))
ZERO = report(kernel("empirical", [0.0, 0.0]), strength=None)
POINTS = (
    point(2, empirical=4.0, infinite_width=0.05),
    point(1, empirical=-1e-13, infinite_width=-1e-13),
    point(3, empirical=9.0, infinite_width=0.2),
)
EVERY = {
    "both": {"report": FULL, "points": POINTS, "depth": 2},
    "spectrum": {"report": FULL},
    "deficient": {"report": DEFICIENT, "points": POINTS[:1], "depth": 5},
    "zero": {"report": ZERO},
    "points": {"points": POINTS, "depth": 3},
    "unresolved": {"points": POINTS[1:2]},
    "empty": {"message": "nothing to show"},
    "waiting": {"report": FULL, "message": "measuring"},
}


def named(figure, name, axis="x"):
    found = [t for t in figure.data if t.name == name and (t.xaxis or "x") == axis]
    assert len(found) == 1
    return found[0]


def texts(figure):
    layout = figure.layout
    titles = [layout[k].title.text or "" for k in layout if k[1:5] == "axis"]
    return [a.text for a in layout.annotations] + titles + [layout.title.text or ""]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", EVERY)
def test_every_figure_can_be_drawn(name, theme):
    figure = source_figure(**EVERY[name], theme=theme, height=410)
    layout = figure.layout
    assert layout.height == 410 and layout.font.color == COLORS[theme].text
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert not [t for t in texts(figure) if "$" in t]
    assert all(a.font.color == COLORS[theme].text for a in layout.annotations)
    for trace in figure.data:
        assert trace.type == "scatter" and trace.x.dtype in (np.float64, np.int32)
        y = trace.y[~np.isnan(trace.y)]
        assert trace.y.dtype == np.float64 and (y > 0).all() and np.isfinite(y).all()
        low, high = layout[(trace.yaxis or "y").replace("y", "yaxis")].range
        assert np.isfinite([low, high]).all() and low < high
        if "not resolved" not in trace.name or "markers" in trace.mode:
            assert (np.log10(y) >= low - 1e-9).all() and (np.log10(y) <= high + 1e-9).all()


def test_all_draws_are_in_one_path_with_gaps():
    figure = source_figure(FULL)
    trace = named(figure, "empirical")
    assert np.array_equal(trace.y, [9, 4, 2, np.nan, 8, 3, 1], equal_nan=True)
    assert np.array_equal(trace.x, [1, 2, 3, np.nan, 1, 2, 3], equal_nan=True)
    other = named(figure, "infinite-width")
    assert other.line.color != trace.line.color
    corner = next(t for t in texts(figure) if "λ<sub>min</sub> = " in t)
    assert "= 1.5 ± 0.7" in corner and "= 0.15 ± 0.07" in corner
    assert figure.layout.shapes == ()  # nothing lies below a floor


def test_what_is_not_resolved_is_faint_below_a_shaded_floor():
    figure = source_figure(DEFICIENT)
    hidden = named(figure, "empirical, not resolved")
    floor = max(s.floor for s in DEFICIENT.kernels[0].spectra)
    assert np.array_equal(named(figure, "empirical").y, [9, 4, np.nan, 8], equal_nan=True)
    assert (hidden.y[~np.isnan(hidden.y)] <= floor).all()
    assert "not resolved" in hidden.hovertemplate and hidden.line.color != "#0072B2"
    shaded, line = figure.layout.shapes
    assert (shaded.type, shaded.y1, line.y0, line.y1) == ("rect", floor, floor, floor)
    assert any("λ<sub>min</sub> not resolved" in t for t in texts(figure))
    assert any(t.startswith("noise floor") for t in texts(figure))


def test_the_depth_curve_has_mean_and_spread_in_order_of_depth():
    figure = source_figure(FULL, POINTS, depth=2)
    trace = named(figure, "empirical", "x2")
    assert trace.x.tolist() == [2, 3] and trace.y == pytest.approx([4.0, 9.0])
    strength = POINTS[0].of("empirical")
    assert trace.error_y.array[0] == pytest.approx(strength.spread)
    assert trace.line.color == named(figure, "empirical").line.color
    assert trace.legendgroup == named(figure, "empirical").legendgroup and not trace.showlegend
    (mark,) = figure.layout.shapes
    assert (mark.xref, mark.x0, mark.x1) == ("x2", 2, 2) and "this source" in texts(figure)


def test_an_unresolved_smallest_eigenvalue_is_an_open_marker_with_its_floor():
    figure = source_figure(None, POINTS)
    trace = named(figure, "infinite-width, not resolved")
    assert trace.x.tolist() == [1] and trace.mode == "markers"
    assert trace.marker.color == "rgba(0,0,0,0)" and trace.text == ("1e-13",)
    assert "not resolved: below the noise floor %{text}" in trace.hovertemplate
    near = named(
        source_figure(None, (point(1, empirical=-2.0), POINTS[0])), "empirical, not resolved"
    )
    assert near.y.tolist() == [2.0]  # the floor itself where the axis reaches it
    alone = named(source_figure(None, POINTS[1:2]), "empirical, not resolved")
    assert alone.y == pytest.approx([1e-13])


def test_error_bars_stay_positive_on_the_log_axis():
    wild = KernelStrength("empirical", (1e-6, 3.0), (1e-14, 1e-14), (9.0, 9.0), 20)
    trace = named(source_figure(None, [DepthPoint("dnn", 2, (wild,), 0.0)]), "empirical")
    assert trace.error_y.arrayminus[0] < trace.y[0] < trace.error_y.array[0]


def test_a_panel_alone_has_all_the_room():
    for options, axes in ((EVERY["spectrum"], ["xaxis"]), (EVERY["points"], ["xaxis"])):
        layout = source_figure(**options).layout
        assert [k for k in layout if k.startswith("xaxis")] == axes
        assert layout.xaxis.domain == (0, 1)
    both = source_figure(**EVERY["both"]).layout
    assert both.xaxis.domain[1] < both.xaxis2.domain[0]


def test_title_and_message():
    assert source_figure(FULL).layout.title.text == "a source: accuracy 91.3%"
    assert source_figure(ZERO).layout.title.text == "a source"
    figure = source_figure(
        message="There are no data of this source's own task, so pass some. " * 3
    )
    (message,) = figure.layout.annotations
    assert (message.x, message.y) == (0.5, 0.5) and message.text.count("<br>") == 2
    assert figure.data == () and figure.layout.xaxis.visible is False
