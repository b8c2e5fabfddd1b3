"""How much faster is the closed form than contracting Jacobians? Both sides in one run.

Linear program 784 → 1024 in front of a three-layer CNN, 10 outputs, full Gram. The other side
is the Jacobian contraction of PyTorch's tutorial "Neural Tangent Kernels" (torch.func). Prints
a table and JSON: seconds, the ratio, the relative difference, and peak memory of each side in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

import mrviz


def set_up(n: int) -> tuple[mrviz.ReprogrammedModel, Tensor]:
    """The model of design and n random images."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 64, 10),
    )
    source = mrviz.SourceModel(net, (1, 32, 32))
    program = mrviz.programs.Linear((1, 32, 32), (1, 28, 28))
    model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
    return model, torch.rand(n, 1, 28, 28)


def closed_form(model: mrviz.ReprogrammedModel, x: Tensor) -> Tensor:
    """mrviz, without its cache."""
    mrviz.ntk.cache.clear()
    return mrviz.ntk_gram(model, x, progress=False).matrix


def contraction(model: mrviz.ReprogrammedModel, x: Tensor) -> Tensor:
    """The tutorial's empirical_ntk_jacobian_contraction, with respect to the program."""
    theta = {f"program.{k}": p.detach() for k, p in model.program.named_parameters()}

    def single(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(model, parameters, (sample[None],))[0]

    jacobians = vmap(jacrev(single), (None, 0))(theta, x)
    flat = [j.flatten(2) for j in jacobians.values()]
    blocks = sum(torch.einsum("Naf,Mbf->NaMb", j, j) for j in flat)
    return torch.as_tensor(blocks).flatten(2).flatten(0, 1)


SIDES = {"closed form": closed_form, "torch.func contraction": contraction}


def best(side: str, n: int, repeats: int) -> tuple[float, Tensor]:
    """Shortest of some runs, after one to warm up."""
    model, x = set_up(n)
    result = SIDES[side](model, x)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = SIDES[side](model, x)
        times.append(time.perf_counter() - started)
    return min(times), result


def peak_memory(side: str, n: int) -> float:
    """MiB that one run adds to a fresh process that has everything loaded."""
    command = [sys.executable, __file__, "--memory", side, "--n", str(n)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    """Times both sides and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        model, x = set_up(args.n)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        SIDES[args.memory](model, x)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
        return
    # Memory first: a child starts with the peak its parent had.
    rows = {side: {"added_mib": peak_memory(side, args.n)} for side in SIDES}
    grams = {}
    for side in SIDES:
        rows[side]["seconds"], grams[side] = best(side, args.n, args.repeats)
    ours, theirs = (grams[side].double() for side in SIDES)
    difference = float((ours - theirs).norm() / theirs.norm())
    ratio = rows["torch.func contraction"]["seconds"] / rows["closed form"]["seconds"]
    print(
        f"n = {args.n}, order {len(ours)}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} CPU threads"
    )
    for side, row in rows.items():
        print(f"{side:24}{row['seconds']:9.3f} s{row['added_mib']:10.0f} MiB added")
    print(f"{ratio:.0f} times faster, relative difference {difference:.1e}")
    print(json.dumps({"n": args.n, "ratio": ratio, "difference": difference, "sides": rows}))


if __name__ == "__main__":
    main()
