"""Tiles computed by the workers of a Dask cluster. Imported only where a client was given."""

from __future__ import annotations

import pickle
import queue
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

import cloudpickle
import numpy as np
import torch
from distributed import Client, Future, KilledWorker, Worker, WorkerPlugin, get_worker

from mrviz._memory import Splitter
from mrviz._progress import CancelFlag, ProgressCallback, stop_if_cancelled
from mrviz.errors import ClusterError, InputError
from mrviz.ntk.arithmetic import block_product, n_bytes
from mrviz.ntk.factors import Factors
from mrviz.ntk.plan import Plan, default_memory, full_precision, prepared
from mrviz.ntk.tiles import Place, Tile, panels, product_tiles
from mrviz.programs import KernelBlock
from mrviz.sources.base import evaluation_mode

POLL_SECONDS = 0.2
"""How soon a cancelled computation stops waiting."""

GATHER_SECONDS = 60.0
"""How long the transfer of one tile may take before the cluster is looked at again."""

NO_WORKER_SECONDS = 300.0
"""How long a cluster may be without any worker: new ones can take minutes to come."""

_one_at_a_time = Lock()  # forward-mode derivatives of PyTorch are not safe in threads


@dataclass(frozen=True)
class Chunk:
    """Kernel blocks of a chunk of samples, kept by the worker that computed them.

    Attributes:
        blocks: kernel blocks.
        notes: what had to be done differently than planned.
    """

    blocks: list[KernelBlock]
    notes: tuple[str, ...]

    def __sizeof__(self) -> int:
        """Dask plans its transfers by this."""
        return object.__sizeof__(self) + n_bytes(self.blocks)


@dataclass(frozen=True)
class Product:
    """A finished tile on its way to the client.

    Attributes:
        tile: its values, float64.
        notes: what had to be done differently than planned.
    """

    tile: np.ndarray[Any, np.dtype[np.float64]]
    notes: tuple[str, ...]


