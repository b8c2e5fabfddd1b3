"""The forecast figure: what is drawn of a window, in the units of the series."""

import numpy as np
import pytest
import torch

import mrviz
from mrviz import InputError
from mrviz.figures import forecast_figure
from mrviz.figures.theme import COLORS, PALETTE
from mrviz.programs import seasonal_naive
from mrviz.targets import forecast_target

SERIES = 100 + 7 * torch.arange(120.0) + 30 * (torch.arange(120.0) % 5)
TARGET = forecast_target(SERIES, context=30, horizon=4, season=5, name="bills")
NAIVE = seasonal_naive(TARGET, TARGET.x_test)
WORDS = ["context", "what came", "seasonal naive"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_figure_can_be_drawn(theme):
    figure = forecast_figure(
        TARGET, {"seasonal naive": NAIVE}, windows=(0, 3, 7), theme=theme, height=300
    )
    layout = figure.layout
    assert layout.height == 300 and layout.font.color == COLORS[theme].text
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert [trace.name for trace in figure.data] == WORDS * 3
    assert [trace.showlegend for trace in figure.data] == [True] * 3 + [False] * 6
    assert [a.text for a in layout.annotations] == [f"test window {k}" for k in (0, 3, 7)]
    assert layout.yaxis2.matches == layout.yaxis3.matches == "y"
    assert figure.data[5].line.color == figure.data[2].line.color == PALETTE[0]


def test_values_are_those_of_the_series_around_the_window():
    start = 96 + 3  # where the test part begins, and three steps more
    context, came, naive = forecast_figure(TARGET, {"naive": NAIVE}, windows=[3]).data
    assert context.x.tolist() == list(range(-7, 1))  # two horizons of the thirty values
    np.testing.assert_allclose(context.y, SERIES[start - 8 : start], rtol=1e-5)
    assert came.x.tolist() == [0, 1, 2, 3, 4]  # joined to the context
    np.testing.assert_allclose(came.y, SERIES[start - 1 : start + 4], rtol=1e-5)
    assert naive.x.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(naive.y, SERIES[start - 5 : start - 1], rtol=1e-5)


def test_of_a_context_a_season_is_drawn_at_least():
    target = forecast_target(SERIES, context=30, horizon=2, season=25)
    assert len(forecast_figure(target, {}).data[0].x) == 25
    short = forecast_target(SERIES, context=6, horizon=4, season=5)
    assert len(forecast_figure(short, {}).data[0].x) == 6


def test_a_band_lies_behind_its_forecast():
    bands = {"naive": (NAIVE - 0.1, (NAIVE + 0.2).numpy())}
    figure = forecast_figure(TARGET, {"zero": 0 * NAIVE, "naive": NAIVE}, bands=bands)
    *_, zero, band, naive = figure.data
    assert (zero.name, band.name, naive.name) == ("zero", "naive", "naive")
    assert band.fill == "toself" and not band.showlegend
    assert band.x.tolist() == [1, 2, 3, 4, 4, 3, 2, 1]
    np.testing.assert_allclose(band.y[:4], naive.y + 0.2 * TARGET.span)
    np.testing.assert_allclose(band.y[:3:-1], naive.y - 0.1 * TARGET.span)
    assert np.array_equal(zero.y, np.full(4, TARGET.offset))


def test_windows_of_other_splits_can_be_drawn():
    naive = seasonal_naive(TARGET, TARGET.x_train)
    figure = forecast_figure(TARGET, {"naive": naive}, split="train")
    np.testing.assert_allclose(figure.data[1].y[1:], SERIES[30:34], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"forecasts": {"naive": NAIVE[:2]}}, "'naive' must be"),
        ({"windows": (len(NAIVE),)}, "windows must be from 0"),
        ({"windows": ()}, "windows must be from 0"),
        ({"bands": {"other": (NAIVE, NAIVE)}}, "bands names other"),
        ({"bands": {"naive": (NAIVE, NAIVE[0])}}, "a band of naive"),
        ({"split": "all"}, "'train', 'val', 'test'"),
    ],
)
def test_what_does_not_fit_is_an_error(change, words):
    with pytest.raises(InputError, match=words):
        forecast_figure(TARGET, **({"forecasts": {"naive": NAIVE}} | change))
    plain = mrviz.Target(TARGET.x_train, TARGET.y_train, TARGET.x_test, TARGET.y_test)
    with pytest.raises(InputError, match="ForecastTarget"):
        forecast_figure(plain, {})
