"""Leave-one-sample-out residuals against leaving each sample out."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import mrviz
from mrviz.theory.leave_one_out import leave_one_out, ridge_regression
from tests.ntk.common import close
from tests.theory.test_dynamics import normal, psd


def left_out(kernel, r, ridge, block):
    """Y_i − f_{−i}(x_i), each sample's rows and columns taken out by hand."""
    n, rows = len(r), []
    columns = r.reshape(n * block, -1)
    for i in range(n):
        inside = torch.ones(n * block, dtype=torch.bool)
        inside[i * block : (i + 1) * block] = False
        q = kernel[inside][:, inside] + ridge * torch.eye(int(inside.sum())).double()
        change = kernel[~inside][:, inside] @ torch.linalg.solve(q, columns[inside])
        rows.append((columns[~inside] - change).reshape(1, -1))
    return torch.cat(rows)


@given(st.integers(0, 10_000), st.floats(0.01, 10), st.integers(2, 6), st.integers(1, 4))
def test_closed_form_is_leaving_one_out(seed, ridge, n, outputs):
    r = normal(n, outputs, seed=seed + 1)
    full = psd(n * outputs, seed=seed)
    assert close(leave_one_out(full, r, ridge), left_out(full, r, ridge, outputs), 1e-8)
    small = psd(n, seed=seed)
    assert close(leave_one_out(small, r, ridge), left_out(small, r, ridge, 1), 1e-8)


def test_without_a_ridge_and_for_a_singular_kernel():
    r, kernel = normal(4, 3), psd(12) + torch.eye(12).double()
    assert close(leave_one_out(kernel, r), left_out(kernel, r, 0.0, 3), 1e-10)
    singular = psd(12, 5)
    assert close(leave_one_out(singular, r, 0.1), left_out(singular, r, 0.1, 3), 1e-9)
    with pytest.raises(mrviz.InputError, match="pass a ridge"):
        leave_one_out(singular, r)


def test_dual_solves_the_regression():
    kernel, r = psd(12, 7), normal(4, 3)
    dual, _ = ridge_regression(kernel, r, 0.3)
    assert close(kernel @ dual.flatten() + 0.3 * dual.flatten(), r.flatten(), 1e-12)
    small = psd(4)
    dual, _ = ridge_regression(small, r, 0.3)
    assert close(small @ dual + 0.3 * dual, r, 1e-12)


def test_large_ridges_learn_nothing():
    kernel, r = psd(12), normal(4, 3)
    assert close(leave_one_out(kernel, r, 1e12), r, 1e-9)


def test_what_does_not_fit():
    with pytest.raises(mrviz.InputError, match="need order 12, or 4"):
        leave_one_out(psd(7), normal(4, 3), 1.0)
    with pytest.raises(mrviz.InputError, match="negative"):
        leave_one_out(psd(12), normal(4, 3), -1.0)
