"""A_i B_i of any module: derivatives by its parameters, the fast way where it gives the same."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp, vmap

from mrviz._memory import is_out_of_memory
from mrviz.errors import InputError, MrvizError
from mrviz.programs import ReprogrammedModel

Tick = Callable[[], None]

PAIRS = 640
"""Pairs of a sample and a row differentiated at once."""

VECTORISED = 1 << 19
"""Parameters × pixels up to which all samples at once are faster than one after another.

On a CPU, with 10 rows: 2 to 15 times faster up to 10⁵, alike near 10⁶, where arithmetic
outweighs what calls cost.
"""

Way = Callable[[nn.Module, dict[str, Tensor], Tensor, Tensor, Tick | None], Tensor]


def parameter_jacobian(
    module: nn.Module,
    parameters: Sequence[nn.Parameter],
    x: Tensor,
    cotangents: Tensor,
    tick: Tick | None = None,
) -> Tensor:
    """Cotangents times the Jacobian of a module by some of its parameters, sample by sample.

    With no more parameters than cotangents, by Jacobian-vector products, one pass a parameter
    for all samples; for modules of moderate size by vector-Jacobian products of all samples at
    once; each only where one ordinary backward pass confirms it, as such transforms see neither
    parameters that a module keeps elsewhere too nor ``torch.no_grad`` inside. In all other
    cases, and where an operation has no such derivative, :func:`looped_jacobian`.

    Args:
        module: maps x (n, …) to outputs (n, *output_shape); treats samples independently.
        parameters: what is differentiated by.
        x: inputs (n, …).
        cotangents: (n, R, *output_shape).
        tick: called between passes.

    Returns:
        Shape (n, R, p), in the order of the parameters.

    Raises:
        InputError: the parameters do not reach the output.
    """
    ways: list[Way] = []
    size = sum(p.numel() for p in parameters)
    if len(x) > 1 and size <= cotangents.shape[1]:
        ways.append(_pushed_forward)
    if len(x) > 1 and size * math.prod(cotangents.shape[3:]) <= VECTORISED:
        ways.append(_pulled_back)
    twin, theta = _substitutable(module, parameters) if ways else (None, {})
    parts, step = [], max(1, PAIRS // cotangents.shape[1])
    for samples, directions in zip(x.split(step), cotangents.split(step), strict=True):
        found = None
        while twin is not None and ways and found is None:
            found = _tried(ways[0], twin, theta, samples, directions, tick)
            if found is None or not _confirmed(module, parameters, samples, directions, found):
                found = None
                ways.pop(0)
        if found is None:
            found = looped_jacobian(module, parameters, samples, directions, tick)
        parts.append(found)
    return torch.cat(parts)


def looped_jacobian(
    module: nn.Module,
    parameters: Sequence[nn.Parameter],
    x: Tensor,
    cotangents: Tensor,
    tick: Tick | None = None,
) -> Tensor:
    """One backward pass a sample and row, which any differentiable module allows.

    Arguments, result and errors are those of :func:`parameter_jacobian`.
    """
    samples = []
    for sample, directions in zip(x.split(1), cotangents, strict=True):
        if tick is not None:
            tick()
        out = _differentiable(module, sample)
        rows = []
        for r, direction in enumerate(directions):
            again = r < len(directions) - 1
            grads = _gradients(module, out, parameters, direction[None], retain_graph=again)
            rows.append(torch.cat([g.flatten() for g in grads]))
        samples.append(torch.stack(rows))
    return torch.stack(samples)


def refuse_constant(module: nn.Module, parameters: Sequence[nn.Parameter], x: Tensor) -> None:
    """Raises ``InputError`` where a module's derivatives are zero for random inputs like x.

    So are those of what rounds, compares or takes an arg-max on the way to the output. Inputs
    such as black images may have zero derivatives too, and are none of that.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((1, *x.shape[1:]), generator=generator).to(x)
    out = _differentiable(module, noise)
    weights = (torch.rand(out.shape, generator=generator) + 0.5).to(out)
    grads = torch.autograd.grad(out, parameters, weights, allow_unused=True, materialize_grads=True)
    if not any(bool(g.any()) for g in grads):
        raise InputError(
            f"the output of {_name(module)} does not change with its trainable "
            "parameters (rounded, compared or an arg-max inside?): its tangent kernel is zero. "
            f"{_ADVICE}"
        )


_ADVICE = (
    "Use smooth operations, or pass the gradient straight through: "
    "hard = soft + (hard - soft).detach()"
)


def _differentiable(module: nn.Module, x: Tensor) -> Tensor:
    """The module's output, with its graph."""
    with torch.enable_grad():
        out: Tensor = module(x)
    if not out.requires_grad:
        raise InputError(
            f"the output of {_name(module)} does not depend differentiably on its "
            "trainable parameters (detach, .item(), arg-max or torch.no_grad inside?): its "
            f"tangent kernel is undefined. {_ADVICE}"
        )
    return out


