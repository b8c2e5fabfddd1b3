"""A source's layers seen at work: what each takes, and what each output row asks of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from mrviz.errors import InputError
from mrviz.ntk.factors import Reduction, Tick
from mrviz.ntk.source_kernel.layers import (
    WEIGHT_LAYERS,
    Block,
    ExplicitLayer,
    PatchBlock,
    WeightLayer,
)
from mrviz.programs import KernelBlock
from mrviz.sources import SourceModel


@dataclass(eq=False)
class Calls:
    """The calls of one module in one forward pass.

    Attributes:
        inputs: what each took.
        edges: where each output is in the graph; in-place changes later do not move it.
        shapes: the shape of each output.
        plain: whether all took one tensor and returned one, samples first.
    """

    inputs: list[Tensor] = field(default_factory=list)
    edges: list[GradientEdge] = field(default_factory=list)
    shapes: list[torch.Size] = field(default_factory=list)
    plain: bool = True

    def add(
        self, n: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """A forward hook, for batches of n samples."""
        values = (*args, *kwargs.values(), output)
        self.plain = (
            self.plain
            and len(values) == 2
            and all(isinstance(v, Tensor) and v.ndim > 1 and len(v) == n for v in values)
            and output.requires_grad
        )
        if self.plain:
            self.inputs.append(values[0].detach())
            self.edges.append(get_gradient_edge(output))
            self.shapes.append(output.shape)


class RecordedNetwork:
    """A private copy of a source whose parameters can be differentiated, layer by layer.

    What is known about linear and convolution layers holds where a layer is called and its
    weights are used in no other way, which its type does not show. So the gradients of two
    random inputs are compared with those of autograd, parameter by parameter, and whatever does
    not agree is differentiated through the whole network, sample by sample.

    Args:
        source: the frozen source; it is neither changed nor hooked.
        device: of the copy.
        dtype: of the copy.

    Attributes:
        network: the copy.
        n_parameters: floating-point parameters of the source's module.
        n_idle: those among them that no output depends on, as far as autograd can see.
        weights: linear and convolution layers with factored gradients.
        explicit: other parameters, module by module; through the whole network comes last.

    Raises:
        InputError: the source has no parameters, or its outputs do not depend on them.
    """

    def __init__(self, source: SourceModel, device: torch.device, dtype: torch.dtype) -> None:
        self.network = copy.deepcopy(source).to(device, dtype).eval()
        named = {f"module.{k}": p for k, p in self.network.module.named_parameters()}
        named = {k: p for k, p in named.items() if p.is_floating_point()}
        if not named:
            raise InputError(
                f"source {source.name!r} has no parameters, so it has no tangent kernel of its own"
            )
        self.n_parameters = sum(p.requires_grad_().numel() for p in named.values())
        self.weights: list[WeightLayer] = []
        self.explicit: list[ExplicitLayer] = []
        self._survey(named)

    @property
    def input_values(self) -> int:
        """Numbers that are kept for each sample."""
        return sum(layer.values for layer in self.weights)

    @property
    def row_values(self) -> int:
        """Numbers that are kept for each sample and output row."""
        outputs = sum(w.groups * w.channels * w.positions for w in self.weights)
        return outputs + self.explicit_values

    @property
    def explicit_values(self) -> int:
        """Numbers in the explicit gradient of one output of one sample."""
        return sum(layer.size for layer in self.explicit)

    def blocks(
        self,
        x: Tensor,
        cotangents: Tensor,
        forms: Sequence[str],
        reduction: Reduction,
        tick: Tick | None = None,
    ) -> list[Block]:
        """Gradients of all parameters, layer by layer: one forward pass, one backward pass a row.

        Args:
            x: source inputs (n, *input_shape).
            cotangents: (R, C), directions in output space.
            forms: for each of ``weights``, one of :data:`~mrviz.ntk.source_kernel.layers.FORMS`.
            reduction: what is kept of each C×C block.
            tick: called between backward passes, to raise if the caller gave up.

        Raises:
            InputError: the layers are called in another way than for other inputs.
        """
        modules: list[nn.Module] = [layer.module for layer in self.weights]
        modules += [layer.module for layer in self.explicit]
        calls, grads = self._differentiate(x, modules, cotangents, tick)
        if any(not call.plain for call in calls) or any(
            sum(s[1:].numel() for s in call.shapes) != w.groups * w.channels * w.positions
            for w, call in zip(self.weights, calls, strict=False)
        ):
            raise InputError(
                f"source {self.network.name!r} calls its layers in another way for these inputs "
                "than for others: its gradients cannot be taken layer by layer"
            )
        blocks: list[Block] = [
            layer.block(form, call.inputs, rows, reduction)
            for layer, form, call, rows in zip(self.weights, forms, calls, grads, strict=False)
        ]
        start = len(self.weights)
        for layer, call, rows in zip(self.explicit, calls[start:], grads[start:], strict=True):
            jacobian = layer.jacobian(call.inputs[0], rows[0], tick)
            blocks.append(KernelBlock(reduction.flatten(jacobian)))
        return blocks

    def _differentiate(
        self, x: Tensor, modules: Sequence[nn.Module], cotangents: Tensor, tick: Tick | None
    ) -> tuple[list[Calls], list[list[Tensor]]]:
        """Calls of modules, and for each call its output gradients (n, R, …)."""
        f, calls = self._forward(x, modules)
        edges = [edge for call in calls for edge in call.edges]
        flat = [
            x.new_empty((len(x), len(cotangents), *shape[1:]))
            for call in calls
            for shape in call.shapes
        ]
        for row, cotangent in enumerate(cotangents if edges else ()):
            if tick is not None:
                tick()
            found = torch.autograd.grad(
                f,
                edges,
                cotangent.expand_as(f),
                retain_graph=row < len(cotangents) - 1,
                allow_unused=True,
            )
            for rows, one in zip(flat, found, strict=True):
                rows[:, row] = 0 if one is None else one
        remaining = iter(flat)
        return calls, [[next(remaining) for _ in call.edges] for call in calls]

    def _forward(self, x: Tensor, modules: Sequence[nn.Module]) -> tuple[Tensor, list[Calls]]:
        """Outputs with their graph, and the calls of modules."""
        calls = [Calls() for _ in modules]
        with ExitStack() as hooks, torch.enable_grad():
            for module, call in zip(modules, calls, strict=True):
                hook = module.register_forward_hook(partial(call.add, len(x)), with_kwargs=True)
                hooks.callback(hook.remove)
            f = self.network(x)
        if not f.requires_grad:
            raise InputError(
                f"source {self.network.name!r} has no gradient with respect to its parameters "
                "(evaluated without autograd inside?): its own tangent kernel is undefined"
            )
        return f, calls

    def _survey(self, named: dict[str, nn.Parameter]) -> None:
        """Sorts the parameters by how their gradients are had; unused ones have none."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand((2, *self.network.input_shape), generator=generator)
        direction = torch.randn(self.network.outputs, generator=generator)
        x, direction = x.to(self.network.anchor), direction.to(self.network.anchor)
        expected = self._expected(x, direction, list(named.values()))
        self.n_idle = sum(p.numel() for p in named.values() if id(p) not in expected)
        modules = [m for m in self.network.module.modules() if own(m)]
        calls, grads = self._differentiate(x, modules, direction[None], None)
        for module, call, rows in zip(modules, calls, grads, strict=True):
            names = [name for name, p in own(module).items() if id(p) in expected]
            if not call.plain or not call.edges or not names:
                continue
            if weight := _weight_layer(module, call, rows, expected):
                self.weights.append(weight)
                used = weight.parameters
            elif explicit := _explicit_layer(module, names, call, rows, expected):
                self.explicit.append(explicit)
                used = explicit.parameters
            else:
                used = []
            for p in used:
                del expected[id(p)]
        if rest := [name for name, p in named.items() if id(p) in expected]:
            self.explicit.append(ExplicitLayer(self.network, rest))

    def _expected(
        self, x: Tensor, direction: Tensor, parameters: list[nn.Parameter]
    ) -> dict[int, Tensor]:
        """Gradients (n, *shape) of each parameter that is used, by its id, from autograd."""
        f, _ = self._forward(x, [])
        each = [
            torch.autograd.grad(out @ direction, parameters, retain_graph=True, allow_unused=True)
            for out in f
        ]
        return {
            id(p): torch.stack([torch.zeros_like(p) if g is None else g for g in found])
            for p, *found in zip(parameters, *each, strict=True)
            if any(g is not None for g in found)
        }


