"""Forecasters as frozen sources: fracast's pretrained one, and a small one trained here."""

from __future__ import annotations

import copy
import io
import time
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from mrviz._cache import CacheEntry
from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz.errors import InputError
from mrviz.sources.base import SourceModel
from mrviz.sources.families import Range, SourceSpec, draw_weights
from mrviz.sources.fracast import CONTEXT, HORIZON, QUANTILES, load_fracast
from mrviz.sources.training import BATCH_SIZE, FORMAT, LEARNING_RATE, TrainedSource, TrainingReport
from mrviz.targets.forecast import (
    DEFAULT_HORIZON,
    FORECASTS,
    load_forecast,
    load_series,
    step_names,
)

_LENGTH = "length of the context"
_HORIZON = Range(DEFAULT_HORIZON, 1, HORIZON, "values to forecast")

FORECASTERS: dict[str, SourceSpec] = {
    "fracast": SourceSpec(
        name="fracast",
        label="Fracast forecaster",
        pretrained=True,
        ranges=MappingProxyType(
            {"input_size": Range(96, 8, CONTEXT, _LENGTH), "horizon": _HORIZON}
        ),
        choices=MappingProxyType(
            {"weights": ("pretrained", "random"), "output": ("median", "quantiles")}
        ),
        kind="series",
        forecasts=True,
    ),
    "conv-forecaster": SourceSpec(
        name="conv-forecaster",
        label="Convolutional forecaster",
        pretrained=False,
        ranges=MappingProxyType(
            {
                "depth": Range(2, 1, 6, "convolutions of length 5"),
                "width": Range(16, 1, 64, "channels"),
                "input_size": Range(48, 8, 512, _LENGTH),
                "horizon": _HORIZON,
                "epochs": Range(100, 0, 500, "passes over the training windows"),
            }
        ),
        choices=MappingProxyType({"trained_on": (None, *FORECASTS)}),
        kind="series",
        forecasts=True,
    ),
}
"""The forecasters with their options."""

WINDOWS = 512
"""At most so many training windows of a forecaster trained here; a quarter as many for the rest."""


class ConvForecaster(nn.Module):
    """Convolutions and a dense layer on a context scaled to [0, 1] by its own values.

    Args:
        length: of the context.
        horizon: values to forecast.
        depth: number of convolutions of length 5.
        width: their channels.
    """

    def __init__(self, length: int, horizon: int, depth: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise([1, *[width] * depth]):
            layers += [nn.Conv1d(n_in, n_out, 5, padding="same"), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * length, horizon))

    def forward(self, x: Tensor) -> Tensor:
        """Forecasts (n, horizon) of contexts x (n, 1, length), in the units of x."""
        low = x.amin(2, keepdim=True)
        span = (x.amax(2, keepdim=True) - low).clamp(min=1e-5)
        return self.layers((x - low) / span) * span[:, 0] + low[:, 0]


