"""Distribution alignment: exact Wasserstein distance of logits, and the bound made of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mrviz._checks import Array, as_samples
from mrviz.errors import InputError
from mrviz.programs import ReprogrammedModel
from mrviz.sources.base import evaluation_mode
from mrviz.targets.options import as_count
from mrviz.theory.strength import SourceData, checked, source_outputs, source_strength

SAMPLES = 512
"""Most samples on each side, where nothing else is asked for; the assignment costs their cube."""


def optimal_assignment(a: Array, b: Array) -> Tensor:
    """Distances of the optimal one-to-one assignment of two point clouds, (n,), float64.

    Args:
        a: points (n, d).
        b: as many points (n, d).

    Raises:
        InputError: the clouds differ in size or dimension.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    first, second = (
        as_samples(points, name, dtype=torch.float64).cpu().flatten(1)
        for points, name in ((a, "a"), (b, "b"))
    )
    if first.shape != second.shape:
        raise InputError(
            "exact W₁ needs equally many points of the same dimension, got shapes "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    costs = cdist(first.numpy(), second.numpy())
    rows, columns = linear_sum_assignment(costs)
    return torch.from_numpy(costs[rows, columns])


def wasserstein1(a: Array, b: Array) -> float:
    """Exact W₁ of two samples of equal size, with Euclidean distances.

    For equal weights the optimal transport is an assignment (Birkhoff), found by the modified
    Jonker–Volgenant algorithm of SciPy.

    Args:
        a: points (n, d).
        b: as many points (n, d).

    Raises:
        InputError: the samples differ in size or dimension.

    Example:
        >>> wasserstein1([[0.0], [1.0]], [[3.0], [2.0]])
        2.0
    """
    return float(optimal_assignment(a, b).mean())


@dataclass(frozen=True)
class DistributionBound:
    """Source risk + 2√K W₁, a bound on the target risk (Yang et al. 2021, Theorem 1; T10).

    Attributes:
        risk: source risk E‖softmax(f_S(x)) − y‖₂, between 0 and √2.
        risk_error: two standard errors of it.
        distance: W₁ between the logits of programmed target inputs and of source inputs.
        distance_error: two standard errors of the mean distance of assigned pairs.
        split: W₁ between random halves of each sample, added: how large W₁ comes out by chance.
        classes: K, the number of source classes.
        n: samples on each side.
    """

    risk: float
    risk_error: float
    distance: float
    distance_error: float
    split: float
    classes: int
    n: int

    @property
    def value(self) -> float:
        """The bound, as measured."""
        return self.risk + 2 * math.sqrt(self.classes) * self.distance

    @property
    def low(self) -> float:
        """What the bound is at least, were all of each distribution known.

        W₁ of samples is too large on average. By the triangle inequality it exceeds that of the
        distributions by no more, on average, than W₁ between halves of each sample.
        """
        distance = max(0.0, self.distance - self.split - self.distance_error)
        return max(0.0, self.risk - self.risk_error) + 2 * math.sqrt(self.classes) * distance

    @property
    def high(self) -> float:
        """What it is at most."""
        distance = self.distance + self.distance_error
        return self.risk + self.risk_error + 2 * math.sqrt(self.classes) * distance

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {**asdict(self), "value": self.value, "low": self.low, "high": self.high}


def distribution_bound(
    model: ReprogrammedModel,
    x: Array,
    source_data: SourceData,
    *,
    n: int | None = None,
    seed: int = 0,
) -> DistributionBound:
    """Measures the bound at the program's present parameters.

    Logits are those of the source itself, before the output mapping. The theorem is about a
    trained program: measured before training, W₁ says how far there is to go.

    Args:
        model: the reprogrammed model.
        x: target inputs (n, *target_shape).
        source_data: held-out inputs and labels of the source's own task, at least two.
        n: random samples of each side; default: as many as both have, up to 512.
        seed: which samples.

    Raises:
        InputError: data that do not fit, or fewer than ``n`` of them.

    Example:
        >>> source = mrviz.load_source("dnn", depth=2, width=16, input_size=4, progress=False)
        >>> program = mrviz.programs.Linear(source.input_shape, (1, 2, 2))
        >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
        >>> data = torch.rand(20, 1, 4, 4), torch.arange(20) % 10
        >>> distribution_bound(model, torch.rand(30, 1, 2, 2), data).n
        20
    """
    inputs, (x_s, y_s) = model.inputs(x), checked(model.source, source_data)
    available = min(len(inputs), len(x_s))
    n = min(available, SAMPLES) if n is None else as_count(n, "n", 2)
    if not 2 <= n <= available:
        raise InputError(
            f"W₁ of {n} samples does not fit: there are {len(inputs)} target and {len(x_s)} source "
            "samples, and it needs at least 2 of each"
        )
    strength = source_strength(model.source, data=(x_s, y_s))
    assert strength is not None
    generator = torch.Generator().manual_seed(seed)
    there, here = (
        samples[torch.randperm(len(samples), generator=generator)[:n].to(samples.device)]
        for samples in (inputs, x_s)
    )
    with evaluation_mode(model), torch.no_grad():
        programmed = torch.cat([model.programmed(part) for part in there.split(256)])
    targets = source_outputs(model.source, programmed)
    sources = source_outputs(model.source, here)
    distances = optimal_assignment(targets, sources)
    half = n // 2
    halves = [wasserstein1(f[:half], f[half : 2 * half]) for f in (targets, sources)]
    return DistributionBound(
        risk=strength.risk,
        risk_error=strength.risk_error,
        distance=float(distances.mean()),
        distance_error=2 * float(distances.std()) / n**0.5,
        split=sum(halves),
        classes=model.source.outputs,
        n=n,
    )
