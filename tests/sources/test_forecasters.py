import importlib.util

import pytest
import torch

from mrviz.errors import Cancelled, InputError
from mrviz.sources import load_source
from mrviz.targets import load_forecast

needs_aeon = pytest.mark.skipif(
    not importlib.util.find_spec("aeon"), reason="aeon is not installed"
)
SMALL = {"input_size": 24, "horizon": 4, "width": 4, "progress": False}


class Flag:
    def is_set(self):
        return True


def test_a_random_forecaster_follows_its_seed_and_the_scale_of_the_context():
    first, again, other = (load_source("conv-forecaster", **SMALL, seed=s) for s in (1, 1, 2))
    x = torch.rand(3, 1, 24)
    assert first(x).shape == (3, 4) and first.classes == ("t+1", "t+2", "t+3", "t+4")
    assert torch.equal(first(x), again(x)) and not torch.equal(first(x), other(x))
    torch.testing.assert_close(first(7 * x - 2), 7 * first(x) - 2, atol=1e-4, rtol=1e-4)


@needs_aeon
def test_training_lowers_the_error_and_repeats_from_the_cache(cache):
    options = {**SMALL, "trained_on": "airline", "epochs": 60}
    source = load_source("conv-forecaster", **options)
    report = source.training_report
    assert report.val_loss[report.best_epoch] == min(report.val_loss) < report.val_loss[0] / 4
    assert report.test_accuracy is None and source.test_data is None
    target = load_forecast("airline", context=24, horizon=4, n_train=512, n_val=128, n_test=128)
    error = float((source(target.x_test).double() - target.y_test).square().mean())
    assert error == pytest.approx(report.test_loss, rel=1e-5)
    (written,) = (cache / "sources").glob("conv-forecaster-airline-*.pt")
    stamp = written.stat().st_mtime_ns
    again = load_source("conv-forecaster", **options)
    assert written.stat().st_mtime_ns == stamp and again.training_report == report
    assert torch.equal(again(target.x_test), source(target.x_test))


@needs_aeon
def test_a_context_shorter_than_the_season_is_the_end_of_a_longer_one():
    source = load_source(
        "conv-forecaster",
        **{**SMALL, "input_size": 8, "trained_on": "airline", "epochs": 0},
    )
    assert source.input_shape == (1, 8) and source.training_report.best_epoch == 0


@needs_aeon
def test_cancel():
    with pytest.raises(Cancelled):
        load_source("conv-forecaster", **SMALL, trained_on="airline", cancel=Flag())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trained_on": "ucr:GunPoint"}, "trained_on must be one of 'airline'"),
        ({"epochs": 3}, "epochs applies only together with trained_on"),
        ({"output": "median"}, "output does not apply"),
    ],
)
def test_options_that_do_not_fit_are_errors(options, message):
    with pytest.raises(InputError, match=message):
        load_source("conv-forecaster", **options)
