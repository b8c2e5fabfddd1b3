"""Gauss quadratures of an operator's spectral density, by Lanczos with full reorthogonalisation.

Kept libraries were examined and none is used. curvlinops 3.0.1 does not reorthogonalise;
scikit-primate 0.5.6 lost orthogonality on rank-deficient and clustered spectra when asked for full
reorthogonalisation; hessian-eigenthings 1.0.0a5 and linear-operator 0.6.1 keep it, but end a run
at absolute thresholds (1e-12 and 1e-6), which is wrong for small kernels. None gives error bars
or knows a noise floor, and each would be a dependency of the core.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrviz._progress import Progress
from mrviz.ntk.symmetric import SymmetricOperator


@dataclass(frozen=True)
class Quadrature:
    """The quadrature of one probe v: vᵀ f(Θ) v ≈ Σ_k w_k f(θ_k).

    Attributes:
        nodes: θ, ascending, (steps).
        weights: w, (steps).
        recurrence: diagonal and next diagonal of the Jacobi matrix, (steps, 2).
        exact: whether the Krylov space closed, so that the quadrature holds for every f.
        orthogonality: largest entry of |QᵀQ − I|, Q the Krylov basis.
    """

    nodes: Tensor
    weights: Tensor
    recurrence: Tensor
    exact: bool
    orthogonality: float


def lanczos_quadratures(
    theta: SymmetricOperator, start: Tensor, steps: int, bar: Progress
) -> list[Quadrature]:
    """Lanczos from unit vectors, side by side so that they share products.

    Each new vector is orthogonalised twice against all before it. A probe ends where the next
    vector is round-off, as its Krylov space is then closed.

    Args:
        theta: Θ, of order N.
        start: unit vectors (probes, N).
        steps: most nodes of each quadrature, at most N.
        bar: advances by the number of probes with every step.
    """
    probes, order = start.shape
    basis = start.new_zeros(probes, steps, order)
    diagonal, beside = start.new_zeros(probes, steps), start.new_zeros(probes, steps)
    lengths = torch.full((probes,), steps)
    running = torch.ones(probes, dtype=torch.bool, device=start.device)
    scale = start.new_zeros(probes)
    threshold = 10 * order**0.5 * theta.round_off
    basis[:, 0] = start

    def tick() -> None:
        bar.advance(0)

    for step in range(steps):
        w = theta.apply(basis[:, step].T.contiguous(), tick).T[:, :, None]
        earlier = basis[:, : step + 1]
        inner = earlier @ w
        diagonal[:, step] = inner[:, step, 0]
        w = w - earlier.mT @ inner
        w = w - earlier.mT @ (earlier @ w)
        beside[:, step] = w.norm(dim=(1, 2))
        scale = torch.maximum(scale, diagonal[:, step].abs() + beside[:, step])
        ended = running & (beside[:, step] <= threshold * scale)
        lengths[ended.cpu()] = step + 1
        running &= ~ended
        bar.advance(probes)
        if step + 1 == steps or not running.any():
            break
        following = w[:, :, 0] / beside[:, step : step + 1]
        basis[:, step + 1] = torch.where(running[:, None], following, 0.0)
    return [
        _quadrature(
            basis[p, :length],
            diagonal[p, :length],
            beside[p, :length],
            exact=length == order or not bool(running[p]),
        )
        for p, length in enumerate(lengths.tolist())
    ]


def _quadrature(basis: Tensor, diagonal: Tensor, beside: Tensor, *, exact: bool) -> Quadrature:
    """Nodes and weights of a Jacobi matrix (Golub & Welsch 1969)."""
    matrix = torch.diag(diagonal) + torch.diag(beside[:-1], 1) + torch.diag(beside[:-1], -1)
    nodes, vectors = torch.linalg.eigh(matrix)
    unit = torch.eye(len(basis), dtype=basis.dtype, device=basis.device)
    return Quadrature(
        nodes=nodes.cpu(),
        weights=vectors[0].square().cpu(),
        recurrence=torch.stack([diagonal, beside], 1).cpu(),
        exact=exact,
        orthogonality=float((basis @ basis.T - unit).abs().max()),
    )


def christoffel(recurrence: Tensor, point: float) -> float:
    """The most weight that a measure with this recurrence can have at a point below its nodes.

    1 / Σ_k p_k(t)², p_k the orthonormal polynomials (Szegő 1939, section 3.4). All terms of the
    recurrence have one sign there, so that nothing cancels.
    """
    before, now, beside, total = 0.0, 1.0, 0.0, 1.0
    for diagonal, following in recurrence[~recurrence[:, 0].isnan()].tolist():
        before, now = now, ((point - diagonal) * now - beside * before) / following
        beside = following
        total += now * now
    return 1 / total
