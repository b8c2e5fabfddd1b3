"""Analytic NTK of infinitely wide ReLU networks: dense, and convolutional with either readout."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mrviz._checks import Array, as_device, as_samples
from mrviz._memory import available_bytes, readable
from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz.errors import DeviceError, InputError, ResourceError
from mrviz.ntk.arithmetic import symmetrize_
from mrviz.ntk.factors import Reduction
from mrviz.ntk.gram import Gram, GramInfo
from mrviz.ntk.plan import check_fits, full_precision, spans_of
from mrviz.targets.options import as_choice, as_count

TILE_BYTES, CPU_TILE_BYTES = 256 << 20, 4 << 20
"""Working memory of one tile, where the chunk size is chosen automatically.

On a CPU tiles that stay in its cache are up to twice as fast as large ones.
"""

TEMPORARIES = 10
"""Arrays of the size of a tile's covariances that are alive at once, at most."""


def infinite_width_ntk(
    x1: Array,
    x2: Array | None = None,
    family: str = "dnn",
    depth: int = 3,
    weight_std: float = 2**0.5,
    bias_std: float = 0.1**0.5,
    pooling: str = "flatten",
    *,
    device: torch.device | str | None = None,
    chunk_size: int | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Gram:
    """NTK of a ReLU network as its width goes to infinity (docs/theory.md, section 7).

    It is the limit for random weights, in the NTK parameterisation: a weight is
    weight_std/√fan-in · ω and a bias bias_std · β with ω, β ~ N(0, 1), and the derivatives are
    by ω and β (Jacot et al. 2018; Arora et al. 2019, arXiv 1904.11955). It depends on the
    architecture alone, never on trained weights. Different outputs have the same kernel and
    none between them, so one n1 × n2 matrix says it all. Without biases it is proportional to
    weight_std to the power of twice the number of weight layers.

    Args:
        x1: inputs (n1, d) or (n1, c, H, W), floating point; a dnn flattens images.
        x2: inputs of the columns; default: x1, which computes the upper triangle only.
        family: "dnn": dense layers with ReLU between them. "cnn": 3 × 3 convolutions with zero
            padding, each followed by ReLU, then ``pooling`` and one dense layer.
        depth: dnn: number of weight layers (1 is linear). cnn: number of convolutions.
        weight_std: standard deviation of a weight times √fan-in.
        bias_std: standard deviation of a bias; 0 leaves biases out.
        pooling: cnn: "flatten" or "gap" (mean over positions) before the dense layer.
        device: where to compute; default: where x1 is.
        chunk_size: samples on each side of a tile; default: by memory. The result does not
            depend on it.
        progress: callback (done, total, label); ``False`` for silence; default: a text bar.
        cancel: flag with ``is_set()``, checked between tiles.

    Returns:
        The Gram (n1 × n2, float64, one output), on the device where it was computed. Its
        ``info.n_parameters`` is infinite.

    Raises:
        InputError: inputs or options do not fit.
        DeviceError: the device is not there or has no float64.
        ResourceError: the matrix, or the covariances of one pair of images, do not fit.
        Cancelled: ``cancel`` was set.

    Example:
        >>> x = torch.eye(2, dtype=torch.float64)
        >>> mrviz.infinite_width_ntk(x, depth=2, bias_std=0).matrix  # 1 and 1/(2π) of 2 and 1/π
        tensor([[2.0000, 0.3183],
                [0.3183, 2.0000]], dtype=torch.float64)
    """
    started = time.perf_counter()
    limit = WideLimit.of(family, depth, weight_std, bias_std, pooling)
    first = as_samples(x1, "x1", dtype=torch.float64)
    limit.check_shape(first)
    symmetric = x2 is None
    second = first if symmetric else as_samples(x2, "x2", tuple(first.shape[1:]), torch.float64)
    if chunk_size is not None and chunk_size < 1:
        raise InputError(f"chunk_size must be at least 1, got {chunk_size}")
    place = as_device(device, first.device)
    if place.type == "mps":
        raise DeviceError(f"device='{place}' has no float64, which this kernel needs: pass 'cpu'")
    reduction = Reduction("full", 1)
    check_fits(len(first), len(second), reduction, place)
    first, second = (limit.arranged(x.to(place)) for x in (first, second))
    size = chunk_size or limit.default_chunk(first, place)
    with full_precision():
        matrix, asymmetry = _matrix(
            limit, first, None if symmetric else second, size, progress, cancel
        )
    largest = float(matrix.abs().max())
    info = GramInfo(
        method="analytic",
        why=f"infinite-width limit of {limit.description}",
        device=str(place),
        dtype="float64",
        accumulation="float64",
        epsilon=torch.finfo(torch.float64).eps / 2,
        n_parameters=math.inf,
        chunk_size=size,
        computed=len(first) + (0 if symmetric else len(second)),
        cached=0,
        seconds=time.perf_counter() - started,
        trace=float(matrix.trace()) if symmetric else None,
        symmetry_error=asymmetry / (largest or 1.0) if symmetric else None,
    )
    return Gram(matrix, len(first), 1, reduction.name, symmetric, info)


def _matrix(
    limit: WideLimit,
    x1: Tensor,
    x2: Tensor | None,
    size: int,
    progress: ProgressCallback | bool | None,
    cancel: CancelFlag | None,
) -> tuple[Tensor, float]:
    """The kernel tile by tile, tiles below the diagonal being mirror images; its asymmetry."""
    symmetric = x2 is None
    other = x1 if x2 is None else x2
    moments1 = limit.moments(x1)
    moments2 = moments1 if symmetric else limit.moments(other)
    matrix = x1.new_empty(len(x1), len(other))
    asymmetry = 0.0
    tiles = [
        (slice(*row), slice(*column))
        for row in spans_of(len(x1), size)
        for column in spans_of(len(other), size)
        if not symmetric or column >= row
    ]
    with Progress(len(tiles), "infinite-width NTK", progress, cancel) as bar:
        for row, column in tiles:
            tile = limit.tile(
                x1[row],
                other[column],
                [m.of(row) for m in moments1],
                [m.of(column) for m in moments2],
            )
            if symmetric and row == column:
                error = symmetrize_(tile, 1)
                asymmetry = max(asymmetry, error)
            matrix[row, column] = tile
            if symmetric:
                matrix[column, row] = tile.T
            bar.advance()
    return matrix, asymmetry


@dataclass(frozen=True)
class Moments:
    """Second moments of samples around one ReLU, each of shape (n, *positions of one image).

    Attributes:
        before: E[h²] of what the layer in front of the ReLU takes.
        scale: √E[f²] of what it gives.
    """

    before: Tensor
    scale: Tensor

    def of(self, samples: slice) -> Moments:
        """Those of some samples."""
        return Moments(self.before[samples], self.scale[samples])


@dataclass(frozen=True)
class WideLimit:
    """The layer-by-layer recursion of covariance, distance and tangent kernel.

    Arrays of pairs have shape (n1, n2, *positions): no positions for "dnn", (H, W) for
    "flatten", which needs equal positions only, and (H, W, H, W) for "gap".

    Attributes:
        kind: "dnn", "flatten" or "gap".
        hidden: number of layers that a ReLU follows.
        weight_variance: variance of a weight times its fan-in.
        bias_variance: variance of a bias.
    """

    kind: str
    hidden: int
    weight_variance: float
    bias_variance: float

    FAMILIES: ClassVar[tuple[str, ...]] = ("dnn", "cnn")
    POOLINGS: ClassVar[tuple[str, ...]] = ("flatten", "gap")

    @classmethod
    def of(
        cls, family: str, depth: int, weight_std: float, bias_std: float, pooling: str
    ) -> WideLimit:
        """The limit of a named architecture, options checked."""
        family = as_choice(family, cls.FAMILIES, "family")
        pooling = as_choice(pooling, cls.POOLINGS, "pooling")
        if family == "dnn" and pooling != "flatten":
            raise InputError("pooling applies to family='cnn' only: leave it out for a dnn")
        depth = as_count(depth, "depth", 1)
        for name, value in (("weight_std", weight_std), ("bias_std", bias_std)):
            if not 0 <= value < math.inf:
                raise InputError(f"{name} must be a finite number, 0 or more, got {value}")
        hidden = depth - 1 if family == "dnn" else depth
        kind = "dnn" if family == "dnn" else pooling
        return cls(kind, hidden, weight_std**2, bias_std**2)

    @property
    def description(self) -> str:
        """The architecture in words."""
        if self.kind == "dnn":
            return f"a dnn with {self.hidden + 1} weight layers"
        readout = "flattening" if self.kind == "flatten" else "global average pooling"
        return f"a cnn with {self.hidden} convolutions and {readout}"

    def check_shape(self, x: Tensor) -> None:
        """Raises ``InputError`` where inputs of this shape do not fit the architecture."""
        if x[0].numel() == 0:
            raise InputError(f"x1 holds samples without values, shape {tuple(x.shape)}")
        if self.kind != "dnn" and x.ndim != 4:
            raise InputError(
                f"family='cnn' takes images (n, c, H, W), got shape {tuple(x.shape)}: reshape "
                "x1, or use family='dnn' for vectors"
            )

    def arranged(self, x: Tensor) -> Tensor:
        """Inputs as (n, channels, *positions of one image)."""
        return x.flatten(1) if self.kind == "dnn" else x

    def default_chunk(self, x: Tensor, device: torch.device) -> int:
        """Samples on each side of a tile.

        Raises:
            ResourceError: not even the covariances of one pair of images fit.
        """
        positions = x[0, 0].numel() ** (2 if self.kind == "gap" else 1)
        pair = positions * 8 * TEMPORARIES
        free = available_bytes(device)
        if free is not None and pair > 0.8 * free:
            raise ResourceError(
                f"the covariances of one pair of images need {readable(pair)}, but {device} has "
                f"{readable(free)} free: use smaller images or pooling='flatten'"
            )
        budget = CPU_TILE_BYTES if device.type == "cpu" else TILE_BYTES
        return max(1, min(512, math.isqrt(budget // pair)))

    def moments(self, x: Tensor) -> list[Moments]:
        """Second moments of each sample around each ReLU."""
        before = x.square().mean(1)
        result = []
        for _ in range(self.hidden):
            mixed = before if self.kind == "dnn" else box(box(before, (1,)), (2,)) / 9
            after = mixed * self.weight_variance + self.bias_variance
            result.append(Moments(before, after.sqrt()))
            before = after / 2
        return result

    def tile(
        self, x1: Tensor, x2: Tensor, moments1: list[Moments], moments2: list[Moments]
    ) -> Tensor:
        """Kernel (n1, n2) of arranged inputs with their moments."""
        covariance, distance = self._start(x1, x2)
        kernel: Tensor | None = None
        for first, second in zip(moments1, moments2, strict=True):
            edges = self._paired(first.before, second.before)
            distance = self._mixed(distance, edges).mul_(self.weight_variance)
            covariance = self._mixed(covariance).mul_(self.weight_variance)
            covariance.add_(self.bias_variance)
            kernel = (
                covariance
                if kernel is None
                else self._mixed(kernel).mul_(self.weight_variance).add_(covariance)
            )
            covariance, distance, kernel = relu(
                covariance, distance, kernel, *self._paired(first.scale, second.scale)
            )
        total = covariance if kernel is None else covariance + kernel
        if total.ndim > 2:
            total = total.flatten(2).mean(2)
        return total * self.weight_variance + self.bias_variance

    def _start(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over channels of products, and of squared differences, of two sets of inputs."""
        channels = x1.shape[1]
        if self.kind == "dnn":
            distance = torch.cdist(x1, x2, compute_mode="donot_use_mm_for_euclid_dist").square()
            return x1 @ x2.T / channels, distance / channels
        left, right = self._paired(x1.transpose(0, 1), x2.transpose(0, 1), lead=1)
        covariance, distance = left[0] * right[0], (left[0] - right[0]).square()
        for a, b in zip(left[1:], right[1:], strict=True):
            covariance.addcmul_(a, b)
            distance.add_((a - b).square_())
        return covariance / channels, distance / channels

    def _paired(self, a: Tensor, b: Tensor, lead: int = 0) -> tuple[Tensor, Tensor]:
        """Arrays (…, n1, *positions), (…, n2, *positions), shaped to broadcast over pairs."""
        a, b = a.unsqueeze(lead + 1), b.unsqueeze(lead)
        if self.kind == "gap":
            a, b = a[..., None, None], b.unsqueeze(lead + 2).unsqueeze(lead + 2)
        return a, b

    def _mixed(self, values: Tensor, edges: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """What the weights of a layer average: 3 × 3 patches with zeros outside; a dnn nothing.

        Args:
            values: arrays of pairs.
            edges: for a distance, what it is where one of two positions is outside: the second
                moment at the other one. Covariances are zero there.
        """
        if self.kind == "dnn":
            return values
        for axis in (2, 3):
            if self.kind == "flatten":
                values = box(values, (axis,))
                continue
            first, second = axis, axis + 2
            values = box(values, (first, second))
            if edges is not None:
                for inside, outside, edge in ((first, second, edges[0]), (second, first, edges[1])):
                    high, low = {outside: slice(-1, None)}, {outside: slice(0, 1)}
                    part(values, {inside: UPPER, **high}).add_(part(edge, {inside: LOWER}))
                    part(values, {inside: LOWER, **low}).add_(part(edge, {inside: UPPER}))
                edges = box(edges[0], (first,)), box(edges[1], (second,))
        return values / 9


LOWER, UPPER = slice(1, None), slice(None, -1)


def part(values: Tensor, along: Mapping[int, slice]) -> Tensor:
    """A view with some axes sliced."""
    return values[tuple(along.get(axis, slice(None)) for axis in range(values.ndim))]


def box(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Sum of the array and of its shifts by one either way along all axes at once."""
    lower, upper = (part(values, dict.fromkeys(axes, span)) for span in (LOWER, UPPER))
    total = values.clone()
    part(total, dict.fromkeys(axes, UPPER)).add_(lower)
    part(total, dict.fromkeys(axes, LOWER)).add_(upper)
    return total


def relu(
    covariance: Tensor, distance: Tensor, kernel: Tensor, scale1: Tensor, scale2: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Covariance, distance and tangent kernel after a ReLU (Cho & Saul 2009).

    With a = scale1, b = scale2 and the angle θ of the pair, ab − covariance = ab(1 − cos θ) is
    taken from the distance a² + b² − 2·covariance where that is small. So θ has full relative
    precision for nearly equal inputs and is exactly zero for equal ones, where the arc cosine
    of the quotient would be off by 10⁻⁸ (docs/theory.md, section 7).

    Args:
        covariance: E[fg] of the pair before the ReLU.
        distance: E[(f − g)²].
        kernel: tangent kernel.
        scale1: square root of E[f²], broadcastable.
        scale2: square root of E[g²], broadcastable.

    Returns:
        E[f₊g₊], E[(f₊ − g₊)²] and kernel · P(f > 0, g > 0).
    """
    norm = scale1 * scale2
    versed = torch.where(
        distance < norm, (distance - (scale1 - scale2).square()) / 2, norm - covariance
    )
    sine = norm.add_(covariance).mul_(versed).clamp_(min=0).sqrt_()
    angle = torch.atan2(sine, covariance)
    bend = sine - angle * covariance
    both = angle.neg_().add_(math.pi).div_(2 * math.pi)
    return (
        torch.addcmul(sine / (2 * math.pi), covariance, both),
        distance / 2 - bend / math.pi,
        kernel * both,
    )
