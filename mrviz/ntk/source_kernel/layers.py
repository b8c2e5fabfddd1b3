"""Parameter gradients of a network layer by layer, factored, and the kernel of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mrviz.ntk.arithmetic import block_product
from mrviz.ntk.factors import Reduction, Tick
from mrviz.ntk.program_jacobian import parameter_jacobian
from mrviz.programs import KernelBlock

SLICE_BYTES = 64 << 20
"""Working memory of one slice of a layer's explicit gradients or patch Grams."""

WEIGHT_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""Types whose weight gradient is a sum over positions of (output gradient) × (patch)."""

FORMS = {
    "features": "with one position, as a scalar kernel times that of output gradients",
    "stored": "by explicit gradients, smaller than what they are made of",
    "sliced": "by explicit gradients, some output channels at a time",
    "gram": "by the Grams of their patches",
}
"""Ways to multiply the gradients of a linear or convolution layer, in words."""


@dataclass(frozen=True, eq=False)
class PatchBlock:
    """A layer's gradients as Σ_p g_p h_pᵀ, not multiplied out.

    Attributes:
        layer: whose gradients they are.
        form: how two blocks are multiplied, "sliced" or "gram".
        inputs: what each call of the layer took, (n, …).
        grads: gradients (n, R, …) of the output rows by what each call returned.
    """

    layer: WeightLayer
    form: str
    inputs: list[Tensor]
    grads: list[Tensor]

    def __len__(self) -> int:
        return len(self.inputs[0])

    def part(self, start: int, stop: int) -> PatchBlock:
        """Some of the samples."""
        inputs = [h[start:stop] for h in self.inputs]
        return PatchBlock(self.layer, self.form, inputs, [g[start:stop] for g in self.grads])

    def parts(self, per_sample: int) -> list[PatchBlock]:
        """All samples, in parts that need about ``SLICE_BYTES`` at ``per_sample`` bytes each."""
        size = max(1, SLICE_BYTES // max(1, per_sample))
        return [self.part(k, k + size) for k in range(0, len(self), size)]


Block = KernelBlock | PatchBlock


class WeightLayer:
    """A linear or convolution layer: patches h and output gradients g by position.

    Several calls of one layer are positions of one, as their gradients add.

    Args:
        module: the layer.
        inputs: what each of its calls took for a batch, to learn the sizes.
        outputs: the shape of what each call returned.

    Attributes:
        groups: groups of channels that do not mix (γ).
        positions: P, over all calls.
        patch: k, values of one patch and group, with a one for the bias.
        channels: o, output channels of one group.
    """

    def __init__(
        self, module: nn.Module, inputs: Sequence[Tensor], outputs: Sequence[torch.Size]
    ) -> None:
        assert isinstance(module, WEIGHT_LAYERS)
        self.module = module
        self.linear = isinstance(module, nn.Linear)
        self.groups = 1 if isinstance(module, nn.Linear) else module.groups
        self.channels = module.weight.shape[0] // self.groups
        self.patch = module.weight[0].numel() + (module.bias is not None)
        self.values = sum(h[0].numel() for h in inputs)
        self.positions = sum(s[1:].numel() for s in outputs) // module.weight.shape[0]
        self.padding = [] if isinstance(module, nn.Linear) else padding(module, inputs, outputs)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Weight and, where there is one, bias."""
        return list(self.module.parameters(recurse=False))

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.groups * self.channels * self.patch

    def patches(self, inputs: Sequence[Tensor]) -> Tensor:
        """What each position multiplies with the weights, (n, γ, P, k)."""
        found = _cat([self._linear(h) if self.linear else self._unfold(h) for h in inputs], 2)
        if self.module.bias is None:
            return found
        return F.pad(found, (0, 1), value=1.0)

    def gradients(self, grads: Sequence[Tensor]) -> Tensor:
        """Output gradients by position, (n, R, γ, o, P)."""
        if self.linear:
            moved = [g.flatten(2, -2) if g.ndim > 3 else g[:, :, None] for g in grads]
            return _cat(moved, 2).transpose(2, 3)[:, :, None]
        shape = (self.groups, self.channels)
        return _cat([g.flatten(3).unflatten(2, shape) for g in grads], 4)

    def contracted(self, block: PatchBlock, channels: slice = slice(None)) -> Tensor:
        """Explicit gradients of some output channels, (n, R, γ·channels·k)."""
        element = block.inputs[0].element_size()
        result = []
        for part in block.parts(self.groups * self.positions * self.patch * element):
            g = self.gradients(part.grads)[:, :, :, channels]
            rows, some = g.shape[1], g.shape[3]
            g = g.transpose(1, 2).flatten(2, 3)
            found = (g @ self.patches(part.inputs)).unflatten(2, (rows, some))
            result.append(found.transpose(1, 2).flatten(2))
        return _cat(result, 0)

    def split(self, gradients: Tensor) -> list[Tensor]:
        """Explicit gradients (n, size) by parameter, (n, *shape) each."""
        found = gradients.unflatten(1, (-1, self.patch))
        if self.module.bias is None:
            return [found.unflatten(2, self.module.weight.shape[1:])]
        return [found[..., :-1].unflatten(2, self.module.weight.shape[1:]), found[..., -1]]

    def best_form(self, rows: int, reduction: Reduction, n: int, tile: int) -> str:
        """The form with the fewest multiplications for one pair of samples.

        Explicit gradients cost a contraction for each sample, once where they are stored and
        for each tile otherwise; they are stored where they are no larger than what they are
        made of. The Gram of the patches, applied to the output gradients, costs P² products
        of patches and of gradients instead. With one position it is a scalar kernel.

        Args:
            rows: R, rows differentiated at once.
            reduction: what is kept of each C×C block.
            n: number of samples.
            tile: samples on each side of a tile.
        """
        if self.positions == 1 and self.groups == 1:
            return "features"
        crossed = rows**2 if reduction.name == "full" else rows
        outputs = self.groups * self.channels * self.positions
        small = self.size * rows <= self.values + outputs * rows
        contraction = rows * self.positions * self.size * 2 / (n if small else min(tile, n))
        explicit = crossed * self.size + contraction
        patch_gram = self.groups * self.positions**2 * (self.patch + rows * self.channels)
        if explicit > patch_gram + crossed * outputs:
            return "gram"
        return "stored" if small else "sliced"

    def block(
        self, form: str, inputs: list[Tensor], grads: list[Tensor], reduction: Reduction
    ) -> Block:
        """Gradients of one chunk of samples in one of ``FORMS``."""
        block = PatchBlock(self, form, inputs, grads)
        if form == "features":
            g = self.gradients(grads).flatten(2)
            return KernelBlock(reduction.flatten(g), self.patches(inputs).flatten(1))
        if form == "stored":
            return KernelBlock(reduction.flatten(self.contracted(block)))
        return block

    def _linear(self, h: Tensor) -> Tensor:
        return (h.flatten(1, -2) if h.ndim > 2 else h[:, None])[:, None]

    def _unfold(self, h: Tensor) -> Tensor:
        conv = self.module
        assert isinstance(conv, nn.Conv1d | nn.Conv2d)
        padding = [side for sides in reversed(self.padding) for side in sides]
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        h = F.pad(h, padding, mode=mode)
        kernel, dilation, stride = conv.kernel_size, conv.dilation, conv.stride
        if h.ndim == 3:
            h, kernel, dilation, stride = h[:, :, None], (1, *kernel), (1, *dilation), (1, *stride)
        found = F.unfold(h, kernel, dilation=dilation, stride=stride)
        return found.unflatten(1, (self.groups, -1)).transpose(2, 3)


