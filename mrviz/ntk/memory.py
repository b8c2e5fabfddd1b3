"""How much memory there is, and what running out of it looks like."""

from __future__ import annotations

import torch

JACOBIAN_BYTES = 2 << 30
"""Source Jacobians of one Gram are kept in memory up to this size, then recomputed by tile."""

CHUNK_BYTES = 64 << 20
"""Source Jacobians of one chunk of samples, where the chunk size is chosen automatically."""


def available_bytes(device: torch.device) -> int | None:
    """Free memory of a device, or ``None`` where it cannot be told."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


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
