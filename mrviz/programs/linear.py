"""Linear programs: a trainable matrix from target pixels to source pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from mrviz.programs.base import AffineProgram, KernelBlock
from mrviz.programs.parts import Part
from mrviz.programs.registry import program


@program
class Linear(AffineProgram):
    """Linear program (FC): u = reshape(W φ + β), φ the flattened target input.

    Its tangent kernel is (φ_i·φ_j + 1) A_i A_jᵀ, with 1 only where β is trainable
    (docs/theory.md, section 2). Starts like ``torch.nn.Linear``: uniform in ±1/√d_T.

    Args:
        source_shape: shape of one source input, d_S values.
        target_shape: shape of one target input, d_T values.
        bias: whether there is a β.
        seed: seed of the start values.

    Attributes:
        weight: W, shape (d_S, d_T).
        bias: β, shape (d_S), or ``None``.

    Example:
        >>> mrviz.programs.Linear((1, 4, 4), (1, 2, 2)).n_parameters
        80
    """

    key = "linear"
    label = "linear"
    closed_form = True
    takes = ("image", "series", "other")

    def __init__(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        *,
        bias: Annotated[bool, "whether there is a trainable β"] = True,
        seed: int = 0,
    ) -> None:
        super().__init__(source_shape, target_shape)
        d_s, d_t = math.prod(self.source_shape), math.prod(self.target_shape)
        generator = torch.Generator().manual_seed(seed)
        bound = d_t**-0.5

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        self.weight = uniform(d_s, d_t)
        self.bias = uniform(d_s) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Programmed inputs u (n, *source_shape) of target inputs x (n, *target_shape)."""
        u = nn.functional.linear(x.flatten(1), self.weight, self.bias)
        return u.view(-1, *self.source_shape)

    def kernel_increments(
        self, x: Tensor, jacobian: Tensor, capacities: Sequence[int | None]
    ) -> list[list[KernelBlock]]:
        """A with the scalar kernel of the inputs; see :class:`Program`."""
        features = self.scalar_features(x)
        if features is None:
            return [[] for _ in capacities]
        return [[KernelBlock(jacobian.flatten(2), features)], *([] for _ in capacities[1:])]

    def scalar_features(self, x: Tensor) -> Tensor | None:
        """(φ, 1), with the parts whose parameters are trainable."""
        features = []
        if self.weight.requires_grad:
            features.append(x.flatten(1))
        if self.bias is not None and self.bias.requires_grad:
            features.append(x.new_ones(len(x), 1))
        return torch.cat(features, 1) if features else None

    def trainable_parts(self, x: Tensor) -> list[Part]:
        """The matrix W."""
        return [Part("W: source inputs × target values", self.weight.detach())]

    def describe(self) -> str:
        """One sentence: what happens to colours, sizes and pixels."""
        t, s = "×".join(map(str, self.target_shape)), "×".join(map(str, self.source_shape))
        return f"all {t} input values are mapped to all {s} source inputs by a trainable matrix"
