"""Sources, programs and mappings as plain values, and how they are made again from those."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import nn

from mrviz.errors import InputError
from mrviz.programs import mappings
from mrviz.programs.base import Program
from mrviz.sources import SourceModel

TOLERANCE = 1e-3
"""Outputs of the same source on other devices differ by less, as a share of the largest."""


def describe_program(program: nn.Module) -> dict[str, Any] | None:
    """Class and options of one of mrviz's own programs; ``None`` for any other module."""
    known = type(program).__name__
    if not isinstance(program, Program) or _own(Program).get(known) is not type(program):
        return None
    options: dict[str, Any] = {}
    for name, value in program.options.items():
        inner = describe_program(value) if isinstance(value, nn.Module) else None
        options[name] = value if inner is None else {"program": inner}
    return {"class": known, "options": options}


def make_program(described: Mapping[str, Any]) -> Program:
    """The program that :func:`describe_program` described, with its start values.

    Raises:
        InputError: a class or options that this version of mrviz does not have.
    """
    name = described["class"]
    made: Any = _own(Program).get(name)
    if made is None:
        raise InputError(f"this version of mrviz has no program {name!r}: pass program=...")
    options = {
        key: make_program(value["program"]) if isinstance(value, dict) else value
        for key, value in described["options"].items()
    }
    try:
        program: Program = made(**options)
    except (TypeError, InputError) as error:
        raise InputError(f"program {name!r} cannot be made again: {error}") from None
    return program


def mapping_fields(mapping: mappings.Mapping) -> dict[str, Any] | None:
    """The arguments that make a mapping again, mappings among them described."""
    kind: Any = type(mapping)
    if is_dataclass(kind):
        names = [field.name for field in fields(kind) if field.init]
    else:
        names = list(inspect.signature(kind).parameters)
    found: dict[str, Any] = {}
    for name in names:
        value = getattr(mapping, f"_{name}", getattr(mapping, name, None))
        if callable(value) and not isinstance(value, mappings.Mapping):
            return None
        if isinstance(value, mappings.Mapping):
            value = {"mapping": describe_mapping(value)}
        found[name] = value
    return found


def describe_mapping(mapping: mappings.Mapping) -> dict[str, Any]:
    """Class and arguments of a mapping; no arguments where it is not one of mrviz's own."""
    name = type(mapping).__name__
    own = _own(mappings.Mapping).get(name) is type(mapping)
    return {"class": name, "fields": mapping_fields(mapping) if own else None}


def make_mapping(described: Mapping[str, Any]) -> mappings.Mapping:
    """The mapping that :func:`describe_mapping` described.

    Raises:
        InputError: a class or arguments that this version of mrviz does not have.
    """
    name, values = described["class"], described["fields"]
    made: Any = _own(mappings.Mapping).get(name)
    if made is None or values is None:
        raise InputError(
            f"the mapping is a {name}, which is not one of mrviz's own: pass mapping=..."
        )
    return _filled(made, values)


def mapping_like(mapping: mappings.Mapping, values: Mapping[str, Any] | None) -> mappings.Mapping:
    """A mapping of the same class with other :func:`mapping_fields`."""
    return mapping if values is None else _filled(type(mapping), values)


def source_identity(source: SourceModel) -> dict[str, Any]:
    """What tells a source from another: a hash of its weights, and outputs on one sample."""
    return {"weights": source.fingerprint(outputs=False), "outputs": source.sample_outputs()}


def source_mismatch(source: SourceModel, identity: Mapping[str, Any]) -> str | None:
    """How a source differs from the one that was described; ``None`` where it does not.

    Outputs are compared within rounding, which depends on the device.
    """
    if source.fingerprint(outputs=False) != identity["weights"]:
        return "its name, structure or weights are others"
    theirs, ours = identity["outputs"], source.sample_outputs()
    if theirs is None or ours is None:
        return None if theirs is ours else "only one of the two gives outputs"
    theirs, ours = theirs.double().cpu(), ours.double().cpu()
    same_shape = theirs.shape == ours.shape
    if not same_shape or (theirs - ours).abs().max() > TOLERANCE * theirs.abs().max():
        return "its weights are the same, but its outputs are others (another normalisation?)"
    return None


def _filled(made: Any, values: Mapping[str, Any]) -> mappings.Mapping:
    arguments = {
        key: make_mapping(value["mapping"]) if isinstance(value, dict) else value
        for key, value in values.items()
    }
    try:
        mapping: mappings.Mapping = made(**arguments)
    except (TypeError, InputError) as error:
        raise InputError(f"mapping {made.__name__!r} cannot be made again: {error}") from None
    return mapping


def _own(base: type) -> dict[str, type]:
    """Classes of mrviz below a class, by name."""
    return {kind.__name__: kind for kind in _below(base) if kind.__module__.startswith("mrviz.")}


def _below(base: type) -> Iterator[type]:
    direct: list[type] = base.__subclasses__()
    for kind in direct:
        yield kind
        yield from _below(kind)