def load_forecaster(
    name: str,
    given: dict[str, Any],
    seed: int,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> SourceModel:
    """Loads or trains a forecaster; see :func:`~mrviz.load_source` for the options.

    Args:
        name: a key of ``FORECASTERS``.
        given: the options that were given, checked.
        seed: of random weights and of the training.
        progress: as in ``load_source``.
        cancel: as in ``load_source``.

    Raises:
        InputError: more than fracast takes or gives.
        MissingDataError: a package that brings weights or data is not installed.
        Cancelled: ``cancel`` was set.
    """
    spec = FORECASTERS[name]
    values = {key: span.default for key, span in spec.ranges.items()} | given
    length, horizon = values["input_size"], values["horizon"]
    if name == "fracast":
        if length > CONTEXT or horizon > HORIZON:
            raise InputError(
                f"fracast takes at most {CONTEXT} values and forecasts at most {HORIZON}, got "
                f"input_size={length} and horizon={horizon}"
            )
        pretrained = values.get("weights", "pretrained") == "pretrained"
        median = values.get("output", "median") == "median"
        with Progress(1, "Loading fracast", progress, cancel) as bar:
            network = load_fracast(horizon, median=median, pretrained=pretrained, seed=seed)
            kind = "pretrained weights" if pretrained else f"random weights, seed {seed}"
            source = SourceModel(
                network, (1, length), name=f"fracast, {kind}", classes=_names(horizon, median)
            )
            bar.advance()
        return source
    data = values.get("trained_on")
    if data is None and "epochs" in given:
        raise InputError("epochs applies only together with trained_on")
    shown = f"{name}, depth {values['depth']}, width {values['width']}"
    if data is None:
        with Progress(1, f"Building {name}", progress, cancel) as bar:
            source = SourceModel(
                _build(values, seed),
                (1, length),
                name=f"{shown}, random weights, seed {seed}",
                classes=_names(horizon, True),
            )
            bar.advance()
        return source
    return _trained(f"{shown}, trained on {data}, seed {seed}", values, seed, progress, cancel)


def _names(horizon: int, median: bool) -> list[str]:
    steps = list(step_names(horizon))
    if median:
        return steps
    return [f"{step}, {10 * (q + 1)} %" for step in steps for q in range(QUANTILES)]


def _build(values: dict[str, Any], seed: int) -> ConvForecaster:
    """A network with weights N(0, 2 / fan-in) and biases N(0, 0.1)."""
    with torch.device("meta"):
        network = ConvForecaster(
            values["input_size"], values["horizon"], values["depth"], values["width"]
        )
    network.to_empty(device="cpu")
    draw_weights(network, torch.Generator().manual_seed(seed))
    return network


def _trained(
    name: str,
    values: dict[str, Any],
    seed: int,
    progress: ProgressCallback | bool | None,
    cancel: CancelFlag | None,
) -> TrainedSource:
    """Trains with Adam on squared loss; the epoch with the least validation loss is kept."""
    data, epochs = values["trained_on"], values["epochs"]
    sizes = {"n_train": WINDOWS, "n_val": WINDOWS // 4, "n_test": WINDOWS // 4}
    target = load_forecast(
        data,
        context=max(values["input_size"], FORECASTS[data].season),
        horizon=values["horizon"],
        **sizes,
    )
    windows = [
        (x[..., -values["input_size"] :], y)
        for x, y in (
            (target.x_train, target.y_train),
            (target.x_val, target.y_val),
            (target.x_test, target.y_test),
        )
        if x is not None and y is not None
    ]
    config = {
        **{"family": "conv-forecaster", "format": FORMAT, "torch": torch.__version__.split("+")[0]},
        **values,
        **sizes,
        "content": float(load_series(data).sum()),
        "learning_rate": LEARNING_RATE,
        "batch_size": BATCH_SIZE,
        "seed": seed,
    }
    network = _build(values, seed)
    entry = CacheEntry("sources", f"conv-forecaster-{data}", ".pt", config)

    def decode(payload: bytes, info: dict[str, Any]) -> TrainingReport:
        network.load_state_dict(torch.load(io.BytesIO(payload), weights_only=True))
        return TrainingReport.from_dict(info)

    report = entry.read(decode)
    if report is None:
        network = _build(values, seed)
        total = epochs * -(-len(windows[0][0]) // BATCH_SIZE)
        with Progress(total, f"Training {name}", progress, cancel) as bar:
            report = _fit(network, windows, data, epochs, seed, bar)
        buffer = io.BytesIO()
        torch.save(network.state_dict(), buffer)
        entry.write(buffer.getvalue(), report.to_dict())
    return TrainedSource(
        network,
        (1, values["input_size"]),
        name=name,
        classes=_names(values["horizon"], True),
        training_report=report,
    )


def _fit(
    network: nn.Module,
    windows: list[tuple[Tensor, Tensor]],
    data: str,
    epochs: int,
    seed: int,
    bar: Progress,
) -> TrainingReport:
    started = time.perf_counter()
    (x, y), (x_val, y_val), _ = windows
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    validation = [_error(network, x_val, y_val)]
    best_epoch, best_state = 0, copy.deepcopy(network.state_dict())
    losses = []
    for epoch in range(1, epochs + 1):
        loss_sum = 0.0
        for rows in torch.randperm(len(x), generator=generator).split(BATCH_SIZE):
            optimizer.zero_grad()
            loss = (network(x[rows]) - y[rows]).square().mean()
            loss.backward()
            optimizer.step()
            loss_sum += float(loss.detach()) * len(rows)
            bar.advance()
        losses.append(loss_sum / len(x))
        validation.append(_error(network, x_val, y_val))
        if validation[-1] < validation[best_epoch]:
            best_epoch, best_state = epoch, copy.deepcopy(network.state_dict())
    network.load_state_dict(best_state)
    return TrainingReport(
        data=data,
        n_train=len(x),
        n_val=len(x_val),
        n_test=len(windows[2][0]),
        train_loss=tuple(losses),
        val_accuracy=(),
        best_epoch=best_epoch,
        test_accuracy=None,
        seconds=time.perf_counter() - started,
        val_loss=tuple(validation),
        test_loss=_error(network, *windows[2]),
    )


@torch.no_grad()
def _error(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Mean squared error over windows and steps."""
    return float((network(x).double() - y).square().mean())
