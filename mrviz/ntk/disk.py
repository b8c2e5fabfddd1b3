"""Files that survive what happens to processes and disks: a matrix, a lock, a durable text."""

from __future__ import annotations

import errno
import math
import mmap
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from mrviz._memory import readable
from mrviz.errors import InputError, ResourceError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

NO_RESERVE = 0x4000 if sys.platform == "linux" else 0
"""MAP_NORESERVE: a private view of a file may be larger than memory."""


class MatrixFile:
    """A float64 matrix in a ``.npy`` file, which ``numpy.load`` can read too.

    Args:
        path: of the file.
        shape: rows and columns.
    """

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path = path
        self.shape = shape
        buffer = BytesIO()
        description = np.lib.format.dtype_to_descr(np.dtype(np.float64))
        np.lib.format.write_array_header_1_0(
            buffer, {"descr": description, "fortran_order": False, "shape": shape}
        )
        self._header = buffer.getvalue()
        self._size = len(self._header) + 8 * math.prod(shape)

    def reserve(self) -> None:
        """Makes the file as long as it must be, with all its blocks on the disk.

        A file with holes would end the process by SIGBUS when the disk is full.

        Raises:
            ResourceError: there is not enough room; the file is as it was.
        """
        existed = self.path.exists()
        with self.path.open("r+b" if existed else "x+b") as file:
            before = os.fstat(file.fileno()).st_size
            try:
                self._allocate(file)
            except OSError as error:
                file.truncate(before)
                if not existed:
                    self.path.unlink()
                if error.errno not in NO_SPACE:
                    raise
                free = shutil.disk_usage(self.path.parent).free
                raise ResourceError(
                    f"a matrix of {self.shape[0]}×{self.shape[1]} needs {readable(self._size)} in "
                    f"{str(self.path.parent)!r}, where {readable(before)} of it are already and "
                    f"{readable(free)} are free: make room, or choose another disk, fewer samples "
                    "or reduce='trace'. What is finished stays in place"
                ) from error
            file.truncate(self._size)
            if file.read(len(self._header)) != self._header:
                file.seek(0)
                file.write(self._header)
            file.flush()
            os.fsync(file.fileno())

    def writable(self) -> np.memmap[Any, np.dtype[np.float64]]:
        """The matrix as an array whose changes go into the file."""
        return np.memmap(self.path, np.float64, "r+", len(self._header), self.shape)

    def view(self) -> Tensor:
        """The matrix as a tensor whose changes stay in this process; read when it is used."""
        with self.path.open("rb") as file:
            if sys.platform == "win32":
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            else:
                mapped = mmap.mmap(
                    file.fileno(),
                    0,
                    flags=mmap.MAP_PRIVATE | NO_RESERVE,
                    prot=mmap.PROT_READ | mmap.PROT_WRITE,
                )
        return torch.from_numpy(np.ndarray(self.shape, np.float64, mapped, len(self._header)))

    def stamp(self) -> str:
        """Something that changes whenever the file is written to."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return "missing"
        return f"{stat.st_size}-{stat.st_mtime_ns}"

    def _allocate(self, file: IO[bytes]) -> None:
        """Real blocks where the system can give them, else a look at what is free."""
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, self._size)
                return
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
        missing = self._size - os.fstat(file.fileno()).st_size
        if missing > shutil.disk_usage(self.path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def lock(file: IO[str], folder: Path) -> None:
    """Takes a folder for this process, where the system can; freed when the file is closed.

    Raises:
        InputError: another process has it.
    """
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"store={str(folder)!r} is in use by another computation: wait until it has "
            "finished, or pass another path"
        ) from None
    except OSError:
        return  # a file system without locks


def write_durably(path: Path, text: str) -> None:
    """Writes all of a text or nothing, and has it on the disk when it returns."""
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        synchronise(file)
    new.replace(path)
    with suppress(OSError):  # not every system synchronises folders
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def synchronise(file: IO[str]) -> None:
    """Has everything written so far on the disk when it returns."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def clear_errors(folder: Path) -> Iterator[None]:
    """Says which store it was when the system refuses something."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise ResourceError(
                f"the disk of store={str(folder)!r} is full: make room and call again. What is "
                "finished stays in place"
            ) from error
        raise InputError(f"store={str(folder)!r} cannot be used: {error}") from error
