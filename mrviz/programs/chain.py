"""Programs made of two: a linear program inside a border prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from mrviz.errors import InputError
from mrviz.programs.base import KernelBlock, Program, Squashing
from mrviz.programs.linear import Linear
from mrviz.programs.parts import Part
from mrviz.programs.prompts import Border
from mrviz.programs.registry import register


class Chain(Program):
    """Two programs in a row: u = second(first(x)).

    The parameters of the two are separate blocks, so their kernels add; that of the first sees
    the Jacobian taken back through the second (docs/theory.md, section 2).

    Args:
        first: program from target inputs to an inner shape.
        second: program from that inner shape to source inputs.

    Raises:
        InputError: the shapes do not meet.

    Example:
        >>> inner = mrviz.programs.Linear((3, 28, 28), (1, 28, 28))
        >>> vp_fc = mrviz.programs.Chain(inner, mrviz.programs.Border((3, 64, 64), (3, 28, 28)))
        >>> vp_fc.capacity_range
        (1, 18)
    """

    key = "chain"

    def __init__(self, first: Program, second: Program) -> None:
        if first.source_shape != second.target_shape:
            raise InputError(
                f"the first program gives {first.source_shape}, but the second takes "
                f"{second.target_shape}: make the two shapes equal"
            )
        super().__init__(second.source_shape, first.target_shape)
        self.first = first
        self.second = second

    @property
    def label(self) -> str:  # type: ignore[override]
        """Both labels."""
        return f"{self.first.label} + {self.second.label}"

    @property
    def closed_form(self) -> bool:  # type: ignore[override]
        """Whether both programs have a closed form."""
        return self.first.closed_form and self.second.closed_form

    @property
    def capacity_label(self) -> str | None:  # type: ignore[override]
        """What the capacity of the second program counts."""
        return self.second.capacity_label

    def parameters_at(self, capacity: int | None) -> int:
        """P of both programs; the capacity is that of the second."""
        return self.first.n_parameters + self.second.parameters_at(capacity)

    @property
    def capacity(self) -> int | None:
        """Capacity of the second program; can be set."""
        return self.second.capacity

    @capacity.setter
    def capacity(self, value: int) -> None:
        self.second.capacity = value

    @property
    def capacity_range(self) -> tuple[int, int] | None:
        """Capacity range of the second program."""
        return self.second.capacity_range

    def forward(self, x: Tensor) -> Tensor:
        """Programmed inputs u (n, *source_shape) of target inputs x (n, *target_shape)."""
        return self.second(self.first(x))

    def kernel_increments(
        self, x: Tensor, jacobian: Tensor, capacities: Sequence[int | None]
    ) -> list[list[KernelBlock]]:
        """Blocks of the second program, plus those of the first at the first step."""
        inner = self.first(x).detach()
        increments = self.second.kernel_increments(inner, jacobian, capacities)
        taken_back = self.second.pullback(inner, jacobian)
        first = self.first.kernel_blocks(x, taken_back)
        return [first + increments[0], *increments[1:]]

    def scalar_features(self, x: Tensor) -> Tensor | None:
        """Those of the first program, or of the second where the first has none."""
        features = self.first.scalar_features(x)
        return self.second.scalar_features(self.first(x)) if features is None else features

    def pullback(self, x: Tensor, jacobian: Tensor) -> Tensor:
        """A ∂a/∂x through both programs."""
        inner = self.first(x).detach()
        return self.first.pullback(x, self.second.pullback(inner, jacobian))

    def trainable_parts(self, x: Tensor) -> list[Part]:
        """Parts of the first program, then those of the second."""
        with torch.no_grad():
            inner = self.first(x)
        return self.first.trainable_parts(x) + self.second.trainable_parts(inner)

    def describe(self) -> str:
        """One sentence: what happens to colours, sizes and pixels."""
        return f"first {self.first.describe()}; then {self.second.describe()}"


@register(Border, key="linear_border", label="linear + border")
def linear_border(
    source_shape: Sequence[int],
    target_shape: Sequence[int],
    *,
    width: int | None = None,
    image_size: int | None = None,
    activation: Squashing = "sigmoid",
    bias: Annotated[bool, "whether the linear program has a β"] = True,
    seed: int = 0,
) -> Chain:
    """VP+FC: a linear program into the source's colours at the image's size, then a border.

    Args:
        source_shape: (c, H, W) or (c, T) of the source's inputs.
        target_shape: (c, h, w) or (c, t) of the images or series.
        width: trainable frame width in pixels; default: all of the frame.
        image_size: side to which the mapped image is resized; default: its own size.
        activation: squashing of the border prompt.
        bias: whether the linear program has a bias.
        seed: seed of the linear program's start values.
    """
    inner_shape = (source_shape[0], *target_shape[1:])
    border = Border(
        source_shape, inner_shape, width=width, image_size=image_size, activation=activation
    )
    return Chain(Linear(inner_shape, target_shape, bias=bias, seed=seed), border)
