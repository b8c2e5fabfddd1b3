"""The source's input-Jacobian A_i, the one expensive thing, and the cache that keeps it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor, nn

from mrviz.errors import InputError
from mrviz.sources import SourceModel
from mrviz.sources.base import module_hash, tensor_bytes


def source_jacobian(
    source: SourceModel,
    cotangents: Tensor,
    u: Tensor,
    tick: Callable[[], None] | None = None,
    head: nn.Module | None = None,
) -> Tensor:
    """Rows of the source's input-Jacobian after the output mapping.

    One forward pass, then the backward passes of all rows, for all samples at once (samples
    are independent in eval mode): row after row, or vectorised over rows where that is faster
    (see :func:`vectorises`).

    Args:
        source: the frozen source.
        cotangents: (rows, c_S), rows of the mapping matrix or sums of them; with a head
            (rows, C), directions of its outputs.
        u: programmed inputs (n, *source_shape).
        tick: called between backward passes, to raise if the caller gave up.
        head: an output mapping that is not linear, differentiated with the source.

    Returns:
        A, shape (n, rows, *source_shape), dtype of u.

    Raises:
        InputError: the source's outputs do not depend differentiably on its input, or a
            derivative is not finite.
    """
    u = u.detach().requires_grad_(True)
    with torch.enable_grad():
        f = source(u) if head is None else head(source(u))
    if not f.requires_grad:
        raise InputError(
            f"source {source.name!r} has no gradient with respect to its input (detached, "
            "rounded or evaluated without autograd inside?): its tangent kernel is undefined"
        )
    if tick is not None:
        tick()
    if vectorises(source):
        every = cotangents[:, None].expand(-1, *f.shape)
        (rows,) = torch.autograd.grad(f, u, every, is_grads_batched=True)
        jacobian = rows.transpose(0, 1).contiguous()
    else:
        jacobian = u.new_empty((len(u), len(cotangents), *u.shape[1:]))
        for row, cotangent in enumerate(cotangents):
            if tick is not None and row > 0:
                tick()
            last = row == len(cotangents) - 1
            (jacobian[:, row],) = torch.autograd.grad(
                f, u, cotangent.expand_as(f), retain_graph=not last
            )
    if not torch.isfinite(jacobian).all():
        raise InputError(f"source {source.name!r} has NaN or infinite input derivatives here")
    return jacobian


def vectorises(source: SourceModel) -> bool:
    """Whether the backward passes of all output rows are faster at once than one by one.

    Measured by ``benchmarks/jacobian.py``: for dense layers up to three times faster at once, for
    convolutions up to 1.5 times slower. Modules of other types may not vectorise at all.
    """
    return all(type(module) in _DENSE for module in source.module.modules())


_DENSE = {
    *(nn.Sequential, nn.Flatten, nn.Linear, nn.Identity),
    *(nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Softplus),
}


class JacobianCache:
    """Source Jacobians by (source, mapping rows, programmed input), least recently used out.

    Args:
        limit: bytes to keep at most.
    """

    def __init__(self, limit: int = 1 << 30) -> None:
        self._limit = limit
        self._entries: OrderedDict[bytes, Tensor] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    @property
    def limit(self) -> int:
        """Bytes to keep at most; can be set, and what no longer fits is forgotten at once."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        with self._lock:
            self._limit = limit
            self._shrink()

    @property
    def n_bytes(self) -> int:
        """Bytes in use."""
        return self._bytes

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def get(self, key: bytes) -> Tensor | None:
        """The Jacobian (rows, *source_shape) of one sample, or ``None``."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, key: bytes, jacobian: Tensor) -> None:
        """Keeps the Jacobian of one sample, if it fits at all."""
        size = jacobian.numel() * jacobian.element_size()
        if size > self.limit:
            return
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = jacobian.clone()
            self._bytes += size
            self._shrink()

    def _shrink(self) -> None:
        while self._bytes > self._limit:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= dropped.numel() * dropped.element_size()


class CachedJacobian:
    """The function u → A of one source and one set of mapping rows, through a cache.

    Args:
        source: the frozen source.
        cotangents: (rows, c_S), or (rows, C) with a head.
        cache: where Jacobians are kept; ``None`` keeps none.
        head: an output mapping that is not linear.

    Attributes:
        computed: samples whose Jacobian had to be computed so far.
        found: samples whose Jacobian the cache had.
    """

    def __init__(
        self,
        source: SourceModel,
        cotangents: Tensor,
        cache: JacobianCache | None,
        head: nn.Module | None = None,
    ) -> None:
        self.source = source
        self.cotangents = cotangents
        self.cache = cache
        self.head = head
        self.computed = 0
        self.found = 0
        digest = hashlib.blake2b(digest_size=16)
        if cache is not None:
            digest.update(source.fingerprint().encode())
            digest.update(f"{tuple(cotangents.shape)}{source.dtype}{source.device}".encode())
            digest.update(tensor_bytes(cotangents))
            digest.update((module_hash(head) if head is not None else "linear").encode())
        self._prefix = digest.digest()

    def __call__(self, u: Tensor, tick: Callable[[], None] | None = None) -> Tensor:
        """A of programmed inputs u, shape (n, rows, *source_shape)."""
        if self.cache is None:
            self.computed += len(u)
            return source_jacobian(self.source, self.cotangents, u, tick, self.head)
        keys = [self._key(sample) for sample in u]
        kept = [self.cache.get(key) for key in keys]
        missing = [i for i, entry in enumerate(kept) if entry is None]
        self.found += len(u) - len(missing)
        if missing:
            fresh = source_jacobian(self.source, self.cotangents, u[missing], tick, self.head)
            self.computed += len(missing)
            for i, jacobian in zip(missing, fresh, strict=True):
                kept[i] = jacobian
                self.cache.put(keys[i], jacobian)
        return torch.stack([entry for entry in kept if entry is not None])

    def _key(self, sample: Tensor) -> bytes:
        return self._prefix + hashlib.blake2b(tensor_bytes(sample), digest_size=16).digest()


cache = JacobianCache()
"""The cache that every Gram of this process shares; ``limit`` can be set, ``clear()`` empties."""