def padding(
    conv: nn.Conv1d | nn.Conv2d, inputs: Sequence[Tensor], outputs: Sequence[torch.Size]
) -> list[tuple[int, int]]:
    """Padding (before, after) of each spatial axis: the declared one, where sizes bear it out.

    Subclasses may pad by themselves, as EfficientNets do: then it is what their sizes need,
    the odd one after.
    """
    found = []
    for axis, (k, s, d) in enumerate(
        zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
    ):
        size, positions, reach = inputs[0].shape[2 + axis], outputs[0][2 + axis], d * (k - 1)
        if isinstance(conv.padding, str):
            before = reach // 2 if conv.padding == "same" else 0
            after = reach - before if conv.padding == "same" else 0
        else:
            before = after = int(conv.padding[axis])
        if (size + before + after - reach - 1) // s + 1 != positions:
            missing = max(0, (positions - 1) * s + reach + 1 - size)
            before, after = missing // 2, missing - missing // 2
        found.append((before, after))
    return found


def _cat(parts: list[Tensor], axis: int) -> Tensor:
    """``torch.cat``, without the copy where there is nothing to put together."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


class ExplicitLayer:
    """Parameters whose gradients are written out: of one module, by its input and output.

    Args:
        module: a module that is called once, with one tensor, and treats samples independently.
        names: the names of some of its parameters.

    Attributes:
        parameters: the parameters, in the order of the columns.
        size: how many numbers they are.
    """

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        self.module = module
        self.parameters = [module.get_parameter(name) for name in names]
        self.size = sum(p.numel() for p in self.parameters)

    def jacobian(self, h: Tensor, g: Tensor, tick: Tick | None = None) -> Tensor:
        """Gradients (n, R, size) from inputs (n, …) and output gradients (n, R, …)."""
        with torch.no_grad():
            return parameter_jacobian(self.module, self.parameters, h, g, tick)

    def split(self, gradients: Tensor) -> list[Tensor]:
        """Explicit gradients (n, size) by parameter, (n, *shape) each."""
        parts = gradients.split([p.numel() for p in self.parameters], 1)
        return [g.reshape(-1, *p.shape) for g, p in zip(parts, self.parameters, strict=True)]


def kept_bytes(block: Block) -> int:
    """Bytes that a block keeps."""
    return sum(t.numel() * t.element_size() for t in _tensors(block))


def joined(parts: list[list[Block]]) -> list[Block]:
    """Blocks of consecutive ranges of samples as blocks of all of them, layer by layer."""
    result: list[Block] = []
    for same in zip(*parts, strict=True):
        whole = [torch.cat(group) for group in zip(*map(_tensors, same), strict=True)]
        first = same[0]
        if isinstance(first, KernelBlock):
            result.append(KernelBlock(whole[0], None if len(whole) == 1 else whole[1]))
        else:
            calls = len(first.inputs)
            result.append(PatchBlock(first.layer, first.form, whole[:calls], whole[calls:]))
    return result


def _tensors(block: Block) -> list[Tensor]:
    if isinstance(block, PatchBlock):
        return [*block.inputs, *block.grads]
    return [block.factor] if block.features is None else [block.factor, block.features]


def layers_product(
    a: list[Block], b: list[Block], reduction: Reduction, accumulation: torch.dtype
) -> Tensor:
    """Kernel of all layers between two chunks of samples.

    Args:
        a: gradients of the rows, layer by layer.
        b: gradients of the columns.
        reduction: what is kept of each C×C block.
        accumulation: dtype of the products.

    Returns:
        Shape (rows of a, rows of b), without the reduction's scale, float64.
    """
    left, right = ([x for x in blocks if isinstance(x, KernelBlock)] for blocks in (a, b))
    total = block_product(left, right, accumulation) if left else None
    for p, q in zip(a, b, strict=True):
        if isinstance(p, PatchBlock) and isinstance(q, PatchBlock):
            product = _sliced if p.form == "sliced" else _by_patch_gram
            tile = product(p, q, reduction, accumulation).double()
            total = tile if total is None else total.add_(tile)
    assert total is not None
    return total


def _sliced(
    a: PatchBlock, b: PatchBlock, reduction: Reduction, accumulation: torch.dtype
) -> Tensor:
    """Explicit gradients, some output channels at a time."""
    layer, rows = a.layer, a.grads[0].shape[1]
    channel = (len(a) + len(b)) * rows * layer.groups * layer.patch * 12
    step = max(1, SLICE_BYTES // channel)
    total: Tensor | None = None
    for first in range(0, layer.channels, step):
        some = slice(first, first + step)
        left = reduction.flatten(layer.contracted(a, some)).to(accumulation)
        right = left if b is a else reduction.flatten(layer.contracted(b, some)).to(accumulation)
        total = left @ right.T if total is None else total.addmm_(left, right.T)
    assert total is not None
    return total


def _by_patch_gram(
    a: PatchBlock, b: PatchBlock, reduction: Reduction, accumulation: torch.dtype
) -> Tensor:
    """⟨g_i, (h_i h_jᵀ) g_j⟩: the Gram of the patches between the output gradients."""
    layer, rows = a.layer, a.grads[0].shape[1]
    positions, outputs = layer.positions, rows * layer.channels
    per_sample = layer.groups * positions * (layer.patch + positions + 3 * outputs) * 12
    columns = []
    for part in b.parts(per_sample):
        h = layer.patches(part.inputs).to(accumulation).transpose(2, 3)
        g = layer.gradients(part.grads).to(accumulation)
        g = g.permute(0, 2, 4, 1, 3).flatten(3)
        found = []
        for k in range(len(a)):
            one = a.part(k, k + 1)
            left = layer.gradients(one.grads)[0].to(accumulation)
            mixed = (layer.patches(one.inputs).to(accumulation) @ h) @ g
            mixed = mixed.unflatten(3, (rows, -1))
            if reduction.name == "trace":
                found.append((mixed.flatten(1) @ left.permute(1, 3, 0, 2).flatten())[None])
            else:
                right = mixed.permute(0, 3, 1, 4, 2).flatten(2).flatten(0, 1)
                found.append(left.flatten(1) @ right.T)
        columns.append(torch.cat(found))
    return torch.cat(columns, 1)
