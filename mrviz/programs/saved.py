"""Reprogrammed models on disk: a folder with the tensors and a card that says how to rebuild."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mrviz._progress import ProgressCallback
from mrviz._records import read_tensor_file, seal, tensor_file, unseal
from mrviz.errors import InputError
from mrviz.programs.fit import Fit
from mrviz.programs.mappings import Mapping as OutputMapping
from mrviz.programs.model import ReprogrammedModel
from mrviz.programs.rebuild import (
    describe_mapping,
    describe_program,
    make_mapping,
    make_program,
    source_identity,
    source_mismatch,
)
from mrviz.sources import SourceModel, load_source
from mrviz.targets import Target

KIND = "an mrviz reprogrammed model"
FORMAT = 1
"""Goes up whenever a card says other things than before."""
CARD, TENSORS = "card.json", "model.safetensors"


def save(
    model: ReprogrammedModel,
    path: str | PathLike[str],
    *,
    target: Target | None = None,
    metrics: Mapping[str, Any] | Fit | None = None,
) -> Path:
    """Writes a model; see :meth:`ReprogrammedModel.save`."""
    if target is not None and not isinstance(target, Target):
        raise InputError(f"target must be a Target, got {type(target).__name__}")
    folder = Path(fspath(path))
    _check_place(folder)
    source = model.source
    card, tensors = seal(
        KIND,
        FORMAT,
        {
            "versions": {"mrviz": sys.modules["mrviz"].__version__, "torch": torch.__version__},
            "source": {
                "spec": source.spec,
                "name": source.name,
                "input_shape": list(source.input_shape),
                "outputs": source.outputs,
                "dtype": str(source.dtype).removeprefix("torch."),
                **source_identity(source),
            },
            "program": {
                "name": type(model.program).__name__,
                **(describe_program(model.program) or {}),
            },
            "mapping": describe_mapping(model.mapping),
            "trainable": [name for name, p in model.named_parameters() if p.requires_grad],
            "target": None if target is None else target.to_dict(),
            "metrics": _metrics(metrics),
            "parameters": {
                "program": dict(model.program.state_dict()),
                "head": dict(model.head.state_dict()),
            },
        },
    )
    made, old = (
        folder.absolute().with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("new", "old")
    )
    try:
        made.mkdir()
        (made / TENSORS).write_bytes(tensor_file(tensors))
        (made / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False), encoding="utf-8")
        _replace(folder, made, old)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def load(
    path: str | PathLike[str],
    source: SourceModel | None = None,
    *,
    program: nn.Module | None = None,
    mapping: OutputMapping | None = None,
    progress: ProgressCallback | bool | None = None,
) -> ReprogrammedModel:
    """Loads a model that :meth:`ReprogrammedModel.save` wrote.

    Nothing in the folder is run as code: tensors come from safetensors, everything else from
    JSON.

    Args:
        path: the folder.
        source: the source; needed where it did not come from :func:`~mrviz.load_source`,
            by whose name and options it is built again otherwise.
        program: the program, where it is a module of your own; its parameters are filled in.
        mapping: the mapping, where it is a class of your own.
        progress: as in :func:`~mrviz.load_source`.

    Returns:
        The model, with what the card says as ``model.card``.

    Raises:
        InputError: not a saved model, one that was cut short or altered or has a newer format,
            another source than it was saved with, or parts that have to be passed.
        MissingDataError: a package that brings the source's weights or data is not installed.

    Example:
        >>> model = mrviz.load("my-model")  # doctest: +SKIP
    """
    folder = Path(fspath(path))
    card = _read(folder)
    source = _source(card["source"], source, folder, progress)
    described = card["program"]
    if program is None:
        if "class" not in described:
            raise InputError(
                f"the program in {folder} is a {described['name']}, a module of your own: pass "
                "program=..."
            )
        program = make_program(described)
    chosen = make_mapping(card["mapping"]) if mapping is None else mapping
    model = ReprogrammedModel(source, program, chosen)
    for name, module in (("program", model.program), ("head", model.head)):
        try:
            module.load_state_dict(card["parameters"][name])
        except RuntimeError as error:
            raise InputError(
                f"the {name} does not fit the parameters in {folder}: {error}"
            ) from None
    trainable = set(card["trainable"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)
    model.card = {key: card[key] for key in ("versions", "source", "target", "metrics")}
    return model


def _read(folder: Path) -> dict[str, Any]:
    """The card with its tensors, checked."""
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder: mrviz.load takes one that save wrote")
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{str(folder)!r} is not a saved model: it has no {CARD}") from None
    except ValueError:
        raise InputError(
            f"{folder / CARD} is not sound JSON: it was cut short or altered"
        ) from None
    tensors, _ = read_tensor_file(folder / TENSORS)
    found: dict[str, Any] = unseal(card, tensors, KIND, FORMAT, folder)
    return found


def _source(
    described: Mapping[str, Any],
    source: SourceModel | None,
    folder: Path,
    progress: ProgressCallback | bool | None,
) -> SourceModel:
    """The source passed in, or built again; checked to be the one the model was saved with."""
    name, spec, made = described["name"], described["spec"], source is None
    if source is None:
        if spec is None:
            raise InputError(
                f"the source {name!r} of {folder} did not come from mrviz.load_source: pass "
                "source=..., the SourceModel it was saved with"
            )
        try:
            source = load_source(**spec, progress=progress)
        except TypeError as error:
            raise InputError(f"source {name!r} cannot be built again: {error}") from None
        source = source.to(getattr(torch, described["dtype"]))
    elif not isinstance(source, SourceModel):
        raise InputError(f"source must be a SourceModel, got {type(source).__name__}")
    reason = source_mismatch(source, described)
    if reason is not None:
        hint = ""
        if made:
            hint = (
                ". It was built by its name, and may have been changed before saving, or come out "
                "otherwise with another version of torch: pass the original as source=..."
            )
        raise InputError(
            f"the source {source.name!r} is not the one that {folder} was saved with, "
            f"{name!r}: {reason}{hint}"
        )
    return source


def _replace(folder: Path, made: Path, old: Path) -> None:
    """Puts a finished folder in the place of another; that one stays where this fails."""
    if not folder.exists():
        made.rename(folder)
        return
    folder.rename(old)
    try:
        made.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _check_place(folder: Path) -> None:
    """Raises ``InputError`` where a model would replace something that is not one."""
    if not folder.parent.is_dir():
        raise InputError(f"there is no folder {folder.parent} to save in")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file: a model is saved as a folder")
    names = {item.name for item in folder.iterdir()}
    if names and names != {CARD, TENSORS}:
        raise InputError(f"{folder} holds other files: choose a new or empty folder")


def _metrics(metrics: Mapping[str, Any] | Fit | None) -> dict[str, Any] | None:
    if metrics is None:
        return None
    values = metrics.to_dict() if isinstance(metrics, Fit) else dict(metrics)
    history = values.pop("history", None)
    if isinstance(metrics, Fit) and history:
        outcome = metrics.outcome
        values |= vars(outcome) if outcome is not None else {}
    return values
