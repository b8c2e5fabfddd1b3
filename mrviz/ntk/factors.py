"""From samples to the factors of their kernel: one path per way of getting at the Jacobian."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mrviz._memory import Splitter
from mrviz.errors import InputError
from mrviz.ntk.jacobian import CachedJacobian, JacobianCache
from mrviz.ntk.program_jacobian import (
    Tick,
    looped_jacobian,
    parameter_jacobian,
    refuse_constant,
)
from mrviz.programs import KernelBlock, Program, ReprogrammedModel

Reduce = str | int
REDUCTIONS = ("full", "trace", "sum")


@dataclass(frozen=True)
class Reduction:
    """What is done with the C×C block of each pair of samples (docs/theory.md, section 2).

    Attributes:
        name: "full" (kept), "trace" (mean of the diagonal), "sum" (pseudo-NTK, sum of all
            entries over C) or the number of one class.
        outputs: C.
    """

    name: Reduce
    outputs: int

    def __post_init__(self) -> None:
        if isinstance(self.name, int | np.integer) and not isinstance(self.name, bool):
            object.__setattr__(self, "name", int(self.name))
            if not 0 <= int(self.name) < self.outputs:
                raise InputError(
                    f"reduce={self.name} names a class outside 0 to {self.outputs - 1}"
                )
        elif self.name not in REDUCTIONS:
            raise InputError(
                f"reduce must be one of {', '.join(REDUCTIONS)} or a class number, "
                f"got {self.name!r}"
            )

    @property
    def rows(self) -> int:
        """Rows of the Gram for each sample."""
        return self.outputs if self.name == "full" else 1

    @property
    def scale(self) -> float:
        """Factor in front of the reduced kernel."""
        return 1 / self.outputs if self.name in ("trace", "sum") else 1.0

    def cotangents(self, like: Tensor) -> Tensor:
        """Directions (R, C) in output space whose Jacobian rows are needed."""
        eye = torch.eye(self.outputs, dtype=like.dtype, device=like.device)
        if self.name == "sum":
            return eye.sum(0, keepdim=True)
        if isinstance(self.name, int):
            return eye[self.name : self.name + 1]
        return eye

    def directions(self, model: ReprogrammedModel) -> Tensor:
        """The cotangents (R, C) in the dtype and on the device of a model."""
        return self.cotangents(model.weights)

    def flatten(self, factor: Tensor) -> Tensor:
        """Jacobian rows (n, R, q) as rows of the reduced kernel's factor, sample-major."""
        return factor.flatten(1) if self.name == "trace" else factor.flatten(0, 1)


class Factors:
    """Kernel factors of samples, chunk by chunk; the chunk is halved when memory runs out.

    Args:
        model: the reprogrammed model, already on its device and in its dtype.
        x: checked target inputs.
        reduction: what is kept of each C×C block.
        whole: differentiate the whole model at once ("contraction") instead of taking the
            source's Jacobian through the program.
        bare: keep only the first block with a scalar kernel, and leave that kernel out.
        jacobian_cache: where source Jacobians are kept.
        tick: called between passes.
    """

    def __init__(
        self,
        model: ReprogrammedModel,
        x: Tensor,
        reduction: Reduction,
        *,
        whole: bool = False,
        bare: bool = False,
        jacobian_cache: JacobianCache | None = None,
        tick: Tick | None = None,
    ) -> None:
        self.model = model
        self.x = x
        self.reduction = reduction
        self.whole = whole
        self.bare = bare
        self.tick = tick
        self._split = Splitter("the Jacobian")
        self._cotangents = reduction.directions(model)
        linear, kept = model.mapping.linear, None if whole else jacobian_cache
        self.jacobian = CachedJacobian(
            model.source,
            self._cotangents @ model.b if linear else self._cotangents,
            kept,
            None if linear else model.head,
        )

    @property
    def notes(self) -> list[str]:
        """What had to be done differently than planned."""
        return self._split.notes

    def blocks(self, start: int, stop: int) -> list[KernelBlock]:
        """Reduced kernel blocks of samples start … stop − 1, at the program's capacity."""
        (blocks,) = self.increments(start, stop, None)
        return blocks

    def increments(
        self, start: int, stop: int, capacities: Sequence[int | None] | None
    ) -> list[list[KernelBlock]]:
        """Reduced blocks of each capacity step; ``None`` means the program's own capacity.

        Raises:
            ResourceError: one sample alone does not fit into memory.
        """

        def work(first: int, last: int) -> list[list[KernelBlock]]:
            return self._compute(self.x[first:last], capacities)

        return self._split(work, start, stop, _join)

    def _compute(
        self, x: Tensor, capacities: Sequence[int | None] | None
    ) -> list[list[KernelBlock]]:
        model, program = self.model, self.model.program
        if self.whole:
            explicit = looped_jacobian(model, trainable(model), x, self._rows(x), self.tick)
            self._refuse_constant(explicit, x)
            increments = [[KernelBlock(explicit)]]
        elif not trainable(program):
            increments = [[] for _ in capacities or [None]]
        else:
            with torch.no_grad():
                u = model.programmed(x)
                jacobian = self.jacobian(u, self.tick)
                if isinstance(program, Program) and program.closed_form:
                    increments = (
                        [program.kernel_blocks(x, jacobian)]
                        if capacities is None
                        else program.kernel_increments(x, jacobian, capacities)
                    )
                else:
                    explicit = parameter_jacobian(
                        program, trainable(program), x, jacobian, self.tick
                    )
                    self._refuse_constant(explicit, x)
                    increments = [[KernelBlock(explicit)]]
        if self.bare:
            increments = [
                [KernelBlock(b.factor) for b in blocks if b.features is not None][:1]
                for blocks in increments
            ]
        elif not self.whole and trainable(model.head):
            increments[0].append(self._head_block(x))
        flat: dict[int, Tensor] = {}  # steps that share a factor go on sharing it

        def flattened(factor: Tensor) -> Tensor:
            return flat.setdefault(id(factor), self.reduction.flatten(factor))

        return [
            [KernelBlock(flattened(b.factor), b.features) for b in blocks] for blocks in increments
        ]

    def _refuse_constant(self, explicit: Tensor, x: Tensor) -> None:
        """Raises ``InputError`` where a Jacobian is zero because the program has no slope."""
        program = self.model.program
        if trainable(program) and not explicit.any():
            refuse_constant(program, trainable(program), x)

    def _head_block(self, x: Tensor) -> KernelBlock:
        with torch.no_grad():
            features = self.model.source(self.model.programmed(x))
        if self.model.head.bias is not None:
            features = torch.cat([features, features.new_ones(len(x), 1)], 1)
        return KernelBlock(self._rows(x), features)

    def _rows(self, x: Tensor) -> Tensor:
        return self._cotangents.expand(len(x), -1, -1)


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of a module that training can move, in order."""
    return [p for p in module.parameters() if p.requires_grad]


def _join(parts: list[list[list[KernelBlock]]]) -> list[list[KernelBlock]]:
    """Blocks of consecutive ranges of samples as blocks of all of them, step by step.

    Steps that share a factor go on sharing it.
    """
    joined: dict[tuple[int, ...], Tensor] = {}

    def together(blocks: Sequence[KernelBlock]) -> KernelBlock:
        key = tuple(id(block.factor) for block in blocks)
        if key not in joined:
            joined[key] = torch.cat([block.factor for block in blocks])
        features = [block.features for block in blocks if block.features is not None]
        return KernelBlock(joined[key], torch.cat(features) if features else None)

    return [
        [together(same) for same in zip(*steps, strict=True)] for steps in zip(*parts, strict=True)
    ]
