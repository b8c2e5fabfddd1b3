"""Low-rank linear programs: a few fixed directions of the image, each with a trainable answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from mrviz.errors import InputError
from mrviz.programs.base import AffineProgram, KernelBlock
from mrviz.programs.options import Between
from mrviz.programs.parts import Part, tiled
from mrviz.programs.placement import make_placement
from mrviz.programs.registry import program

MAX_RANK = 64
"""Largest rank where none is asked for."""

MOST_TILES, MOST_CURVES = 16, 4
"""Directions shown in a picture."""


@program
class LowRankLinear(AffineProgram):
    """Low-rank linear program: u = base(x) + U V φ, φ the flattened target input.

    base(x) is the image in the middle of a canvas of zeros, V holds fixed orthonormal rows and
    U is trainable, zero at the start. All of U takes part in u; of it, the first ``rank``
    columns are trainable, so that u, and with it the source Jacobian, is the same for every
    rank. The kernel is (V_r φ_i·V_r φ_j) A_i A_jᵀ: one Gram Γ = [A_i A_jᵀ] serves every rank
    (docs/theory.md, section 2). At full rank it is that of a linear program without a bias.

    Args:
        source_shape: (c, H, W) or (c, T) of the source's inputs.
        target_shape: (c, h, w) or (c, t) of the images or series, d_T values.
        rank: trainable columns of U; default: all of them.
        max_rank: columns of U; default: 64, or d_T where that is less.
        image_size: side in pixels to which the image is resized first; default: its own size.
        seed: seed of V; the directions of a smaller ``max_rank`` are the first of a larger one.

    Attributes:
        weight: U, shape (d_S, max_rank).
        directions: V, shape (max_rank, d_T).

    Raises:
        InputError: the image does not fit, or ``rank`` or ``max_rank`` is out of range.

    Example:
        >>> program = mrviz.programs.LowRankLinear((1, 16, 16), (1, 8, 8), rank=5)
        >>> program.n_parameters, program.capacity_range
        (1280, (1, 64))
    """

    key = "low_rank"
    label = "low-rank linear"
    capacity_label = "rank"
    capacity_option = "rank"
    capacity_advice = "a larger max_rank"
    closed_form = True
    directions: Tensor
    column: Tensor

    def __init__(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        *,
        rank: int | None = None,
        max_rank: Annotated[int | None, Between(1, 256), "columns of U"] = None,
        image_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(source_shape, target_shape)
        self.placement = make_placement(self.source_shape, self.target_shape, image_size)
        d_s, d_t = math.prod(self.source_shape), math.prod(self.target_shape)
        columns = min(d_t, MAX_RANK) if max_rank is None else max_rank
        if isinstance(columns, bool) or not isinstance(columns, int | np.integer):
            raise InputError(f"max_rank must be a whole number, got {max_rank!r}")
        if not 1 <= columns <= d_t:
            raise InputError(f"max_rank={max_rank} is outside 1 to {d_t}, the values of an image")
        self.weight = nn.Parameter(torch.zeros(d_s, int(columns)))
        self.register_buffer("directions", orthonormal_rows(int(columns), d_t, seed))
        self.register_buffer("column", torch.arange(int(columns)), persistent=False)
        self._set_capacity(rank, int(columns))

    def forward(self, x: Tensor) -> Tensor:
        """Programmed inputs u (n, *source_shape) of target inputs x (n, *target_shape)."""
        weight = torch.where(self._within(self.capacity), self.weight, self.weight.detach())
        change = self._coordinates(x) @ weight.T
        return self.placement(x) + change.view(-1, *self.source_shape)

    def parameters_at(self, capacity: int | None) -> int:
        """P = rank · d_S."""
        return len(self.weight) * (capacity or 0) if self.weight.requires_grad else 0

    def kernel_increments(
        self, x: Tensor, jacobian: Tensor, capacities: Sequence[int | None]
    ) -> list[list[KernelBlock]]:
        """The same A in every step, with the coordinates it adds; see :class:`Program`."""
        if not self.weight.requires_grad:
            return [[] for _ in capacities]
        s, factor = self._coordinates(x), jacobian.flatten(2)
        return [
            [KernelBlock(factor, s[:, inner:outer])] for inner, outer in pairwise([0, *capacities])
        ]

    def scalar_features(self, x: Tensor) -> Tensor | None:
        """V_r φ, the coordinates along trainable directions."""
        return self._coordinates(x)[:, : self.capacity] if self.weight.requires_grad else None

    def describe(self) -> str:
        """One sentence: what happens to colours, sizes and pixels."""
        noun = self.placement.noun
        return (
            f"{noun} {self.placement.describe()}, centred on the source's "
            f"{self.placement.canvas}; along {self.capacity} of {self._largest} fixed random "
            f"directions of the {noun}, a trainable change of every source input is added"
        )

    def trainable_parts(self, x: Tensor) -> list[Part]:
        """The first of the fixed directions along which the program is trainable."""
        series = len(self.target_shape) == 2
        most = min(self.capacity or 0, MOST_CURVES if series else MOST_TILES)
        shown = self.directions[:most].view(-1, *self.target_shape).mean(1)
        name = f"{most} of {self.capacity} directions V"
        return [Part(name, shown if series else tiled(shown), curves=series, blank="")]

    def _within(self, rank: int | None) -> Tensor:
        return self.column < (rank or 0)

    def _coordinates(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.directions.T


def orthonormal_rows(rows: int, columns: int, seed: int) -> Tensor:
    """Orthonormal rows (rows, columns) spanning random directions; fewer are the first of more.

    Gaussian rows orthonormalised one after the other, by QR with the signs of R put right.
    """
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.stack(
        [torch.randn(columns, generator=generator, dtype=torch.float64) for _ in range(rows)]
    )
    q, r = torch.linalg.qr(gaussian.T)
    return (q * r.diagonal().sign()).T.to(torch.get_default_dtype()).contiguous()
