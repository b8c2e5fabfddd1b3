"""The user's cache folder and checked, atomically written entries in it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def cache_dir() -> Path:
    """Folder for everything mrviz can rebuild: trained weights, parsed data.

    It is ``$MRVIZ_CACHE_DIR`` if set, else ``mrviz`` in ``$XDG_CACHE_HOME`` or in the system's
    place for caches (``~/.cache``, ``~/Library/Caches``, ``%LOCALAPPDATA%``). It may not exist
    yet. Deleting it is always safe.
    """
    if own := os.environ.get("MRVIZ_CACHE_DIR"):
        return Path(own).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).expanduser() / "mrviz"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "mrviz/Cache"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "mrviz"


class CacheEntry:
    """One payload of bytes in the cache, with a JSON sidecar that says what it is.

    The sidecar holds the configuration, the payload's SHA-256 and free-form information. What
    does not fit its sidecar, or was made from another configuration, is never used.

    Args:
        folder: subfolder of the cache.
        label: start of the file name, for people who look into the folder.
        suffix: end of the payload's file name, such as ".pt".
        config: everything that determines the payload, as JSON values; its hash is the key.

    Example:
        >>> CacheEntry("sources", "cnn", ".pt", {"depth": 3}).path.name
        'cnn-2b60cd8b3636f962.pt'
    """

    def __init__(self, folder: str, label: str, suffix: str, config: Mapping[str, Any]) -> None:
        text = json.dumps(config, sort_keys=True)
        self.config = json.loads(text)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.path = cache_dir() / folder / f"{label}-{key}{suffix}"
        self.sidecar = self.path.with_suffix(".json")

    def read(self, decode: Callable[[bytes, dict[str, Any]], T]) -> T | None:
        """Returns ``decode(payload, info)``, or None where there is no sound entry.

        A damaged or foreign entry causes a warning, never an exception.
        """
        if not self.path.exists() and not self.sidecar.exists():
            return None
        try:
            payload, record = self.path.read_bytes(), json.loads(self.sidecar.read_bytes())
            if record["sha256"] != hashlib.sha256(payload).hexdigest():
                raise ValueError("its content differs from the recorded SHA-256")
            if record["config"] != self.config:
                raise ValueError("it was made from another configuration")
            return decode(payload, record["info"])
        except Exception as error:
            _warn(f"cache file {self.path} is not usable ({_reason(error)}) and is built again")
            return None

    def write(self, payload: bytes, info: Mapping[str, Any]) -> None:
        """Stores payload and information; a folder that cannot be written causes a warning."""
        record = {
            "sha256": hashlib.sha256(payload).hexdigest(),
            "config": self.config,
            "info": dict(info),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, payload)
            write_atomically(self.sidecar, json.dumps(record, indent=1).encode())
        except OSError as error:
            _warn(
                f"cannot write to the cache folder {self.path.parent} ({_reason(error)}): the "
                "result is used but not kept. Set MRVIZ_CACHE_DIR to a folder you can write to"
            )


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file by way of another beside it: a process that is killed leaves the old one."""
    handle, temporary = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)
