"""How does time grow with the number of samples?

Linear program 784 → 1024 in front of a three-layer CNN, 10 outputs. The two stages are timed
apart: source Jacobians should grow like n, their products like n². Exponents are slopes of
log(seconds) over log(n) by least squares, with standard errors; small n weigh as much as large
ones, so fixed costs pull an exponent down.
"""

from __future__ import annotations

from functools import partial

import _measure as measure
import numpy as np


def exponent(n: list[int], seconds: list[float]) -> tuple[float, float]:
    """Slope in log-log and its standard error."""
    x, y = np.log(n), np.log(seconds)
    slope, start = np.polyfit(x, y, 1)
    variance = ((y - slope * x - start) ** 2).sum() / max(1, len(n) - 2)
    return float(slope), float((variance / ((x - x.mean()) ** 2).sum()) ** 0.5)


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument(
        "--n", type=int, nargs="+", default=[64, 128, 256, 512, 1024], help="samples"
    )
    parser.add_argument("--width", type=int, default=8, help="CNN channels")
    args = parser.parse_args()
    model = measure.digits_to_cnn(args.width, args.device)
    rows = []
    for n in args.n:
        stages = measure.Stages(model, measure.images(n, args.device))
        chunks = stages.jacobians()
        sides = {"jacobians": stages.jacobians, "gram": partial(stages.gram, chunks)}
        seconds = measure.best_of(sides, args.repeats, args.device)
        rows.append(
            {"n": n, "Jacobians (s)": seconds["jacobians"], "products (s)": seconds["gram"]}
        )
    measure.table(rows)
    fits = {}
    for stage in ("Jacobians", "products"):
        slope, error = exponent(args.n, [row[f"{stage} (s)"] for row in rows])
        fits[stage] = {"exponent": slope, "standard_error": error}
        print(f"{stage}: n^{slope:.2f} ± {error:.2f}")
    measure.finish("growth", args.device, width=args.width, rows=rows, fits=fits)


if __name__ == "__main__":
    main()
