"""The density figure: what is drawn is what was estimated, and what is left out is said."""

import numpy as np
import pytest
import torch

import mrviz
from mrviz.figures import density_figure
from mrviz.figures.theme import COLORS

VALUES = torch.tensor([100.0] * 6 + [1.0] * 3 + [0.0] * 3, dtype=torch.float64)


@pytest.fixture(scope="module")
def density():
    """Of a matrix that is diagonal in another basis, three of its eigenvalues below the floor."""
    q = torch.linalg.qr(
        torch.randn(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )[0]
    gram = (q * VALUES) @ q.T
    found = mrviz.spectral_density((gram + gram.T) / 2, probes=8, steps=6, seed=0, progress=False)
    return found


def named(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def test_the_curve_and_its_band_are_those_of_the_estimate(density):
    curve = density.density()
    figure = density_figure(curve)
    drawn, band = named(figure, "estimate"), named(figure, "two standard errors")
    assert drawn.y == pytest.approx(curve.density.numpy())
    high, low = np.split(np.asarray(band.y), 2)
    assert high == pytest.approx((curve.density + 2 * curve.error).numpy())
    assert (low[::-1] <= drawn.y).all() and (low >= 0).all()
    assert len(figure.data) == 2 and figure.layout.height == 400


def test_the_axis_begins_where_there_is_something(density):
    grid = torch.logspace(-6, 6, 500, dtype=torch.float64)
    figure = density_figure(density.density(grid))
    low, high = figure.layout.xaxis.range
    assert -1 < low < 0 and 2 < high < 3


def test_known_eigenvalues_are_bars_of_the_same_area():
    spec = mrviz.spectrum(torch.diag(VALUES), epsilon=1e-7)
    curve = mrviz.spectral_density(torch.diag(VALUES), progress=False).density()
    bars = named(density_figure(curve, spec), "eigenvalues of the matrix")
    assert sum(bars.customdata) == spec.rank == 9
    lower, upper = (np.log10(bars.x + sign * bars.width / 2).round(6) for sign in (-1, 1))
    counts = zip(lower, upper, bars.customdata, strict=True)
    assert [bar for bar in counts if bar[2]] == [(0.0, 0.25, 3), (1.75, 2.0, 6)]
    assert bars.y == pytest.approx(np.asarray(bars.customdata) / 0.25)


def test_how_many_are_left_out_is_said(density):
    curve = density.density()
    (note,) = density_figure(curve).layout.annotations
    assert note.text.startswith("not resolved: ")
    assert curve.unresolved.error > 0.05
    assert f"{curve.unresolved.value:.3g} ± {curve.unresolved.error:.2g}" in note.text
    full = mrviz.spectral_density(torch.diag(VALUES[:9]), progress=False).density()
    assert density_figure(full).layout.annotations[0].text == "not resolved: no eigenvalue"
    single = mrviz.spectral_density(torch.diag(VALUES), probes=1, progress=False).density()
    figure = density_figure(single)
    assert "±" not in figure.layout.annotations[0].text
    assert np.isfinite(named(figure, "two standard errors").y).all()


def test_both_themes(density):
    for theme, colors in COLORS.items():
        figure = density_figure(density.density(), theme=theme, height=300)
        assert figure.layout.font.color == colors.text and figure.layout.height == 300


def test_no_resolved_eigenvalue_gives_an_empty_figure():
    zero = torch.zeros(3, 3, dtype=torch.float64)
    curve = mrviz.spectral_density(zero, progress=False).density(torch.tensor([1.0, 10.0]))
    figure = density_figure(curve, mrviz.spectrum(zero))
    assert not any(named(figure, "eigenvalues of the matrix").y)
    assert np.isfinite(figure.layout.xaxis.range).all()
