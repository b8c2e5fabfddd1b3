"""Every program there is, those added later too: its kernel, its capacities, its pictures."""

import pytest
import torch

import mrviz
from mrviz import mappings
from mrviz.ntk import capacity_grams
from mrviz.programs import PROGRAMS, Linear, build_program
from tests.ntk.common import (
    REDUCTIONS,
    brute_jacobian,
    close,
    contracted,
    conv_net,
    dense_net,
    module_function,
    uniform,
)

SHAPES = {
    "grey image": ((3, 9, 8), (1, 5, 4)),
    "colour image": ((3, 8, 8), (3, 4, 4)),
    "series": ((2, 13), (1, 5)),
    "series of channels": ((2, 12), (2, 6)),
}
"""Source and target shapes."""

EVERY = [
    (name, shapes)
    for name, spec in PROGRAMS.items()
    for shapes, (_, target) in SHAPES.items()
    if spec.fits(target)
]


def built(name, shapes, *, moved=True):
    """A model in float64, by default away from its start, and inputs."""
    source, target = SHAPES[shapes]
    net = (conv_net if len(source) == 3 else dense_net)(source, 3, seed=1)
    program = build_program(name, source, target, seed=3).double()
    generator = torch.Generator().manual_seed(5)
    if moved:
        with torch.no_grad():
            for p in program.parameters():
                p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    frozen = mrviz.SourceModel(net, source)
    model = mrviz.ReprogrammedModel(frozen, program, mappings.Identity())
    return model, uniform(3, *target, seed=1), uniform(2, *target, seed=2)


def jacobian(model, x):
    f, theta = module_function(model.source.module, model.program)
    return brute_jacobian(f, theta, x).detach()


@pytest.mark.parametrize(("name", "shapes"), EVERY)
def test_gram_is_that_of_whole_jacobians(name, shapes):
    model, x, y = built(name, shapes)
    j1, j2 = jacobian(model, x), jacobian(model, y)
    for reduce in REDUCTIONS:
        gram = mrviz.ntk_gram(model, x, reduce=reduce, chunk_size=2)
        expected = contracted(j1, j1, reduce)
        assert float(expected.norm()) > 1e-6 and close(gram.matrix, expected)
    assert close(mrviz.ntk_gram(model, x, y, chunk_size=2).matrix, contracted(j1, j2))
    other = mrviz.ntk_gram(model, x, method="contraction")
    assert close(other.matrix, contracted(j1, j1))


@pytest.mark.parametrize(("name", "shapes"), EVERY)
def test_gram_at_the_start(name, shapes):
    model, x, _ = built(name, shapes, moved=False)
    f = jacobian(model, x)
    assert close(mrviz.ntk_gram(model, x).matrix, contracted(f, f))


@pytest.mark.parametrize(("name", "shapes"), EVERY)
def test_every_capacity_has_its_kernel_and_its_parameters(name, shapes):
    model, x, _ = built(name, shapes)
    program = model.program
    if program.capacity_range is None:
        with pytest.raises(mrviz.InputError, match="has no capacity"):
            program.capacity = 1
        return
    low, high = program.capacity_range
    u, swept, counts = program(x).detach(), dict(capacity_grams(model, x)), []
    assert list(swept) == list(range(low, high + 1))
    for capacity, gram in swept.items():
        program.capacity = capacity
        assert torch.equal(program(x), u), "the source Jacobian is the same for every capacity"
        j = jacobian(model, x)
        assert close(gram.matrix, contracted(j, j))
        moved = int(j.flatten(0, 1).any(0).sum())
        assert moved <= program.n_parameters == gram.info.n_parameters
        counts.append(program.n_parameters)
    assert counts == sorted(set(counts)) and program.parameters_at(low) == counts[0]


@pytest.mark.parametrize(("name", "shapes"), EVERY)
def test_frozen_parameters_have_no_part(name, shapes):
    model, x, _ = built(name, shapes)
    parameters = list(model.program.parameters())
    for k, p in enumerate(parameters):
        p.requires_grad_(k != 0)
    if len(parameters) > 1:
        j = jacobian(model, x)
        assert close(mrviz.ntk_gram(model, x).matrix, contracted(j, j))
    parameters[0].requires_grad_(False)
    model.program.requires_grad_(False)
    with pytest.raises(mrviz.InputError, match="no trainable parameters"):
        mrviz.ntk_gram(model, x)


@pytest.mark.parametrize(("name", "shapes"), EVERY)
def test_gradients_in_float32_reach_every_parameter_block(name, shapes):
    model, x, _ = built(name, shapes)
    model = model.float()
    model(x.float()).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.program.parameters())


@pytest.mark.parametrize(("name", "shapes"), EVERY)
def test_behind_another_program(name, shapes):
    """In a chain, by its derivative with respect to its input."""
    model, x, _ = built(name, shapes)
    target = tuple(x.shape[1:])
    first = Linear(target, target, seed=2).double()
    chain = mrviz.programs.Chain(first, model.program)
    model = mrviz.ReprogrammedModel(model.source, chain, mappings.Identity())
    j = jacobian(model, x)
    assert close(mrviz.ntk_gram(model, x).matrix, contracted(j, j))


@pytest.mark.parametrize(("name", "shapes"), EVERY)
def test_pictures_and_words(name, shapes):
    model, x, _ = built(name, shapes)
    program = model.program
    parts = program.trainable_parts(x[:1])
    assert parts and all(part.name and part.values.isfinite().any() for part in parts)
    assert all(part.values.ndim in (2, 3) and not part.values.requires_grad for part in parts)
    assert len(program.describe()) > 20


@pytest.mark.parametrize("name", PROGRAMS)
def test_inputs_of_another_kind_are_refused(name):
    spec = PROGRAMS[name]
    for source, target in [((3, 8, 8), (1, 4, 4)), ((2, 12), (1, 5)), ((7,), (4,))]:
        if not spec.fits(target):
            with pytest.raises(mrviz.InputError, match=r"takes .*choose one of .*linear"):
                build_program(name, source, target)
