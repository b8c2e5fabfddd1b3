"""How good a source is, on one page: spectra of K_S, and λ_min[K_S] over the depth of a family."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mrviz._checks import as_labels, as_samples
from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz.errors import InputError
from mrviz.ntk.factors import Reduce
from mrviz.ntk.source_kernel.infinite_width import WideLimit
from mrviz.ntk.source_kernel.kernel import KINDS, wide_architecture
from mrviz.sources import SourceModel, load_source
from mrviz.sources.families import FAMILIES
from mrviz.sources.training import resized
from mrviz.spectrum import spectrum
from mrviz.targets.options import as_choice, as_count
from mrviz.targets.spec import kind_of
from mrviz.theory.factors import needed
from mrviz.theory.kernel_regime import KernelRegimeSource
from mrviz.theory.strength import (
    DRAWS,
    PER_CLASS,
    KernelSpectra,
    KernelStrength,
    SourceData,
    SourceStrength,
    kernel_spectra,
    kernel_strength,
    source_strength,
)

WIDTHS = {"dnn": 256, "cnn": 16, "vgg": 8, "resnet": 8, "fcn": 16, "resnet1d": 8}
"""Width of the networks of a depth curve where none is asked for."""

LARGEST_INPUTS = {"dnn": 32, "cnn": 16, "vgg": 16, "resnet": 16, "fcn": 128, "resnet1d": 128}
"""Side or length to which larger samples are shrunk for a depth curve where none is asked for."""


@dataclass(frozen=True, eq=False)
class SourceReport:
    """What is known of a source on its own task.

    Attributes:
        name: of the source.
        strength: accuracy and risk on the data.
        kernels: eigenvalues of K_S, one entry for each kind there is.
        notes: what is missing and why.
    """

    name: str
    strength: SourceStrength | None
    kernels: tuple[KernelSpectra, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "name": self.name,
            "strength": self.strength and asdict(self.strength),
            "kernels": [kernel.to_dict() for kernel in self.kernels],
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        lines = [f"SourceReport of {self.name}"]
        if self.strength is not None:
            lines.append(f"accuracy {self.strength.accuracy:.1%} on {self.strength.n:,} samples")
        lines += [kernel.strength.describe() for kernel in self.kernels]
        return "\n".join([*lines, *self.notes])


def source_report(
    source: SourceModel,
    data: SourceData | None = None,
    *,
    per_class: int = PER_CLASS,
    draws: int = DRAWS,
    reduce: Reduce = "trace",
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> SourceReport:
    """Accuracy of a source and spectra of its K_S, of both kinds where there are both.

    Args:
        source: the source.
        data: inputs and labels of its own task; default: its ``test_data``.
        per_class: samples of each class in K_S.
        draws: how often they are drawn.
        reduce: "trace", "sum" or a class number; the last two cost one backward pass instead of
            one for each output.
        seed: of the draws.
        device: where to compute; default: where the source is.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.

    Raises:
        InputError: no data, data that do not fit, or a source without parameters.
        Cancelled: ``cancel`` was set.

    Example:
        >>> source = mrviz.load_source("dnn", depth=2, width=32, input_size=8, progress=False)
        >>> data = torch.rand(60, 1, 8, 8), torch.arange(60) % 10
        >>> found = source_report(source, data, per_class=3, draws=2, progress=False)
        >>> [(kernel.kind, kernel.order) for kernel in found.kernels]
        [('empirical', 30), ('infinite-width', 30)]
    """
    data = needed(source, source.test_data if data is None else data)
    strength, module = source_strength(source, data=data), source.module
    if isinstance(module, KernelRegimeSource):
        own = KernelSpectra("kernel regime", (spectrum(module.gram, eigenvectors=False),))
        return SourceReport(source.name, strength, (own,))
    kinds, note = list(KINDS), ""
    try:
        wide_architecture(source)
    except InputError:
        kinds.remove("infinite-width")
        note = "there is no infinite-width kernel for this source's architecture"
    kernels = [
        kernel_spectra(
            source,
            data,
            kind=kind,
            per_class=per_class,
            draws=draws,
            reduce=reduce,
            seed=seed,
            device=device,
            progress=progress,
            cancel=cancel,
        )
        for kind in kinds
    ]
    return SourceReport(source.name, strength, tuple(kernels), (note,) if note else ())


@dataclass(frozen=True)
class DepthPoint:
    """λ_min[K_S] of random networks of one depth.

    Attributes:
        family: a key of :data:`~mrviz.sources.families.FAMILIES`.
        depth: as in :func:`~mrviz.load_source`.
        strengths: one for each kind of kernel; "empirical" holds the draws of all weight seeds,
            one seed after the other.
        seconds: wall-clock time.
    """

    family: str
    depth: int
    strengths: tuple[KernelStrength, ...]
    seconds: float

    def of(self, kind: str) -> KernelStrength | None:
        """The strength of a kind of kernel; ``None`` where it was not measured."""
        return next((s for s in self.strengths if s.kind == kind), None)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "family": self.family,
            "depth": self.depth,
            "strengths": [strength.to_dict() for strength in self.strengths],
            "seconds": self.seconds,
        }


def strength_over_depth(
    family: str,
    depths: Sequence[int] | None,
    data: SourceData,
    *,
    width: int | None = None,
    input_size: int | None = None,
    weight_seeds: Sequence[int] = (0,),
    kinds: Sequence[str] | None = None,
    per_class: int = PER_CLASS,
    draws: int = DRAWS,
    seed: int = 0,
    device: torch.device | str | None = None,
    on_point: Callable[[DepthPoint], None] | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> tuple[DepthPoint, ...]:
    """λ_min[K_S] of a family's random networks, depth by depth (Corollary 1 of the paper).

    The same samples are drawn at every depth. With the defaults and ten classes, the depths 1 to
    9 of a dnn take about 3 s on one CPU core and those of a cnn from 1 to 6 about 15 s. A larger
    input is dearer: a cnn takes about four times as long at 32 pixels as at 16.

    Args:
        family: "dnn", "cnn", "vgg" or "resnet" for images, "fcn" or "resnet1d" for series.
        depths: in the order in which they are measured; ``None``: those of the family's slider.
        data: images (n, c, h, w) in [0, 1] or series (n, c, length), and labels of the source's
            task.
        width: hidden units or channels; default: 256 (dnn), 16 (cnn, fcn), 8 (vgg, resnet,
            resnet1d). A dnn of depth 1 has none.
        input_size: side in pixels, or length, to which the samples are resized; default: their
            own, at most 32 (dnn), 128 (fcn, resnet1d) or 16 (the others).
        weight_seeds: seeds of the random weights of the empirical kernels.
        kinds: "empirical" and "infinite-width"; default: those that the family has (dnn and cnn
            have both).
        per_class: samples of each class.
        draws: how often they are drawn, for each of the weight seeds.
        seed: of the draws.
        device: where to compute; default: the CPU.
        on_point: called with each point as soon as it is there.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.

    Returns:
        One point for each depth, in their order.

    Raises:
        InputError: unknown family or kind, data or options that do not fit.
        Cancelled: ``cancel`` was set.

    Example:
        >>> data = torch.rand(40, 1, 8, 8), torch.arange(40) % 4
        >>> points = strength_over_depth("dnn", (2, 3), data, width=32, progress=False)
        >>> points[0].of("infinite-width").mean < points[1].of("infinite-width").mean
        True
    """
    family = as_choice(family, FAMILIES, "family")
    chosen = FAMILIES[family].ranges["depth"]
    depths = range(chosen.low, chosen.high + 1) if depths is None else depths
    depths = [as_count(depth, "depths", chosen.low) for depth in depths]
    weight_seeds = [as_count(value, "weight_seeds", 0) for value in weight_seeds]
    kinds = _kinds(family, kinds)
    if not depths or not weight_seeds:
        raise InputError("depths and weight_seeds must name at least one value each")
    x, y = _images(family, data, input_size)
    options: dict[str, Any] = {"input_size": x.shape[-1], "channels": x.shape[1]}
    options |= {"n_classes": int(y.max()) + 1, "progress": False}
    width = WIDTHS[family] if width is None else width
    common: dict[str, Any] = {"per_class": per_class, "draws": draws, "seed": seed}
    common |= {"device": device, "progress": False, "cancel": cancel}
    runs = [(kind, k) for kind in kinds for k in (weight_seeds if kind == KINDS[0] else [0])]
    points = []
    label = f"λ_min[K_S] of a {family} over depth"
    with Progress(len(depths) * len(runs), label, progress, cancel) as bar:
        for depth in depths:
            started = time.perf_counter()
            sized: dict[str, Any] = {} if family == "dnn" and depth == 1 else {"width": width}
            found: dict[str, list[KernelStrength]] = {kind: [] for kind in kinds}
            for kind, weight_seed in runs:
                source = load_source(family, depth=depth, seed=weight_seed, **sized, **options)
                found[kind].append(kernel_strength(source, (x, y), kind=kind, **common))
                bar.advance()
            strengths = tuple(_together(parts) for parts in found.values())
            points.append(DepthPoint(family, depth, strengths, time.perf_counter() - started))
            if on_point is not None:
                on_point(points[-1])
    return tuple(points)


def _kinds(family: str, kinds: Sequence[str] | None) -> list[str]:
    wide = family in WideLimit.FAMILIES
    if kinds is None:
        return [kind for kind in KINDS if wide or kind != "infinite-width"]
    if isinstance(kinds, str) or not kinds:
        raise InputError(f"kinds must be one or more of {', '.join(KINDS)}, got {kinds!r}")
    chosen = list(dict.fromkeys(as_choice(kind, KINDS, "kinds") for kind in kinds))
    if "infinite-width" in chosen and not wide:
        raise InputError(
            f"there is no infinite-width kernel for the family {family!r}, only for "
            f"{' and '.join(WideLimit.FAMILIES)}: pass kinds=('empirical',)"
        )
    return chosen


def _images(family: str, data: SourceData, input_size: int | None) -> tuple[Tensor, Tensor]:
    """Square images, or series, and labels."""
    x = as_samples(data[0], "data[0]", dtype=torch.float32)
    kind = FAMILIES[family].kind
    if kind_of(x.shape[1:]) != kind:
        wanted = "images (n, c, h, w)" if kind == "image" else "series (n, c, length)"
        raise InputError(f"data[0] must hold {wanted}, got shape {tuple(x.shape)}")
    y = as_labels(data[1], "data[1]", len(x)).cpu()
    if input_size is None:
        size = min(max(x.shape[2:]), LARGEST_INPUTS[family])
    else:
        size = as_count(input_size, "input_size", 1)
    return resized(x, size), y


def _together(parts: Sequence[KernelStrength]) -> KernelStrength:
    """Draws of several networks as those of one."""
    return KernelStrength(
        kind=parts[0].kind,
        smallest=tuple(value for part in parts for value in part.smallest),
        floors=tuple(value for part in parts for value in part.floors),
        largest=tuple(value for part in parts for value in part.largest),
        order=parts[0].order,
        notes=parts[0].notes,
    )
