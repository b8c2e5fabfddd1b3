"""The spectrum figure: what is resolved, what is not, and what is said about it."""

import re

import numpy as np
import pytest
import torch

import mrviz
from mrviz.figures import PALETTE, Curve, spectrum_figure
from mrviz.figures.theme import COLORS


def made(values, name="now", energy=True, **options):
    spec = mrviz.spectrum(torch.diag(torch.tensor(values, dtype=torch.float64)), epsilon=1e-7)
    shares = np.full(len(values), 1 / len(values)) if energy else None
    return Curve(name, spec, shares, **options)


FULL = made([8.0, 4.0, 2.0, 1.0])
DEFICIENT = made([8.0, 4.0, 1e-9, 0.0, -1e-12], "deficient")
ZERO = made([0.0, 0.0, 0.0], "zero")
SINGLE = made([3.0], "single")
LONG = made([float(k) for k in range(200, 0, -1)] + [0.0] * 160, "long")
EVERY = {
    "full": [FULL],
    "deficient": [DEFICIENT],
    "zero": [ZERO],
    "single": [SINGLE],
    "long": [LONG],
    "several": [FULL, DEFICIENT, ZERO, SINGLE],
    "no energy": [made([2.0, 1.0], energy=False)],
    "hidden": [made([2.0, 1.0], visible=False)],
    "none": [],
}


def texts(figure):
    """All texts of a figure outside its template."""
    found = [trace.name for trace in figure.data]
    found += [trace.hovertemplate for trace in figure.data]
    found += [a.text for a in figure.layout.annotations]
    layout = figure.layout
    return found + [axis.title.text or "" for axis in (layout.xaxis, layout.yaxis, layout.yaxis2)]


def colors(value, key=""):
    if isinstance(value, dict):
        return [c for k, v in value.items() if k != "template" for c in colors(v, k)]
    if isinstance(value, list | tuple):
        return [c for v in value for c in colors(v, key)]
    return [value] if "color" in key and isinstance(value, str) else []


def test_resolved_and_unresolved_eigenvalues_never_share_a_trace():
    figure = spectrum_figure([DEFICIENT])
    resolved, unresolved, _ = figure.data
    assert list(resolved.x) == [1, 2] and list(resolved.y) == [8.0, 4.0]
    assert list(unresolved.x) == [3, 4, 5] and (unresolved.y <= DEFICIENT.spectrum.floor).all()
    assert (unresolved.y > 0).all()  # a log axis has no place for others
    assert "not resolved" in unresolved.name and "not resolved" in unresolved.hovertemplate


def test_the_noise_floor_is_shaded_where_it_is():
    figure = spectrum_figure([DEFICIENT])
    floor = DEFICIENT.spectrum.floor
    shaded, line = [s for s in figure.layout.shapes if s.yref == "y"]
    assert (shaded.type, shaded.y1, line.type, line.y0, line.y1) == (
        "rect",
        floor,
        "line",
        floor,
        floor,
    )
    assert shaded.y0 < figure.data[1].y.min()
    assert any("noise floor" in t for t in texts(figure))


def test_the_smallest_eigenvalue_is_named_only_where_it_is_resolved():
    (named,) = [t for t in texts(spectrum_figure([FULL])) if "min</sub>" in t]
    assert named.endswith("= 1")
    for curve in (DEFICIENT, ZERO):
        assert not [t for t in texts(spectrum_figure([curve, FULL])) if "min</sub>" in t]


