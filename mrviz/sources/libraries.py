"""Image classifiers of timm and torchvision by name, such as "timm:resnet18"."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType, ModuleType
from typing import Any

import torch
from torch import nn

from mrviz.errors import InputError, MissingDataError
from mrviz.sources.base import SourceModel
from mrviz.sources.families import Range, SourceSpec, draw_weights
from mrviz.sources.pretrained import set_statistics, smooth_noise

LIBRARIES = ("timm", "torchvision")
"""The libraries whose names precede those of their models, with a colon between."""

STATISTICS_IMAGES = 32


@dataclass(frozen=True)
class Known:
    """What a library says of a model before it is built.

    Attributes:
        size: height and width of the images it was trained on.
        mean: of each channel, for images in [0, 1].
        std: of each channel.
        has_weights: whether the library offers pretrained weights.
        fixed_size: whether it must be told when inputs have another size.
        classes: names of the outputs of the pretrained model, where known.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    has_weights: bool
    fixed_size: bool = False
    classes: tuple[str, ...] | None = None


def library_of(name: object) -> str | None:
    """The library that a name such as "timm:resnet18" begins with; ``None`` for other names.

    Example:
        >>> library_of("timm:resnet18"), library_of("cnn")
        ('timm', None)
    """
    library, colon, _ = name.partition(":") if isinstance(name, str) else ("", "", "")
    return library if colon and library in LIBRARIES else None


@cache
def library_spec(name: str) -> SourceSpec:
    """What an interface needs to know about a model of a library; nothing is downloaded.

    Args:
        name: library and model, such as "torchvision:resnet18" or "timm:resnet18.a1_in1k".

    Raises:
        InputError: the library has no such classifier; the message names similar ones.
        MissingDataError: the library is not installed, or cannot be imported.
    """
    known = _known(name)
    help_text = f"height and width in pixels; native {known.size}"
    return SourceSpec(
        name=name,
        label=name,
        pretrained=True,
        ranges=MappingProxyType(
            {"input_size": Range(known.size, 1, max(known.size, 224), help_text)}
        ),
        choices=MappingProxyType(
            {"weights": ("pretrained", "random") if known.has_weights else ("random",)}
        ),
    )


def load_library(name: str, *, input_size: int, pretrained: bool, seed: int) -> SourceModel:
    """Builds a model of a library for square RGB inputs, with the library's own normalisation.

    Args:
        name: see :func:`library_spec`.
        input_size: height and width in pixels. Models with a fixed size are asked for another
            one; most of timm's can be built for it, none of torchvision's.
        pretrained: the library's weights, from its cache or downloaded; else the library's own
            random initialisation. Dense layers that it leaves at zero, which some heads are, are
            drawn from N(0, 2 / fan-in), and BatchNorm takes its statistics from 32 smooth random
            images, so that activations are of order one.
        seed: of random weights; pretrained weights do not depend on it.

    Returns:
        The source, for inputs (3, input_size, input_size) in [0, 1].

    Raises:
        InputError: unknown name, or a size that the model does not take.
        MissingDataError: no library, or no weights.
    """
    known = _known(name)
    options = {"img_size": input_size} if known.fixed_size and input_size != known.size else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _built(name, pretrained, options)
    network.eval().requires_grad_(False)
    if not pretrained:
        generator = torch.Generator().manual_seed(seed)
        for layer in network.modules():
            if isinstance(layer, nn.Linear) and not layer.weight.any():
                draw_weights(layer, generator)
        images = smooth_noise(STATISTICS_IMAGES, input_size, generator)
        mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (known.mean, known.std))
        try:
            set_statistics(network, (images - mean) / std)
        except Exception as error:
            raise _wrong_size(name, input_size, known.size, error) from None
    try:
        return SourceModel(
            network,
            (3, input_size, input_size),
            name=f"{name}, {'pretrained' if pretrained else f'random weights, seed {seed}'}",
            normalize=(known.mean, known.std),
            classes=known.classes if pretrained else None,
        )
    except InputError as error:
        if input_size == known.size:
            raise
        raise _wrong_size(name, input_size, known.size, error.__cause__ or error) from None


