"""How close is the Gram stage to a plain matrix product?

The Gram stage, that is all tiles from source Jacobians already there, converted, multiplied,
scaled, made symmetric and put in place, against one ``torch.mm`` of the whole factor with its
transpose, given in the dtype of the product. mrviz sums in float64 on a CPU and in float32 on
consumer GPUs; both dtypes are shown. Below 1 is possible: only the upper triangle is computed.
"""

from __future__ import annotations

from functools import partial

import _measure as measure
import torch

import mrviz


def cases(n: int, device: str) -> dict[str, measure.Stages]:
    """A scalar kernel in front of short rows, and long rows without one."""
    linear = measure.digits_to_cnn(8, device)
    source = mrviz.load_source("cnn", input_size=64, channels=3, width=4, progress=False)
    overlay = mrviz.programs.Overlay((3, 64, 64), (1, 28, 28))
    long = mrviz.ReprogrammedModel(source, overlay, mrviz.mappings.Identity()).to(device)
    x = measure.images(n, device)
    return {
        "linear program, 1,024 columns": measure.Stages(linear, x),
        "overlay, 12,288 columns": measure.Stages(long, x),
    }


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[64, 256], help="samples")
    args = parser.parse_args()
    rows = []
    for n in args.n:
        for name, stages in cases(n, args.device).items():
            chunks = stages.jacobians()
            whole = torch.cat([block.factor for (block,) in chunks])
            for dtype in (torch.float64, torch.float32):
                factor = whole.to(dtype)
                sides = {
                    "gram": partial(stages.gram, chunks, dtype),
                    "mm": partial(torch.mm, factor, factor.T),
                }
                with measure.full_precision():
                    seconds = measure.best_of(sides, args.repeats, args.device)
                rows.append(
                    {
                        "kernel": name,
                        "n": n,
                        "dtype": str(dtype).removeprefix("torch."),
                        "chunks": len(chunks),
                        "Gram stage (s)": seconds["gram"],
                        "torch.mm (s)": seconds["mm"],
                        "ratio": seconds["gram"] / seconds["mm"],
                    }
                )
    measure.table(rows)
    measure.finish("arithmetic", args.device, rows=rows)


if __name__ == "__main__":
    main()
