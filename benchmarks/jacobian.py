"""Which way to the source Jacobian is fastest: rows in a loop, rows at once, or copies of inputs?

Looped: one forward pass, then a backward pass for each of the 10 output rows. Vectorised: one
backward pass for all rows (``is_grads_batched``). Replicated: each input ten times, one forward
and one backward pass. ``mrviz.ntk.jacobian.vectorises`` picks between the first two.

The ways differ by round-off alone (column "difference", relative), except where round-off moves a
unit across the kink of its ReLU: that changes one sample's Jacobian by a percent or so.
"""

from __future__ import annotations

from functools import partial

import _measure as measure
import torch
from torch import Tensor

import mrviz
from mrviz.ntk.jacobian import vectorises

SOURCES = {
    "dnn, 512 wide": ("dnn", {"depth": 3, "width": 512}),
    "dnn, 2048 wide, depth 6": ("dnn", {"depth": 6, "width": 2048}),
    "cnn, 16 channels": ("cnn", {"width": 16}),
    "cnn, 32 channels": ("cnn", {"width": 32}),
    "vgg": ("vgg", {}),
    "resnet": ("resnet", {}),
    "EfficientNet-Lite0": ("efficientnet-lite0", {"input_size": 64, "weights": "random"}),
}


def looped(source: mrviz.SourceModel, cotangents: Tensor, u: Tensor) -> Tensor:
    u = u.detach().requires_grad_(True)
    f = source(u)
    last = len(cotangents) - 1
    rows = [
        torch.autograd.grad(f, u, row.expand_as(f), retain_graph=k < last)[0]
        for k, row in enumerate(cotangents)
    ]
    return torch.stack(rows, 1)


def vectorised(source: mrviz.SourceModel, cotangents: Tensor, u: Tensor) -> Tensor:
    u = u.detach().requires_grad_(True)
    f = source(u)
    every = cotangents[:, None].expand(-1, *f.shape)
    (rows,) = torch.autograd.grad(f, u, every, is_grads_batched=True)
    return rows.transpose(0, 1).contiguous()


def replicated(source: mrviz.SourceModel, cotangents: Tensor, u: Tensor) -> Tensor:
    copies = u.detach().repeat_interleave(len(cotangents), 0).requires_grad_(True)
    f = source(copies)
    (rows,) = torch.autograd.grad(f, copies, cotangents.repeat(len(u), 1))
    return rows.view(len(u), len(cotangents), *u.shape[1:])


WAYS = {"looped": looped, "vectorised": vectorised, "replicated": replicated}


def main() -> None:
    parser = measure.parser(__doc__, repeats=2)
    parser.add_argument("--n", type=int, nargs="+", default=[1, 8, 64], help="samples")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    args = parser.parse_args()
    rows = []
    for label in args.sources:
        name, options = SOURCES[label]
        source = mrviz.load_source(name, progress=False, **options).to(args.device)
        cotangents = torch.eye(10, source.outputs, device=args.device)
        for n in args.n:
            u = measure.images(n, args.device, *source.input_shape)
            ways = {way: partial(run, source, cotangents, u) for way, run in WAYS.items()}
            with measure.full_precision():
                first, *others = (run() for run in ways.values())
                seconds = measure.best_of(ways, args.repeats, args.device)
            difference = max(float((o - first).norm() / first.norm()) for o in others)
            picked = "vectorised" if vectorises(source) else "looped"
            rows.append(
                {
                    "source": label,
                    "n": n,
                    **{f"{way} (ms)": 1000 * time for way, time in seconds.items()},
                    "fastest": min(seconds, key=lambda way: seconds[way]),
                    "picked": picked,
                    "picked / fastest": seconds[picked] / min(seconds.values()),
                    "difference": difference,
                }
            )
    measure.table(rows)
    measure.finish("jacobian", args.device, rows=rows)


if __name__ == "__main__":
    main()
