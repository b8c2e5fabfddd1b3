"""Training without gradients of the source: SPSA with gradient correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mrviz._memory import Splitter
from mrviz.errors import InputError
from mrviz.programs.base import Program
from mrviz.programs.losses import sample_losses
from mrviz.programs.model import ReprogrammedModel
from mrviz.targets.options import as_count

SPSA_RATE = 0.01
"""Default step size a, that of BlackVIP."""


@dataclass(frozen=True)
class SPSA:
    """Simultaneous perturbation with gradient correction, SPSA-GC (Oh et al. 2023, BlackVIP).

    Step k = 1, 2, … from parameters θ and velocity m (zero at first), with
    a_k = lr / (k + offset)^decay and c_k = perturbation / k^shrinkage:

        ĝ = mean over ``average`` draws of (L(φ + c_k Δ) − L(φ − c_k Δ)) / (2 c_k) · 1/Δ
        at φ = θ + momentum·m,
        m ← momentum·m − a_k ĝ,  θ ← θ + m,

    1/Δ taken entry by entry and the entries of Δ uniform in ±[0.5, 1]. ĝ is unbiased up to
    c_k² (Spall 1992); evaluating it at φ, as Nesterov's method does, is the correction. Each
    step takes 2·``average`` forward passes of the source and no backward pass.

    Args:
        perturbation: c, the size of the perturbations.
        momentum: β, at least 0 and below 1; 0 gives plain SPSA.
        average: number of draws.
        offset: added to k in the step size.
        decay: exponent α of the step size.
        shrinkage: exponent γ of the perturbation.

    Raises:
        InputError: numbers out of range.

    Example:
        >>> mrviz.programs.training.SPSA(average=1).momentum
        0.9
    """

    perturbation: float = 0.01
    momentum: float = 0.9
    average: int = 5
    offset: float = 1.0
    decay: float = 0.4
    shrinkage: float = 0.1

    def __post_init__(self) -> None:
        as_count(self.average, "average", 1)
        if not 0 < self.perturbation < math.inf:
            raise InputError(f"perturbation must be a positive number, got {self.perturbation}")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum must be at least 0 and below 1, got {self.momentum}")
        for name in ("offset", "decay", "shrinkage"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be at least 0, got {getattr(self, name)}")


class SPSADescent:
    """The method of :class:`SPSA` for a function of some tensors, which it moves in place.

    Args:
        parameters: θ.
        lr: a of the step sizes.
        options: the others.
        seed: of the perturbations.
    """

    def __init__(self, parameters: list[Tensor], lr: float, options: SPSA, seed: int) -> None:
        self.parameters = parameters
        self.lr = lr
        self.options = options
        self.count = 0
        self.velocity = [torch.zeros_like(p) for p in parameters]
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def step(self, loss: Callable[[], float], active: list[Tensor] | None = None) -> float | None:
        """One step.

        Args:
            loss: L at the present values of the parameters.
            active: booleans like the parameters: entries that L depends on; default: all.

        Returns:
            Mean of L over the points it was evaluated at; ``None``, and the parameters as they
            were, where L was not finite.
        """
        options, k = self.options, self.count + 1
        a = self.lr / (k + options.offset) ** options.decay
        c = options.perturbation / k**options.shrinkage
        start = [p.clone() for p in self.parameters]
        ahead = [p + options.momentum * m for p, m in zip(start, self.velocity, strict=True)]
        try:
            mean, estimate = self._estimate(loss, ahead, c, active)
        except BaseException:  # an interruption must not leave a perturbed point behind
            self._move(start)
            raise
        if not math.isfinite(mean):
            self._move(start)
            return None
        self.count = k
        self.velocity = [
            options.momentum * m - a * g for m, g in zip(self.velocity, estimate, strict=True)
        ]
        self._move([p + m for p, m in zip(start, self.velocity, strict=True)])
        return mean

    def _estimate(
        self, loss: Callable[[], float], ahead: list[Tensor], c: float, active: list[Tensor] | None
    ) -> tuple[float, list[Tensor]]:
        """Mean loss and ĝ at the point φ; leaves the parameters at a perturbed one."""
        estimate = [torch.zeros_like(p) for p in ahead]
        values = []
        for _ in range(self.options.average):
            directions = [self._direction(p) for p in ahead]
            if active is not None:
                directions = [d * on for d, on in zip(directions, active, strict=True)]
            pair = []
            for sign in (1, -1):
                self._move([p + sign * c * d for p, d in zip(ahead, directions, strict=True)])
                pair.append(loss())
            slope = (pair[0] - pair[1]) / (2 * c)
            values += pair
            for total, d in zip(estimate, directions, strict=True):
                total += torch.where(d == 0, 0.0, slope / d) / self.options.average
        return sum(values) / len(values), estimate

    def state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, beside the parameters."""
        return {
            "count": self.count,
            "velocity": self.velocity,
            "generator": self.generator.get_state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from a :meth:`state`."""
        self.count = state["count"]
        pairs = zip(state["velocity"], self.parameters, strict=True)
        self.velocity = [v.to(p) for v, p in pairs]
        self.generator.set_state(state["generator"])

    def _direction(self, like: Tensor) -> Tensor:
        """Δ: uniform in ±[0.5, 1], drawn on the CPU so that every device sees the same."""
        size, side = torch.rand((2, *like.shape), generator=self.generator, dtype=torch.float64)
        return torch.where(side < 0.5, -1.0, 1.0).mul((1 + size) / 2).to(like)

    def _move(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


class BlackBoxSteps:
    """Steps of :class:`SPSADescent` on the loss of a model; forward passes of the source only.

    Entries of a program's parameters that its output does not depend on, such as pixels of a
    frame that are not trainable, stay as they are.
    """

    def __init__(
        self,
        model: ReprogrammedModel,
        parameters: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        split: Splitter,
    ) -> None:
        self.model = model
        self.parameters = parameters
        self.loss = settings["loss"]
        self.split = split
        self.descent = SPSADescent(
            list(parameters.values()),
            settings["lr"],
            SPSA(**settings["spsa"]),
            settings["seed"],
        )

    def __call__(self, x: Tensor, y: Tensor) -> float | None:
        """One step on a batch; the loss, or ``None`` where it is not finite."""

        def total(start: int, stop: int) -> float:
            outputs = self.model(x[start:stop]).double()
            return float(sample_losses(outputs, y[start:stop], self.loss).sum())

        def mean() -> float:
            return self.split(total, 0, len(x), math.fsum) / len(x)

        return self.descent.step(mean, self._active(x))

    def state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, beside the parameters."""
        return self.descent.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from a :meth:`state`."""
        self.descent.load(state)

    def _active(self, x: Tensor) -> list[Tensor]:
        """Entries whose derivative of the programmed inputs of a batch is not zero.

        The derivative is taken along one random cotangent, through the program alone.
        """
        active = {name: torch.ones_like(p, dtype=torch.bool) for name, p in self._named()}
        program = self.model.program
        if isinstance(program, Program):
            chosen = [(n, p) for n, p in self._named() if n.startswith("program.")]
            found = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in chosen}
            generator = torch.Generator().manual_seed(0)
            shape = self.model.source.input_shape
            cotangent = torch.rand(shape, generator=generator).add(0.5).to(x)
            weights = torch.rand(len(x), generator=generator).add(0.5).to(x)

            def work(start: int, stop: int) -> None:
                with torch.enable_grad():
                    u = program(x[start:stop])
                scale = weights[start:stop].reshape(-1, *(1 for _ in shape))
                tensors = [p for _, p in chosen]
                gradients = torch.autograd.grad(
                    u, tensors, scale * cotangent, materialize_grads=True
                )
                for (name, _), gradient in zip(chosen, gradients, strict=True):
                    found[name] |= gradient != 0

            if chosen:
                self.split(work, 0, len(x), lambda parts: None)
            active |= found
        return [active[name] for name, _ in self._named()]

    def _named(self) -> list[tuple[str, Tensor]]:
        return list(self.parameters.items())
