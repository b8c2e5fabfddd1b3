"""The trace kernel as a product: exact where it is claimed, and never claimed elsewhere."""

import pytest
import torch
from torch import nn

import mrviz
from mrviz import mappings
from mrviz.errors import Cancelled, InputError
from mrviz.ntk import cache, jacobian
from mrviz.programs import PROGRAMS, Border, Chain, Convolution, Linear, LowRankLinear, Overlay
from mrviz.theory import gram_factors

CANVAS, IMAGE, C = (2, 6, 6), (1, 3, 3), 3
QUIET = {"progress": False}


def make_source():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, C)
    )
    return mrviz.SourceModel(net.double(), CANVAS)


def make_target(labels=(2, 0, 1, 1, 0, 2, 1)):
    x = torch.rand(len(labels), *IMAGE, generator=torch.Generator().manual_seed(3))
    return mrviz.Target(x, labels, x, labels)


def frozen(program):
    return program.requires_grad_(False)


def moved(program):
    """A program away from its start values, so that no derivative is the same by chance."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in program.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return program


PRODUCTS = {
    "linear": lambda: Linear(CANVAS, IMAGE),
    "linear without bias": lambda: Linear(CANVAS, IMAGE, bias=False),
    "border": lambda: Border(CANVAS, IMAGE),
    "border of width 1": lambda: Border(CANVAS, IMAGE, width=1),
    "border, identity": lambda: Border(CANVAS, IMAGE, width=1, activation="identity"),
    "overlay": lambda: Overlay(CANVAS, IMAGE),
    "low rank": lambda: LowRankLinear(CANVAS, IMAGE),
    "low rank 2": lambda: LowRankLinear(CANVAS, IMAGE, rank=2),
    "linear in a frozen border": lambda: Chain(
        Linear((2, 3, 3), IMAGE), frozen(Border(CANVAS, (2, 3, 3)))
    ),
    "border around a frozen linear": lambda: Chain(
        frozen(Linear((2, 3, 3), IMAGE)), Border(CANVAS, (2, 3, 3))
    ),
}
OTHERS = {
    "linear_border": (lambda: mrviz.programs.linear_border(CANVAS, IMAGE), "sum of 2"),
    "convolution": (lambda: Convolution(CANVAS, IMAGE), "sum of 2"),
    "convolution without bias": (
        lambda: Convolution(CANVAS, IMAGE, bias=False),
        "depends on the input's pixels",
    ),
    "scale": (lambda: mrviz.programs.Scale(CANVAS, IMAGE), "depends on the input's pixels"),
    "any module": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 72), nn.Unflatten(1, CANVAS)),
        "Sequential is not known in closed form",
    ),
}


def model_of(program, mapping=None):
    program = moved(program.double())
    return mrviz.ReprogrammedModel(make_source(), program, mapping or mappings.Identity())


def jacobians(function, x):
    return torch.func.vmap(torch.func.jacrev(lambda v: function(v[None])[0]))(x)


def brute_trace(model, x):
    """(1/C) Σ_c ⟨∇f_c(x_i), ∇f_c(x_j)⟩ by automatic differentiation of the whole model."""
    weights = {k: p for k, p in model.named_parameters() if p.requires_grad}

    def outputs(values, v):
        return torch.func.functional_call(model, values, (v[None],))[0]

    found = torch.func.vmap(torch.func.jacrev(outputs), (None, 0))(weights, x)
    j = torch.cat([part.reshape(len(x), C, -1) for part in found.values()], 2)
    return torch.einsum("icp,jcp->ij", j, j) / C


def brute_source(model, x):
    u = model.programmed(x).detach()
    a = jacobians(lambda v: model.head(model.source(v)), u).flatten(1)
    return a @ a.T / C


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_product_is_the_kernel(name):
    model, target = model_of(PRODUCTS[name]()), make_target()
    found = gram_factors(model, target, **QUIET)
    expected = brute_trace(model, target.x_train.double())
    assert torch.allclose(found.kernel, expected, rtol=1e-10, atol=1e-12)
    assert torch.allclose(found.program * found.source, expected, rtol=1e-10, atol=1e-12)
    assert found.distance < 1e-14
    constant = "border" in name.split()[0] or name == "overlay"
    assert bool((found.program == 1).all()) == constant
    assert ("moves every input alike" in found.note) == constant


def test_the_linear_factors_are_those_of_the_formula():
    model, target = model_of(Linear(CANVAS, IMAGE)), make_target()
    found, phi = gram_factors(model, target, **QUIET), target.x_train.double().flatten(1)
    assert torch.allclose(found.program, phi @ phi.T + 1, atol=1e-13)
    assert torch.allclose(found.source, brute_source(model, target.x_train.double()), atol=1e-12)


def test_the_source_gram_of_a_border_is_that_of_its_trainable_pixels():
    target = make_target()
    for width in (1, 2):
        model = model_of(Border(CANVAS, IMAGE, width=width, image_size=2))
        x = target.x_train.double()
        a = jacobians(lambda v, m=model: m.head(m.source(v)), model.programmed(x).detach())
        prompt = model.program
        slope = prompt.activation.derivative(prompt.delta.detach()) * prompt.trainable
        rows = (a * slope).flatten(1)
        found = gram_factors(model, target, **QUIET)
        assert torch.allclose(found.source, rows @ rows.T / C, atol=1e-13)


@pytest.mark.parametrize("name", OTHERS)
def test_no_product_is_claimed_where_there_is_none(name):
    make, why = OTHERS[name]
    model, target = model_of(make()), make_target()
    found = gram_factors(model, target, **QUIET)
    assert found.program is None and found.distance is None
    assert why in found.note and "no product" in found.note
    x = target.x_train.double()
    assert torch.allclose(found.kernel, brute_trace(model, x), rtol=1e-9, atol=1e-12)
    assert torch.allclose(found.source, brute_source(model, x), rtol=1e-9, atol=1e-12)


def test_a_trainable_mapping_is_no_product():
    head = mappings.LinearHead(mappings.Identity())
    found = gram_factors(model_of(Linear(CANVAS, IMAGE), head), make_target(), **QUIET)
    assert found.program is None and "output mapping" in found.note


A_PRODUCT = ("border", "overlay", "linear", "low_rank", "patch", "random_patch", "frequency")
NO_PRODUCT = ("linear_border", "convolution", "scale", "scaled_border", "sample_masks")


@pytest.mark.parametrize("name", [n for n, spec in PROGRAMS.items() if spec.fits((1, 8, 8))])
def test_every_program_by_name_with_the_precision_asked_for(name):
    source = mrviz.load_source("cnn", depth=1, width=4, input_size=12, progress=False)
    target = mrviz.load_target("digits", n_train=20, n_test=10)
    model = mrviz.reprogram(source, target, program=name)
    found = gram_factors(model, target, dtype=torch.float64, **QUIET)
    single = gram_factors(model, target, **QUIET)
    if name in (*A_PRODUCT, *NO_PRODUCT):
        assert (found.distance is None) == (name in NO_PRODUCT)
    assert found.distance is None or found.distance < 1e-14
    assert torch.allclose(single.kernel, found.kernel, rtol=1e-3, atol=1e-4)
    assert torch.allclose(single.source, found.source, rtol=1e-3, atol=1e-4)
    assert model.source.dtype == torch.float32


def test_samples_are_sorted_by_class_and_keep_their_order_within():
    model, target = model_of(Linear(CANVAS, IMAGE)), make_target()
    found = gram_factors(model, target, n=5, **QUIET)
    assert found.n == 5 and found.kernel.shape == (5, 5)
    assert found.labels.tolist() == [2, 0, 1, 1, 0]
    assert found.order.tolist() == [1, 4, 2, 3, 0]
    assert found.labels[found.order].tolist() == [0, 0, 1, 1, 2]


def test_real_valued_targets_stay_as_they_come():
    x = torch.rand(4, *IMAGE)
    target = mrviz.Target(x, torch.rand(4, C), x, torch.rand(4, C))
    found = gram_factors(model_of(Linear(CANVAS, IMAGE)), target, **QUIET)
    assert found.labels is None and found.order.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("make", [PRODUCTS["linear"], PRODUCTS["border"], OTHERS["scale"][0]])
def test_source_jacobians_of_a_gram_are_used_again(make, monkeypatch):
    model, target = model_of(make()), make_target()
    cache.clear()
    mrviz.ntk_gram(model, target.x_train, **QUIET)
    monkeypatch.delattr(jacobian, "source_jacobian")
    gram_factors(model, target, **QUIET)
    cache.clear()
    with pytest.raises(NameError):
        gram_factors(model, target, **QUIET)


def test_plain_values_and_text():
    found = gram_factors(model_of(Linear(CANVAS, IMAGE)), make_target(), **QUIET)
    values = found.to_dict()
    assert values["n"] == 7 and values["labels"] == [2, 0, 1, 1, 0, 2, 1]
    assert values["program"] == found.program.tolist() and values["note"] == found.note
    assert "program ⊙ source = kernel" in repr(found)


@pytest.mark.parametrize("n", [0, 8])
def test_samples_that_are_not_there(n):
    with pytest.raises(InputError, match=f"n={n} does not fit: the target has 7"):
        gram_factors(model_of(Linear(CANVAS, IMAGE)), make_target(), n=n, **QUIET)


def test_can_be_cancelled():
    class Given:
        def is_set(self):
            return True

    with pytest.raises(Cancelled):
        gram_factors(model_of(Linear(CANVAS, IMAGE)), make_target(), cancel=Given(), **QUIET)
