"""What does a whole sweep over border widths cost, beside one Gram?

Sixteen widths of a border prompt against one Gram at the largest width, each from an empty cache:
Grams alone, and with the eigenvalues of every Gram. An eigendecomposition for each width is work
that rings do not share; where the source is cheap it is most of the time, so the ratio is shown
against one Gram both with and without its own.
"""

from __future__ import annotations

from functools import partial

import _measure as measure
from torch import Tensor

import mrviz

SOURCES = {
    "EfficientNet-Lite0": ("efficientnet-lite0", {"input_size": 64, "weights": "random"}),
    "cnn": ("cnn", {"input_size": 64, "channels": 3, "width": 16}),
}


def one_gram(model: mrviz.ReprogrammedModel, x: Tensor, eigenvalues: bool) -> None:
    mrviz.ntk.cache.clear()
    gram = mrviz.ntk_gram(model, x, progress=False)
    if eigenvalues:
        mrviz.spectrum(gram)


def all_widths(
    model: mrviz.ReprogrammedModel, x: Tensor, widths: list[int], eigenvalues: bool
) -> None:
    mrviz.ntk.cache.clear()
    if eigenvalues:
        mrviz.capacity_sweep(model, x, widths, progress=False)
    else:
        for _ in mrviz.ntk.capacity_grams(model, x, widths, progress=False):
            pass


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--n", type=int, default=64, help="samples")
    parser.add_argument("--widths", type=int, default=16, help="border widths 1, 2, …")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    args = parser.parse_args()
    widths = list(range(1, args.widths + 1))
    x = measure.images(args.n, args.device)
    rows = []
    for label in args.sources:
        name, options = SOURCES[label]
        source = mrviz.load_source(name, progress=False, **options)
        program = mrviz.programs.Border(source.input_shape, (1, 28, 28), width=args.widths)
        model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity(10))
        model = model.to(args.device)
        sides = {
            "Grams": partial(all_widths, model, x, widths, False),
            "spectra": partial(all_widths, model, x, widths, True),
            "one Gram": partial(one_gram, model, x, False),
            "one spectrum": partial(one_gram, model, x, True),
        }
        seconds = measure.best_of(sides, args.repeats, args.device)
        rows.append(
            {
                "source": label,
                **{f"{side} (s)": time for side, time in seconds.items()},
                "Grams / Gram": seconds["Grams"] / seconds["one Gram"],
                "spectra / spectrum": seconds["spectra"] / seconds["one spectrum"],
                "spectra / Gram": seconds["spectra"] / seconds["one Gram"],
            }
        )
    print(f"n = {args.n}, order {10 * args.n}, {args.widths} widths")
    measure.table(rows)
    measure.finish("sweep", args.device, n=args.n, rows=rows)


if __name__ == "__main__":
    main()
