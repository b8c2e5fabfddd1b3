"""Gradient flow of the linearised model: in closed form, or integrated with error control."""

from __future__ import annotations

from threading import Lock
from typing import Any

import torch
from torch import Tensor

from mrviz._progress import CancelFlag, stop_if_cancelled
from mrviz.errors import MrvizError
from mrviz.programs.losses import output_gradient
from mrviz.theory.modes import gain
from mrviz.theory.products import Kernel, apply, largest_eigenvalue

TOLERANCE = 1e-8
"""Relative and absolute tolerance of the integration."""

_integrator = Lock()  # older versions of SciPy's LSODA serve one thread at a time


def gradient_flow(
    kernel: Kernel,
    outputs: Tensor,
    targets: Tensor,
    times: Tensor,
    *,
    loss: str = "cross_entropy",
    cancel: CancelFlag | None = None,
) -> Tensor:
    """Dual of df/dt = −(1/n) Θ ∇_fℓ(f, Y): f_t(x) = f_0(x) + Θ(x, X) dual_t.

    In closed form for squared loss and a kernel in memory; else integrated by LSODA (Petzold
    1983), which changes between explicit and implicit methods as stiffness asks for, to 1e-8.

    Args:
        kernel: Θ of the training samples, (n·C, n·C), or of order n, for each output alike.
        outputs: f_0, (n, C), float64.
        targets: Y, (n, C), float64.
        times: t, ascending from 0, (R,), float64.
        loss: "cross_entropy" or "squared".
        cancel: flag with ``is_set()``, checked at each evaluation.

    Returns:
        Shape (R, n, C), float64.

    Raises:
        MrvizError: the integration failed.
        Cancelled: ``cancel`` was set.
    """
    if loss == "squared" and isinstance(kernel, Tensor):
        return _by_modes(kernel, targets - outputs, times)
    return _by_integration(kernel, outputs, targets, loss, times, cancel)


def _by_modes(kernel: Tensor, residual: Tensor, times: Tensor) -> Tensor:
    """Dual of gradient flow on squared loss, V diag(gain) Vᵀ r, at each time, (R, n, C)."""
    n, outputs = residual.shape
    values, vectors = torch.linalg.eigh(kernel.double())
    gains = gain(values, times, n=n, lr=1.0, optimizer="flow")
    columns = residual.reshape(len(kernel), -1)
    coefficients = gains[:, :, None] * (vectors.T @ columns)
    return (vectors @ coefficients).reshape(len(times), n, outputs)


def _by_integration(
    kernel: Kernel,
    start: Tensor,
    y: Tensor,
    loss: str,
    times: Tensor,
    cancel: CancelFlag | None,
) -> Tensor:
    """Dual of gradient flow at each time, (R, n, C), by an error-controlled integration.

    The unknown is the dual times λ_max/n, so that its tolerance is one of outputs.
    """
    from scipy.integrate import solve_ivp

    n = len(start)
    scale = max(largest_eigenvalue(kernel, start.device) / n, 1e-300)

    def outputs_of(state: Any) -> Tensor:
        dual = torch.as_tensor(state, device=start.device).view_as(start)
        return start + apply(kernel, dual, n) / (n * scale)

    def slope(_: float, state: Any) -> Any:
        stop_if_cancelled(cancel, "gradient flow")
        return (-scale * output_gradient(outputs_of(state), y, loss)).flatten().cpu().numpy()

    def jacobian(_: float, state: Any) -> Any:
        stop_if_cancelled(cancel, "gradient flow")
        p = outputs_of(state).softmax(1)
        curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        if loss == "squared":
            curvature = torch.eye(p.shape[1]).to(p).expand_as(curvature)
        # H Θ = (Θ H)ᵀ: the rows of the block-diagonal H, one set of values (n, C) each.
        rows = torch.block_diag(*curvature).view(-1, *start.shape)
        return (-apply(kernel, rows, n).flatten(1) / n).cpu().numpy()

    with _integrator:
        found = solve_ivp(
            slope,
            (0.0, float(times[-1])),
            torch.zeros(start.numel(), dtype=torch.float64).numpy(),
            method="LSODA",
            t_eval=times.numpy(),
            jac=jacobian,
            rtol=TOLERANCE,
            atol=TOLERANCE,
        )
    if not found.success:
        raise MrvizError(f"gradient flow could not be integrated: {found.message}")
    path = torch.as_tensor(found.y.T, device=start.device)
    return path.reshape(len(times), *start.shape) / (n * scale)
