"""Checks of the exercises in notebooks/04-bring-your-own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mrviz._words import counted, verb
from mrviz.classroom.answers import Mistake, Unanswered, run, same, tensor, whole
from mrviz.classroom.exercises import exercise
from mrviz.spectrum import CapacitySweep

Paint = Callable[[Tensor], Tensor]


@exercise("04.1")
def brightness_contrast(answer: Any, *, paint: Paint, x: Tensor) -> str:
    """A program u = a·paint(x) + c with two trainable numbers, one and zero at the start.

    Args:
        answer: the class, or an instance of it.
        paint: the fixed map from target inputs to source inputs.
        x: some target inputs.
    """
    program = run(answer, name="The class") if isinstance(answer, type) else answer
    if not isinstance(program, nn.Module):
        raise Mistake("The program is no `nn.Module`: make it a class derived from `nn.Module`.")
    start = _programmed(program, x)
    painted = paint(x)
    if not isinstance(start, Tensor) or start.shape != painted.shape:
        found = tuple(start.shape) if isinstance(start, Tensor) else type(start).__name__
        raise Mistake(
            f"`forward` returns {found} for inputs {tuple(x.shape)}; {tuple(painted.shape)} is "
            "asked for, a picture for each sample."
        )
    trainable = [p for p in program.parameters() if p.requires_grad]
    count = sum(p.numel() for p in trainable)
    if not count:
        raise Mistake(
            "Nothing is trainable: the start values must be `nn.Parameter(torch.tensor(…))`, and "
            "attributes of `self`."
        )
    if count != 2:
        raise Mistake(
            f"{count:,} numbers are trainable. One contrast and one brightness for the whole "
            "picture are asked for, not some for each pixel or measurement."
        )
    same(
        start,
        painted,
        name="The untrained picture",
        mistakes={
            "The untrained picture is all zero: the contrast starts at 0. Start it at 1.": (
                torch.zeros_like(painted)
            ),
            "The brightness starts at 1. Start it at 0, so that the untrained program paints the "
            "table as it is.": painted + 1,
        },
    )
    a, c = 1.7, -0.4
    moved = [_with_values(program, trainable, pair, x) for pair in ((a, c), (c, a))]
    if any(_matches(u, a * painted + c) for u in moved):
        return "Training can stretch the picture and shift it, and nothing else."
    if any(_matches(u, a * (painted + c)) for u in moved):
        raise Mistake(
            "The brightness is added before the contrast multiplies: u = a·(paint(x) + c). The "
            "exercise asks for u = a·paint(x) + c."
        )
    if any(_matches(u, a * painted) for u in moved):
        raise Mistake("The brightness has no effect: add it to the picture in `forward`.")
    if any(_matches(u, painted + c) for u in moved):
        raise Mistake("The contrast has no effect: multiply the picture by it in `forward`.")
    raise Mistake(
        "With contrast a and brightness c set to other numbers, `forward` does not give "
        "a·paint(x) + c."
    )


@exercise("04.2")
def rank_bound(answer: Any, *, parameters: int, n: int, outputs: int) -> str:
    """The largest rank that a Gram matrix of n samples can have: min(nC, p).

    Args:
        answer: the bound.
        parameters: p.
        n: number of samples.
        outputs: C.
    """
    bound, rows = whole(answer, "The bound"), n * outputs
    mistakes: dict[str, float] = {
        f"{rows} is the order nC of the matrix. Θ = J Jᵀ, and J has another side that is "
        "shorter here.": rows,
        f"{n} is the number of samples; each has C rows in the matrix. But another number is "
        "the bound here.": n,
        "p was counted for each output. All outputs move with the same parameters.": (
            parameters * outputs
        ),
        "p was counted for each sample. All samples share the same parameters.": parameters * n,
        f"{outputs} is the number of outputs; it bounds the rank of one block Θ_ij.": outputs,
    }
    mistakes = {text: wrong for text, wrong in mistakes.items() if wrong != min(rows, parameters)}
    same(bound, min(rows, parameters), name="The bound", mistakes=mistakes)
    return (
        f"Θ = J Jᵀ with J of {rows} × {parameters}, so at least {rows - bound} of {rows} "
        "eigenvalues are exactly zero."
    )


@exercise("04.3")
def kernel_factor(
    answer: Callable[[Tensor, Tensor], Tensor], *, painted: Tensor, jacobian: Tensor
) -> str:
    """The factor G of the two-parameter program's kernel: A_i·paint(x_i) and the sum of A_i.

    Args:
        answer: a function of the pictures and the source Jacobian.
        painted: pictures (n, 1, H, W).
        jacobian: A, (n, C, 1, H, W).
    """
    if not callable(answer):
        raise Mistake("A function `factor(painted, jacobian)` is asked for.")
    painted, jacobian = painted.double(), jacobian.double()
    n, outputs = jacobian.shape[:2]
    g = run(answer, painted, jacobian, name="`factor`")
    contrast = (jacobian * painted[:, None]).flatten(2).sum(2)
    brightness = jacobian.flatten(2).sum(2)
    if isinstance(g, Tensor) and g.shape == (n, outputs):
        for column, other in ((contrast, "brightness"), (brightness, "contrast")):
            if _matches(g, column):
                raise Mistake(f"The column of the {other} is missing: G has one for each of a, c.")
    if isinstance(g, Tensor) and g.shape == (n, outputs, 2, *jacobian.shape[2:]):
        raise Mistake(
            "The pixels are still apart: a and c act on all pixels, so their products are summed."
        )
    g = tensor(g, (n, outputs, 2), "G", ("samples", "outputs", "parameters"))
    expected = torch.stack([contrast, brightness], 2)
    if _matches(g.flip(2), expected):
        g = g.flip(2)
    pixels = jacobian[0, 0].numel()
    same(
        g,
        expected,
        name="G",
        mistakes={
            "The mean over pixels was taken. The chain rule sums over them.": expected / pixels,
            "The column of the contrast lacks the picture: ∂u/∂a = paint(x), not 1.": (
                torch.stack([brightness, brightness], 2)
            ),
            "The column of the brightness has the picture in it: ∂u/∂c = 1 at every pixel.": (
                torch.stack([contrast, contrast], 2)
            ),
        },
    )
    return "G_i G_jᵀ is the kernel: two columns instead of a Jacobian with a column for each pixel."


@exercise("04.4")
def mapping_matrix(answer: Any, *, groups: Sequence[Sequence[int]], source_outputs: int) -> str:
    """A mapping matrix whose rows average disjoint groups of source outputs.

    Args:
        answer: b.
        groups: the source outputs of each target class.
        source_outputs: c_S.
    """
    shape = (len(groups), source_outputs)
    b = tensor(answer, shape, "b", ("target classes", "source outputs"))
    member = torch.zeros(shape, dtype=torch.float64)
    for row, group in enumerate(groups):
        member[row, list(group)] = 1
    sizes = member.sum(1, keepdim=True)
    first = torch.zeros_like(member)
    first[torch.arange(len(groups)), [group[0] for group in groups]] = 1
    same(
        b,
        member / sizes,
        name="b",
        mistakes={
            "The rows add the outputs of a group. Their mean needs rows that sum to one.": member,
            "Each row selects one output only, the first of its group. Let the whole group "
            "count.": first,
            "The rows are divided by the number of source outputs. Divide by the size of the "
            "group.": member / source_outputs,
        },
    )
    idle = source_outputs - int(member.sum())
    unused = f"{counted(idle, 'source output')} {verb(idle, 'stays', 'stay')} unused"
    return f"Each row sums to one and no column is used twice; {unused}."


@exercise("04.5")
def sufficient_capacity(answer: Any, *, sweep: CapacitySweep) -> str:
    """The smallest capacity in a sweep at which every eigenvalue is resolved.

    Args:
        answer: the capacity.
        sweep: spectra over the capacities.
    """
    capacity = whole(answer, "The capacity")
    if capacity not in sweep.capacities:
        raise Mistake(
            f"{capacity} is not among the capacities of the sweep, {sweep.capacities[0]} to "
            f"{sweep.capacities[-1]}."
        )
    full = [c for c, s in zip(sweep.capacities, sweep.spectra, strict=True) if s.rank == s.order]
    if not full:
        raise Unanswered("No capacity of this sweep resolves every eigenvalue: sweep further.")
    at = sweep.capacities.index(capacity)
    spec, p = sweep.spectra[at], sweep.infos[at].n_parameters
    if capacity < full[0]:
        if p < spec.order:
            raise Mistake(
                f"At {capacity} there are p = {p} parameters for nC = {spec.order} rows: the "
                "kernel is singular (T1 fails)."
            )
        raise Mistake(
            f"At {capacity} the count is enough (p = {p} ≥ nC = {spec.order}, T1), but λ_min is "
            f"not above the noise floor: {spec.rank} of {spec.order} eigenvalues are resolved."
        )
    if capacity > full[0]:
        raise Mistake(
            f"At {capacity} every eigenvalue is resolved, but a smaller capacity does as well."
        )
    return (
        f"There p = {p} and nC = {spec.order}. p ≥ nC is necessary for λ_min > 0, not sufficient."
    )


def _programmed(program: nn.Module, x: Tensor) -> Any:
    with torch.no_grad():
        return run(program, x, name="`forward`")


def _with_values(
    program: nn.Module, trainable: list[nn.Parameter], values: Sequence[float], x: Tensor
) -> Tensor:
    """The programmed inputs with the trainable numbers set to others, which are put back."""
    flat = torch.tensor(values)
    before = [p.detach().clone() for p in trainable]
    try:
        with torch.no_grad():
            at = 0
            for p in trainable:
                p.copy_(flat[at : at + p.numel()].view_as(p))
                at += p.numel()
        u: Tensor = _programmed(program, x)
        return u
    finally:
        with torch.no_grad():
            for p, old in zip(trainable, before, strict=True):
                p.copy_(old)


def _matches(u: Tensor, expected: Tensor) -> bool:
    return u.shape == expected.shape and torch.allclose(
        u.double(), expected.double(), rtol=1e-4, atol=1e-5
    )
