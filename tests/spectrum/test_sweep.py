"""Spectra over capacities, and the dual that gives those of few parameters."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mrviz
from mrviz import mappings
from mrviz.programs import Border, Linear, Overlay, linear_border
from tests.ntk.common import close, conv_net, dense_net, fill, uniform

CANVAS, IMAGE = (1, 9, 9), (1, 3, 3)


def make(program=None, net=None, seed=1):
    program = fill((program or Border(CANVAS, IMAGE)).double(), seed)
    shape = program.source_shape
    source = mrviz.SourceModel(net or conv_net(shape, 3, seed), shape)
    return mrviz.ReprogrammedModel(source, program, mappings.Identity())


def direct(model, x, reduce="full"):
    gram = mrviz.ntk_gram(model, x, reduce=reduce, progress=False)
    return torch.linalg.eigvalsh(gram.matrix).flip(0)


@pytest.mark.parametrize("reduce", ["full", "trace", "sum", 1])
@pytest.mark.parametrize("program", [Border, linear_border])
def test_each_capacity_has_the_spectrum_of_its_own_gram(program, reduce):
    model, x = make(program(CANVAS, IMAGE)), uniform(6, *IMAGE)
    sweep = mrviz.capacity_sweep(model, x, [3, 1, 2], reduce=reduce, progress=False)
    assert sweep.capacities == (1, 2, 3) and model.capacity == 3
    for capacity, info in zip(sweep.capacities, sweep.infos, strict=True):
        model.capacity = capacity
        expected = direct(model, x, reduce)
        assert torch.allclose(sweep[capacity].eigenvalues, expected, atol=1e-10 * expected[0])
        assert info.n_parameters == model.n_parameters
    assert sweep[1].eigenvectors is None


def test_a_sweep_as_text_and_values():
    sweep = mrviz.capacity_sweep(make(), uniform(2, *IMAGE), progress=False)
    assert "trainable frame width" in repr(sweep) and repr(sweep).count("\n") == 4
    assert sweep._repr_html_().count("<tr>") == 4
    values = sweep.to_dict()["sweep"]
    assert [v["capacity"] for v in values] == [1, 2, 3]
    assert values[0]["eigenvalues"] == sweep[1].eigenvalues.tolist()
    with pytest.raises(ValueError):
        sweep[7]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 20), st.integers(3, 20), st.sampled_from(["full", "sum"]))
def test_the_dual_gives_the_same_spectrum(seed, n, reduce):
    model = make(Border((1, 5, 5), IMAGE), dense_net((1, 5, 5), 3, seed), seed)
    x = uniform(n, *IMAGE, seed=seed)
    gram = mrviz.ntk_gram(model, x, reduce=reduce, progress=False)
    assert (gram.factor is not None) == (gram.order > 16)
    spec = mrviz.spectrum(gram)
    plain = torch.linalg.eigvalsh(gram.matrix).flip(0)
    assert spec.dual == (gram.factor is not None)
    assert torch.allclose(spec.eigenvalues, plain, atol=1e-12 * float(plain[0]))
    v = spec.eigenvectors
    assert close(v.T @ v, torch.eye(len(v), dtype=v.dtype), 1e-10)
    assert close((v * spec.eigenvalues) @ v.T, gram.matrix, 1e-10)


def test_the_dual_has_exact_zeros_and_one_that_is_not_used_changes_nothing():
    model = make(Border((1, 5, 5), IMAGE))
    x = uniform(8, *IMAGE)
    gram = mrviz.ntk_gram(model, x, progress=False)
    spec = mrviz.spectrum(gram)
    assert gram.factor.shape == (24, 16) and close(gram.factor @ gram.factor.T, gram.matrix, 1e-13)
    assert (spec.eigenvalues[16:] == 0).all() and spec.n_negative == 0 and spec.rank <= 16
    assert spec.to_dict()["dual"] is True


@pytest.mark.parametrize(
    "program", [Linear((1, 5, 5), IMAGE), Overlay((1, 5, 5), IMAGE), Border((1, 5, 5), IMAGE)]
)
def test_no_dual_where_it_is_not_smaller(program):
    gram = mrviz.ntk_gram(make(program), uniform(3, *IMAGE), progress=False)
    assert gram.order == 9 and gram.factor is None and not mrviz.spectrum(gram).dual


def test_a_dual_with_scalar_kernels_in_front():
    program = linear_border((1, 5, 5), (1, 1, 1))
    model, x = make(program), uniform(20, 1, 1, 1)
    gram = mrviz.ntk_gram(model, x, progress=False)
    assert gram.factor.shape == (60, 24 + 2) and mrviz.spectrum(gram).dual
    assert close(gram.factor @ gram.factor.T, gram.matrix, 1e-13)


def test_reduced_and_cross_grams_and_their_factors():
    model = make(Border((1, 5, 5), IMAGE))
    x = uniform(20, *IMAGE)
    trace = mrviz.ntk_gram(model, x, reduce="trace", progress=False)
    assert trace.factor is None  # 16 parameters and 3 outputs: 48 columns for 20 rows
    total = mrviz.ntk_gram(model, x, reduce="sum", progress=False)
    assert close(total.factor @ total.factor.T, total.matrix, 1e-13)
    assert mrviz.ntk_gram(model, x, x, reduce="sum", progress=False).factor is None
