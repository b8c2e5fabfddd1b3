"""Source families without BatchNorm, NTK-style weights: the paper's and two for series."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor, nn

from mrviz.errors import InputError
from mrviz.sources.series import fcn, resnet1d
from mrviz.targets.raw import LABELLED
from mrviz.targets.spec import Kind

WEIGHT_VARIANCE = 2.0
"""Variance of a weight times its fan-in."""

BIAS_VARIANCE = 0.1


@dataclass(frozen=True)
class Range:
    """A whole-number option of a source.

    Attributes:
        default: value where none is given.
        low: smallest allowed value.
        high: largest value that a slider should offer; larger ones are allowed.
        help: what the number counts.
    """

    default: int
    low: int
    high: int
    help: str


@dataclass(frozen=True)
class SourceSpec:
    """What an interface needs to know about a source before loading it.

    Attributes:
        name: the name to pass to ``load_source``.
        label: name for people.
        pretrained: whether it comes with weights.
        ranges: the whole-number options that apply, by name.
        choices: the other options that apply, by name, each with its values, default first.
        kind: of its inputs, "image" or "series".
        forecasts: whether its outputs are the values that follow its input.
    """

    name: str
    label: str
    pretrained: bool
    ranges: Mapping[str, Range]
    choices: Mapping[str, tuple[str | None, ...]]
    kind: Kind = "image"
    forecasts: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Names of all options that apply."""
        return (*self.ranges, *self.choices)


_SIZES = {
    "image": Range(32, 1, 112, "height and width of the input in pixels"),
    "series": Range(128, 1, 512, "length of the input series"),
}

_EPOCHS = {"image": (15, 0, 50), "series": (100, 0, 300)}


def _family(
    name: str, label: str, depth: Range, width: Range, groups: Range | None, kind: Kind = "image"
) -> SourceSpec:
    data = (name for name, spec in LABELLED.items() if spec.kind == kind)
    ranges = {
        "depth": depth,
        "groups": groups,
        "width": width,
        "input_size": _SIZES[kind],
        "channels": Range(1, 1, 3, "channels of the input"),
        "n_classes": Range(10, 1, 100, "number of outputs"),
        "epochs": Range(*_EPOCHS[kind], "passes over the training data; 0 keeps the weights"),
    }
    return SourceSpec(
        name=name,
        label=label,
        pretrained=False,
        ranges=MappingProxyType({k: r for k, r in ranges.items() if r is not None}),
        choices=MappingProxyType({"trained_on": (None, *data)}),
        kind=kind,
    )


_GROUP_WIDTH = Range(16, 1, 64, "channels of the first group; each group doubles them")

FAMILIES: dict[str, SourceSpec] = {
    "dnn": _family(
        "dnn",
        "DNN",
        depth=Range(3, 1, 6, "weight layers; 1 is a linear model"),
        width=Range(512, 1, 2048, "hidden units per layer"),
        groups=None,
    ),
    "cnn": _family(
        "cnn",
        "CNN",
        depth=Range(3, 1, 6, "3 × 3 convolutions"),
        width=Range(32, 1, 512, "channels"),
        groups=None,
    ),
    "vgg": _family(
        "vgg",
        "VGG",
        depth=Range(2, 1, 6, "3 × 3 convolutions per group"),
        width=_GROUP_WIDTH,
        groups=Range(2, 1, 4, "groups of convolutions, each followed by 2 × 2 max-pooling"),
    ),
    "resnet": _family(
        "resnet",
        "ResNet",
        depth=Range(1, 1, 6, "residual blocks per group"),
        width=_GROUP_WIDTH,
        groups=Range(2, 1, 4, "groups of residual blocks, stride 2 between groups"),
    ),
    "fcn": _family(
        "fcn",
        "FCN for series",
        depth=Range(3, 1, 6, "convolutions of length 8, 5, then 3"),
        width=Range(32, 1, 128, "channels of the first and last convolution; others have twice"),
        groups=None,
        kind="series",
    ),
    "resnet1d": _family(
        "resnet1d",
        "ResNet for series",
        depth=Range(3, 1, 6, "residual blocks of three convolutions"),
        width=Range(16, 1, 64, "channels of the first block; others have twice as many"),
        groups=None,
        kind="series",
    ),
}
"""The families with their options: the paper's, and two for series (Wang et al. 2017)."""


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + scale · conv(relu(conv(x)))), shortcut = identity or 1×1 convolution.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        stride: of the first convolution and of the shortcut.
        scale: factor of the residual branch.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, scale: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
        )
        same = channels_in == channels_out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, stride)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Output (batch, channels_out, ⌈h / stride⌉, ⌈w / stride⌉)."""
        return torch.relu(self.shortcut(x) + self.scale * self.branch(x))

    def extra_repr(self) -> str:
        """Text for the module's repr."""
        return f"scale={self.scale:.4g}"


