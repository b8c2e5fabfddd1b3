"""Residuals in the eigenspaces of the kernel."""

import dataclasses

import pytest
import torch

import mrviz
from mrviz import mappings
from mrviz.programs import Linear
from mrviz.theory import (
    kernel_target_alignment,
    residual,
    residual_energy,
    training_residual,
)
from tests.ntk.common import dense_net, uniform

CANVAS, IMAGE = (1, 5, 5), (1, 3, 3)


@pytest.fixture
def model():
    return mrviz.ReprogrammedModel(
        mrviz.SourceModel(dense_net(CANVAS, 3, 1), CANVAS),
        Linear(CANVAS, IMAGE),
        mappings.Identity(),
    )


@pytest.fixture
def target():
    x = uniform(5, *IMAGE)
    return mrviz.Target(x, [0, 1, 2, 1, 0], x, [0, 1, 2, 1, 0])


def test_residual_is_labels_minus_outputs(model, target):
    r = training_residual(model, target)
    expected = torch.eye(3).double()[[0, 1, 2, 1, 0]] - model(target.x_train.double()).detach()
    assert torch.allclose(r, expected) and r.dtype == torch.float64
    of_two = training_residual(model, target, 2)
    torch.testing.assert_close(of_two, r[:2], rtol=1e-13, atol=1e-13)  # of another matrix product


def test_residual_needs_one_output_for_each_class(model, target):
    with pytest.raises(mrviz.InputError, match="one output for each target class"):
        residual(model, target.x_train, torch.zeros(5, 2))


@pytest.mark.parametrize("reduce", ["full", "trace", "sum", 1])
def test_energy_sums_to_one_and_alignment_is_its_definition(model, target, reduce):
    gram = mrviz.ntk_gram(model, target.x_train, reduce=reduce)
    spec, r = mrviz.spectrum(gram), training_residual(model, target)
    energy = residual_energy(gram, spec, r)
    assert float(energy.sum()) == pytest.approx(1) and float(energy.min()) >= 0
    assert len(energy) == gram.order
    columns = {"full": r.reshape(-1, 1), 1: r[:, 1:2]}.get(reduce, r)
    expected = float((columns * (gram.matrix @ columns)).sum())
    expected /= float(gram.matrix.norm()) * float(columns.square().sum())
    found = kernel_target_alignment(gram, spec, r)
    assert found.value == pytest.approx(expected, rel=1e-9)


def test_energy_of_an_eigenvector_is_in_its_place(model, target):
    gram = mrviz.ntk_gram(model, target.x_train)
    spec = mrviz.spectrum(gram)
    for k in (0, 4, 14):
        energy = residual_energy(gram, spec, 7 * spec.eigenvectors[:, k].view(5, 3))
        assert int(energy.argmax()) == k and float(energy[k]) == pytest.approx(1)


def test_chance_level_is_that_of_random_residuals(model, target):
    gram = mrviz.ntk_gram(model, target.x_train)
    spec = mrviz.spectrum(gram)
    found = kernel_target_alignment(gram, spec, training_residual(model, target))
    v = torch.randn(20_000, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v /= v.norm(dim=1, keepdim=True)
    values = (v @ gram.matrix * v).sum(1) / gram.matrix.norm()
    assert found.chance == pytest.approx(float(values.mean()), rel=0.02)
    assert found.deviation == pytest.approx(float(values.std()), rel=0.04)


def test_a_residual_of_zero_says_nothing(model, target):
    """Also for a nearly flat kernel, where any value below chance would count as misaligned."""
    gram = mrviz.ntk_gram(model, target.x_train)
    zero = torch.zeros(5, 3).double()
    assert float(residual_energy(gram, mrviz.spectrum(gram), zero).sum()) == 0
    flat = dataclasses.replace(gram, matrix=torch.eye(15).double())
    found = kernel_target_alignment(flat, mrviz.spectrum(flat), zero)
    assert abs(found.value - found.chance) <= 2 * found.deviation


def test_wrong_residuals(model, target):
    gram = mrviz.ntk_gram(model, target.x_train)
    with pytest.raises(mrviz.InputError):
        residual_energy(gram, mrviz.spectrum(gram), torch.zeros(4, 3).double())
    blind = mrviz.spectrum(gram, eigenvectors=False)
    with pytest.raises(mrviz.InputError, match="eigenvectors=True"):
        residual_energy(gram, blind, torch.zeros(5, 3).double())
