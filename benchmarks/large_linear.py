"""Does a linear program with 115 million parameters fit into 4 GB?

3×32×32 images onto a 3×112×112 source (a CNN of depth 3), 10 outputs, n = 256, full Gram. An
explicit Jacobian would have n·C rows of p numbers. Memory is measured in a fresh process, for
building the model and for the Gram on top. A few entries are checked against plain gradients.
"""

from __future__ import annotations

import json
import time

import _measure as measure
import torch
from torch import Tensor

import mrviz


def build(width: int, n: int, device: str) -> tuple[mrviz.ReprogrammedModel, Tensor]:
    source = mrviz.load_source(
        "cnn", input_size=112, channels=3, width=width, depth=3, progress=False
    )
    program = mrviz.programs.Linear((3, 112, 112), (3, 32, 32))
    model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity()).to(device)
    return model, measure.images(n, device, 3, 32, 32)


def measured(width: int, n: int, device: str) -> dict[str, float]:
    """Seconds and MiB in this process, and how far two samples' entries are from gradients."""
    peak = measure.Peak(device)
    model, x = build(width, n, device)
    built = peak.added()
    on_top = measure.Peak(device)
    started = time.perf_counter()
    gram = mrviz.ntk_gram(model, x, progress=False)
    result = {
        "seconds": time.perf_counter() - started,
        "model_mib": built,
        "gram_mib": on_top.added(),
        "total_mib": max(built, peak.added()),
        "parameters": model.n_parameters,
    }
    parameters = list(model.program.parameters())
    with measure.full_precision():
        g = [torch.autograd.grad(model(x[k : k + 1])[0, 0], parameters) for k in range(2)]
    products = [
        [sum(float((a * b).sum()) for a, b in zip(u, v, strict=True)) for v in g] for u in g
    ]
    expected = torch.tensor(products, dtype=torch.float64)
    got = gram.matrix[: 2 * gram.outputs : gram.outputs, : 2 * gram.outputs : gram.outputs].cpu()
    result["difference"] = float((got / expected - 1).abs().max())
    return result


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--n", type=int, default=256, help="samples")
    parser.add_argument("--width", type=int, default=8, help="channels of the CNN")
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measured(args.width, args.n, args.device)))
        return
    result = measure.in_child("gram")
    explicit = args.n * 10 * result["parameters"] * 4 / 2**20
    print(f"n = {args.n}, order {args.n * 10}, {result['parameters']:,} parameters")
    rows = [
        {"": "model and samples", "MiB": result["model_mib"]},
        {"": "Gram on top", "MiB": result["gram_mib"]},
        {"": "both together", "MiB": result["total_mib"]},
        {"": "explicit Jacobian (not built)", "MiB": explicit},
    ]
    measure.table(rows)
    print(
        f"Gram in {result['seconds']:.2f} s, {explicit / result['total_mib']:.0f} times less "
        f"memory than the Jacobian; entries differ from gradients by {result['difference']:.1e}"
    )
    measure.finish("large_linear", args.device, n=args.n, explicit_mib=explicit, **result)


if __name__ == "__main__":
    main()