def test_effective_rank_is_marked():
    figure = spectrum_figure([FULL, DEFICIENT])
    (mark,) = [s for s in figure.layout.shapes if s.xref == "x"]
    assert mark.x0 == mark.x1 == FULL.spectrum.effective_rank
    assert f"effective rank {FULL.spectrum.effective_rank:.1f}" in texts(figure)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_figure_can_be_drawn(name, theme):
    curves = EVERY[name]
    figure = spectrum_figure(curves, theme=theme)
    assert len(figure.data) == sum(2 + (c.energy is not None) for c in curves)
    assert not [t for t in texts(figure) if "$" in t]
    layout = figure.layout
    for axis in (layout.xaxis, layout.yaxis, layout.yaxis2):
        assert np.isfinite(axis.range).all() and axis.range[0] < axis.range[1]
    for trace in figure.data:
        if trace.yaxis is None:
            assert (np.asarray(trace.y) > 0).all() and np.isfinite(trace.y).all()
    assert layout.font.color == COLORS[theme].text
    valid = re.compile(r"#[0-9A-Fa-f]{6}$|rgba?\([\d., ]+\)$")
    assert [c for c in colors(figure.to_plotly_json()) if not valid.match(c)] == []


@pytest.mark.parametrize("name", ["full", "deficient", "single", "several"])
def test_the_resolved_eigenvalues_are_inside_the_axes(name):
    figure = spectrum_figure(EVERY[name])
    low, high = figure.layout.yaxis.range
    left, right = figure.layout.xaxis.range
    for trace in figure.data:
        if trace.yaxis is None and "not resolved" not in trace.name:
            assert (np.log10(trace.y) >= low).all() and (np.log10(trace.y) <= high).all()
            assert (trace.x >= left).all() and (trace.x <= right).all()


def test_themes_differ_and_have_a_transparent_background():
    light, dark = (spectrum_figure([FULL], theme=theme) for theme in ("light", "dark"))
    assert light.layout.font.color != dark.layout.font.color
    for figure in (light, dark):
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"


def test_long_curves_are_lines_and_short_ones_have_markers():
    long, unresolved, _ = spectrum_figure([LONG]).data
    assert (long.mode, unresolved.mode) == ("lines", "lines")
    short, unresolved, _ = spectrum_figure([DEFICIENT]).data
    assert "markers" in short.mode and "markers" in unresolved.mode


def test_pins_keep_their_place_and_colour_when_one_is_hidden():
    hidden = made([5.0, 1.0], "hidden", visible=False)
    figure = spectrum_figure([FULL, hidden, SINGLE])
    first = {trace.name: trace for trace in figure.data}
    assert [t.visible for t in figure.data[3:6]] == [False] * 3
    assert all(t.visible for t in (*figure.data[:3], *figure.data[6:]))
    assert [first[n].line.color for n in ("now", "hidden", "single")] == list(PALETTE[:3])
    assert spectrum_figure([SINGLE, made([1.0] * 50, visible=False)]).layout.xaxis.range[1] < 5


def test_energy_is_drawn_as_stems_and_can_be_missing():
    curve = Curve("now", FULL.spectrum, np.array([0.5, 0.3, 0.2, 0.0]))
    (stems,) = [t for t in spectrum_figure([curve]).data if t.yaxis == "y2"]
    assert list(stems.x) == [k for k in range(1, 5) for _ in range(3)]
    assert list(stems.y[1::3][:3]) == [0.5, 0.3, 0.2] and (stems.y[1::3] > 0).all()
    assert np.isnan(stems.y[2::3]).all()
    without = spectrum_figure([made([2.0, 1.0], energy=False)])
    assert without.layout.yaxis2.visible is False and without.layout.xaxis.anchor == "y"
    assert without.layout.yaxis.domain == (0, 1)  # and its room is not


def test_ticks_of_many_decades_do_not_overlap():
    spec = mrviz.spectrum(torch.tensor([[1e4, 0.0], [0.0, 0.0]], dtype=torch.float64))
    for height, most in ((300, 8), (470, 12), (900, 23)):
        for curve in (FULL, Curve("double", spec)):
            axis = spectrum_figure([curve], height=height).layout.yaxis
            assert (axis.range[1] - axis.range[0]) / axis.dtick <= most
    assert spectrum_figure([FULL]).layout.yaxis.dtick == 1


def test_arrays_are_of_types_that_travel_as_bytes():
    figure = spectrum_figure([FULL, DEFICIENT])
    for trace in figure.data:
        assert trace.x.dtype == np.int32 and trace.y.dtype in (np.float32, np.float64)
