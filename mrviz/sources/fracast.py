"""The pretrained forecaster of the package fracast as a module that can be differentiated."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from mrviz.errors import MissingDataError

CONTEXT, HORIZON, QUANTILES = 2048, 48, 9
"""What the network takes at most, forecasts at most, and how many quantiles it gives."""
SHORTEST = 8
"""Shortest context that the package forecasts from."""
KEPT_STARTS = 32


class Fracast(nn.Module):
    """Context in, forecast out: what ``FracastModel.forecast`` computes, for torch's autograd.

    The package takes and returns numpy arrays and forbids gradients, but its two networks are
    plain torch modules. Around them stand the package's own steps: the context is scaled to
    [0, 1] by its smallest and largest value and put at the end of 2,048 steps, of which those
    before are marked as missing; the forecast is scaled back.

    Differentiable almost everywhere. Where it is not smooth: the seasons that the network detects
    in the context are whole numbers, so that no gradient passes through their choice and a
    forecast jumps where it changes; smallest and largest value switch steps.

    The encoder is causal, so the steps before the context depend on the detected seasons alone.
    While the weights are frozen they are computed once for each and kept, which makes a gradient
    several times cheaper.

    It computes in the precision of its weights. The package's layers called by themselves, as
    the kernel of the source's own parameters does, round to float32 in front of their norms.

    Args:
        core: the package's encoder.
        head: the package's forecast head.
        horizon: values to forecast, at most 48.
        median: whether only the median is returned.
    """

    def __init__(self, core: nn.Module, head: nn.Module, horizon: int, median: bool) -> None:
        super().__init__()
        self.core, self.head = core.requires_grad_(False), head.requires_grad_(False)
        self.horizon, self.median, self.shortest = horizon, median, SHORTEST
        self._starts: dict[tuple[int, ...], list[Tensor]] = {}
        self._weights: tuple[tuple[Tensor, int], ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Forecasts (n, horizon), or (n, horizon · 9) with the quantiles 0.1 to 0.9 innermost.

        Args:
            x: contexts (n, 1, length).
        """
        head: Any = self.head
        context = x[:, 0]
        low = context.amin(1, keepdim=True)
        span = (context.amax(1, keepdim=True) - low).clamp(min=1e-5)
        values = F.pad((context - low) / span, (CONTEXT - context.shape[1], 0))
        valid = torch.zeros_like(values, dtype=torch.bool)
        valid[:, CONTEXT - context.shape[1] :] = True
        with _full_precision(x.dtype):
            hidden = self._encoded(values, valid, context.shape[1])
            found = head.forward_horizon(hidden, values[:, -1:], ctx=values, ctx_mask=valid)
        found = found[:, : self.horizon]
        return (found[..., QUANTILES // 2] if self.median else found.flatten(1)) * span + low

    def _encoded(self, values: Tensor, valid: Tensor, length: int) -> Tensor:
        """Hidden states (n, 2048, d) of the encoder: kept ones, then those of the context."""
        core: Any = self.core
        frozen = not any(weight.requires_grad for weight in core.parameters())
        with torch.no_grad() if frozen else nullcontext():
            seasons = core.periodic(values, valid, core.level_widths)
            if frozen:
                starts = self._kept_starts(values, valid, seasons, length)
            else:
                starts = self._start(seasons[:, :-length])
        *inputs, last = starts
        x = core.in_proj(_features(values, valid)[:, -length:]) + seasons[:, -length:]
        for before, dilation in zip(inputs, core.dilations(), strict=True):
            states = core.block(core.scale(torch.cat([before, x], 1), dilation), dilation)
            x = states[:, -length:]
        return torch.cat([last, core.norm(x)], 1)

    def _start(self, seasons: Tensor) -> list[Tensor]:
        """States before the context: the last few in front of each stage, all behind the last.

        Args:
            seasons: what the encoder adds for detected seasons, (n, steps before, d).
        """
        core: Any = self.core
        empty = seasons.new_zeros((len(seasons), CONTEXT))
        x = core.in_proj(_features(empty, empty.bool())[:, : seasons.shape[1]]) + seasons
        found = []
        for dilation in core.dilations():
            reach = (core.block.kernel - 1) * dilation
            found.append(x[:, max(0, x.shape[1] - reach) :])
            if x.shape[1]:
                x = core.block(core.scale(x, dilation), dilation)
        return [*found, core.norm(x)]

    def _kept_starts(
        self, values: Tensor, valid: Tensor, seasons: Tensor, length: int
    ) -> list[Tensor]:
        """The same, computed once for each set of seasons as long as the weights are the same."""
        weights = tuple((weight, weight._version) for weight in self.core.parameters())
        known = len(weights) == len(self._weights) and all(
            new[0] is old[0] and new[1] == old[1]
            for new, old in zip(weights, self._weights, strict=True)
        )
        if not known:
            self._starts, self._weights = {}, weights
        parts = []
        for i, found in enumerate(_detected(self.head, values, valid).tolist()):
            key = (length, *found)
            start = self._starts.get(key)
            if start is None:
                start = self._start(seasons[i : i + 1, :-length])
                if len(self._starts) >= KEPT_STARTS:
                    self._starts.pop(next(iter(self._starts)), None)
                self._starts[key] = start
            parts.append(start)
        return [torch.cat(stage) for stage in zip(*parts, strict=True)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._starts, self._weights = {}, ()
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        """Text for the module's repr."""
        return f"horizon={self.horizon}, median={self.median}"


def load_fracast(horizon: int, *, median: bool, pretrained: bool, seed: int) -> Fracast:
    """Loads the networks with the weights inside the package, or with random ones.

    Args:
        horizon: values to forecast, at most 48.
        median: whether only the median is returned.
        pretrained: the package's float32 weights; else weights from N(0, 1 / fan-in), zero
            biases and norms of gain one.
        seed: of random weights.

    Raises:
        MissingDataError: the package is not installed.
    """
    try:
        from fracast import FracastModel
    except ImportError:
        raise MissingDataError(
            "the source 'fracast' needs the package fracast, which is not installed: "
            'pip install "mrviz[series]" or pip install fracast'
        ) from None
    with torch.random.fork_rng(devices=[]):  # its layers draw weights before they are loaded
        loaded = FracastModel.from_pretrained(weights="fp32")
    core, head = loaded.core, loaded.head
    if not pretrained:
        _randomize(nn.ModuleList([core, head]), seed)
    return Fracast(core, head, horizon, median)


def _randomize(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" in name:
                parameter.fill_(1.0)
            elif parameter.ndim < 2:
                parameter.zero_()
            else:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)


def _detected(head: Any, values: Tensor, valid: Tensor) -> Tensor:
    """Seasons (n, k) that the network detects, zero where there is none."""
    from fracast._core.periodic.seasonal_fill import detect_periods

    found: Tensor = detect_periods(values, valid, **head.period_kw)
    return found


def _features(values: Tensor, valid: Tensor) -> Tensor:
    """What the encoder sees of each step (n, steps, 7): value, presence, and how long ago."""
    from fracast._core.periodic.official_encoding import _recency_encoding

    steps = values.shape[1]
    position = torch.arange(steps, device=values.device).expand(len(values), -1)
    recency = _recency_encoding(position, steps).to(values.dtype)
    return torch.cat([values[..., None], valid[..., None].to(values.dtype), recency], -1)


class _KeepDouble(TorchFunctionMode):
    """Leaves float64 tensors as they are where the package would make them float32."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.Tensor.float and args[0].dtype == torch.float64:
            return args[0]
        return func(*args, **(kwargs or {}))


def _full_precision(dtype: torch.dtype) -> AbstractContextManager[Any]:
    return _KeepDouble() if dtype == torch.float64 else nullcontext()
