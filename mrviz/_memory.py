"""How much memory there is, and how to go on with less at a time when it runs out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from mrviz.errors import ResourceError

T = TypeVar("T")


def available_bytes(device: torch.device) -> int | None:
    """Free memory of a device, or ``None`` where it cannot be told."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; on the way to a GPU through pinned memory, without waiting."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "not enough memory" in text or "can't allocate memory" in text
    )


def readable(n_bytes: float) -> str:
    """A byte count for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.3g} TiB"


class Splitter:
    """Does work on ranges of samples, and on smaller ones once memory has run out.

    Parts that are finished are kept; the size that was too large is not tried again.

    Args:
        what: what does not fit, for the message.
        limit: most samples at once; ``None`` sets no limit as long as memory lasts.

    Attributes:
        limit: most samples at once, as far as is known.
        notes: what had to be done differently than planned.
    """

    def __init__(self, what: str, limit: int | None = None) -> None:
        self.what = what
        self.limit = limit
        self.notes: list[str] = []

    def __call__(
        self, work: Callable[[int, int], T], start: int, stop: int, join: Callable[[list[T]], T]
    ) -> T:
        """``work(start, stop)``, in parts where it must be, put together by ``join``.

        Raises:
            ResourceError: not even one sample fits.
        """
        parts = []
        while start < stop:
            size = min(stop - start, self.limit or stop - start)
            try:
                parts.append(work(start, start + size))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            else:
                start += size
                continue
            if size == 1:
                raise ResourceError(
                    f"{self.what} of a single sample does not fit into memory ({reason}): use a "
                    "smaller input_size, a program with fewer parameters, or another device"
                )
            self.limit = size // 2
            note = f"out of memory with {size} samples at once, went on with {self.limit}"
            self.notes.append(note)
            warnings.warn(note, stacklevel=2)
        return parts[0] if len(parts) == 1 else join(parts)
