"""Batches, and the steps of optimizers that follow gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mrviz._memory import Splitter
from mrviz.programs.losses import sample_losses
from mrviz.programs.model import ReprogrammedModel
from mrviz.programs.training.options import ADAM_RATES, adam_rates

SMALLEST_SCALE = 2.0**-10
"""Loss scale of float16 below which gradients that are not finite are no longer its fault."""


class Batches:
    """Sample numbers of one batch after the other, without end.

    Args:
        n: number of samples.
        size: samples of a batch; ``None`` for all samples in each.
        seed: of the permutations, a new one in each pass.
    """

    def __init__(self, n: int, size: int | None, seed: int) -> None:
        self.n = n
        self.size = size
        self.generator = torch.Generator().manual_seed(seed)
        self._before = self.generator.get_state()
        self._parts: list[Tensor] = []
        self._position = 0

    @property
    def at_start(self) -> bool:
        """Whether the next batch is the first of a pass."""
        return self._position == 0

    def next(self) -> Tensor | None:
        """The next batch; ``None`` is all samples."""
        if self.size is None:
            return None
        if self._position == 0:
            self._draw()
        rows = self._parts[self._position]
        self._position = (self._position + 1) % len(self._parts)
        return rows

    def state(self) -> dict[str, Any]:
        """Everything that the next batches depend on."""
        before = self.generator.get_state() if self._position == 0 else self._before
        return {"generator": before, "position": self._position}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from a :meth:`state`."""
        self.generator.set_state(state["generator"])
        self._position = state["position"]
        if self._position:
            self._draw()

    def _draw(self) -> None:
        self._before = self.generator.get_state()
        self._parts = list(torch.randperm(self.n, generator=self.generator).split(self.size or 1))


class GradientSteps:
    """Steps of PyTorch's SGD or Adam on the loss of a model.

    Args:
        model: the model.
        parameters: those that are trained, by name.
        settings: of the training; ``settings["lr"]`` becomes the step sizes by kind where they
            are Adam's defaults.
        split: says how many samples are differentiated at once.
    """

    def __init__(
        self,
        model: ReprogrammedModel,
        parameters: Mapping[str, Tensor],
        settings: dict[str, Any],
        split: Splitter,
    ) -> None:
        self.model = model
        self.parameters = list(parameters.values())
        self.loss = settings["loss"]
        self.split = split
        self.optimizer = _optimizer(settings, parameters)
        self.cosine = settings["steps"] if settings["schedule"] == "cosine" else None
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.count = 0
        self.amp = getattr(torch, settings["amp"]) if settings["amp"] else None
        self.scaler = torch.amp.GradScaler(
            model.source.device.type, enabled=self.amp == torch.float16
        )

    def __call__(self, x: Tensor, y: Tensor) -> float | None:
        """One step on a batch; the loss, or ``None`` where numbers are not finite."""
        gradients, value = self._gradients(x, y)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        finite = all(g.isfinite().all() for g in gradients)
        rescue = self.scaler.is_enabled() and self.scaler.get_scale() > SMALLEST_SCALE
        if not finite and not (rescue and math.isfinite(value)):
            self.optimizer.zero_grad(set_to_none=True)
            return None
        if self.cosine is not None:
            share = (1 + math.cos(math.pi * self.count / self.cosine)) / 2
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * share
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.count += 1
        return value

    def state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, beside the parameters."""
        return {
            "count": self.count,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from a :meth:`state`."""
        self.count = state["count"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])

    def _gradients(self, x: Tensor, y: Tensor) -> tuple[list[Tensor], float]:
        """Gradients and value of the mean loss of a batch, summed over parts as memory asks."""
        sums = [torch.zeros_like(p) for p in self.parameters]
        losses: list[Tensor] = []
        device = self.model.source.device.type

        def work(start: int, stop: int) -> None:
            with (
                torch.enable_grad(),
                torch.autocast(device, self.amp, enabled=self.amp is not None),
            ):
                outputs = self.model(x[start:stop])
            with torch.enable_grad():
                outputs = outputs.float() if self.amp is not None else outputs
                targets = y[start:stop].to(outputs.dtype)
                value = sample_losses(outputs, targets, self.loss).sum() / len(x)
                scaled = self.scaler.scale(value)
            gradients = torch.autograd.grad(scaled, self.parameters, materialize_grads=True)
            for total, gradient in zip(sums, gradients, strict=True):
                total += gradient
            losses.append(value.detach())

        self.split(work, 0, len(x), lambda parts: None)
        return sums, float(torch.stack(losses).sum())


def _optimizer(settings: dict[str, Any], parameters: Mapping[str, Tensor]) -> torch.optim.Optimizer:
    lr = settings["lr"]
    if settings["optimizer"] != "adam":
        momentum = settings["momentum"] or 0.0
        return torch.optim.SGD(parameters.values(), lr=lr, momentum=momentum)
    if lr is not None:
        return torch.optim.Adam(parameters.values(), lr=lr)
    groups = adam_rates(parameters)
    settings["lr"] = {kind: ADAM_RATES[kind] for kind in groups}
    return torch.optim.Adam(
        [
            {"params": [parameters[name] for name in names], "lr": ADAM_RATES[kind]}
            for kind, names in groups.items()
        ]
    )
