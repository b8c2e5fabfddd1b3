"""NTK-vector products, from kernel factors or by autograd: Θ v without Θ.

Both ways apply Θ = J Jᵀ as "pull" (Jᵀ v, numbers in parameter space) and "push" (J times those),
chunk of samples by chunk, so that what some samples pull can be pushed to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.func import functional_call, jvp

from mrviz._memory import is_out_of_memory
from mrviz.errors import InputError, MrvizError
from mrviz.ntk.factors import Reduction, trainable
from mrviz.ntk.program_jacobian import Tick, refuse_constant
from mrviz.programs import KernelBlock, ReprogrammedModel

Samples = TypeVar("Samples", contravariant=True)
"""What stands for a chunk of samples: its kernel blocks, or the inputs themselves."""

PIECE_BYTES = 4 << 20
"""Kernel factors converted to the accumulation dtype at once: what a processor cache holds."""

Change = Callable[[Sequence[Tensor]], Tensor]
"""From a direction of the parameters to the change of the outputs."""


class Products(Protocol[Samples]):
    """J and Jᵀ of the reduced kernel Θ = scale · J Jᵀ; the scale is left to the caller."""

    @property
    def size(self) -> int:
        """Numbers per column that a pull gives."""

    @property
    def round_off(self) -> float:
        """Relative round-off of one product."""

    def pull(self, chunk: Samples, v: Tensor, tick: Tick) -> Tensor:
        """Jᵀ v of one chunk, (size, k), float64; the sum over chunks is that of all samples."""

    def push(self, chunk: Samples, pulled: Tensor, tick: Tick) -> Tensor:
        """J times what was pulled, (rows of the chunk, k), float64."""

    def diagonal(self, chunk: Samples, tick: Tick) -> Tensor:
        """Squared norms of the rows of J, (rows of the chunk), float64."""


class FactorProducts(Products[Sequence[KernelBlock]]):
    """Products from kernel blocks: Σ over blocks of (s_i·s_j) G_i G_jᵀ.

    With features, Z_i = G_iᵀ v_i is mixed across samples as S (Sᵀ Z); neither (s_i·s_j) G_i G_jᵀ
    nor rows s_i ⊗ G_i are formed. Where there are fewer samples than features, the features are
    first turned into as many coordinates as there are samples, which changes no s_i·s_j and no
    s·s_j of another sample s. Factors keep their dtype and are converted piece by piece.

    Args:
        blocks: kernel blocks of some sample, as a model for all others.
        accumulation: dtype of the products.
        features: of each block all samples' features, where they are at hand.
    """

    def __init__(
        self,
        blocks: Sequence[KernelBlock],
        accumulation: torch.dtype,
        features: Sequence[Tensor | None] | None = None,
    ) -> None:
        self._accumulation = accumulation
        self._bases = [_basis(f, accumulation) for f in features or [None] * len(blocks)]
        self._sizes = []
        for block, basis in zip(blocks, self._bases, strict=True):
            coordinates = 1 if block.features is None else block.features.shape[1]
            coordinates = coordinates if basis is None else basis.shape[1]
            self._sizes.append(coordinates * block.factor.shape[1])

    @property
    def size(self) -> int:
        """Numbers per column that a pull gives."""
        return sum(self._sizes)

    @property
    def round_off(self) -> float:
        """Unit round-off of the accumulation; the factors are what they are."""
        return torch.finfo(self._accumulation).eps / 2

    def pull(self, chunk: Sequence[KernelBlock], v: Tensor, tick: Tick) -> Tensor:
        """Jᵀ v of one chunk, all blocks below each other."""
        v, columns = v.to(self._accumulation), v.shape[1]
        parts = []
        for block, basis in zip(chunk, self._bases, strict=True):
            tick()
            q = block.factor.shape[1]
            if block.features is None:
                part = v.new_zeros(q, columns)
                for piece, rows in self._pieces(block.factor):
                    part.addmm_(piece.T, v[rows])
            else:
                n = len(block.features)
                spread, per_sample = v.new_empty(n, q, columns), v.reshape(n, -1, columns)
                for piece, rows in self._pieces(block.factor.view(n, -1, q)):
                    spread[rows] = piece.mT @ per_sample[rows]
                part = self._coordinates(block.features, basis).T @ spread.flatten(1)
            parts.append(part.view(-1, columns))
        return torch.cat(parts).double()

    def push(self, chunk: Sequence[KernelBlock], pulled: Tensor, tick: Tick) -> Tensor:
        """J times what was pulled."""
        columns = pulled.shape[1]
        total = pulled.new_zeros(len(chunk[0].factor), columns)
        parts = pulled.to(self._accumulation).split(self._sizes)
        for block, basis, part in zip(chunk, self._bases, parts, strict=True):
            tick()
            q = block.factor.shape[1]
            if block.features is None:
                for piece, rows in self._pieces(block.factor):
                    total[rows] += piece @ part
            else:
                n = len(block.features)
                coordinates = self._coordinates(block.features, basis)
                mixed = coordinates @ part.reshape(coordinates.shape[1], -1)
                mixed, per_sample = mixed.view(n, q, columns), total.view(n, -1, columns)
                for piece, rows in self._pieces(block.factor.view(n, -1, q)):
                    per_sample[rows] += piece @ mixed[rows]
        return total

    def diagonal(self, chunk: Sequence[KernelBlock], tick: Tick) -> Tensor:
        """Squared norms of the rows of J."""
        total = chunk[0].factor.new_zeros(len(chunk[0].factor), dtype=torch.float64)
        for block in chunk:
            tick()
            norms = torch.cat([p.double().square().sum(1) for p, _ in self._pieces(block.factor)])
            if block.features is not None:
                scalars = block.features.double().square().sum(1, keepdim=True)
                norms = (norms.view(len(scalars), -1) * scalars).flatten()
            total += norms
        return total

    def _coordinates(self, features: Tensor, basis: Tensor | None) -> Tensor:
        converted = features.to(self._accumulation)
        return converted if basis is None else converted @ basis

    def _pieces(self, factor: Tensor) -> Iterator[tuple[Tensor, slice]]:
        """Parts of a factor in the accumulation dtype, and where they are."""
        per_row = factor[0].numel() * torch.finfo(self._accumulation).bits // 8
        step = max(1, PIECE_BYTES // max(1, per_row))
        for start in range(0, len(factor), step):
            rows = slice(start, start + step)
            yield factor[rows].to(self._accumulation), rows


def _basis(features: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Orthonormal columns (m, n) that span the features of n < m samples, else ``None``."""
    if features is None or features.shape[0] >= features.shape[1]:
        return None
    return torch.linalg.qr(features.to(dtype).T)[0]


