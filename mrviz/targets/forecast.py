"""Forecasting targets: a series cut into contexts x and the values y that follow them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrviz._checks import Array
from mrviz.errors import InputError, MissingDataError
from mrviz.targets.base import Target
from mrviz.targets.options import as_choice, as_count
from mrviz.targets.spec import Kind, kind_of
from mrviz.targets.ucr import aeon_folder

SPLIT_SHARES = (0.6, 0.2)
"""Share of the time axis that belongs to training and to validation; the rest is for tests."""

DEFAULT_HORIZON = 12
"""Values to forecast where no number is given, of targets and of forecasters alike."""

N_TRAIN, N_VAL, N_TEST = 64, 32, 64
"""Windows of each part where no number is given; fewer where a part has no room for them."""


@dataclass(frozen=True)
class ForecastSpec:
    """What is known of a bundled series before loading it.

    It tells interfaces the same as a :class:`~mrviz.targets.TargetSpec`, for windows of the
    default context and horizon.

    Attributes:
        name: the name to pass to ``load_target`` or ``load_forecast``.
        label: name for people.
        length: number of values.
        season: steps after which the series nearly repeats: the calendar's where there is one,
            else the highest peak of its autocorrelation.
    """

    name: str
    label: str
    length: int
    season: int

    @property
    def context(self) -> int:
        """Values before each forecast where no number is given."""
        return max(24, 2 * self.season)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, (1, context)."""
        return (1, self.context)

    @property
    def kind(self) -> Kind:
        """Always "series"."""
        return kind_of(self.shape)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs, the steps ahead."""
        return step_names(DEFAULT_HORIZON)

    @property
    def is_classification(self) -> bool:
        """Whether there are class labels to predict: there are real values."""
        return False

    @property
    def online(self) -> bool:
        """Whether it may have to be downloaded: it comes inside a package."""
        return False

    @property
    def fewest_train(self) -> int:
        """Smallest number of training windows."""
        return 1

    @property
    def default_train(self) -> int:
        """Training windows where no number is given."""
        return min(N_TRAIN, self.most_train)

    @property
    def most_train(self) -> int:
        """Largest number of training windows."""
        first, last = _places(self.length, self.context, DEFAULT_HORIZON)["train"]
        return last - first + 1


FORECASTS: Mapping[str, ForecastSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            ForecastSpec("airline", "Airline passengers, monthly", 144, 12),
            ForecastSpec("solar", "Solar power, half-hourly", 289, 48),
            ForecastSpec("blood-pressure", "Arterial blood pressure", 7501, 183),
        )
    }
)
"""The series to forecast, on which a ``conv-forecaster`` can be trained."""


class ForecastTarget(Target):
    """A forecasting task: contexts (n, 1, context) and the values (n, horizon) after them.

    Attributes:
        season: steps after which the series nearly repeats.
        naive_error: mean |x_t − x_{t − season}| over the training part, the unit of MASE
            (Hyndman & Koehler 2006); ``None`` where it is zero or the part is too short.
        offset: what was subtracted from the series before it was divided by ``span``.
        span: see ``offset``.
    """

    season: int
    naive_error: float | None
    offset: float
    span: float

    def __init__(
        self,
        windows: Mapping[str, tuple[Tensor, Tensor]],
        *,
        season: int,
        naive_error: float | None,
        offset: float,
        span: float,
        name: str,
    ) -> None:
        arrays: dict[str, Any] = {}
        for split, (x, y) in windows.items():
            arrays |= {f"x_{split}": x, f"y_{split}": y}
        horizon = arrays["y_train"].shape[1]
        super().__init__(**arrays, classes=step_names(horizon), name=name)
        own = {"season": season, "naive_error": naive_error, "offset": offset, "span": span}
        for key, value in own.items():
            object.__setattr__(self, key, value)

    def to_dict(self) -> dict[str, Any]:
        """What the target is, without its arrays, as JSON values."""
        own = {key: getattr(self, key) for key in ("season", "naive_error", "offset", "span")}
        return {**super().to_dict(), **own}


def load_forecast(
    name: str,
    *,
    context: int | None = None,
    horizon: int = DEFAULT_HORIZON,
    n_train: int = N_TRAIN,
    n_val: int = N_VAL,
    n_test: int = N_TEST,
) -> ForecastTarget:
    """Cuts a bundled series into windows; see :func:`forecast_target`.

    :func:`load_target` knows the series too, and makes a number that there is no room for an error.

    Args:
        name: "airline", "solar" or "blood-pressure", all from aeon; see ``FORECASTS``.
        context: values before each forecast; default: two seasons, at least 24.
        horizon: values to forecast.
        n_train: at most so many training windows.
        n_val: at most so many validation windows; 0 for none.
        n_test: at most so many test windows.

    Raises:
        InputError: unknown name, or windows that do not fit into the series.
        MissingDataError: aeon is not installed, or comes without the file.

    Example:
        >>> load_forecast("airline", horizon=6).y_train.shape  # doctest: +SKIP
        torch.Size([57, 6])
    """
    spec = FORECASTS[as_choice(name, FORECASTS, "name")]
    return forecast_target(
        load_series(name),
        context=spec.context if context is None else context,
        horizon=horizon,
        season=spec.season,
        n_train=n_train,
        n_val=n_val,
        n_test=n_test,
        name=name,
    )


def forecast_target(
    series: Array,
    *,
    context: int,
    horizon: int,
    season: int,
    n_train: int = N_TRAIN,
    n_val: int = N_VAL,
    n_test: int = N_TEST,
    name: str = "series",
) -> ForecastTarget:
    """Cuts a series into windows: training before validation before test, by time.

    What is forecast belongs to one part alone: the first 60 % of the time axis to training, the
    next 20 % to validation, the rest to tests. Contexts may reach back into the part before.
    Where a part holds more windows than asked for, they are spread evenly over it. The series
    is moved by one affine map, so that its training part spans [0, 1].

    Args:
        series: finite numbers (length,).
        context: values before each forecast.
        horizon: values to forecast.
        season: steps after which the series nearly repeats, at most ``context``.
        n_train: at most so many training windows.
        n_val: at most so many validation windows; 0 for none.
        n_test: at most so many test windows.
        name: shown in the interface.

    Raises:
        InputError: values that are not finite or all equal, or windows that do not fit.

    Example:
        >>> target = forecast_target(torch.arange(100.0) % 7, context=14, horizon=7, season=7)
        >>> target
        Target 'series': 7 real-valued outputs, samples (1, 14), 40 train, 14 val, 14 test
        >>> target.naive_error is None  # it repeats exactly
        True
    """
    values = torch.as_tensor(np.asarray(series), dtype=torch.float64)
    if values.ndim != 1 or not bool(values.isfinite().all()):
        raise InputError(f"series must be finite numbers (length,), got {tuple(values.shape)}")
    context, horizon = as_count(context, "context", 1), as_count(horizon, "horizon", 1)
    season = as_count(season, "season", 1)
    if season > context:
        raise InputError(
            f"season={season} is longer than context={context}: a seasonal forecast looks back one "
            "season, so pass a longer context or a shorter season"
        )
    sizes = {"train": as_count(n_train, "n_train", 1)}
    sizes |= {"val": as_count(n_val, "n_val", 0), "test": as_count(n_test, "n_test", 1)}
    ends = _ends(len(values))
    part = values[: ends[1]]
    if len(part) == 0 or float(part.max()) == float(part.min()):
        raise InputError(
            f"the first {len(part)} values of the series, its training part, are equal"
        )
    offset, span = float(part.min()), float(part.max() - part.min())
    scaled = (values - offset) / span
    windows = {}
    places = _places(len(values), context, horizon)
    for k, (split, n) in enumerate(sizes.items()):
        if n == 0:
            continue
        first, last = places[split]
        if last < first:
            raise InputError(
                f"the {split} part of the series, values {ends[k]} to {ends[k + 1] - 1}, has no "
                f"room for a forecast of {horizon} values after {context}: pass a shorter context "
                "or horizon"
            )
        begins = np.linspace(first, last, min(n, last - first + 1)).round().astype(int)
        x = torch.stack([scaled[b - context : b] for b in begins])[:, None]
        windows[split] = x, torch.stack([scaled[b : b + horizon] for b in begins])
    train = scaled[: ends[1]]
    naive = float((train[season:] - train[:-season]).abs().mean()) if len(train) > season else 0.0
    return ForecastTarget(
        windows,
        season=season,
        naive_error=naive or None,
        offset=offset,
        span=span,
        name=name,
    )


def step_names(horizon: int) -> tuple[str, ...]:
    """Names t+1, t+2, … of the values of a forecast."""
    return tuple(f"t+{k + 1}" for k in range(horizon))


def _ends(length: int) -> list[int]:
    """Where the parts of a series begin, and its length."""
    return [*(round(length * share) for share in np.cumsum([0.0, *SPLIT_SHARES])), length]


def _places(length: int, context: int, horizon: int) -> dict[str, tuple[int, int]]:
    """First and last place where a forecast may begin, by part; the last may come first."""
    ends = _ends(length)
    return {
        split: (max(ends[k], context), ends[k + 1] - horizon)
        for k, split in enumerate(("train", "val", "test"))
    }


@cache
def load_series(name: str) -> np.ndarray:
    """A bundled series (length,), float64, which must not be changed.

    Raises:
        InputError: unknown name.
        MissingDataError: aeon is not installed, or comes without the file.
    """
    spec = FORECASTS[as_choice(name, FORECASTS, "name")]
    aeon_folder(f"the series {name!r}")
    from aeon import datasets

    loaders = {
        "airline": datasets.load_airline,
        "solar": datasets.load_solar,
        "blood-pressure": lambda: datasets.load_kdd_tsad_135()[0],
    }
    try:
        values = np.asarray(loaders[name](), dtype=np.float64).ravel()
    except (OSError, AttributeError) as error:
        raise MissingDataError(
            f"the installed package aeon comes without the series {name!r} ({error}): "
            "pip install --upgrade aeon"
        ) from error
    if len(values) != spec.length:
        raise MissingDataError(
            f"the installed package aeon brings {len(values)} values of the series {name!r}, "
            f"{spec.length} are expected: pip install --upgrade aeon"
        )
    return values
