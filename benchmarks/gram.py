"""How much faster is the closed form than contracting Jacobians, and with how much less memory?

Linear program 784 → 1024 (28×28 images onto 1×32×32) in front of a three-layer CNN, 10 outputs,
full Gram. The other side is the Jacobian contraction of PyTorch's tutorial "Neural Tangent
Kernels" (torch.func), with respect to the program's parameters; it computes the Jacobian once,
where the tutorial's function computes it for rows and columns.

The contraction multiplies Jacobians with 803,840 columns, whatever the source, and takes about as
long with every width. The closed form multiplies source Jacobians with 1,024 columns, so nearly
all its time is the source's ten backward passes and grows with the width of the CNN: hence three
widths. Memory is what one Gram adds to a fresh process.
"""

from __future__ import annotations

import json
from functools import partial

import _measure as measure
import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap

import mrviz


def contraction(model: mrviz.ReprogrammedModel, x: Tensor) -> Tensor:
    """The tutorial's empirical_ntk_jacobian_contraction."""
    theta = {f"program.{k}": p.detach() for k, p in model.program.named_parameters()}

    def single(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(model, parameters, (sample[None],))[0]

    with measure.full_precision():  # as mrviz does: no TF32 on a GPU
        jacobians = vmap(jacrev(single), (None, 0))(theta, x)
        flat = [j.flatten(2) for j in jacobians.values()]
        blocks = sum(torch.einsum("Naf,Mbf->NaMb", j, j) for j in flat)
    return torch.as_tensor(blocks).flatten(2).flatten(0, 1)


SIDES = {"closed form": measure.closed_form, "contraction": contraction}


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--n", type=int, default=64, help="samples")
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16, 32], help="CNN channels")
    args = parser.parse_args()
    x = measure.images(args.n, args.device)
    if args.child:
        side, width = args.child.rsplit(" ", 1)
        model = measure.digits_to_cnn(int(width), args.device)
        peak = measure.Peak(args.device)
        SIDES[side](model, x)
        print(json.dumps({"added": peak.added()}))
        return

    rows = []
    for width in args.widths:
        model = measure.digits_to_cnn(width, args.device)
        sides = {name: partial(side, model, x) for name, side in SIDES.items()}
        memory = {name: measure.in_child(f"{name} {width}")["added"] for name in sides}
        seconds = measure.best_of(sides, args.repeats, args.device)
        ours, theirs = (side().double() for side in sides.values())
        rows.append(
            {
                "channels": width,
                "closed form (s)": seconds["closed form"],
                "contraction (s)": seconds["contraction"],
                "times faster": seconds["contraction"] / seconds["closed form"],
                "closed form (MiB)": memory["closed form"],
                "contraction (MiB)": memory["contraction"],
                "difference": float((ours - theirs).norm() / theirs.norm()),
            }
        )
    print(f"n = {args.n}, order {len(ours)}")
    measure.table(rows)
    measure.finish("gram", args.device, n=args.n, rows=rows)


if __name__ == "__main__":
    main()
