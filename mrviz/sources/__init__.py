"""Frozen source models: any torch module, families of networks, pretrained ones."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz.errors import InputError
from mrviz.sources.base import SourceModel
from mrviz.sources.families import FAMILIES, Range, SourceSpec, build_family
from mrviz.sources.forecasters import FORECASTERS, load_forecaster
from mrviz.sources.libraries import LIBRARIES, library_of, library_spec, load_library
from mrviz.sources.pretrained import PRETRAINED, efficientnet
from mrviz.sources.training import TrainedSource, TrainingReport, train_source
from mrviz.targets.options import as_choice, as_count
from mrviz.targets.raw import LABELLED

__all__ = [
    "SOURCES",
    "Range",
    "SourceModel",
    "SourceSpec",
    "TrainedSource",
    "TrainingReport",
    "load_source",
    "source_names",
    "source_spec",
]


SOURCES: Mapping[str, SourceSpec] = MappingProxyType(FAMILIES | PRETRAINED | FORECASTERS)
"""Everything ``load_source`` can load, with the options that apply and their ranges."""


def source_names() -> tuple[str, ...]:
    """The names that ``load_source`` knows by itself, those of timm and torchvision left out."""
    return tuple(SOURCES)


def source_spec(name: str) -> SourceSpec:
    """What is known of a source before it is loaded: from ``SOURCES``, or from a library.

    Args:
        name: a key of ``SOURCES``, or a library's classifier, such as "timm:resnet18", for which
            that library is imported.

    Raises:
        InputError: unknown name; the message lists the known ones or similar ones.
        MissingDataError: the library is not installed, or cannot be imported.

    Example:
        >>> source_spec("efficientnet-lite0").ranges["input_size"].default
        64
    """
    if library_of(name):
        return library_spec(name)
    known = (*SOURCES, *(f"{library}:…" for library in LIBRARIES))
    return SOURCES[as_choice(name, known, "source")]


def load_source(
    name: str,
    *,
    depth: int | None = None,
    groups: int | None = None,
    width: int | None = None,
    input_size: int | None = None,
    channels: int | None = None,
    n_classes: int | None = None,
    trained_on: str | None = None,
    epochs: int | None = None,
    weights: str | None = None,
    horizon: int | None = None,
    output: str | None = None,
    seed: int = 0,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> SourceModel:
    """Builds a source model: a network of a family, a pretrained one, or a forecaster.

    The families have no BatchNorm. Weights start as N(0, 2 / fan-in), biases as N(0, 0.1), and
    the residual branches of a ResNet with k blocks are scaled by 1/√k, which keeps activations
    of order one at any depth. The defaults suit a laptop; the paper's widths are 2048 (dnn),
    512 (cnn) and 32 (vgg, resnet), those of Wang et al. (2017) 128 (fcn) and 64 (resnet1d).
    ``SOURCES`` lists all options with defaults and ranges.

    Forecasters take a context (1, input_size) and give ``horizon`` values in its units. They
    scale each context by its own smallest and largest value.

    Any image classifier of timm or torchvision is known by the library's name and its own, such
    as "timm:resnet18" or "torchvision:resnet18". It keeps its BatchNorm, in eval mode, and its own
    normalisation. Their weights are downloaded by the library when first used.

    Args:
        name: for images "dnn", "cnn", "vgg", "resnet", or "efficientnet-lite0", "-lite1",
            "-lite2", "timm:…", "torchvision:…"; for series "fcn", "resnet1d", or the forecasters
            "fracast" (pretrained) and "conv-forecaster".
        depth: dnn: number of weight layers (1 = linear). cnn: number of 3 × 3 convolutions before
            the dense layer. vgg: convolutions per group. resnet: residual blocks per group.
            fcn, conv-forecaster: convolutions. resnet1d: residual blocks of three convolutions.
        groups: vgg: number of groups, each followed by 2 × 2 max-pooling. resnet: number of
            groups, with stride 2 between them. Each group doubles the channels.
        width: hidden units (dnn) or channels (cnn; vgg and resnet: of the first group; fcn: of
            the first and last convolution; resnet1d: of the first block).
        input_size: height and width of the input in pixels, or length of a series. Default: that
            of the training data, else 32 (series 128); for EfficientNet 64, at least 32 (native:
            224, 240, 260); for timm and torchvision the native one; for fracast 96, at most
            2048; for a conv-forecaster 48.
        channels: channels of the input. Default: those of the training data, else 1.
        n_classes: number of outputs. Default: those of the training data, else 10.
        trained_on: an image set such as "mnist-5k" or "fashion-mnist", for series a UCR set such
            as "ucr:GunPoint": trains with Adam on three quarters of that data set (of 10,000 of
            its samples where it has more), resized linearly to ``input_size``, and keeps the
            epoch with the best validation accuracy. conv-forecaster: a series such as "airline",
            whose first 60 % it is trained on with squared loss. Weights are cached. Default:
            random weights.
        epochs: passes over the training data; 0 keeps the initial weights.
        weights: EfficientNet, timm, torchvision: "pretrained" or "random"; fracast: the same.
        horizon: forecasters: values to forecast; default: 12. fracast: at most 48.
        output: fracast: "median", or "quantiles" 0.1 to 0.9, nine outputs for each value.
        seed: of random weights and of the training; pretrained weights do not depend on it.
        progress: callback (done, total, label), True or None for a text bar, False for silence.
        cancel: flag with ``is_set()`` that ends the work with ``Cancelled``.

    Returns:
        The source for inputs in [0, 1]. It normalises them itself: by the mean and standard
        deviation of its training data or of its library, else to [-1, 1]. A source trained here
        is a ``TrainedSource`` with ``training_report`` and, unless it forecasts, ``test_data``.

    Raises:
        InputError: unknown name, or an option with a wrong value or that does not apply.
        MissingDataError: a package that brings weights or data is not installed, or what has to
            be downloaded cannot be.
        Cancelled: ``cancel`` was set.

    Example:
        >>> load_source("dnn", depth=2, width=64, input_size=8).input_shape
        (1, 8, 8)
    """
    spec = source_spec(name)
    given = _given(
        spec,
        depth=depth,
        groups=groups,
        width=width,
        input_size=input_size,
        channels=channels,
        n_classes=n_classes,
        trained_on=trained_on,
        epochs=epochs,
        weights=weights,
        horizon=horizon,
        output=output,
    )
    seed = as_count(seed, "seed", 0)
    if name in FORECASTERS:
        return load_forecaster(name, given, seed, progress, cancel)
    if spec.pretrained:
        with Progress(1, f"Loading {name}", progress, cancel) as bar:
            source = (load_library if library_of(name) else efficientnet)(
                name,
                input_size=given.get("input_size", spec.ranges["input_size"].default),
                pretrained=given.get("weights", spec.choices["weights"][0]) == "pretrained",
                seed=seed,
            )
            bar.advance()
    else:
        source = _load_family(spec, given, seed, progress, cancel)
    source.spec = {"name": name, **given, "seed": seed}
    return source


def _given(spec: SourceSpec, **values: Any) -> dict[str, Any]:
    """The options that were given, checked one by one."""
    given = {key: value for key, value in values.items() if value is not None}
    for key, value in given.items():
        if key not in spec.options:
            raise InputError(
                f"{key} does not apply to {spec.name!r}; its options are {', '.join(spec.options)}"
            )
        if key in spec.choices:
            as_choice(value, [c for c in spec.choices[key] if c is not None], key)
        else:
            given[key] = as_count(value, key, spec.ranges[key].low)
    return given


def _load_family(
    spec: SourceSpec,
    given: dict[str, Any],
    seed: int,
    progress: ProgressCallback | bool | None,
    cancel: CancelFlag | None,
) -> SourceModel:
    values: dict[str, Any] = {key: r.default for key, r in spec.ranges.items()}
    data = given.get("trained_on")
    if data is not None:
        values |= _fixed_by_data(data, given)
    elif "epochs" in given:
        first = next(name for name in spec.choices["trained_on"] if name is not None)
        raise InputError(f"epochs applies only together with trained_on, such as {first!r}")
    values |= given
    linear = spec.name == "dnn" and values["depth"] == 1
    if linear and "width" in given:
        raise InputError("width does not apply to a dnn of depth 1, which is linear: leave it out")
    shape = (values["channels"], *[values["input_size"]] * (2 if spec.kind == "image" else 1))
    network_options = {
        "depth": values["depth"],
        "width": None if linear else values["width"],
        "groups": values.get("groups"),
        "n_classes": values["n_classes"],
        "seed": seed,
    }

    def build() -> Any:
        return build_family(spec.name, shape, **network_options)

    shown = [f"{key} {network_options[key]}" for key in ("depth", "width", "groups")]
    name = ", ".join([spec.name, *(text for text in shown if not text.endswith("None"))])
    if data is None:
        with Progress(1, f"Building {name}", progress, cancel) as bar:
            source = SourceModel(
                build(),
                shape,
                name=f"{name}, random weights, seed {seed}",
                normalize=((0.5,), (0.5,)),
            )
            bar.advance()
        return source
    return train_source(
        build,
        {"family": spec.name, "channels": values["channels"], **network_options},
        name=f"{name}, trained on {data}, seed {seed}",
        label=f"{spec.name}-{data.replace(':', '-')}",
        data=data,
        input_size=values["input_size"],
        epochs=values["epochs"],
        seed=seed,
        progress=progress,
        cancel=cancel,
    )


def _fixed_by_data(data: str, given: dict[str, Any]) -> dict[str, int]:
    """What the training data determines; an option that says otherwise is an error."""
    spec = LABELLED[data]
    fixed = {"channels": spec.shape[0], "n_classes": len(spec.classes)}
    for key, value in fixed.items():
        if given.get(key, value) != value:
            raise InputError(
                f"{key}={given[key]} contradicts trained_on={data!r}, which has {value}: leave "
                f"{key} out"
            )
    return {"input_size": spec.shape[-1], **fixed}
