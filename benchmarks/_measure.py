"""What the benchmarks share: models, timing, peak memory, the machine, a table, a line of JSON.

Import it first: it puts this checkout on the path and sets, before torch is loaded, how torch's
threads wait (as ``mrviz`` does; see there).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

import mrviz
from mrviz.ntk.arithmetic import block_product
from mrviz.ntk.plan import Plan, full_precision, make_plan
from mrviz.ntk.tiles import MemorySink, assemble
from mrviz.programs import KernelBlock
from mrviz.sources.base import evaluation_mode

Chunks = list[list[KernelBlock]]


# Arguments and output


def parser(doc: str | None, repeats: int = 3) -> argparse.ArgumentParser:
    """Arguments that every benchmark has; the description is the first line of its docstring."""
    result = argparse.ArgumentParser(description=(doc or "").split("\n\n")[0])
    result.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, …")
    result.add_argument("--repeats", type=int, default=repeats, help="timed runs of each side")
    result.add_argument("--child", help=argparse.SUPPRESS)  # what a measured process does
    return result


def machine(device: torch.device | str) -> str:
    """What everything ran on, in one line."""
    threads = f"{torch.get_num_threads()} CPU threads"
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = platform.processor() or platform.machine()
        info = Path("/proc/cpuinfo")
        if info.exists():
            lines = [s for s in info.read_text().splitlines() if s.startswith("model name")]
            name = lines[0].partition(": ")[2] if lines else name
    return f"{name}, {threads}, torch {torch.__version__}"


def versions(*packages: str) -> str:
    """Names and versions of packages."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


def table(rows: Iterable[Mapping[str, object]]) -> None:
    """Prints rows under their keys; numbers with three digits."""
    rows = list(rows)

    def text(value: object) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"

    cells = [list(rows[0]), *([text(v) for v in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        first, *others = (c.rjust(w) for c, w in zip(line, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *others]))


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard deviation, or the number where all are the same."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    if min(values) == max(values):
        return mean
    return f"{mean} ± {statistics.stdev(values):.{digits}f}"


def markdown(lines: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, the first of them its head; short ones end in empty cells."""
    width = len(lines[0])
    cells = [[*line, *[""] * (width - len(line))] for line in lines]
    return ["| " + " | ".join(line) + " |" for line in (cells[0], ["---"] * width, *cells[1:])]


def finish(name: str, device: str, **values: object) -> None:
    """Prints the machine and everything measured as one line of JSON, in four digits."""

    def rounded(value: object) -> object:
        if isinstance(value, Mapping):
            return {k: rounded(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [rounded(v) for v in value]
        return float(f"{value:.4g}") if isinstance(value, float) else value

    print(machine(device))
    line = {"benchmark": name, "machine": machine(device), **values}
    print(json.dumps(rounded(line)), flush=True)


# Time


def best_of(
    sides: Mapping[str, Callable[[], object]], repeats: int, device: torch.device | str
) -> dict[str, float]:
    """Seconds of each side: best of some runs in turn, after one of each to warm up.

    Quick sides are run more often than asked, for a second in all or 50 turns.
    """
    best = dict.fromkeys(sides, float("inf"))
    turns, spent = -1, 0.0
    while turns < repeats or (spent < 1 and turns < 50):
        for name, run in sides.items():
            _synchronize(device)
            started = time.perf_counter()
            run()
            _synchronize(device)
            seconds = time.perf_counter() - started
            if turns >= 0:
                best[name] = min(best[name], seconds)
                spent += seconds
        turns += 1
    return best


def _synchronize(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


# Memory


class Peak:
    """Most memory held since the start of this object, beyond what was held then, in MiB.

    On a GPU what torch allocated. Else resident memory of a process; where there is no /proc,
    growth of the largest size this process ever had, and not a number for other processes.
    """

    def __init__(self, device: torch.device | str = "cpu", pid: int | str = "self") -> None:
        self._device = torch.device(device)
        self._proc = Path(f"/proc/{pid}")
        if self._device.type == "cuda":
            torch.cuda.init()
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device) / 2**20
        else:
            with suppress(OSError):
                (self._proc / "clear_refs").write_text("5")  # VmHWM starts again from VmRSS
            self._before = self._resident("VmRSS")

    def added(self) -> float:
        """MiB added so far at the worst moment."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**20 - self._before
        return self._resident("VmHWM") - self._before

    def _resident(self, field: str) -> float:
        status = self._proc / "status"
        if status.exists():
            (line,) = [s for s in status.read_text().splitlines() if s.startswith(field)]
            return int(line.split()[1]) / 1024
        if self._proc.name != "self":
            return float("nan")
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def in_child(what: str) -> dict[str, float]:
    """Runs this script again with the same arguments and ``--child what``; its line of JSON.

    A fresh process, so that memory left over from other work is not taken for free.
    """
    command = [sys.executable, *sys.argv, "--child", what]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


# What is measured


def digits_to_cnn(width: int, device: torch.device | str = "cpu") -> mrviz.ReprogrammedModel:
    """Linear program 1×28×28 → 1×32×32 in front of a CNN of three layers with 10 outputs."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(width * 64, 10),
    )
    net.to(memory_format=torch.channels_last)  # as convolutional sources of mrviz have
    source = mrviz.SourceModel(net, (1, 32, 32))
    program = mrviz.programs.Linear((1, 32, 32), (1, 28, 28))
    return mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity()).to(device)


def images(n: int, device: torch.device | str = "cpu", *shape: int) -> Tensor:
    """Random images, 1×28×28 unless told otherwise."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand((n, *(shape or (1, 28, 28))), generator=generator).to(device)


def closed_form(model: mrviz.ReprogrammedModel, x: Tensor) -> Tensor:
    """The Gram by mrviz from an empty cache."""
    mrviz.ntk.cache.clear()
    return mrviz.ntk_gram(model, x, progress=False).matrix


class Stages:
    """The two stages of a closed form, one at a time: source Jacobians, then their products."""

    def __init__(self, model: mrviz.ReprogrammedModel, x: Tensor) -> None:
        self.plan: Plan = make_plan(model, x)

    def jacobians(self) -> Chunks:
        """Kernel factors of all chunks of samples, without the cache."""
        (factors,) = self.plan.factors(None)
        with evaluation_mode(self.plan.model), full_precision():
            return [factors.blocks(*span) for span in self.plan.rows]

    def gram(self, chunks: Chunks, accumulation: torch.dtype | None = None) -> Tensor:
        """The matrix from kernel factors: all tiles, made symmetric and put in place."""
        plan = self.plan
        sink = MemorySink(plan)
        accumulation = accumulation or plan.accumulation
        with full_precision():
            tiles = (
                (
                    i,
                    j,
                    block_product(
                        chunks[i],
                        chunks[j],
                        accumulation,
                        upper=plan.reduction.rows if i == j else 0,
                        out=sink.room(i, j),
                    ),
                )
                for i, j in plan.tiles
            )
            assemble(plan, tiles, len(plan.tiles), sink, False, None)
        return sink.matrix
