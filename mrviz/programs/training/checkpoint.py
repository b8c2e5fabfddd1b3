"""Checkpoints: the state of a training in one file, so that a killed process can go on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrviz._records import checksum, encode, read_record, write_record
from mrviz.errors import InputError
from mrviz.programs.model import ReprogrammedModel
from mrviz.programs.rebuild import describe_program, source_identity, source_mismatch
from mrviz.programs.training.session import Session
from mrviz.sources.base import tensor_bytes
from mrviz.targets import Target
from mrviz.targets.options import as_count

KIND = "an mrviz training checkpoint"
FORMAT = 1
"""Goes up whenever the state of a training changes."""
TIMES = 20
"""About so often a checkpoint is written where nothing else is asked for."""


class Checkpoint:
    """The file of a training's state.

    It is one safetensors file with a card of JSON in its metadata, so that both are replaced
    together.

    Args:
        path: the file.
        every: write at every so many steps; default: about twenty times.
        settings: everything that changes the result; a file of other settings is refused.
        session: the training, at its start.
        target: the target data set.

    Raises:
        InputError: there is no folder for the file.
    """

    def __init__(
        self,
        path: Path,
        every: int | None,
        settings: Mapping[str, Any],
        session: Session,
        target: Target,
    ) -> None:
        if not path.parent.is_dir():
            raise InputError(f"there is no folder {path.parent} for the checkpoint")
        if path.is_dir():
            raise InputError(f"checkpoint={str(path)!r} is a folder: pass a file in it")
        self.path = path
        steps = session.settings["steps"]
        self.every = -(-steps // TIMES) if every is None else as_count(every, "checkpoint_every", 1)
        self._settings = {**settings, "lr": session.settings["lr"]}
        self._identity = _identity(session.model, session.refreshes, target, session.settings)
        self._source = session.model.source
        self._written: int | None = None

    def is_due(self, step: int) -> bool:
        """Whether the state after so many steps is to be written."""
        return step > 0 and step % self.every == 0 and step != self._written

    def write(self, session: Session) -> None:
        """Writes the state, all of it or nothing."""
        if session.step != self._written:
            state = {
                "settings": self._settings,
                "identity": self._identity,
                "source": source_identity(self._source),
                "state": session.state(),
            }
            write_record(self.path, KIND, FORMAT, state)
            self._written = session.step

    def resume(self, session: Session) -> bool:
        """Puts the file's state into a training; ``False`` where there is no file.

        Raises:
            InputError: not a checkpoint, a damaged one, or one of another training.
        """
        if not self.path.exists():
            return False
        found = read_record(self.path, KIND, FORMAT)
        reasons = _differences(found["settings"], self._settings)
        reasons += [
            f"another {name}"
            for name, value in self._identity.items()
            if found["identity"].get(name) != value
        ]
        reasons += ["another source"] if source_mismatch(self._source, found["source"]) else []
        if reasons:
            raise InputError(
                f"checkpoint {self.path} is of another training ({'; '.join(reasons)}): repeat "
                "that one, choose another file, or delete this one to start anew"
            )
        session.load(found["state"])
        self._written = session.step
        return True


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} was {theirs.get(name)!r} and is {ours.get(name)!r}"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    ]


def _identity(
    model: ReprogrammedModel, refreshes: bool, target: Target, settings: Mapping[str, Any]
) -> dict[str, str]:
    """Hashes of what a checkpoint must not be used with another of, without the parameters."""
    shapes = [(name, tuple(p.shape)) for name, p in model.program.named_parameters()]
    program = describe_program(model.program)
    mapping = [str(type(model.mapping).__name__), tuple(model.b.shape)]
    fixed = not refreshes and not any(p.requires_grad for p in model.head.parameters())
    described = {
        "program": [str(model.program) if program is None else program, shapes],
        "mapping": [*mapping, model.b.cpu()] if fixed else mapping,
    }
    found = {name: checksum(*encode(value)) for name, value in described.items()}
    digest = hashlib.sha256(f"{target.classes}".encode())
    n, n_test = settings["n"], settings["n_test"]
    arrays = (
        *(target.x_train[:n], target.y_train[:n], target.x_test[:n_test], target.y_test[:n_test]),
        *(target.x_val, target.y_val),
    )
    for array in arrays:
        digest.update(b"-" if array is None else tensor_bytes(array) + str(array.shape).encode())
    return {**found, "target": digest.hexdigest()}