def build_family(
    name: str,
    input_shape: tuple[int, ...],
    *,
    depth: int,
    width: int | None,
    groups: int | None,
    n_classes: int,
    seed: int,
) -> nn.Module:
    """Builds a network of one of the families with random weights.

    Every weight is drawn from N(0, 2 / fan-in) and every bias from N(0, 0.1). The global random
    state of torch is neither used nor changed.

    Args:
        name: "dnn", "cnn", "vgg" or "resnet" for images, "fcn" or "resnet1d" for series.
        input_shape: (channels, height, width) or (channels, length) of one input.
        depth: dnn: weight layers; cnn, fcn: convolutions; vgg: convolutions per group; resnet:
            residual blocks per group; resnet1d: residual blocks.
        width: hidden units or channels (vgg, resnet, resnet1d: of the first group or block);
            None for a linear dnn.
        groups: vgg and resnet: number of groups; None for the others.
        n_classes: number of outputs.
        seed: of the weights.

    Returns:
        The network, which maps (batch, *input_shape) to (batch, n_classes).

    Raises:
        InputError: the input is too small for the number of groups.

    Example:
        >>> net = build_family(
        ...     "cnn", (1, 8, 8), depth=2, width=4, groups=None, n_classes=3, seed=0
        ... )
        >>> net(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 3])
    """
    with torch.device("meta"):
        if name == "dnn":
            network = _dnn(math.prod(input_shape), depth, width, n_classes)
        elif name == "cnn":
            network = _cnn(input_shape, depth, width or 1, n_classes)
        elif name == "vgg":
            network = _vgg(input_shape, depth, width or 1, groups or 1, n_classes)
        elif name == "fcn":
            network = fcn(input_shape[0], depth, width or 1, n_classes)
        elif name == "resnet1d":
            network = resnet1d(input_shape[0], depth, width or 1, n_classes)
        else:
            network = _resnet(input_shape, depth, width or 1, groups or 1, n_classes)
    network.to_empty(device="cpu")
    draw_weights(network, torch.Generator().manual_seed(seed))
    return network if name == "vgg" else channels_last(network)


def channels_last(network: nn.Module) -> nn.Module:
    """The network with channels last in its convolution weights: the same numbers.

    Its input-Jacobian then takes two thirds of the time (not so behind max-pooling). Not for
    networks of others: PyTorch 2.13 crashes in some of their layers.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    return network


def draw_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Redraws all dense and convolution layers: weights N(0, 2 / fan-in), biases N(0, 0.1)."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
                fan_in = layer.weight[0].numel()
                layer.weight.normal_(0, math.sqrt(WEIGHT_VARIANCE / fan_in), generator=generator)
                if layer.bias is not None:
                    layer.bias.normal_(0, math.sqrt(BIAS_VARIANCE), generator=generator)


def _dnn(n_inputs: int, depth: int, width: int | None, n_classes: int) -> nn.Module:
    sizes = [n_inputs, *[width or 1] * (depth - 1)]
    hidden: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        hidden += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], n_classes))


def _convolutions(channels_in: int, channels_out: int, depth: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for n_in in [channels_in, *[channels_out] * (depth - 1)]:
        layers += [nn.Conv2d(n_in, channels_out, 3, padding=1), nn.ReLU()]
    return layers


def _cnn(shape: tuple[int, ...], depth: int, width: int, n_classes: int) -> nn.Module:
    channels, height, breadth = shape
    return nn.Sequential(
        *_convolutions(channels, width, depth),
        nn.Flatten(),
        nn.Linear(width * height * breadth, n_classes),
    )


def _vgg(shape: tuple[int, ...], depth: int, width: int, groups: int, n_classes: int) -> nn.Module:
    channels, height, breadth = shape
    _check_size("vgg", min(height, breadth), groups, 2**groups)
    layers: list[nn.Module] = []
    for group in range(groups):
        layers += [*_convolutions(channels, width * 2**group, depth), nn.MaxPool2d(2)]
        channels, height, breadth = width * 2**group, height // 2, breadth // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * breadth, n_classes))


def _resnet(
    shape: tuple[int, ...], depth: int, width: int, groups: int, n_classes: int
) -> nn.Module:
    _check_size("resnet", min(shape[1:]), groups, 2 ** (groups - 1))
    scale = 1 / math.sqrt(depth * groups)
    layers: list[nn.Module] = [nn.Conv2d(shape[0], width, 3, padding=1), nn.ReLU()]
    channels = width
    for group in range(groups):
        for block in range(depth):
            stride = 2 if group > 0 and block == 0 else 1
            layers.append(ResidualBlock(channels, width * 2**group, stride, scale))
            channels = width * 2**group
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes)
    )


def _check_size(name: str, size: int, groups: int, smallest: int) -> None:
    if size < smallest:
        raise InputError(
            f"{name} with groups={groups} halves its input down to nothing: input_size must be at "
            f"least {smallest}, got {size}. Pass fewer groups or a larger input_size"
        )
