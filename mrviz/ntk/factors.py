"""From samples to the factors of their kernel: one path per way of getting at the Jacobian."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mrviz.errors import InputError, ResourceError
from mrviz.ntk.jacobian import CachedJacobian, JacobianCache
from mrviz.ntk.memory import is_out_of_memory
from mrviz.programs import KernelBlock, Program, ReprogrammedModel

Reduce = str | int
Tick = Callable[[], None]
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
        if isinstance(self.name, int) and not isinstance(self.name, bool):
            if not 0 <= self.name < self.outputs:
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

    Attributes:
        notes: what had to be done differently than planned.
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
        self.notes: list[str] = []
        self._cotangents = reduction.cotangents(model.b)
        self.jacobian = CachedJacobian(
            model.source, self._cotangents @ model.b, None if whole else jacobian_cache
        )

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
        try:
            return self._compute(self.x[start:stop], capacities)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if stop - start == 1:
            raise ResourceError(
                f"the Jacobian of a single sample does not fit into memory ({reason}): use a "
                "smaller input_size, a program with fewer parameters, or another device"
            )
        middle = (start + stop) // 2
        note = f"out of memory with {stop - start} samples at once, went on with {middle - start}"
        self.notes.append(note)
        warnings.warn(note, stacklevel=2)
        first = self.increments(start, middle, capacities)
        second = self.increments(middle, stop, capacities)
        return [
            [_join(a, b) for a, b in zip(one, two, strict=True)]
            for one, two in zip(first, second, strict=True)
        ]

    def _compute(
        self, x: Tensor, capacities: Sequence[int | None] | None
    ) -> list[list[KernelBlock]]:
        model, program = self.model, self.model.program
        if self.whole:
            increments = [[KernelBlock(parameter_jacobian(model, model.program, x, self._rows(x)))]]
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
                    pulled = parameter_jacobian(program, program, x, jacobian, self.tick)
                    increments = [[KernelBlock(pulled)]]
        if self.bare:
            increments = [
                [KernelBlock(b.factor) for b in blocks if b.features is not None][:1]
                for blocks in increments
            ]
        return [
            [KernelBlock(self.reduction.flatten(b.factor), b.features) for b in blocks]
            for blocks in increments
        ]

    def _rows(self, x: Tensor) -> Tensor:
        return self._cotangents.expand(len(x), -1, -1)


def parameter_jacobian(
    module: nn.Module,
    program: nn.Module,
    x: Tensor,
    cotangents: Tensor,
    tick: Tick | None = None,
) -> Tensor:
    """Vector-Jacobian products of a module with respect to the program's parameters.

    Args:
        module: maps x (n, …) to outputs (n, *output_shape); treats samples independently.
        program: whose trainable parameters are differentiated.
        x: inputs (n, …).
        cotangents: (n, R, *output_shape).
        tick: called for each sample.

    Returns:
        Shape (n, R, p), parameters in the order of ``program.parameters()``.

    Raises:
        InputError: the program has no trainable parameters, or they do not reach the output.
    """
    parameters = [p for p in program.parameters() if p.requires_grad]
    if not parameters:
        raise InputError(
            f"program {type(program).__name__} has no trainable parameters: its tangent kernel "
            "is zero"
        )
    samples = []
    for sample, directions in zip(x.split(1), cotangents, strict=True):
        if tick is not None:
            tick()
        with torch.enable_grad():
            out = module(sample)
        if not out.requires_grad:
            raise InputError(
                f"the output does not depend differentiably on the parameters of "
                f"{type(program).__name__}"
            )
        rows = []
        for r, direction in enumerate(directions):
            grads = torch.autograd.grad(
                out,
                parameters,
                direction[None],
                retain_graph=r < len(directions) - 1,
                allow_unused=True,
                materialize_grads=True,
            )
            rows.append(torch.cat([g.flatten() for g in grads]))
        samples.append(torch.stack(rows))
    return torch.stack(samples)


def _join(a: KernelBlock, b: KernelBlock) -> KernelBlock:
    features = None
    if a.features is not None and b.features is not None:
        features = torch.cat([a.features, b.features])
    return KernelBlock(torch.cat([a.factor, b.factor]), features)
