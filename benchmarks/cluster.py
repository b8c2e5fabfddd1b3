"""How much faster are two Dask workers than one? Each has one thread.

Linear program 784 → 1024 in front of a three-layer CNN, 10 outputs, full Gram, in chunks large
enough that a tile takes much longer than its way to the client. Every timed call sends model and
inputs to the workers anew. The client, which puts the matrix together, and the scheduler run
beside the workers, so two workers want more than two cores, and a machine that is busy with other
things hides what the second worker brings: hence the processor time of the busiest worker too.
"""

from __future__ import annotations

import time

import _measure as measure
from distributed import Client, LocalCluster
from torch import Tensor

import mrviz


class Side:
    """The Gram by the workers of one cluster.

    Attributes:
        busiest: least processor time of the busiest worker in any run, in seconds.
    """

    def __init__(self, client: Client, model: mrviz.ReprogrammedModel, x: Tensor, chunk: int):
        self.client = client
        self.model = model
        self.x = x
        self.chunk = chunk
        self.busiest = float("inf")

    def __call__(self) -> Tensor:
        before = self.client.run(time.process_time)
        gram = mrviz.ntk_gram(
            self.model, self.x, chunk_size=self.chunk, client=self.client, progress=False
        )
        after = self.client.run(time.process_time)
        self.busiest = min(self.busiest, max(after[w] - before[w] for w in before))
        return gram.matrix


def main() -> None:
    """Times both clusters in turn and prints the comparison."""
    parser = measure.parser(__doc__, repeats=2)
    parser.add_argument("--n", type=int, default=512, help="samples")
    parser.add_argument("--width", type=int, default=112, help="channels of the CNN")
    parser.add_argument("--chunk", type=int, default=64, help="samples of a chunk")
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
            name: Side(client, model, x, args.chunk)
            for name, client in (("1 worker", first), ("2 workers", second))
        }
        seconds = measure.best_of(sides, args.repeats, "cpu")
        found = sides["2 workers"]()
    expected = measure.closed_form(model, x)
    difference = float((found - expected).norm() / expected.norm())
    processor = {name: side.busiest for name, side in sides.items()}
    measure.table(
        {"cluster": name, "seconds": seconds[name], "of the busiest worker": processor[name]}
        for name in sides
    )
    ratio, of_work = (t["1 worker"] / t["2 workers"] for t in (seconds, processor))
    print(
        f"{ratio:.2f} times faster, {of_work:.2f} times less work for the busiest worker; relative "
        f"difference to one process {difference:.1e}"
    )
    measure.finish(
        "cluster",
        "cpu",
        n=args.n,
        width=args.width,
        chunk=args.chunk,
        seconds=seconds,
        processor_seconds=processor,
        ratio=ratio,
        ratio_of_work=of_work,
        difference=difference,
    )


if __name__ == "__main__":
    main()
