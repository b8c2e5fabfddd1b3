import pytest
import torch
from torch import nn

import mrviz
from mrviz.errors import InputError
from mrviz.programs import compare_forecasts, seasonal_naive
from mrviz.targets import forecast_target


class Last(nn.Module):
    """Forecasts the last value of the context."""

    def forward(self, x):
        return x[:, 0, -1:].expand(-1, 3)


def ramp(length=60, context=8, **sizes):
    """A line with slope one step, cut into windows of three values to forecast."""
    series = torch.arange(length, dtype=torch.float64)
    return forecast_target(series, context=context, horizon=3, season=2, **sizes)


def identity(source, target):
    program = mrviz.programs.Linear(source.input_shape, target.shape)
    with torch.no_grad():
        program.weight.copy_(torch.eye(program.weight.shape[1])[-len(program.weight) :])
        program.bias.zero_()
    return mrviz.reprogram(source, target, program=program, mapping="identity")


def test_scores_on_a_line_worked_by_hand():
    target, source = ramp(), mrviz.SourceModel(Last(), (1, 8))
    found = compare_forecasts(identity(source, target), target)
    step = 1 / target.span
    assert target.naive_error == pytest.approx(2 * step)
    # The last value is 1, 2 and 3 steps behind; the last season 2, 2 and 4.
    for name in ("reprogrammed", "source"):
        assert found[name].mse == pytest.approx((1 + 4 + 9) / 3 * step**2, rel=1e-4)
        assert found[name].mase == pytest.approx(1.0, rel=1e-4)
    assert found["seasonal naive"].mse == pytest.approx((4 + 4 + 16) / 3 * step**2, rel=1e-4)
    assert found["seasonal naive"].mase == pytest.approx(8 / 6, rel=1e-4)
    assert found.n == len(target.x_test) and "MASE 1.000" in repr(found)
    assert found.to_dict()["scores"][1]["name"] == "source"


def test_a_source_that_takes_less_sees_the_end_of_the_context():
    target, source = ramp(), mrviz.SourceModel(Last(), (1, 5))
    found = compare_forecasts(identity(source, target), target, split="val")
    assert found["source"].mase == pytest.approx(1.0, rel=1e-4)


def test_a_source_that_takes_more_has_no_score_alone():
    target, source = ramp(), mrviz.SourceModel(Last(), (1, 20))
    model = mrviz.reprogram(source, target, program="linear", mapping="identity")
    names = [score.name for score in compare_forecasts(model, target).scores]
    assert names == ["reprogrammed", "seasonal naive"]


def test_the_first_windows_alone():
    target, source = ramp(), mrviz.SourceModel(Last(), (1, 8))
    model = identity(source, target)
    assert compare_forecasts(model, target, n=2).n == 2
    with pytest.raises(InputError, match="has 10 test windows, asked for are 99"):
        compare_forecasts(model, target, n=99)
    with pytest.raises(InputError, match="has 0 val windows"):
        compare_forecasts(model, ramp(n_val=0), split="val")


def test_fracast_alone_forecasts_from_contexts_shorter_than_its_input():
    pytest.importorskip("fracast")
    target = forecast_target(torch.arange(80.0) % 7, context=14, horizon=3, season=7, n_test=4)
    longer, exact = (
        mrviz.load_source("fracast", input_size=size, horizon=3, progress=False)
        for size in (40, 14)
    )
    model = mrviz.reprogram(longer, target, program="linear", mapping="identity")
    score = compare_forecasts(model, target)["source"]
    error = exact(target.x_test).double() - target.y_test
    assert score.mse == pytest.approx(float(error.square().mean()), rel=1e-4)


def test_training_beats_the_source_on_a_line():
    target, source = ramp(), mrviz.SourceModel(Last(), (1, 8))
    model = identity(source, target)
    mrviz.train(model, target, loss="squared", lr=1e-2, steps=60, progress=False)
    found = compare_forecasts(model, target)
    assert found["reprogrammed"].mse < found["source"].mse / 2


def test_the_rule_repeats_the_last_season():
    series = torch.arange(60.0) % 4 + torch.arange(60.0) / 100
    target = forecast_target(series, context=9, horizon=6, season=4)
    x = target.x_test
    expected = torch.stack([x[:, 0, -4 + k % 4] for k in range(6)], 1)
    torch.testing.assert_close(seasonal_naive(target, x), expected.double())


def test_what_does_not_fit_is_an_error():
    target, source = ramp(), mrviz.SourceModel(Last(), (1, 8))
    model = identity(source, target)
    plain = mrviz.Target(target.x_train, target.y_train, target.x_test, target.y_test)
    with pytest.raises(InputError, match="ForecastTarget"):
        compare_forecasts(model, plain)
    with pytest.raises(InputError, match="'train', 'val', 'test'"):
        compare_forecasts(model, target, split="all")
    longer = forecast_target(torch.arange(60.0), context=8, horizon=2, season=2)
    with pytest.raises(InputError, match="forecasts 3 values"):
        compare_forecasts(model, longer)
    with pytest.raises(InputError, match="'seasonal naive'"):
        compare_forecasts(model, target)["naive"]