class TangentProducts(Products[Tensor]):
    """Products by autograd through the whole model, without any Jacobian.

    A pull is one backward pass a column. A push differentiates the backward pass, which is linear
    in the cotangent, so that one graph serves all columns; where an operation cannot be
    differentiated twice, it is one forward-mode pass a column (Novak et al. 2022,
    arXiv 2206.08720, section 3.3). The first push checks on one sample that it is the adjoint of
    the pull. Holds a few vectors of p numbers.

    Args:
        model: the reprogrammed model, in eval mode when products are taken.
        reduction: what is kept of each C×C block.
    """

    def __init__(self, model: ReprogrammedModel, reduction: Reduction) -> None:
        self.model = model
        self._theta = trainable(model)
        self._way: Callable[[Tensor], Change] | None = None
        cotangents = reduction.directions(model)
        # The trace kernel is a sum of C kernels; the others need one direction of θ a column.
        self._directions = cotangents[:, None] if reduction.name == "trace" else cotangents[None]

    @property
    def size(self) -> int:
        """Numbers per column that a pull gives."""
        return len(self._directions) * sum(p.numel() for p in self._theta)

    @property
    def round_off(self) -> float:
        """Unit round-off of the model's dtype."""
        return torch.finfo(self.model.source.dtype).eps / 2

    def pull(self, chunk: Tensor, v: Tensor, tick: Tick) -> Tensor:
        """Jᵀ v of inputs (n, …), the directions of a trace kernel below each other.

        Raises:
            InputError: the outputs do not depend differentiably on the trainable parameters.
        """
        out = self._outputs(chunk)
        columns = []
        for column in v.to(out.dtype).T:
            rows = column.reshape(len(chunk), -1)
            parts: list[Tensor] = []
            for direction in self._directions:
                tick()
                parts += self._gradients(out, rows @ direction)
            columns.append(torch.cat([part.flatten() for part in parts]).double())
        return torch.stack(columns, 1)

    def push(self, chunk: Tensor, pulled: Tensor, tick: Tick) -> Tensor:
        """J times what was pulled, for inputs (n, …).

        Raises:
            InputError: the model cannot be differentiated as needed.
        """
        if self._way is None:
            self._way = self._choose(chunk)
        change = self._way(chunk)
        columns = []
        for column in pulled.to(self.model.source.dtype).T:
            total = pulled.new_zeros(len(chunk), self._directions.shape[1])
            for direction, part in zip(
                self._directions, column.view(len(self._directions), -1), strict=True
            ):
                tick()
                total += (change(self._shaped(part)) @ direction.T).double()
            columns.append(total.flatten())
        return torch.stack(columns, 1)

    def diagonal(self, chunk: Tensor, tick: Tick) -> Tensor:
        """Squared norms of the rows of J, one backward pass each."""
        rows = self._directions.shape[1]
        unit = torch.eye(rows, dtype=torch.float64, device=chunk.device)
        squares = [self.pull(x, unit, tick).square().sum(0) for x in chunk.split(1)]
        return torch.cat(squares)

    def _outputs(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            out: Tensor = self.model(x)
        if not out.requires_grad:
            refuse_constant(self.model, self._theta, x)
        return out

    def _gradients(self, out: Tensor, cotangent: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            out,
            self._theta,
            cotangent,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )

    def _shaped(self, direction: Tensor) -> list[Tensor]:
        parts = direction.split([p.numel() for p in self._theta])
        return [part.view(p.shape) for part, p in zip(parts, self._theta, strict=True)]

    def _choose(self, x: Tensor) -> Callable[[Tensor], Change]:
        """The way whose push is the adjoint of the pull, on one sample of noise."""
        refuse_constant(self.model, self._theta, x)
        generator = torch.Generator().manual_seed(0)

        def noise(like: Tensor) -> Tensor:
            return (torch.rand(like.shape, generator=generator) + 0.5).to(like)

        sample = noise(x[:1])
        out = self._outputs(sample)
        cotangent, direction = noise(out), [noise(p) for p in self._theta]
        terms = torch.stack(
            [
                torch.stack([(g * d).sum(), g.norm() * d.norm()])
                for g, d in zip(self._gradients(out, cotangent), direction, strict=True)
            ]
        )
        expected, scale = terms.double().sum(0)
        for way in (self._backward_twice, self._forward_mode):
            try:
                found = (way(sample)(direction) * cotangent).sum().double()
            except MrvizError:
                raise
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                continue
            if abs(found - expected) <= torch.finfo(out.dtype).eps ** 0.5 * scale:
                return way
        raise InputError(
            f"the model of program {type(self.model.program).__name__} can be differentiated "
            "neither twice nor in forward mode, so its kernel cannot be multiplied by a vector "
            "without its Jacobians: pass a larger memory= that holds them"
        )

    def _backward_twice(self, x: Tensor) -> Change:
        out = self._outputs(x)
        with torch.enable_grad():
            cotangent = torch.zeros_like(out, requires_grad=True)
            pulled = torch.autograd.grad(
                out, self._theta, cotangent, create_graph=True, allow_unused=True
            )
        used = [k for k, part in enumerate(pulled) if part is not None]

        def change(direction: Sequence[Tensor]) -> Tensor:
            (result,) = torch.autograd.grad(
                [pulled[k] for k in used],
                cotangent,
                [direction[k] for k in used],
                retain_graph=True,
            )
            return result

        return change

    def _forward_mode(self, x: Tensor) -> Change:
        named = {k: p.detach() for k, p in self.model.named_parameters() if p.requires_grad}

        def outputs(theta: dict[str, Tensor]) -> Tensor:
            return functional_call(self.model, theta, (x,))

        def change(direction: Sequence[Tensor]) -> Tensor:
            result: Tensor = jvp(outputs, (named,), (dict(zip(named, direction, strict=True)),))[1]
            return result

        return change


def product_tile(
    model: ReprogrammedModel, x1: Tensor, x2: Tensor, reduction: Reduction, tick: Tick
) -> Tensor:
    """A tile of the reduced Gram, one pull and one push a column.

    Args:
        model: the reprogrammed model.
        x1: (n1, …), rows of the tile.
        x2: (n2, …), columns of the tile.
        reduction: what is kept of each C×C block.
        tick: called between passes.

    Returns:
        Shape (n1·rows, n2·rows), without the reduction's scale.
    """
    products = TangentProducts(model, reduction)
    unit = torch.eye(reduction.rows, dtype=torch.float64, device=x2.device)
    pulled = (products.pull(sample, unit, tick) for sample in x2.split(1))
    return torch.cat([products.push(x1, columns, tick) for columns in pulled], 1)
