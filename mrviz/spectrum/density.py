"""The whole spectrum of an operator as a density, by stochastic Lanczos quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mrviz._checks import Array
from mrviz._progress import CancelFlag, Progress, ProgressCallback, stop_if_cancelled
from mrviz.errors import InputError
from mrviz.ntk import Gram
from mrviz.ntk.symmetric import SymmetricOperator, as_operator
from mrviz.spectrum.quadrature import Quadrature, christoffel, lanczos_quadratures
from mrviz.targets.options import as_count

BASIS_BYTES = 1 << 30
"""Krylov bases of probes that are run together, which lets them share products."""


@dataclass(frozen=True)
class Estimate:
    """A mean over probes.

    Attributes:
        value: the mean.
        error: its standard error; NaN for a single probe.
        low: value that the mean cannot be below, whatever lies between the quadrature's nodes;
            the sampling error comes on top. The value itself where there is no such doubt.
        high: likewise from above.
    """

    value: float
    error: float
    low: float
    high: float

    def __repr__(self) -> str:
        between = "" if self.low == self.high else f", between {self.low:.4g} and {self.high:.4g}"
        return f"{self.value:.4g} ± {self.error:.2g}{between}"


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """Gauss quadratures of the spectral density of a PSD operator Θ of order N, one for each probe.

    For a probe v of unit length, Σ_k w_k f(θ_k) is vᵀ f(Θ) v for all polynomials f of degree up to
    2·steps − 1; its mean over probes estimates tr f(Θ) / N (Ubaru, Chen & Saad 2017).

    Attributes:
        order: N.
        nodes: θ, ascending, (probes, steps), NaN where a probe ended earlier.
        weights: w, (probes, steps), zero there; each probe's sum to one.
        recurrence: diagonal and next diagonal of each probe's Jacobi matrix, (probes, steps, 2).
        exact: boolean (probes); whether a probe's Krylov space closed, so that its quadrature
            holds for every f.
        largest: largest node, λ_max from below.
        floor: noise floor N·ε·λ_max (docs/theory.md, section 6).
        epsilon: unit round-off of the least precise step behind the operator.
        orthogonality: largest entry of |QᵀQ − I| over all Krylov bases Q.
        matvecs: products of Θ with a vector.
        dual: whether the nodes are all eigenvalues of Θ, by its smaller dual, so that nothing
            is estimated; there is one "probe" then, with the eigenvalue zero as its first node.
    """

    order: int
    nodes: Tensor
    weights: Tensor
    recurrence: Tensor
    exact: Tensor
    largest: float
    floor: float
    epsilon: float
    orthogonality: float
    matvecs: int
    dual: bool = False

    @property
    def probes(self) -> int:
        """Number of probes."""
        return len(self.nodes)

    @property
    def trace(self) -> Estimate:
        """Estimate of tr Θ."""
        return self.trace_of(lambda values: values)

    @property
    def unresolved(self) -> Estimate:
        """Number of eigenvalues at or below the floor: the bin that nothing more is known about."""
        above = self.count_above(self.floor)
        value, low, high = (
            max(0.0, self.order - count) for count in (above.value, above.high, above.low)
        )
        return Estimate(value, above.error, low, high)

    def count_above(self, threshold: float) -> Estimate:
        """Number of eigenvalues above a threshold.

        A step is no polynomial: the weights of the nodes on either side of it may belong to
        eigenvalues on the other one (the Chebyshev–Markov–Stieltjes inequalities), which ``low``
        and ``high`` take into account. Below all nodes of a probe there is at most the weight
        that a quadrature with a node at the threshold gives it (the Christoffel function).

        Args:
            threshold: at least the floor.

        Raises:
            InputError: a threshold below the floor, where nothing is resolved.
        """
        if not threshold >= self.floor:
            raise InputError(
                f"threshold={threshold:.3g} is below the noise floor {self.floor:.3g}, where "
                "eigenvalues are not resolved: count above the floor or higher"
            )
        value, low, high = [], [], []
        for nodes, weights, recurrence, exact in zip(
            self.nodes, self.weights, self.recurrence, self.exact.tolist(), strict=True
        ):
            below = int((nodes <= threshold).sum())  # NaN is not
            above = float(weights[below:].sum())
            least, most = above, above
            if not exact and below == 0:
                least = above - christoffel(recurrence, threshold)
            elif not exact:
                least = above - float(weights[below : below + 1].sum())
                most = above + float(weights[below - 1])
            value.append(above)
            low.append(least)
            high.append(most)
        (mean, error), (low_mean, _), (high_mean, _) = (
            self._mean(torch.tensor(each, dtype=torch.float64)) for each in (value, low, high)
        )
        return Estimate(mean, error, low_mean, high_mean)

    def trace_of(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """Estimate of tr f(Θ), such as log(λ + R) or λ / (λ + R) with R well above the floor.

        Args:
            function: f, from eigenvalues to numbers, entry by entry. Nodes at or below the floor
                are passed as zero, as nothing is known about them.
        """
        resolved = torch.where(self.nodes > self.floor, self.nodes, 0.0)
        value, error = self._mean((self.weights * function(resolved)).sum(1))
        return Estimate(value, error, value, value)

    def density(self, grid: Array | None = None, width: float = 0.1) -> DensityCurve:
        """Eigenvalues per decade, each node smoothed by a Gaussian in log₁₀ λ.

        Only what is above the floor is shown; the rest is :attr:`unresolved`.

        Args:
            grid: positive λ, (g,); default: 400 from the floor to above the largest node.
            width: standard deviation of the Gaussian in decades.
        """
        if width <= 0:
            raise InputError(f"width must be a positive number of decades, got {width}")
        points = self._grid(width) if grid is None else torch.as_tensor(grid, dtype=torch.float64)
        if points.ndim != 1 or not bool((points > 0).all()):
            raise InputError("grid must be a list of positive numbers")
        resolved = self.nodes > self.floor
        logs = torch.where(resolved, self.nodes, 1.0).log10()
        kernel = (points.log10()[:, None, None] - logs) / width
        bumps = torch.exp(-kernel.square() / 2) / (width * math.sqrt(2 * math.pi))
        each = self.order * (bumps * torch.where(resolved, self.weights, 0.0)).sum(2)
        return DensityCurve(points, each.mean(1), self._error(each.T), self.unresolved)

    def to_dict(self) -> dict[str, Any]:
        """Statistics, nodes and weights as plain values."""
        unresolved, trace = self.unresolved, self.trace
        return {
            "order": self.order,
            "probes": self.probes,
            "steps": self.nodes.shape[1],
            "largest": self.largest,
            "floor": self.floor,
            "epsilon": self.epsilon,
            "unresolved": vars(unresolved),
            "trace": vars(trace),
            "orthogonality": self.orthogonality,
            "matvecs": self.matvecs,
            "nodes": [row[row.isfinite()].tolist() for row in self.nodes],
            "weights": [
                w[row.isfinite()].tolist() for row, w in zip(self.nodes, self.weights, strict=True)
            ],
        }

    def __repr__(self) -> str:
        unresolved = self.unresolved
        return (
            f"SpectralDensity(order={self.order}, probes={self.probes}, "
            f"steps={self.nodes.shape[1]}, largest={self.largest:.4g}, "
            f"above the floor {self.floor:.2g}: {self.count_above(self.floor)}, "
            f"not resolved: {unresolved.value:.4g} ± {unresolved.error:.2g}, "
            f"{self.matvecs} products)"
        )

    def _repr_html_(self) -> str:
        values = {k: v for k, v in self.to_dict().items() if k not in ("nodes", "weights")}
        values |= {"trace": self.trace, "unresolved": self.unresolved}
        rows = "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in values.items())
        return f"<table><caption>Spectral density</caption>{rows}</table>"

    def _mean(self, each: Tensor) -> tuple[float, float]:
        """Mean over probes and its standard error, times N."""
        scaled = self.order * each
        return float(scaled.mean()), float(self._error(scaled))

    def _error(self, each: Tensor) -> Tensor:
        """Standard error of the mean over probes; NaN for a single one."""
        if self.dual:
            return each.new_zeros(each.shape[1:])
        if len(each) < 2:
            return each.new_full(each.shape[1:], torch.nan)
        return each.std(0) / len(each) ** 0.5

    def _grid(self, width: float) -> Tensor:
        top = math.log10(self.largest) + 4 * width if self.largest > 0 else 0.0
        bottom = math.log10(self.floor) if self.floor > 0 else top - 1
        return torch.logspace(bottom, top, 400, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class DensityCurve:
    """A smoothed spectral density.

    Attributes:
        grid: λ, (g,).
        density: eigenvalues per decade at each λ, (g,).
        error: standard error over probes, (g,).
        unresolved: number of eigenvalues at or below the floor, which the curve leaves out.
    """

    grid: Tensor
    density: Tensor
    error: Tensor
    unresolved: Estimate


def spectral_density(
    operator: SymmetricOperator | Gram | Array,
    *,
    probes: int = 10,
    steps: int = 80,
    seed: int = 0,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> SpectralDensity:
    """Spectral density of Θ by stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017).

    Runs Lanczos from random vectors of signs, in float64. Each new vector is orthogonalised
    twice against all before it, so that no eigenvalue appears a second time. Costs probes × steps
    products and N × steps numbers for each probe that is run at once. Where the operator has a
    small dual JᵀJ, as for a border prompt, nothing is estimated: its eigenvalues are those of Θ.

    Args:
        operator: an :class:`~mrviz.ntk.operator.NTKOperator`, a symmetric Gram, or any symmetric
            positive semi-definite matrix.
        probes: random vectors; the standard errors fall with the root of their number.
        steps: Lanczos steps for each, that is nodes of its quadrature; at most N are taken.
        seed: of the probes; fewer probes are the first of more.
        progress: callback (done, total, label); ``False`` for silence; default: a text bar.
        cancel: flag with ``is_set()``, checked between passes.

    Raises:
        InputError: no probes, no steps, or a matrix that does not fit.
        Cancelled: ``cancel`` was set.

    Example:
        >>> found = mrviz.spectral_density(torch.diag(torch.tensor([4.0, 4.0, 1.0, 0.0])), steps=3)
        >>> found.nodes[0].round(decimals=6).abs()
        tensor([0., 1., 4.], dtype=torch.float64)
    """
    theta = as_operator(operator)
    probes, steps = as_count(probes, "probes", 1), as_count(steps, "steps", 1)
    order = theta.shape[0]
    steps = min(steps, order)
    dual = theta.dual(lambda: stop_if_cancelled(cancel, "dual of the kernel"))
    if dual is not None:
        return _by_dual(theta, dual)
    generator = torch.Generator().manual_seed(seed)
    at_once = max(1, BASIS_BYTES // (8 * order * steps))
    runs: list[Quadrature] = []
    with Progress(probes * steps, "Lanczos steps", progress, cancel) as bar:
        while len(runs) < probes:
            start = torch.stack(
                [
                    torch.randint(0, 2, (order,), generator=generator) * 2.0 - 1
                    for _ in range(min(at_once, probes - len(runs)))
                ]
            )
            runs += lanczos_quadratures(
                theta, start.double().to(theta.device) / order**0.5, steps, bar
            )
    largest = max(float(run.nodes[-1]) for run in runs)
    return SpectralDensity(
        order=order,
        nodes=_padded([run.nodes for run in runs], torch.nan),
        weights=_padded([run.weights for run in runs], 0.0),
        recurrence=_padded([run.recurrence for run in runs], torch.nan),
        exact=torch.tensor([run.exact for run in runs]),
        largest=largest,
        floor=order * theta.epsilon * max(largest, 0.0),
        epsilon=theta.epsilon,
        orthogonality=max(run.orthogonality for run in runs),
        matvecs=sum(len(run.nodes) for run in runs),
    )


def _by_dual(theta: SymmetricOperator, dual: Tensor) -> SpectralDensity:
    """All eigenvalues: those of the dual, and zero."""
    order, found = theta.shape[0], torch.linalg.eigvalsh((dual + dual.T) / 2).cpu()
    nodes = torch.cat([found.new_zeros(1), found]).sort().values
    weights = torch.full_like(nodes, 1 / order)
    weights[int((nodes == 0).nonzero()[0])] = (order - len(found)) / order
    largest = float(nodes[-1])
    return SpectralDensity(
        order=order,
        nodes=nodes[None],
        weights=weights[None],
        recurrence=nodes.new_full((1, len(nodes), 2), torch.nan),
        exact=torch.tensor([True]),
        largest=largest,
        floor=order * theta.epsilon * largest,
        epsilon=theta.epsilon,
        orthogonality=0.0,
        matvecs=0,
        dual=True,
    )


def _padded(parts: list[Tensor], filling: float) -> Tensor:
    """Stacked, those that ended earlier filled up."""
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=filling)