def own(module: nn.Module) -> dict[str, nn.Parameter]:
    """A module's parameters without those of its children."""
    return dict(module.named_parameters(recurse=False))


def _weight_layer(
    module: nn.Module, calls: Calls, grads: list[Tensor], expected: dict[int, Tensor]
) -> WeightLayer | None:
    """The layer, if it is of a known type and its factored gradients are those expected."""
    parameters = own(module)
    if not isinstance(module, WEIGHT_LAYERS) or "weight" not in parameters:
        return None
    if not set(parameters) <= {"weight", "bias"} or not all(
        id(p) in expected for p in parameters.values()
    ):
        return None
    if type(module) not in WEIGHT_LAYERS and not expected[id(module.weight)].any():
        return None  # a subclass with gradients of zero: nothing to tell its formula by
    layer = WeightLayer(module, calls.inputs, calls.shapes)
    try:
        found = layer.contracted(PatchBlock(layer, "sliced", calls.inputs, grads))
    except RuntimeError:  # a subclass whose sizes are others than its base class has
        return None
    return layer if _agrees(layer.split(found[:, 0]), layer.parameters, expected) else None


def _explicit_layer(
    module: nn.Module,
    names: list[str],
    calls: Calls,
    grads: list[Tensor],
    expected: dict[int, Tensor],
) -> ExplicitLayer | None:
    """The module, if its own gradients are those expected."""
    if len(grads) > 1:
        return None
    layer = ExplicitLayer(module, names)
    try:
        found = layer.jacobian(calls.inputs[0], grads[0])
    except Exception:  # whatever a module raises that works only inside the network
        return None
    return layer if _agrees(layer.split(found[:, 0]), layer.parameters, expected) else None


def _agrees(
    found: list[Tensor], parameters: list[nn.Parameter], expected: dict[int, Tensor]
) -> bool:
    """Whether gradients are those expected, sample by sample, up to round-off."""
    tolerance = torch.finfo(found[0].dtype).eps ** (1 / 3)
    for gradient, p in zip(found, parameters, strict=True):
        wanted = expected[id(p)]
        error = (gradient - wanted).reshape(len(wanted), -1).norm(dim=1)
        if bool((error > tolerance * wanted.reshape(len(wanted), -1).norm(dim=1)).any()):
            return False
    return True
