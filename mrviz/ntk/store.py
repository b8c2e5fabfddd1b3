"""A Gram in a folder on disk: larger than memory, and continued where it was interrupted.

The folder holds ``manifest.json`` (what the Gram is made of), ``matrix.npy`` (float64) and
``journal.txt`` (which tiles are in the matrix, with checksums), and nothing else.
"""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from torch import Tensor

from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz.errors import InputError, ResourceError
from mrviz.ntk.disk import MatrixFile, clear_errors, lock, synchronise, write_durably
from mrviz.ntk.manifest import FORMAT, KIND, differences
from mrviz.ntk.plan import METHODS, Plan
from mrviz.ntk.tiles import region

MANIFEST, MATRIX, JOURNAL = "manifest.json", "matrix.npy", "journal.txt"

COMMIT_SECONDS = 1.0
"""Tiles are made durable this often: that much work is lost at most."""


class StoreSink:
    """A matrix on disk, as a context manager that holds the folder for this process alone.

    Args:
        folder: where; made if it is not there.
        plan: what is computed.
        manifest: what it is made of, from :func:`~mrviz.ntk.manifest.manifest`.
        progress: reports the check of finished tiles.
        cancel: ends it.

    Attributes:
        pending: tiles that are not in the matrix yet.
        notes: how many tiles were found, and how many of them were damaged.
        trace: of the finished matrix, if it is symmetric; else NaN.
        largest: largest entry of the finished matrix, if it is symmetric; else NaN.

    Raises:
        InputError: the folder holds something else or another Gram, or is in use.
        ResourceError: there is not enough disk space.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        manifest: dict[str, Any],
        progress: ProgressCallback | bool | None = None,
        cancel: CancelFlag | None = None,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.pending = plan.tiles
        self.notes: list[str] = []
        self.trace = self.largest = math.nan
        self._manifest = manifest
        self._progress = progress
        self._cancel = cancel
        self._file = MatrixFile(folder / MATRIX, plan.shape)
        self._finished: dict[tuple[int, int], float] = {}
        self._uncommitted: list[str] = []
        self._last_commit = time.monotonic()
        self._journal: IO[str] | None = None
        self._matrix: np.memmap[Any, np.dtype[np.float64]] | None = None

    def __enter__(self) -> StoreSink:
        if self._is_begun() and self._is_sealed():
            return self
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._journal is None:
            return
        try:
            self._commit()
            if len(self._finished) == len(self.plan.tiles):
                self._seal()
        finally:
            self._close()

    @property
    def asymmetry(self) -> float:
        """Largest asymmetry of a diagonal tile before it was averaged away."""
        return max(self._finished.values(), default=0.0)

    @property
    def matrix(self) -> Tensor:
        """The finished matrix: a view of the file whose changes stay in this process."""
        return self._file.view()

    def put(self, i: int, j: int, tile: Tensor, asymmetry: float) -> None:
        """Writes the tile and its mirror image; the journal names it a little later."""
        assert self._matrix is not None
        values = tile.cpu().contiguous().numpy()
        rows, columns = region(self.plan, i, j)
        mirrored = self.plan.symmetric and i != j
        self._matrix[rows, columns] = values
        if mirrored:
            self._matrix[columns, rows] = values.T
        crc = _checksum(values, values if mirrored else None, asymmetry)
        self._uncommitted.append(f"{i} {j} {crc} {asymmetry!r}\n")
        self._finished[i, j] = asymmetry
        if time.monotonic() - self._last_commit >= COMMIT_SECONDS:
            self._commit()

    def _is_begun(self) -> bool:
        """Whether there is a store; raises where it holds another Gram."""
        stored = read_manifest(self.folder)
        found = [] if stored is None else differences(stored, self._manifest)
        if found:
            raise InputError(
                f"store={str(self.folder)!r} holds another Gram: {'; '.join(found)}. Pass another "
                "path, or delete that folder if it is not needed any more"
            )
        return stored is not None

    def _open(self) -> None:
        """Takes the folder, reserves the disk space, and looks at what is finished."""
        with clear_errors(self.folder):
            made = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._journal = (self.folder / JOURNAL).open("a", encoding="utf-8")
            lock(self._journal, self.folder)
            begun = self._is_begun()
            try:
                self._file.reserve()
            except ResourceError:
                if not begun:
                    (self.folder / JOURNAL).unlink()
                    if made:
                        self.folder.rmdir()
                raise
            if not begun:
                write_durably(self.folder / MANIFEST, json.dumps(self._manifest, indent=1))
            self._matrix = self._file.writable()
        self._check()

    def _check(self) -> None:
        """Compares finished tiles with their checksums; what does not agree is computed again."""
        assert self._matrix is not None
        entries = self._entries()
        with Progress(len(entries), "checking the store", self._progress, self._cancel) as bar:
            for (i, j), (crc, asymmetry) in entries.items():
                rows, columns = region(self.plan, i, j)
                mirrored = self.plan.symmetric and i != j
                mirror = self._matrix[columns, rows].T if mirrored else None
                if _checksum(self._matrix[rows, columns], mirror, asymmetry) == crc:
                    self._finished[i, j] = asymmetry
                bar.advance()
        self._take_note(damaged=len(entries) - len(self._finished))

    def _take_note(self, damaged: int = 0) -> None:
        self.pending = [tile for tile in self.plan.tiles if tile not in self._finished]
        if self._finished:
            found, total = len(self._finished), len(self.plan.tiles)
            self.notes.append(f"{found} of {total} tiles came from the store {self.folder}")
        if damaged:
            self.notes.append(f"{damaged} tiles of the store were damaged and computed again")

    def _journal_text(self) -> str:
        try:
            return (self.folder / JOURNAL).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def _entries(self) -> dict[tuple[int, int], tuple[int, float]]:
        """Checksum and asymmetry of the tiles in the journal; torn lines are passed over."""
        known = set(self.plan.tiles)
        found = {}
        for line in self._journal_text().splitlines():
            with suppress(ValueError):
                i, j, crc, asymmetry = line.split()
                if (int(i), int(j)) in known:
                    found[int(i), int(j)] = int(crc), float(asymmetry)
        return found

    def _commit(self) -> None:
        """Makes the tiles written so far durable, then the journal that names them."""
        assert self._matrix is not None
        if self._uncommitted:
            with clear_errors(self.folder):
                self._matrix.flush()
                self._write("".join(self._uncommitted))
            self._uncommitted.clear()
        self._last_commit = time.monotonic()

    def _write(self, text: str) -> None:
        assert self._journal is not None
        self._journal.write("\n" + text)  # the last line may be torn
        synchronise(self._journal)

    def _seal(self) -> None:
        """Marks the matrix as finished, so that the next call need not read it."""
        assert self._matrix is not None
        if self.plan.symmetric:
            diagonal = self._matrix.diagonal()
            self.trace, self.largest = float(diagonal.sum()), float(diagonal.max())
        seal = f"sealed {self._file.stamp()} {self.trace!r} {self.largest!r}"
        with clear_errors(self.folder):
            crc = zlib.crc32(f"{self._journal_text()}\n{seal}".encode())
            self._write(f"{seal} {crc}\n")

    def _is_sealed(self) -> bool:
        """Whether the journal ends with a seal, of itself and of the matrix as it is."""
        text, _, crc = self._journal_text().rstrip().rpartition(" ")
        match [*text.rpartition("\n")[2].split(), crc]:
            case ["sealed", stamp, trace, largest, crc] if crc == str(zlib.crc32(text.encode())):
                if stamp != self._file.stamp():
                    return False
            case _:
                return False
        self.trace, self.largest = float(trace), float(largest)
        self._finished = {tile: asymmetry for tile, (_, asymmetry) in self._entries().items()}
        self._take_note()
        return True

    def _close(self) -> None:
        self._matrix = None
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def as_folder(store: str | os.PathLike[str]) -> Path:
    """The path of a store.

    Raises:
        InputError: not a path.
    """
    if not isinstance(store, str | os.PathLike) or not os.fspath(store):
        raise InputError(f"store must be the path of a folder, got {store!r}")
    return Path(store).expanduser()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a store, or ``None`` where nothing was begun.

    Raises:
        InputError: the folder holds something else, or its manifest is damaged.
    """
    with clear_errors(folder):
        names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
        if MANIFEST not in names:
            journal = folder / JOURNAL
            begun = {JOURNAL, MATRIX, MANIFEST + ".new"}  # and killed before the manifest
            if names and not (names <= begun and journal.exists() and not journal.stat().st_size):
                raise InputError(
                    f"store={str(folder)!r} holds other files and no {MANIFEST}: pass a folder "
                    "that is empty or not there yet"
                )
            return None
        text = (folder / MANIFEST).read_text(encoding="utf-8", errors="replace")
    try:
        stored: dict[str, Any] = json.loads(text)
        newer = stored["kind"] == KIND and int(stored["format"]) > FORMAT
        sound = (
            stored["kind"] == KIND
            and isinstance(stored["made_of"], dict)
            and all(isinstance(value, float) for value in stored["outputs"])
        )
    except (ValueError, KeyError, TypeError):
        newer = sound = False
    if newer:
        raise InputError(
            f"store={str(folder)!r} was written by a newer mrviz (format {stored['format']}, this "
            f"one reads {FORMAT}): update mrviz, or pass another path"
        )
    if not sound:
        raise InputError(
            f"{folder / MANIFEST} is damaged, or not that of a Gram: pass another path, or delete "
            "that folder if it is not needed any more"
        )
    return stored


def as_begun(plan: Plan, folder: Path, *, method: str, chunk_size: int | None) -> Plan:
    """The plan with what the caller left open as it was when the store was begun.

    Args:
        plan: what would be computed without the store.
        folder: the store.
        method: as the caller gave it.
        chunk_size: as the caller gave it.
    """
    made_of = (read_manifest(folder) or {}).get("made_of", {})
    begun_by, size = made_of.get("method"), made_of.get("chunk_size")
    if method == "auto" and begun_by != plan.method and begun_by in METHODS:
        plan = replace(plan, method=begun_by, why="as the store was begun")
    if chunk_size is None and isinstance(size, int) and size > 0:
        plan = replace(plan, chunk_size=size)
    return plan


def _checksum(tile: Any, mirror: Any, asymmetry: float) -> int:
    crc = zlib.crc32(np.float64(asymmetry).tobytes())
    for part in (tile, mirror):
        if part is not None:
            crc = zlib.crc32(np.ascontiguousarray(part).data, crc)
    return crc
