"""Kernel drift on cases with known answers."""

import copy
import dataclasses

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import mrviz
from mrviz import mappings
from mrviz.programs import Linear
from mrviz.programs.training import train
from mrviz.theory.drift import centered_alignment, kernel_drift
from tests.ntk.common import dense_net, uniform
from tests.theory.test_dynamics import normal, psd

CANVAS, IMAGE = (1, 5, 5), (1, 3, 3)


@pytest.fixture(scope="module")
def gram():
    source = mrviz.SourceModel(dense_net(CANVAS, 3, 1), CANVAS)
    model = mrviz.ReprogrammedModel(source, Linear(CANVAS, IMAGE), mappings.Identity())
    return mrviz.ntk_gram(model, uniform(4, *IMAGE), progress=False)


def with_matrix(gram, matrix):
    return dataclasses.replace(gram, matrix=matrix)


def test_a_kernel_that_has_not_moved(gram):
    drift = kernel_drift(gram, gram)
    assert drift.relative == 0 and drift.alignment == pytest.approx(1, abs=1e-12)


@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_a_factor_and_a_constant_leave_the_alignment(gram, factor, constant):
    drift = kernel_drift(gram, with_matrix(gram, factor * gram.matrix))
    assert drift.relative == pytest.approx(abs(factor - 1), abs=1e-12)
    assert drift.alignment == pytest.approx(1)
    shifted = kernel_drift(gram, with_matrix(gram, gram.matrix + constant))
    expected = abs(constant) * gram.order / float(gram.matrix.norm())
    assert shifted.relative == pytest.approx(expected, abs=1e-12)
    assert shifted.alignment == pytest.approx(1)


def test_alignment_is_that_of_centered_features():
    """Linear CKA of Kornblith et al.: ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) with columns of mean zero."""
    x, y = normal(8, 3), normal(8, 5, seed=1)
    xc, yc = x - x.mean(0), y - y.mean(0)
    expected = (yc.T @ xc).norm() ** 2 / ((xc.T @ xc).norm() * (yc.T @ yc).norm())
    assert centered_alignment(x @ x.T, y @ y.T) == pytest.approx(float(expected), rel=1e-12)
    turn = torch.linalg.qr(normal(3, 3, seed=2))[0]
    turned = x @ turn
    assert centered_alignment(x @ x.T, turned @ turned.T) == pytest.approx(1, rel=1e-12)


def test_kernels_with_nothing_in_common():
    a, b = torch.tensor([1.0, -1, 0, 0]).double(), torch.tensor([0.0, 0, 1, -1]).double()
    assert centered_alignment(a.outer(a), b.outer(b)) == pytest.approx(0, abs=1e-15)
    assert centered_alignment(a.outer(a), torch.ones(4, 4).double()) is None


@given(st.integers(0, 10_000))
def test_alignment_lies_between_zero_and_one(seed):
    value = centered_alignment(psd(6, 3, seed), psd(6, 4, seed + 1))
    assert 0 <= value <= 1 + 1e-12


def test_training_a_little_moves_the_kernel_a_little():
    source = mrviz.SourceModel(dense_net(CANVAS, 3, 1), CANVAS)
    x = uniform(6, *IMAGE)
    target = mrviz.Target(x, [0, 1, 2, 0, 1, 2], x, [0, 1, 2, 0, 1, 2])
    start = mrviz.reprogram(source, target, program="linear", mapping="identity")
    before = mrviz.ntk_gram(start, x, progress=False)
    drifts = []
    for steps in (1, 10, 100):
        model = copy.deepcopy(start)
        train(model, target, optimizer="gd", lr=0.01, steps=steps, progress=False)
        drifts.append(kernel_drift(before, mrviz.ntk_gram(model, x, progress=False)))
    sizes = [d.relative for d in drifts]
    assert sizes == sorted(sizes) and 0 < sizes[0] < 0.05
    assert drifts[0].alignment > drifts[2].alignment


def test_linear_models_do_not_drift():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(25, 3)).double()
    x = uniform(6, *IMAGE)
    target = mrviz.Target(x, [0, 1, 2, 0, 1, 2], x, [0, 1, 2, 0, 1, 2])
    model = mrviz.reprogram(mrviz.SourceModel(net, CANVAS), target, program="linear")
    before = mrviz.ntk_gram(model, x, progress=False)
    train(model, target, optimizer="gd", lr=0.5, steps=20, progress=False)
    assert kernel_drift(before, mrviz.ntk_gram(model, x, progress=False)).relative < 1e-14


def test_what_cannot_be_compared(gram):
    with pytest.raises(mrviz.InputError, match="same samples"):
        kernel_drift(gram, dataclasses.replace(gram, reduce="trace"))
    with pytest.raises(mrviz.InputError, match="without x2"):
        kernel_drift(gram, dataclasses.replace(gram, symmetric=False))
    with pytest.raises(mrviz.InputError, match="zero"):
        kernel_drift(with_matrix(gram, 0 * gram.matrix), gram)
    assert kernel_drift(gram, gram).to_dict()["relative"] == 0