def _known(name: str) -> Known:
    library, model = _imported(name), name.partition(":")[2]
    if library_of(name) == "timm":
        return _known_to_timm(library, model)
    return _known_to_torchvision(model)


def _imported(name: str) -> ModuleType:
    library = library_of(name)
    assert library is not None
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        reason = f'{error.name} is not installed: pip install "mrviz[vision]"'
    except Exception as error:  # compiled parts that do not fit the installed PyTorch
        reason = (
            f"it cannot be imported ({type(error).__name__}: {error}): install the builds of torch "
            "and torchvision that belong together, see https://pytorch.org/get-started/locally"
        )
    raise MissingDataError(f"the source {name!r} needs the package {library}, but {reason}")


def _known_to_timm(timm: Any, model: str) -> Known:
    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        raise _unknown("timm", model, timm.list_models())
    if tag and model not in (offered := timm.list_models(architecture + ".*", pretrained=True)):
        raise _unknown("timm", model, offered)
    config = timm.get_pretrained_cfg(model)
    if config is None or not config.num_classes:
        raise InputError(
            f"timm's model {model!r} is no classifier: choose one with outputs, or build it "
            "yourself and pass it to mrviz.SourceModel"
        )
    channels, height, width = config.input_size
    if channels != 3 or height != width:
        raise InputError(
            f"timm's model {model!r} takes inputs {config.input_size}, but only square RGB images "
            "are supported by name: build it yourself and pass it to mrviz.SourceModel"
        )
    return Known(
        size=height,
        mean=tuple(config.mean),
        std=tuple(config.std),
        has_weights=bool(config.has_weights),
        fixed_size=bool(config.fixed_input_size),
        classes=_imagenet_names(config),
    )


def _imagenet_names(config: Any) -> tuple[str, ...] | None:
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(config.to_dict())
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    if info.num_classes() != config.num_classes:
        return None
    return tuple(info.index_to_description(k) for k in range(info.num_classes()))


def _known_to_torchvision(model: str) -> Known:
    from torchvision import models

    if model not in (offered := models.list_models(module=models)):
        raise _unknown("torchvision", model, offered)
    weights = models.get_model_weights(model).DEFAULT
    preset = weights.transforms()
    return Known(
        size=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        has_weights=True,
        classes=tuple(weights.meta["categories"]),
    )


def _built(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    library, model = _imported(name), name.partition(":")[2]
    build: Any
    choice: dict[str, Any]
    if library_of(name) == "timm":
        build, choice = library.create_model, {"pretrained": pretrained}
    else:
        build, choice = library.models.get_model, {"weights": "DEFAULT" if pretrained else None}
    try:
        network: nn.Module = build(model, **choice, **options)
    except TypeError as error:
        if not options:
            raise
        raise InputError(
            f"source {name!r} cannot be built for input_size={options['img_size']} ({error}): "
            "leave input_size out"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        if not pretrained:
            raise
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise MissingDataError(
            f"the weights of {name!r} are downloaded by {library_of(name)} when first used, and "
            f"that failed: {type(error).__name__}: {reason}. Connect to the internet and try "
            "again, copy the library's cache (HF_HOME or TORCH_HOME) from another machine, or "
            "pass weights='random'"
        ) from None
    return network


def _wrong_size(name: str, size: int, native: int, error: BaseException) -> InputError:
    return InputError(
        f"source {name!r} does not take input_size={size} ({type(error).__name__}: {error}): its "
        f"own is {native}, leave input_size out"
    )


def _unknown(library: str, model: str, offered: Iterable[str]) -> InputError:
    near = difflib.get_close_matches(model, list(offered), n=5)
    hint = f"did you mean {', '.join(repr(f'{library}:{n}') for n in near)}? " if near else ""
    call = "timm.list_models()" if library == "timm" else "torchvision.models.list_models()"
    return InputError(f"{library} has no classifier {model!r}: {hint}{call} lists them all")
