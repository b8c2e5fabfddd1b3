import importlib.util
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mrviz.errors import InputError, MissingDataError
from mrviz.targets import (
    FORECASTS,
    TARGETS,
    ForecastTarget,
    forecast_target,
    load_forecast,
    load_target,
)
from mrviz.targets.forecast import load_series

needs_aeon = pytest.mark.skipif(
    not importlib.util.find_spec("aeon"), reason="aeon is not installed"
)


@given(
    length=st.integers(60, 200),
    context=st.integers(2, 10),
    horizon=st.integers(1, 8),
    n=st.integers(1, 50),
)
def test_windows_follow_each_other_and_parts_share_no_forecast(length, context, horizon, n):
    series = torch.arange(length, dtype=torch.float64)
    target = forecast_target(
        series, context=context, horizon=horizon, season=2, n_train=n, n_val=n, n_test=n
    )
    ends = [round(0.6 * length), round(0.8 * length), length]
    start = 0
    for (x, y), end in zip(
        (
            (target.x_train, target.y_train),
            (target.x_val, target.y_val),
            (target.x_test, target.y_test),
        ),
        ends,
        strict=True,
    ):
        x, y = ((v.double() * target.span + target.offset).round() for v in (x, y))
        assert len(x) <= n
        torch.testing.assert_close(y[:, 0] - x[:, 0, -1], torch.ones(len(x)).double())
        assert y.min() >= max(start, context) and y.max() < end
        start = end
    assert len(target.x_test) == min(n, length - ends[1] - horizon + 1)


def test_scale_and_naive_error_are_those_of_the_training_part():
    series = np.concatenate([np.tile([2.0, 4.0, 10.0], 20), [100.0] * 40])
    target = forecast_target(series, context=6, horizon=2, season=1)
    assert (target.offset, target.span) == (2, 8)
    steps = np.abs(np.diff(series[:60])).mean() / 8
    assert target.naive_error == pytest.approx(steps)
    assert float(target.y_test.max()) == pytest.approx(98 / 8)
    assert target.classes == ("t+1", "t+2") and not target.is_classification
    assert target.to_dict()["season"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"season": 20}, "season=20 is longer than context=10"),
        ({"horizon": 30}, "has no room"),
        ({"context": 70}, "the train part"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"series": np.ones(100)}, "are equal"),
        ({"series": [1.0, float("nan")] * 50}, "finite"),
    ],
)
def test_what_cannot_be_cut_is_an_error(options, message):
    given = {"series": np.arange(100.0), "context": 10, "horizon": 5, "season": 3} | options
    with pytest.raises(InputError, match=message):
        forecast_target(given.pop("series"), **given)


@needs_aeon
@pytest.mark.parametrize("name", sorted(FORECASTS))
def test_bundled_series_are_described_and_cut(name):
    series, spec = load_series(name), FORECASTS[name]
    assert len(series) == spec.length and np.isfinite(series).all()
    target = load_forecast(name)
    assert target.y_train.shape[1] == 12 and target.naive_error > 0 and target.name == name


@needs_aeon
@pytest.mark.parametrize("name", sorted(FORECASTS))
def test_names_of_load_target_are_what_their_specs_say(name):
    spec, target = TARGETS[name], load_target(name)
    assert isinstance(target, ForecastTarget) and target.name == name
    assert (spec.shape, spec.classes) == (target.shape, target.classes)
    assert (spec.kind, spec.is_classification) == ("series", target.is_classification)
    assert len(target.x_train) == spec.default_train and len(target.x_val) > 0
    most = load_target(name, n_train=spec.most_train)
    assert len(most.x_train) == spec.most_train
    steps = (most.x_train[1:, 0, :-1] - most.x_train[:-1, 0, 1:]).abs().max()
    assert float(steps) == 0, "the largest number is every window there is"
    with pytest.raises(InputError, match=f"has room for {spec.most_train} windows"):
        load_target(name, n_train=spec.most_train + 1)


@needs_aeon
def test_windows_do_not_depend_on_the_seed_and_have_options_of_their_own():
    first, other = (load_target("airline", seed=seed, n_val=0) for seed in (0, 5))
    assert torch.equal(first.x_train, other.x_train) and first.x_val is None
    short = load_target("airline", context=12, horizon=3, n_train=5, n_test=4)
    assert short.x_train.shape == (5, 1, 12) and short.y_test.shape == (4, 3)
    assert torch.equal(
        short.x_train, load_forecast("airline", context=12, horizon=3, n_train=5).x_train
    )


@needs_aeon
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "own"}, "split does not apply to 'airline'"),
        ({"split": "balanced"}, "split does not apply to 'airline'"),
        ({"context": 96}, "has no room for a forecast of 12 values after 96"),
        ({"n_val": 19}, "n_val=19, but the val part of 'airline' has room for 18 windows"),
        ({"n_test": 100}, "pass n_test=18 or fewer"),
        ({"n_train": 0}, "n_train must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"name": "digits", "horizon": 3}, "do not apply to 'digits'.*airline, solar"),
        ({"name": "ucr:GunPoint", "context": 24}, "context and horizon do not apply"),
    ],
    ids=str,
)
def test_options_that_do_not_apply_are_errors(options, message):
    with pytest.raises(InputError, match=message):
        load_target(**{"name": "airline", **options})


@needs_aeon
def test_the_first_window_of_airline():
    target = load_forecast("airline", context=24, horizon=3, n_train=1)
    x = target.x_train[0, 0, :4] * target.span + target.offset
    assert x.round().tolist() == [112, 118, 132, 129]


def test_without_aeon_the_way_to_get_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon", None)
    monkeypatch.setitem(sys.modules, "aeon.datasets", None)
    load_series.cache_clear()
    with pytest.raises(MissingDataError, match=r'pip install "mrviz\[series\]"'):
        load_forecast("airline")
    with pytest.raises(MissingDataError, match=r'pip install "mrviz\[series\]"'):
        load_target("airline")
    with pytest.raises(InputError, match="'airline', 'solar'"):
        load_forecast("airlines!")
