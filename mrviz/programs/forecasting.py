"""Forecasts of a reprogrammed forecaster beside those of its source and of a naive rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mrviz.errors import InputError
from mrviz.programs.model import ReprogrammedModel
from mrviz.sources.base import evaluation_mode
from mrviz.targets.forecast import ForecastTarget
from mrviz.targets.options import as_choice, as_count


@dataclass(frozen=True)
class ForecastScore:
    """How far forecasts are from what came.

    Attributes:
        name: whose forecasts.
        mse: mean squared error over windows and steps, in the target's scaled units.
        mase: mean absolute error in units of that of the seasonal naive rule on the training
            part (Hyndman & Koehler 2006): below 1 is better than the rule was there; ``None``
            where the rule made no error.
    """

    name: str
    mse: float
    mase: float | None


@dataclass(frozen=True)
class ForecastComparison:
    """Scores of several forecasts of the same windows.

    Attributes:
        target: name of the target.
        split: whose windows.
        n: number of windows.
        scores: "reprogrammed", "source" where it can take the contexts as they are, and
            "seasonal naive".
    """

    target: str
    split: str
    n: int
    scores: tuple[ForecastScore, ...]

    def __getitem__(self, name: str) -> ForecastScore:
        known = {score.name: score for score in self.scores}
        return known[as_choice(name, known, "name")]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)

    def __repr__(self) -> str:
        lines = [f"Forecasts of {self.n} {self.split} windows of {self.target}"]
        for score in self.scores:
            mase = "" if score.mase is None else f", MASE {score.mase:.3f}"
            lines.append(f"{score.name}: MSE {score.mse:.4g}{mase}")
        return "\n".join(lines)


def compare_forecasts(
    model: ReprogrammedModel,
    target: ForecastTarget,
    *,
    split: str = "test",
    n: int | None = None,
) -> ForecastComparison:
    """Scores a reprogrammed forecaster, its source alone and the seasonal naive rule.

    The source alone takes the last values of each context, as many as it takes, and goes
    through the same mapping as at the start. It has no score where it needs more than there are;
    fracast needs eight.

    Args:
        model: the reprogrammed model.
        target: a forecasting target.
        split: "train", "val" or "test".
        n: use the first ``n`` windows; default: all.

    Raises:
        InputError: another kind of target, a model with another number of outputs, or more
            windows than there are.

    Example:
        >>> target = mrviz.targets.forecast_target(
        ...     torch.arange(80.0) % 7 + torch.arange(80.0) / 9, context=14, horizon=7, season=7
        ... )
        >>> source = mrviz.load_source(
        ...     "conv-forecaster", input_size=14, horizon=7, width=4, progress=False
        ... )
        >>> model = mrviz.reprogram(source, target, program="linear", mapping="identity")
        >>> [score.name for score in compare_forecasts(model, target).scores]
        ['reprogrammed', 'source', 'seasonal naive']
    """
    if not isinstance(target, ForecastTarget):
        raise InputError(
            f"target must be a ForecastTarget, got {type(target).__name__}: make one with "
            "mrviz.targets.load_forecast or mrviz.targets.forecast_target"
        )
    as_choice(split, ("train", "val", "test"), "split")
    if model.outputs != target.n_classes:
        raise InputError(
            f"the model forecasts {model.outputs} values, but target {target.name!r} asks for "
            f"{target.n_classes}"
        )
    x, y = getattr(target, f"x_{split}"), getattr(target, f"y_{split}")
    found = 0 if x is None else len(x)
    n = found if n is None else as_count(n, "n", 1)
    if not 0 < n <= found:
        raise InputError(f"target {target.name!r} has {found} {split} windows, asked for are {n}")
    x, y = x[:n], y[:n].double()
    forecasts: dict[str, Callable[[], Tensor]] = {"reprogrammed": lambda: model.predict(x)}
    length = model.source.input_shape[-1]
    least = min(length, getattr(model.source.module, "shortest", length))
    if (x.shape[1],) == model.source.input_shape[:-1] and least <= x.shape[2]:
        forecasts["source"] = lambda: _unprogrammed(model, x[..., -length:])
    forecasts["seasonal naive"] = lambda: seasonal_naive(target, x)
    scores = []
    for name, forecast in forecasts.items():
        error = forecast().cpu() - y
        mase = None
        if target.naive_error is not None:
            mase = float(error.abs().mean()) / target.naive_error
        scores.append(ForecastScore(name, float(error.square().mean()), mase))
    return ForecastComparison(target.name, split, len(x), tuple(scores))


def seasonal_naive(target: ForecastTarget, x: Tensor) -> Tensor:
    """Forecasts (n, horizon), float64: the last season of each context, again and again.

    Args:
        target: gives season and horizon.
        x: contexts (n, 1, context).

    Example:
        >>> target = mrviz.targets.forecast_target(
        ...     torch.arange(60.0) % 7, context=9, horizon=4, season=3
        ... )
        >>> seasonal_naive(target, torch.arange(9.0)[None, None])
        tensor([[6., 7., 8., 6.]], dtype=torch.float64)
    """
    steps = torch.arange(target.n_classes) % target.season
    return x[:, 0, x.shape[2] - target.season + steps].double()


def _unprogrammed(model: ReprogrammedModel, x: Tensor) -> Tensor:
    source = model.source
    parts = []
    with evaluation_mode(source), torch.no_grad():
        for part in x.to(source.device, source.dtype).split(256):
            parts.append(source.module(source.normalized(part)).double())
        outputs = torch.cat(parts)
        return outputs @ model.mapping.matrix(source.outputs).to(outputs).T
