"""What an input program is: the trainable map a_θ and the factors of its tangent kernel."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn

from mrviz._checks import as_shape
from mrviz.errors import InputError
from mrviz.programs.parts import Part, response
from mrviz.targets import Kind, kind_of


@dataclass(frozen=True)
class KernelBlock:
    """One block of parameters in factored form: it adds (s_i·s_j) G_i G_jᵀ to Θ_ij.

    Attributes:
        factor: G, shape (n, rows, q): source Jacobians A_i times what is the same for every
            sample (or, for sample-dependent parts, A_i B_i itself).
        features: s, shape (n, m), a scalar kernel in front; ``None`` stands for 1.
    """

    factor: Tensor
    features: Tensor | None = None


class Program(nn.Module):
    """An input program a_θ: R^{d_T} → R^{d_S} (docs/theory.md, sections 1 and 2).

    A subclass gives ``forward`` and, where its tangent kernel has a closed form,
    :meth:`kernel_increments`. Without one, vector-Jacobian products through ``forward`` are
    used, which is always right and slower.

    Args:
        source_shape: shape (c, H, W) of one source input.
        target_shape: shape of one target input.
    """

    key: ClassVar[str]
    """Name in :func:`mrviz.reprogram`, in the Explorer and on the command line."""
    label: ClassVar[str]
    """Name shown to people."""
    capacity_label: ClassVar[str | None] = None
    """What the capacity counts, or ``None`` where the program has no capacity to choose."""
    capacity_option: ClassVar[str | None] = None
    """Keyword that chooses the capacity when the program is made, where it has one."""
    capacity_advice: ClassVar[str] = ""
    """What makes room for a larger capacity, for the error message."""
    closed_form: ClassVar[bool] = False
    """Whether :meth:`kernel_increments` gives the tangent kernel in closed form."""
    framed: ClassVar[bool] = False
    """Whether the image must leave a frame of the canvas free."""
    takes: ClassVar[tuple[Kind, ...]] = ("image", "series")
    """Kinds of target input that it works on."""

    def __init__(self, source_shape: Sequence[int], target_shape: Sequence[int]) -> None:
        super().__init__()
        self.source_shape = as_shape(source_shape, "source_shape")
        self.target_shape = as_shape(target_shape, "target_shape")
        self._capacity: int | None = None
        self._largest: int | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remembers the arguments, so that a saved program can be made again."""
        program = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind_partial(program, *args, **kwargs)
        except TypeError:  # __init__ says it better
            return program
        given = list(bound.arguments.items())[1:]
        # Modules are left to their own attributes: here they would not count as parts.
        program.__dict__["_given"] = {
            name: ... if isinstance(value, nn.Module) else value for name, value in given
        }
        return program

    @property
    def options(self) -> dict[str, Any]:
        """Keywords that make this program again, with the capacity it has now."""
        options = {
            name: getattr(self, name) if value is ... else value
            for name, value in self.__dict__.get("_given", {}).items()
        }
        if self.capacity_option is not None and self._capacity is not None:
            options[self.capacity_option] = self._capacity
        return options

    @property
    def n_parameters(self) -> int:
        """p, the number of parameters that training can move."""
        return self.parameters_at(self.capacity)

    def parameters_at(self, capacity: int | None) -> int:
        """P at another capacity."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def capacity(self) -> int | None:
        """The capacity in use; its meaning is :attr:`capacity_label`; can be set."""
        return self._capacity

    @capacity.setter
    def capacity(self, value: int) -> None:
        if self._largest is None:
            raise InputError(f"program {type(self).__name__} has no capacity to set")
        name, largest = self.capacity_option, self._largest
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise InputError(f"{name} must be a whole number, got {value!r}")
        if not 1 <= value <= largest:
            raise InputError(
                f"{name}={value} is outside 1 to {largest}: choose a {name} in that range or "
                f"{self.capacity_advice}"
            )
        self._capacity = int(value)

    @property
    def capacity_range(self) -> tuple[int, int] | None:
        """Smallest and largest capacity for these shapes."""
        return None if self._largest is None else (1, self._largest)

    def _set_capacity(self, value: int | None, largest: int) -> None:
        """Gives the program capacities from 1 to ``largest``; the largest where none is chosen."""
        self._largest = largest
        self.capacity = largest if value is None else value

    def kernel_increments(
        self, x: Tensor, jacobian: Tensor, capacities: Sequence[int | None]
    ) -> list[list[KernelBlock]]:
        """Kernel blocks added by each step of a growing sequence of capacities.

        Args:
            x: target inputs (n, *target_shape).
            jacobian: A, source Jacobians after the mapping, (n, rows, *source_shape).
            capacities: increasing; the k-th entry of the result holds the blocks that lead
                from capacity k−1 (from nothing, for the first) to capacity k.
        """
        raise InputError(f"program {type(self).__name__} has no closed-form kernel")

    def kernel_blocks(self, x: Tensor, jacobian: Tensor) -> list[KernelBlock]:
        """Kernel blocks of the program at its own capacity; see :meth:`kernel_increments`."""
        (blocks,) = self.kernel_increments(x, jacobian, [self.capacity])
        return blocks

    def scalar_features(self, x: Tensor) -> Tensor | None:
        """Features s (n, m) of the first kernel block that has a scalar kernel s_i·s_j.

        ``None`` for programs whose kernel has no such factor.
        """
        return None

    def pullback(self, x: Tensor, jacobian: Tensor) -> Tensor:
        """A ∂a/∂x: Jacobian rows (n, rows, *source_shape) taken back to the program's input.

        Used by :class:`~mrviz.programs.chain.Chain`; valid for programs that treat samples
        independently.
        """
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            u = self(x)
        rows = jacobian.shape[1]
        return torch.stack(
            [
                torch.autograd.grad(u, x, jacobian[:, row], retain_graph=row < rows - 1)[0]
                for row in range(rows)
            ],
            dim=1,
        )

    def trainable_parts(self, x: Tensor) -> list[Part]:
        """Pictures of what training can change, as it is now; one for programs of one block.

        Where a program has nothing better to show: how strongly each source input answers to
        the parameters, the root of diag(B Bᵀ).

        Args:
            x: one target input (1, *target_shape).
        """
        return [self._part("response of u to the parameters", response(self, x))]

    def _part(self, name: str, values: Tensor) -> Part:
        """A picture in the shape of a source input: curves where that is a series."""
        return Part(name, values, curves=kind_of(self.source_shape) == "series")

    def describe(self) -> str:
        """One sentence: what happens to colours, sizes and pixels."""
        return f"{self.label}: {self.target_shape} to {self.source_shape}"

    def extra_repr(self) -> str:
        """Text for the module's repr."""
        return f"source_shape={self.source_shape}, target_shape={self.target_shape}"


