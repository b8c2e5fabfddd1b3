"""Kernel ridge regression and its leave-one-sample-out residuals, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from mrviz.errors import InputError


def ridge_regression(kernel: Tensor, residual: Tensor, ridge: float = 0.0) -> tuple[Tensor, Tensor]:
    """Kernel ridge regression and its leave-one-sample-out residuals, by one inverse.

    With Q = Θ + R the predictor is f(x) = f_0(x) + Θ(x, X) Q⁻¹ r, and
    e_i = ([Q⁻¹]_ii)⁻¹ [Q⁻¹ r]_i, with C × C blocks, is the residual Y_i − f_{−i}(x_i) of the one
    fitted without sample i (docs/theory.md, section 5). Y − e are the left-out predictions.

    Args:
        kernel: Θ, (n·C, n·C), sample-major, or (n, n), which acts on every output alike.
        residual: r = Y − f_0(X), (n, C).
        ridge: R, not negative; zero needs a kernel of full rank.

    Returns:
        The dual Q⁻¹ r and the residuals e, both (n, C), float64.

    Raises:
        InputError: shapes do not fit, or Θ + R is singular to double precision.

    Example:
        >>> dual, e = ridge_regression(torch.eye(2), torch.tensor([[1.0], [2.0]]), ridge=1.0)
        >>> dual.flatten(), e.flatten()
        (tensor([0.5000, 1.0000], dtype=torch.float64), tensor([1., 2.], dtype=torch.float64))
    """
    factor = _factor(kernel, residual, ridge)
    n, block = len(residual), len(factor) // len(residual)
    inverse = torch.cholesky_inverse(factor)
    dual = inverse @ residual.to(factor).reshape(len(factor), -1)
    samples = torch.arange(n)
    diagonal = inverse.view(n, block, n, block)[samples, :, samples]
    left_out = torch.linalg.solve(diagonal, dual.view(n, block, -1))
    return dual.view(residual.shape), left_out.view(residual.shape)


def leave_one_out(kernel: Tensor, residual: Tensor, ridge: float = 0.0) -> Tensor:
    """The leave-one-sample-out residuals of :func:`ridge_regression` alone, (n, C)."""
    return ridge_regression(kernel, residual, ridge)[1]


def _factor(kernel: Tensor, residual: Tensor, ridge: float) -> Tensor:
    """Cholesky factor of Θ + R, float64."""
    if not ridge >= 0:
        raise InputError(f"ridge must not be negative, got {ridge}")
    n, outputs = residual.shape
    if tuple(kernel.shape) not in ((n * outputs, n * outputs), (n, n)):
        raise InputError(
            f"the kernel has shape {tuple(kernel.shape)}, but {n} samples with {outputs} outputs "
            f"need order {n * outputs}, or {n} for a reduced kernel"
        )
    matrix = kernel.double()
    matrix = matrix + ridge * torch.eye(len(matrix)).to(matrix)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    pivots = factor.diagonal()
    floor = len(matrix) * torch.finfo(torch.float64).eps * float(matrix.diagonal().max())
    if int(failed) or float(pivots.min()) ** 2 <= floor:
        raise InputError(
            f"the kernel with ridge {ridge:.3g} is singular to double precision: pass a ridge "
            f"well above {floor:.2g}"
        )
    return factor
