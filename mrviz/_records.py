"""Nested values with tensors in them as JSON and safetensors, checked by a checksum; no pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrviz._cache import write_atomically
from mrviz.errors import InputError, MissingDataError

TENSOR, ITEMS, TUPLE = "$tensor", "$items", "$tuple"
CARD = "mrviz"
"""Key of the card in a safetensors file's metadata."""


def encode(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """A value as JSON values, and the tensors taken out of it.

    Args:
        value: None, booleans, numbers, strings, tensors, and dicts, lists and tuples of those.

    Returns:
        JSON values in which ``{"$tensor": key}`` stands for a tensor, and the tensors by key.

    Raises:
        InputError: anything else.

    Example:
        >>> encode({"a": (1, 2.5), "b": None})
        ({'a': {'$tuple': [1, 2.5]}, 'b': None}, {})
    """
    tensors: dict[str, Tensor] = {}

    def walk(item: Any, key: str) -> Any:
        if isinstance(item, Tensor):
            # A clone of its own: tensors that share memory cannot be written.
            tensors[key] = item.detach().cpu().contiguous().clone()
            return {TENSOR: key}
        if isinstance(item, Mapping):
            if all(isinstance(k, str) and not k.startswith("$") for k in item):
                return {k: walk(v, f"{key}.{k}" if key else k) for k, v in item.items()}
            pairs = enumerate(item.items())
            return {ITEMS: [[walk(k, key), walk(v, f"{key}.{i}")] for i, (k, v) in pairs]}
        if isinstance(item, list | tuple):
            values = [walk(v, f"{key}.{i}") for i, v in enumerate(item)]
            return values if isinstance(item, list) else {TUPLE: values}
        if isinstance(item, np.generic):
            item = item.item()
        if item is None or isinstance(item, bool | int | float | str):
            return item
        raise InputError(f"{key or 'value'} is a {type(item).__name__}, which cannot be written")

    return walk(value, ""), tensors


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of :func:`encode`."""
    if isinstance(value, list):
        return [decode(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return tensors[value[TENSOR]]
    if ITEMS in value:
        return {decode(k, tensors): decode(v, tensors) for k, v in value[ITEMS]}
    if TUPLE in value:
        return tuple(decode(v, tensors) for v in value[TUPLE])
    return {k: decode(v, tensors) for k, v in value.items()}


def checksum(value: Any, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of JSON values and tensors: names, types, shapes and bytes."""
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"|{key}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tensor_file(tensors: Mapping[str, Tensor], card: Any = None) -> bytes:
    """The content of a safetensors file, with a card in its metadata."""
    save = _safetensors("safetensors.torch").save
    content: bytes = save(dict(tensors), None if card is None else {CARD: json.dumps(card)})
    return content


def read_tensor_file(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Tensors and card, where there is one, of a safetensors file.

    Raises:
        InputError: no such file, or not a sound one.
    """
    safe_open = _safetensors("safetensors").safe_open
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        return tensors, json.loads(metadata[CARD]) if CARD in metadata else None
    except Exception as error:  # its own exceptions, OSError, JSON: all say the same to a user
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is not a sound safetensors file: {reason}") from None


def seal(kind: str, version: int, value: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A card of a kind and a format version around a value, and the value's tensors."""
    content, tensors = encode(value)
    card = {"kind": kind, "format": version, "content": content}
    return {**card, "sha256": checksum(card, tensors)}, tensors


def unseal(
    card: Any, tensors: Mapping[str, Tensor], kind: str, version: int, name: str | Path
) -> Any:
    """The value of a card made by :func:`seal`.

    Raises:
        InputError: a card of another kind, of a newer format, or altered.
    """
    if not isinstance(card, dict) or card.get("kind") != kind:
        raise InputError(f"{name} is not {kind}")
    known = card.get("format")
    if not isinstance(known, int) or known > version:
        raise InputError(
            f"{name} has format {known}, but this version of mrviz reads formats up to "
            f"{version}: update mrviz"
        )
    rest = {key: value for key, value in card.items() if key != "sha256"}
    if card.get("sha256") != checksum(rest, tensors):
        raise InputError(
            f"{name} was altered or damaged: its content differs from the recorded SHA-256"
        )
    return decode(card["content"], tensors)


def write_record(path: Path, kind: str, version: int, value: Any) -> None:
    """Writes a value as one safetensors file, all of it or nothing."""
    card, tensors = seal(kind, version, value)
    write_atomically(path, tensor_file(tensors, card))


def read_record(path: Path, kind: str, version: int) -> Any:
    """The value that :func:`write_record` wrote.

    Raises:
        InputError: something else, cut short, altered, or of a newer format.
    """
    tensors, card = read_tensor_file(path)
    return unseal(card, tensors, kind, version, path)


def _safetensors(module: str) -> Any:
    try:
        import importlib

        return importlib.import_module(module)
    except ImportError:
        raise MissingDataError(
            "saving and loading needs the package safetensors, which is not installed: "
            "pip install safetensors"
        ) from None
