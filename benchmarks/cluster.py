"""How much faster are two Dask workers than one? Each has one thread.

Linear program 784 → 1024 in front of a three-layer CNN, 10 outputs, full Gram, in chunks large
enough that a tile takes much longer than its way to the client. Every timed call sends model and
inputs to the workers anew. The client, which puts the matrix together, and the scheduler run
beside the workers, so two workers want more than two cores.
"""

from __future__ import annotations

from functools import partial

import _measure as measure
from distributed import Client, LocalCluster
from torch import Tensor

import mrviz


def gram(client: Client, model: mrviz.ReprogrammedModel, x: Tensor, chunk: int) -> Tensor:
    """The Gram by the workers of a cluster."""
    found = mrviz.ntk_gram(model, x, chunk_size=chunk, client=client, progress=False)
    return found.matrix


def main() -> None:
    """Times both clusters in turn and prints the comparison."""
    parser = measure.parser(__doc__, repeats=2)
    parser.add_argument("--n", type=int, default=384, help="samples")
    parser.add_argument("--width", type=int, default=64, help="channels of the CNN")
    parser.add_argument("--chunk", type=int, default=32, help="samples of a chunk")
    args = parser.parse_args()
    model, x = measure.digits_to_cnn(args.width), measure.images(args.n)
    options = {"threads_per_worker": 1, "dashboard_address": ":0"}
    with (
        LocalCluster(n_workers=1, **options) as one,
        LocalCluster(n_workers=2, **options) as two,
        Client(one) as first,
        Client(two) as second,
    ):
        sides = {
            name: partial(gram, client, model, x, args.chunk)
            for name, client in (("1 worker", first), ("2 workers", second))
        }
        seconds = measure.best_of(sides, args.repeats, "cpu")
        theirs = sides["2 workers"]()
    expected = measure.closed_form(model, x)
    difference = float((theirs - expected).norm() / expected.norm())
    ratio = seconds["1 worker"] / seconds["2 workers"]
    measure.table({"cluster": name, "seconds": value} for name, value in seconds.items())
    print(f"{ratio:.2f} times faster, relative difference to one process {difference:.1e}")
    measure.finish(
        "cluster",
        "cpu",
        n=args.n,
        width=args.width,
        chunk=args.chunk,
        seconds=seconds,
        ratio=ratio,
        difference=difference,
    )


if __name__ == "__main__":
    main()
