"""Products of a kernel with values of samples, the kernel in memory or behind ``@``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mrviz.errors import InputError

DENSE_ORDER = 1000
"""Largest order of a matrix in memory whose eigenvalues are all computed for the largest."""


class Kernel(Protocol):
    """A symmetric matrix, or anything that multiplies columns (N, m) like one."""

    @property
    def shape(self) -> Sequence[int]:
        """Rows and columns."""

    def __matmul__(self, columns: Any, /) -> Any: ...


def apply(kernel: Kernel, values: Tensor, n: int) -> Tensor:
    """Product of a kernel with values (…, n, C) of its samples; (…, rows, C), float64.

    Args:
        kernel: (n_rows·C, n·C), or (n_rows, n), which acts on every output alike.
        values: values of the samples of the columns.
        n: number of samples of the rows.

    Raises:
        InputError: the kernel has another shape.
    """
    *batch, samples, outputs = values.shape
    full = tuple(kernel.shape) == (n * outputs, samples * outputs)
    if not full and tuple(kernel.shape) != (n, samples):
        raise InputError(
            f"the kernel has shape {tuple(kernel.shape)}, but {outputs} outputs of {n} and of "
            f"{samples} samples need ({n * outputs}, {samples * outputs}), or ({n}, {samples}) "
            "for a reduced kernel"
        )
    stacked = values.reshape(-1, samples, outputs)
    columns = stacked.flatten(1).T if full else stacked.transpose(0, 1).flatten(1)
    if hasattr(kernel, "dtype") and hasattr(kernel, "device"):
        columns = columns.to(kernel.device, kernel.dtype)
    product: Tensor = (kernel @ columns).to(values.device, torch.float64)
    if full:
        return product.T.reshape(*batch, n, outputs)
    return product.view(n, -1, outputs).transpose(0, 1).reshape(*batch, n, outputs)


def largest_eigenvalue(kernel: Kernel, device: torch.device | str = "cpu") -> float:
    """λ_max of a positive semi-definite kernel.

    By a full decomposition up to order 1,000 in memory, else by Lanczos iterations, which find
    an eigenvalue at this end of the spectrum to about 1e-10.

    Args:
        kernel: a symmetric matrix (N, N), or anything with ``shape`` and ``@``.
        device: where vectors for a kernel without a ``device`` live.
    """
    order = kernel.shape[0]
    if isinstance(kernel, Tensor) and order <= DENSE_ORDER:
        return float(torch.linalg.eigvalsh(kernel.double())[-1])
    from scipy.sparse.linalg import LinearOperator, eigsh

    device = getattr(kernel, "device", device)

    def product(vector: Any) -> Any:
        column = torch.as_tensor(vector, device=device).reshape(order, 1)
        return apply(kernel, column, order).flatten().cpu().numpy()

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(order, generator=generator, dtype=torch.float64).numpy()
    if not product(start).any():
        return 0.0
    operator = LinearOperator((order, order), matvec=product, dtype="float64")
    return float(eigsh(operator, k=1, which="LA", v0=start, return_eigenvectors=False)[0])
