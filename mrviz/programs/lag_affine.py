"""Forecasting input transform: a trainable scale and shift for each lag of a context window."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrviz.errors import InputError
from mrviz.programs.base import AffineProgram, KernelBlock
from mrviz.programs.parts import Part
from mrviz.programs.placement import check_colours, describe_colours, recoloured
from mrviz.programs.registry import program


@program
class LagAffine(AffineProgram):
    """Scale and shift of each lag: u_t = a_t x_t + b_t along the context of a forecaster.

    The newest value of the series is the newest of the source's context; before a series that
    is shorter there are zeros. Every channel and lag has its own a and b, one and zero at the
    start, so the program starts as the identity. Trainable are the ``lags`` newest of them; all
    take part in u, so that u is the same for any number of lags. A map that mixes lags is
    :class:`~mrviz.programs.Linear`, which takes series too.

    u is linear in a and in b, with ∂u_t/∂a_t = x_t and ∂u_t/∂b_t = 1: Θ_ij = A_i (X_i X_j + I)
    A_jᵀ over the trainable lags, X_i = diag(x_i).

    Args:
        source_shape: (c, T) of the source's context.
        target_shape: (c, t) of the series, t no longer than T.
        lags: trainable lags, counted from the newest; default: all of the series.

    Attributes:
        scale: a, shape (c, t), ones at the start.
        shift: b, shape (c, t), zeros at the start.

    Raises:
        InputError: inputs that are no series, too long a series, or ``lags`` out of range.

    Example:
        >>> program = mrviz.programs.LagAffine((1, 96), (1, 48), lags=12)
        >>> program(torch.ones(2, 1, 48)).sum(-1).flatten().tolist(), program.n_parameters
        ([48.0, 48.0], 24)
    """

    key = "lag_affine"
    label = "scale and shift of lags"
    capacity_label = "trainable lags (newest first)"
    capacity_option = "lags"
    capacity_advice = "longer series, as there is one for each value"
    closed_form = True
    takes = ("series",)

    def __init__(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        *,
        lags: int | None = None,
    ) -> None:
        super().__init__(source_shape, target_shape)
        for name in ("source_shape", "target_shape"):
            if len(getattr(self, name)) != 2:
                raise InputError(
                    f"{name} must be (channels, length), got {getattr(self, name)}: this program "
                    "transforms series"
                )
        check_colours(self.source_shape, self.target_shape)
        channels, context = self.source_shape
        length = self.target_shape[1]
        if length > context:
            raise InputError(
                f"a series of {length} points does not fit into the source's context of "
                f"{context}: cut it to its last {context} points"
            )
        self.scale = nn.Parameter(torch.ones(channels, length))
        self.shift = nn.Parameter(torch.zeros(channels, length))
        self.register_buffer("lag", torch.arange(length).flip(0), persistent=False)
        self._set_capacity(lags, length)

    lag: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Programmed inputs u (n, *source_shape) of target inputs x (n, *target_shape)."""
        within = self._within(self.capacity)
        scale, shift = (torch.where(within, p, p.detach()) for p in (self.scale, self.shift))
        u = scale * recoloured(x, self.source_shape[0]) + shift
        return functional.pad(u, (self.source_shape[1] - self.target_shape[1], 0))

    def parameters_at(self, capacity: int | None) -> int:
        """P = channels · lags, for each of a and b."""
        blocks = self.scale.requires_grad + self.shift.requires_grad
        return blocks * len(self.scale) * (capacity or 0)

    def kernel_increments(
        self, x: Tensor, jacobian: Tensor, capacities: Sequence[int | None]
    ) -> list[list[KernelBlock]]:
        """A times x, and A, at the lags that each step adds; see :class:`Program`."""
        rows = jacobian[..., self.source_shape[1] - self.target_shape[1] :]
        series = recoloured(x, self.source_shape[0])[:, None]
        increments: list[list[KernelBlock]] = []
        for inner, outer in pairwise([0, *capacities]):
            ring = self._within(outer) & ~self._within(inner)
            blocks = []
            if self.scale.requires_grad:
                blocks.append(KernelBlock((rows * series)[..., ring].flatten(2)))
            if self.shift.requires_grad:
                blocks.append(KernelBlock(rows[..., ring].flatten(2)))
            increments.append(blocks)
        return increments

    def trainable_parts(self, x: Tensor) -> list[Part]:
        """The scales and the shifts that are trainable."""
        fixed = ~self._within(self.capacity)
        named = {"scale a of each lag": self.scale, "shift b of each lag": self.shift}
        room = (self.source_shape[1] - self.target_shape[1], 0)
        return [
            Part(
                name,
                functional.pad(p.detach().masked_fill(fixed, float("nan")), room, value=torch.nan),
                curves=True,
            )
            for name, p in named.items()
        ]

    def describe(self) -> str:
        """One sentence: what happens to channels and values."""
        channels = "".join(f"{step}, " for step in describe_colours(*self._shapes))
        return (
            f"{channels}the newest value of the series at the end of the source's "
            f"{self.source_shape[1]} points; the {self.capacity} newest of {self._largest} lags "
            "have a trainable scale and shift"
        )

    @property
    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.source_shape, self.target_shape

    def _within(self, lags: int | None) -> Tensor:
        return self.lag < (lags or 0)
