"""NTK-vector products: the kernel without any Jacobian, one column at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call, jvp, vjp

from mrviz.ntk.factors import Reduction, Tick
from mrviz.programs import ReprogrammedModel


def product_tile(
    model: ReprogrammedModel, x1: Tensor, x2: Tensor, reduction: Reduction, tick: Tick
) -> Tensor:
    """A tile of the reduced Gram by one vector-Jacobian and one Jacobian-vector product a column.

    Holds no more than a few vectors of p numbers (Novak et al. 2022, arXiv 2206.08720,
    section 3.3); it needs forward-mode derivatives of every operation in the model.

    Args:
        model: the reprogrammed model.
        x1: (n1, …), rows of the tile.
        x2: (n2, …), columns of the tile.
        reduction: what is kept of each C×C block.
        tick: called for each column.

    Returns:
        Shape (n1·rows, n2·rows), without the reduction's scale.
    """
    parameters = {k: p.detach() for k, p in model.named_parameters() if p.requires_grad}

    def outputs(theta: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, theta, (x,))

    cotangents = reduction.cotangents(model.b)
    columns = []
    for sample in x2.split(1):
        _, pull = vjp(lambda theta, s=sample: outputs(theta, s), parameters)  # type: ignore[misc]
        for r, cotangent in enumerate(cotangents):
            tick()
            (direction,) = pull(cotangent[None])
            change: Tensor = jvp(lambda theta: outputs(theta, x1), (parameters,), (direction,))[1]
            column = change @ cotangents.T
            columns.append(column[:, r : r + 1] if reduction.name == "trace" else column)
    tile = torch.stack([c.reshape(-1) for c in columns], 1).double()
    if reduction.name == "trace":
        return tile.view(len(x1), len(x2), len(cotangents)).sum(2)
    return tile