class PlanOnWorker(WorkerPlugin):
    """Model and inputs on a worker, sent once, and the tasks that use them.

    Args:
        plan: pickled, with everything on the CPU; a worker loads it with its first task.
        device: where this worker shall compute, in its own numbering.
    """

    def __init__(self, plan: bytes, device: str) -> None:
        self.pickled = plan
        self.device = device

    def setup(self, worker: Worker) -> None:
        """Called on the worker once, before its tasks."""
        self._limit = worker.memory_manager.memory_limit
        self._lock = Lock()
        self._ready: tuple[Plan, list[Factors]] | None = None

    def describe(self) -> tuple[Place, int, int]:
        """Where it computes, bytes for factors here, and bytes of one sample's factors."""
        plan, sides = self._here()
        size = 0
        if sides:
            with evaluation_mode(plan.model), full_precision(plan.tf32):
                size = n_bytes(sides[0].blocks(0, 1))
        device = plan.model.source.device
        place = Place(str(device), plan.accumulation, plan.epsilon)
        memory = default_memory(device)
        if device.type == "cpu" and self._limit:
            memory = min(memory, self._limit // 4)
        return place, memory, size

    def chunk(self, side: int, k: int) -> Chunk:
        """Factors of chunk k of the rows (side 0) or columns (side 1)."""
        plan, sides = self._here()
        with evaluation_mode(plan.model), full_precision(plan.tf32):
            blocks = sides[side].blocks(*(plan.columns if side else plan.rows)[k])
        return Chunk(blocks, tuple(sides[side].notes))

    def from_factors(
        self, rows: Chunk, columns: Chunk, accumulation: torch.dtype, upper: int
    ) -> Product:
        """The tile of two chunks; see :func:`~mrviz.ntk.arithmetic.block_product`."""
        plan, _ = self._here()
        with full_precision(plan.tf32):
            tile = block_product(rows.blocks, columns.blocks, accumulation, upper=upper)
        return Product(tile.cpu().numpy(), (*rows.notes, *columns.notes))

    def from_products(self, i: int, j: int) -> Product:
        """The tile of row chunk i and column chunk j from NTK-vector products."""
        plan, _ = self._here()
        split = Splitter("the tangent")
        with _one_at_a_time, evaluation_mode(plan.model), full_precision(plan.tf32):
            ((_, _, tile),) = product_tiles(plan, [(i, j)], split, lambda: None)
        return Product(tile.cpu().numpy(), tuple(split.notes))

    def _here(self) -> tuple[Plan, list[Factors]]:
        """The plan on this worker's device, and the factors of its sides."""
        with self._lock:
            if self._ready is None:
                try:
                    plan: Plan = pickle.loads(self.pickled)
                except ImportError as error:
                    raise InputError(
                        f"a worker cannot load the model ({error}): install the same packages on "
                        "all workers, or send your own module with client.upload_file('module.py')"
                    ) from error
                model = prepared(plan.model, self.device, None)
                x2 = None if plan.x2 is None else plan.x2.to(self.device)
                plan = replace(plan, model=model, x1=plan.x1.to(self.device), x2=x2)
                self._ready = plan, [] if plan.method == "products" else plan.factors(cache=None)
                self.pickled = b""
            return self._ready


class ClusterTiles:
    """Tiles computed by the workers of a cluster, as a context manager.

    Args:
        plan: what is computed, with everything on the CPU.
        client: of the cluster.
        device: where each worker computes, in its own numbering.
        memory: bytes that factors may take on one worker; ``None`` asks a worker.
        folder: where tiles are stored, if on disk; for the message when the cluster is lost.
        cancel: flag that ends the work.

    Attributes:
        place: where the tiles are computed.
        computed: samples whose source Jacobian was asked for.
        notes: what had to be done differently than planned.

    Raises:
        InputError: the model cannot be sent to the workers.
        ClusterError: the cluster went away.
    """

    place: Place
    cached = 0

    def __init__(
        self,
        plan: Plan,
        client: Client,
        device: str,
        memory: int | None,
        folder: Path | None,
        cancel: CancelFlag | None,
    ) -> None:
        self.plan = plan
        self.client = client
        self.computed = 0
        self.notes: list[str] = []
        self._device = device
        self._name = f"mrviz-{uuid.uuid4().hex}"
        self._memory = memory
        self._folder = folder
        self._cancel = cancel
        self._panel = 1
        self._serial = 0
        self._threads = 0
        self._seen = time.monotonic()
        self._done, self._total = 0, len(plan.tiles)
        self._ready: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._flying: dict[Future, tuple[int, int]] = {}
        self._chunks: dict[tuple[int, int], Future] = {}

    def __enter__(self) -> ClusterTiles:
        try:
            self._send()
            self._describe()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(Exception):  # the cluster may be gone
            if self.client.status == "running":
                self.client.cancel([*self._flying, *self._chunks.values()])
                self.client.unregister_worker_plugin(self._name)
        self._flying.clear()
        self._chunks.clear()

    def __call__(
        self, tiles: list[tuple[int, int]], progress: ProgressCallback | bool | None
    ) -> Iterator[Tile]:
        """Yields the tiles asked for as they are finished, a few tasks per thread at a time."""
        self._done, self._total = 0, len(tiles)
        for i, j, future in self._submitted(tiles):
            self._flying[future] = i, j
            future.add_done_callback(self._ready.put)
            while len(self._flying) >= max(4, 2 * self._threads):
                yield self._next()
        while self._flying:
            yield self._next()

    def explicit(self) -> None:
        """J with Θ = J Jᵀ would have to be fetched from the workers: there is none."""

    def _submitted(self, tiles: list[tuple[int, int]]) -> Iterator[tuple[int, int, Future]]:
        """Tiles with the tasks that compute them, submitted one after another."""
        if self.plan.method == "products":
            for i, j in tiles:
                yield i, j, self._submit("from_products", i, j)
            return
        last = 0 if self.plan.symmetric else 1
        for rows, columns in panels(tiles, self._panel):
            self._chunks = {(0, i): self._chunk(0, i) for i in rows}
            for j, partners in columns.items():
                self._look()
                column = self._chunks.get((last, j)) or self._chunk(last, j)
                for i in partners:
                    row = self._chunks[0, i]
                    own = self.plan.reduction.rows if self.plan.symmetric and i == j else 0
                    task = self._submit("from_factors", row, column, self.place.accumulation, own)
                    yield i, j, task

    def _chunk(self, side: int, k: int) -> Future:
        start, stop = (self.plan.columns if side else self.plan.rows)[k]
        self.computed += stop - start
        return self._submit("chunk", side, k)

    def _submit(self, task: str, *args: Any) -> Future:
        self._serial += 1
        key = f"mrviz-{task.replace('_', '-')}-{self._name[-8:]}-{self._serial}"
        try:
            return self.client.submit(_run, self._name, task, *args, key=key, pure=False)
        except Exception as error:  # what is sent is ours, so it is the connection
            self._lost("no connection to the scheduler", error)

    def _next(self) -> Tile:
        future, product = self._wait()
        i, j = self._flying.pop(future)
        self.notes = [*dict.fromkeys([*self.notes, *product.notes])]
        self._done += 1
        return i, j, torch.from_numpy(product.tile.copy())  # Dask's own array is read-only

    def _wait(self) -> tuple[Future, Any]:
        """The next task that is finished, and its result."""
        while True:
            stop_if_cancelled(self._cancel, "Gram matrix")
            try:
                future = self._ready.get(timeout=POLL_SECONDS)
            except queue.Empty:
                self._look()
                continue
            try:
                return future, future.result(timeout=GATHER_SECONDS)
            except KilledWorker as error:
                self._lost("a task ended one worker after another, for want of memory?", error)
            except Exception as error:
                if future.status == "cancelled":
                    self._lost("the scheduler was closed, or the tasks were cancelled", error)
                if future.status == "error" or not isinstance(error, TimeoutError):
                    raise
                self._look()
                self._ready.put(future)  # its worker went away: Dask computes it again

    def _look(self) -> None:
        """Counts the workers' threads, and notices when nobody is left."""
        try:
            self._threads = sum(self.client.nthreads().values())
        except Exception as error:
            self._lost("no connection to the scheduler", error)
        now = time.monotonic()
        if self._threads:
            self._seen = now
        elif now - self._seen > NO_WORKER_SECONDS:
            self._lost(f"it has had no worker for {NO_WORKER_SECONDS:.0f} seconds")

    def _lost(self, reason: str, cause: BaseException | None = None) -> NoReturn:
        kept = (
            "They are lost; with store=path the next call would go on from there"
            if self._folder is None
            else f"They are kept in store={str(self._folder)!r}: call again with another client"
        )
        raise ClusterError(
            f"the Dask cluster went away after {self._done} of {self._total} tiles ({reason}). "
            f"{kept}"
        ) from cause

    def _send(self) -> None:
        """Sends model and inputs to every worker, those included that come later."""
        try:
            pickled = cloudpickle.dumps(self.plan)
        except Exception as error:
            raise InputError(
                f"the model cannot be sent to the workers ({type(error).__name__}: {error}): use "
                "modules and functions that cloudpickle can copy"
            ) from error
        try:
            self.client.register_plugin(PlanOnWorker(pickled, self._device), self._name)
        except Exception as error:
            if isinstance(error, OSError) or self.client.status != "running":
                self._lost("no connection to the scheduler", error)
            raise InputError(
                f"the workers did not take the model ({error}): install the same mrviz there"
            ) from error

    def _describe(self) -> None:
        """Asks a worker where it computes and how many rows of tiles fit into a panel."""
        self._look()
        future = self._submit("describe")
        self._flying[future] = 0, 0
        future.add_done_callback(self._ready.put)
        _, (self.place, memory, size) = self._wait()
        del self._flying[future]
        size = max(1, size * self.plan.chunk_size)
        self._panel = max(1, (self._memory or memory) // size)


def _run(name: str, task: str, *args: Any) -> Any:
    """Runs a task of :class:`PlanOnWorker`, on the worker."""
    return getattr(get_worker().plugins[name], task)(*args)
