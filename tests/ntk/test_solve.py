"""Nyström approximation and preconditioned conjugate gradients on matrices that are known."""

import pytest
import torch

import mrviz
from mrviz._progress import Progress
from mrviz.ntk.solve import Nystrom, conjugate_gradients, gaussian, nystrom
from mrviz.ntk.symmetric import MatrixOperator
from tests.ntk.common import close
from tests.spectrum.test_dense import turned


def solve(matrix, y, ridge, rank=0, tol=1e-10, max_iter=500):
    theta = MatrixOperator(matrix)
    approximation = nystrom(theta, rank, seed=0)
    with Progress(max_iter, "test", False) as bar:
        return conjugate_gradients(
            theta, y, ridge, approximation, tol=tol, max_iter=max_iter, bar=bar
        )


@pytest.mark.parametrize("rank", [1, 4, 7, 30])
def test_nystrom_of_a_matrix_of_small_rank(rank):
    matrix = turned([5.0, 4.0, 1.0, 0.5] + [0.0] * 26)
    found = nystrom(MatrixOperator(matrix), rank, seed=1)
    assert len(found.values) == min(rank, 4), "no eigenvalues made of round-off"
    identity = torch.eye(len(found.values), dtype=torch.float64)
    assert close(found.vectors.T @ found.vectors, identity, 1e-12)
    rebuilt = (found.vectors * found.values) @ found.vectors.T
    if rank >= 4:
        assert close(rebuilt, matrix, 1e-12)
    assert float(torch.linalg.eigvalsh(matrix - rebuilt)[0]) > -1e-13, "never more than Θ"


def test_nystrom_values_are_bounds_from_below_and_good_on_top():
    exact = torch.logspace(0, -12, 60, dtype=torch.float64)
    found = nystrom(MatrixOperator(turned(exact)), 20, seed=0)
    assert bool((found.values <= exact[:20] * (1 + 1e-12)).all())
    assert close(found.values[:5], exact[:5], 1e-2)


def test_nystrom_of_zero_and_of_rank_zero():
    for matrix, rank in ((torch.zeros(6, 6), 3), (torch.eye(6), 0)):
        found = nystrom(MatrixOperator(matrix), rank, seed=0)
        assert found.values.shape == (0,) and found.vectors.shape == (6, 0)
        v = gaussian(6, 2, seed=0)
        assert torch.equal(found.precondition(v, 0.1), v)
    with pytest.raises(mrviz.InputError, match="must be 0 to 6, got 7"):
        nystrom(MatrixOperator(torch.eye(6)), 7, seed=0)


def test_the_preconditioner_is_the_inverse_it_is_said_to_be():
    basis, _ = torch.linalg.qr(gaussian(9, 3, seed=2))
    values, ridge = torch.tensor([8.0, 3.0, 2.0], dtype=torch.float64), 0.5
    inverse = Nystrom(basis, values).precondition(torch.eye(9, dtype=torch.float64), ridge)
    direct = (basis * (values + ridge)) @ basis.T / (values[-1] + ridge)
    direct += torch.eye(9, dtype=torch.float64) - basis @ basis.T
    assert close(inverse, torch.linalg.inv(direct), 1e-13)


@pytest.mark.parametrize("rank", [0, 15])
@pytest.mark.parametrize("columns", [1, 4])
def test_conjugate_gradients_against_a_dense_solve(columns, rank):
    matrix, y = turned(torch.logspace(1, -3, 60)), gaussian(60, columns, seed=3)
    found = solve(matrix, y, 0.01, rank)
    expected = torch.linalg.solve(matrix + 0.01 * torch.eye(60), y)
    assert close(found.x, expected, 1e-7)
    assert found.residual <= 1e-10
    error = float((matrix @ found.x + 0.01 * found.x - y).norm() / y.norm())
    assert found.residual == pytest.approx(error, rel=1e-3)


def test_the_preconditioner_takes_most_iterations_away():
    matrix, y = turned(torch.logspace(4, -4, 200)), gaussian(200, 1, seed=3)
    plain, good = (solve(matrix, y, 1e-2, rank).iterations for rank in (0, 120))
    assert plain > 200 and good < plain / 8


def test_too_few_iterations_are_told_by_the_residual():
    matrix, y = turned(torch.logspace(4, -4, 200)), gaussian(200, 2, seed=3)
    found = solve(matrix, y, 1e-4, max_iter=10)
    assert found.iterations == 10
    assert found.residual > 1e-3


def test_zero_right_hand_side():
    found = solve(torch.eye(5), torch.zeros(5, 2, dtype=torch.float64), 0.1)
    assert found.residual == 0 and not found.x.any()