class AffineProgram(Program):
    """A program whose u is affine in x, so that A ∂a/∂x is the same for every x."""

    def pullback(self, x: Tensor, jacobian: Tensor) -> Tensor:
        """A ∂a/∂x, all samples and rows in one backward pass; see :class:`Program`."""
        n, rows = jacobian.shape[:2]
        origin = jacobian.new_zeros((n * rows, *self.target_shape), requires_grad=True)
        with torch.enable_grad():
            u = self(origin)
        (result,) = torch.autograd.grad(u, origin, jacobian.flatten(0, 1))
        return result.view(n, rows, *self.target_shape)


Squashing = Annotated[Literal["sigmoid", "identity"], "h, which squashes the prompt δ"]
"""The option that chooses an :class:`Activation`."""


class Activation:
    """The squashing h of a prompt δ and its derivative, by name."""

    NAMES = get_args(get_args(Squashing)[0])

    def __init__(self, name: str) -> None:
        if name not in self.NAMES:
            raise InputError(f"activation must be one of {', '.join(self.NAMES)}, got {name!r}")
        self.name = name

    def __call__(self, delta: Tensor) -> Tensor:
        """h(δ)."""
        return torch.sigmoid(delta) if self.name == "sigmoid" else delta

    def derivative(self, delta: Tensor) -> Tensor:
        """h′(δ)."""
        if self.name == "identity":
            return torch.ones_like(delta)
        squashed = torch.sigmoid(delta)
        return squashed * (1 - squashed)