def _gradients(
    module: nn.Module,
    out: Tensor,
    parameters: Sequence[nn.Parameter],
    direction: Tensor,
    *,
    retain_graph: bool = False,
) -> tuple[Tensor, ...]:
    """One backward pass; zero for parameters that are not used."""
    try:
        return torch.autograd.grad(
            out,
            parameters,
            direction,
            retain_graph=retain_graph,
            allow_unused=True,
            materialize_grads=True,
        )
    except RuntimeError as error:  # NotImplementedError is one
        if "derivative" not in str(error) or "not implemented" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the output of {_name(module)} cannot be differentiated ({reason}): its tangent "
            f"kernel is undefined. {_ADVICE}"
        ) from error


def _name(module: nn.Module) -> str:
    return type(module.program if isinstance(module, ReprogrammedModel) else module).__name__


def _substitutable(
    module: nn.Module, parameters: Sequence[nn.Parameter]
) -> tuple[nn.Module | None, dict[str, Tensor]]:
    """A twin with the same tensors and the values of the parameters by name.

    Parameters are substituted in the twin, as another thread may be using the module. There is
    none where the module cannot be copied or does not know all of the parameters.
    """
    known = {id(p): name for name, p in module.named_parameters()}
    if not all(id(p) in known for p in parameters):
        return None, {}
    shared = {id(t): t for t in (*module.parameters(), *module.buffers())}
    try:
        twin = copy.deepcopy(module, dict(shared))
    except Exception:
        return None, {}
    return twin, {known[id(p)]: p.detach() for p in parameters}


def _tried(
    way: Way,
    module: nn.Module,
    theta: dict[str, Tensor],
    x: Tensor,
    cotangents: Tensor,
    tick: Tick | None,
) -> Tensor | None:
    """The result of one way, or ``None`` where an operation inside does not allow it."""
    try:
        return way(module, theta, x, cotangents, tick).detach()
    except MrvizError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return None


def _confirmed(
    module: nn.Module,
    parameters: Sequence[nn.Parameter],
    x: Tensor,
    cotangents: Tensor,
    found: Tensor,
) -> bool:
    """Whether a sum over samples and rows, weighted at random, is what autograd says it is."""
    generator = torch.Generator().manual_seed(0)
    weights = (torch.rand(cotangents.shape[:2], generator=generator) + 0.5).to(cotangents)
    direction = torch.einsum("nr,nr...->n...", weights, cotangents)
    expected = _gradients(module, _differentiable(module, x), parameters, direction)
    sums = torch.einsum("nr,nrp->p", weights, found)
    tolerance = torch.finfo(found.dtype).eps ** 0.5 * float(weights.norm())
    sizes = [p.numel() for p in parameters]
    return all(
        float((mine - other.flatten()).norm()) <= tolerance * float(block.norm())
        for mine, other, block in zip(
            sums.split(sizes), expected, found.split(sizes, 2), strict=True
        )
    )


def _pushed_forward(
    module: nn.Module,
    theta: dict[str, Tensor],
    x: Tensor,
    cotangents: Tensor,
    tick: Tick | None,
) -> Tensor:
    """Forward mode: B_i column by column, all samples in each pass, then A_i B_i."""
    still = {name: torch.zeros_like(p) for name, p in theta.items()}
    columns = []
    for name, p in theta.items():
        for k in range(p.numel()):
            if tick is not None:
                tick()
            unit = torch.zeros_like(p)
            unit.view(-1)[k] = 1
            change: Tensor = jvp(
                lambda values: functional_call(module, values, (x,)),
                (theta,),
                (still | {name: unit},),
            )[1]
            columns.append(change.flatten(1))
    return cotangents.flatten(2) @ torch.stack(columns, 2)


def _pulled_back(
    module: nn.Module,
    theta: dict[str, Tensor],
    x: Tensor,
    cotangents: Tensor,
    tick: Tick | None,
) -> Tensor:
    """Reverse mode, vectorised over samples and rows."""

    def rows_of(sample: Tensor, directions: Tensor) -> tuple[Tensor, ...]:
        def output(values: dict[str, Tensor]) -> Tensor:
            return functional_call(module, values, (sample[None],))[0]

        _, pull = vjp(output, theta)  # type: ignore[misc]
        (grads,) = vmap(pull)(directions)
        return tuple(grads[name] for name in theta)

    if tick is not None:
        tick()
    with warnings.catch_warnings():  # an operation that is not vectorised is slower than a loop
        warnings.filterwarnings("error", message="There is a performance drop")
        grads = vmap(rows_of)(x, cotangents)
    return torch.cat([g.reshape(*cotangents.shape[:2], -1) for g in grads], 2)
