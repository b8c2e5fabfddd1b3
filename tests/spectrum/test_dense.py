"""Spectra: known matrices, the noise floor, and what must never be printed as a number."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import mrviz
from mrviz import mappings
from tests.ntk.common import dense_net, uniform


def turned(values, seed=0, dtype=torch.float64):
    """Symmetric matrix with these eigenvalues and random eigenvectors."""
    values = torch.as_tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(
        torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)
    )
    matrix = basis @ torch.diag(values) @ basis.T
    return ((matrix + matrix.T) / 2).to(dtype)


def test_known_eigenvalues_and_vectors():
    values = [5.0, 3.0, 2.0, 0.5]
    spec = mrviz.spectrum(turned(values))
    assert torch.allclose(spec.eigenvalues, torch.tensor(values).double(), rtol=1e-13)
    assert spec.order == spec.rank == 4 and spec.full_rank
    assert spec.largest == pytest.approx(5) and spec.smallest == pytest.approx(0.5)
    assert spec.condition_number == pytest.approx(10)
    assert spec.trace == pytest.approx(10.5)
    rebuilt = spec.eigenvectors @ torch.diag(spec.eigenvalues) @ spec.eigenvectors.T
    assert torch.allclose(rebuilt, turned(values), atol=1e-13)
    assert 0 < spec.residual < 1e-14
    assert spec.n_negative == 0 and spec.psd_error == 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0] * 4, 4.0),
        ([7.0, 0.0, 0.0], 1.0),
        ([2.0, 2.0, 0.0], 2.0),
        ([3.0, 1.0], math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))),
    ],
)
def test_effective_rank(values, expected):
    spec = mrviz.spectrum(torch.diag(torch.tensor(values)))
    assert spec.effective_rank == pytest.approx(expected)


def test_floor_is_order_times_unit_times_largest():
    for dtype, unit in ((torch.float64, 2.0**-53), (torch.float32, 2.0**-24)):
        spec = mrviz.spectrum(torch.diag(torch.tensor([8.0, 1.0, 0.5, 0.25], dtype=dtype)))
        assert spec.epsilon == unit
        assert spec.floor == pytest.approx(4 * unit * 8)
    assert mrviz.spectrum(torch.diag(torch.tensor([8, 1]))).epsilon == 2.0**-53
    assert mrviz.spectrum(torch.eye(2), epsilon=0.01).floor == pytest.approx(0.02)


def test_eigenvalue_between_the_two_floors():
    values = [1.0, 1.0, 1e-9]
    double = mrviz.spectrum(torch.diag(torch.tensor(values, dtype=torch.float64)))
    single = mrviz.spectrum(torch.diag(torch.tensor(values, dtype=torch.float32)))
    assert (double.rank, single.rank) == (3, 2)
    assert double.condition_number == pytest.approx(1e9)
    assert single.condition_number == pytest.approx(1)
    assert single.effective_rank == pytest.approx(2)


def test_eigenvalue_at_the_floor_is_not_resolved():
    matrix = torch.diag(torch.tensor([1.0, 0.02, 0.020001], dtype=torch.float64))
    spec = mrviz.spectrum(matrix, epsilon=0.02 / 3)
    assert spec.rank == 2 and not spec.full_rank


@pytest.mark.parametrize("noise", [1e-18, 0.0, -1e-18])
def test_unresolved_smallest_eigenvalue_is_never_a_number(noise):
    spec = mrviz.spectrum(torch.diag(torch.tensor([2.0, 1.0, noise], dtype=torch.float64)))
    assert not spec.full_rank and spec.rank == 2
    assert spec.to_dict()["smallest"] is None
    assert spec.describe_smallest().startswith("not resolved (below 6.7e-16")
    for text in (repr(spec), spec._repr_html_()):
        assert "not resolved" in text and "e-18" not in text
    assert spec.condition_number == pytest.approx(2)


def test_resolved_smallest_eigenvalue_is_printed():
    spec = mrviz.spectrum(torch.diag(torch.tensor([2.0, 0.125])))
    assert spec.to_dict()["smallest"] == 0.125
    assert "smallest=0.125" in repr(spec) and "0.125" in spec._repr_html_()


def test_negative_eigenvalues_are_kept_counted_and_reported():
    spec = mrviz.spectrum(turned([4.0, 1.0, -1e-3, -2e-3]))
    assert spec.n_negative == 2 and spec.rank == 2
    assert spec.psd_error == pytest.approx(5e-4)
    assert spec.eigenvalues[-1] == pytest.approx(-2e-3)
    assert spec.to_dict()["n_negative"] == 2


def test_negative_definite_matrix_is_not_passed_off_as_positive():
    spec = mrviz.spectrum(-torch.eye(3))
    assert spec.rank == 0 and spec.n_negative == 3
    assert spec.psd_error > 0


def test_zero_matrix():
    spec = mrviz.spectrum(torch.zeros(3, 3))
    assert (spec.rank, spec.effective_rank, spec.floor, spec.residual) == (0, 0.0, 0.0, 0.0)
    assert math.isnan(spec.condition_number)
    assert "not resolved" in repr(spec)


def test_one_by_one():
    spec = mrviz.spectrum([[3.0]])
    assert (spec.order, spec.rank, spec.largest, spec.smallest) == (1, 1, 3.0, 3.0)
    assert spec.effective_rank == 1 and spec.condition_number == 1
    assert mrviz.spectrum([[0.0]]).rank == 0


@pytest.mark.parametrize("values", [[3.0, 1.0, 1e-30], [0.0, 0.0]])
def test_to_dict_is_strict_json(values):
    spec = mrviz.spectrum(torch.diag(torch.tensor(values)))
    back = json.loads(json.dumps(spec.to_dict(), allow_nan=False))
    assert len(back["eigenvalues"]) == back["order"] == len(values)


def test_numpy_and_lists_are_taken():
    assert mrviz.spectrum(np.diag([2.0, 1.0])).rank == 2
    assert mrviz.spectrum([[2, 1], [1, 2]]).eigenvalues.tolist() == pytest.approx([3, 1])


def test_eigenvectors_on_request():
    assert mrviz.spectrum(torch.eye(2), eigenvectors=False).eigenvectors is None


def nan_at(value):
    matrix = torch.eye(3)
    matrix[1, 1] = value
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.ones(2, 3), r"square matrix, got shape \(2, 3\)"),
        (torch.ones(3), "square matrix"),
        (torch.ones(2, 2, 2), "square matrix"),
        (torch.ones(0, 0), "square matrix"),
        (nan_at(float("nan")), "NaN or infinite"),
        (nan_at(float("inf")), "NaN or infinite"),
        (torch.tensor([[1.0, 0.5], [0.4, 1.0]]), "not symmetric"),
    ],
)
def test_bad_matrices(matrix, message):
    with pytest.raises(mrviz.InputError, match=message):
        mrviz.spectrum(matrix)


def test_round_off_asymmetry_is_tolerated_and_raises_the_floor():
    matrix = turned([3.0, 2.0, 1.0])
    matrix[0, 1] += 1e-7
    spec = mrviz.spectrum(matrix)
    assert 1e-9 < spec.residual < 1e-6
    assert spec.floor == pytest.approx(spec.residual * spec.largest)


def test_a_wrong_decomposition_is_found_out(monkeypatch):
    """A back end that returns garbage: the residual tells, and the floor rises above it all."""
    right = torch.linalg.eigh

    def garbage(matrix):
        values, vectors = right(matrix)
        return values, vectors.flip(0)

    matrix = turned([3.0, 2.0, 1.0])
    monkeypatch.setattr(torch.linalg, "eigh", garbage)
    spec = mrviz.spectrum(matrix)
    assert spec.residual > 0.1
    assert spec.floor >= spec.residual * spec.largest * 0.99


def test_a_decomposition_that_fails_on_the_cpu_says_so(monkeypatch):
    def fail(matrix):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    with pytest.raises(mrviz.MrvizError, match=r"could not be computed.*did not converge"):
        mrviz.spectrum(torch.eye(3))


def gram(dtype=None, **options):
    source = mrviz.SourceModel(dense_net((1, 4, 4), 3).float(), (1, 4, 4))
    model = mrviz.ReprogrammedModel(
        source, mrviz.programs.Linear((1, 4, 4), (1, 2, 2)), mappings.Identity()
    )
    return mrviz.ntk_gram(model, uniform(3, 1, 2, 2), dtype=dtype, **options)


def test_a_gram_brings_its_own_unit_though_its_matrix_is_double():
    single, double = mrviz.spectrum(gram()), mrviz.spectrum(gram(torch.float64))
    assert single.eigenvalues.dtype == torch.float64
    assert (single.epsilon, double.epsilon) == (2.0**-24, 2.0**-53)
    assert single.floor == pytest.approx(9 * 2.0**-24 * single.largest)


def test_grams_that_have_no_spectrum():
    source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))
    program = mrviz.programs.Linear((1, 2, 2), (1, 2, 2))
    model = mrviz.ReprogrammedModel(source, program, mappings.Identity())
    cross = mrviz.ntk_gram(model, torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2))
    with pytest.raises(mrviz.InputError, match="compute it without x2"):
        mrviz.spectrum(cross)
    with pytest.raises(mrviz.InputError, match="a Gram brings its own"):
        mrviz.spectrum(gram(), epsilon=1e-3)


def test_random_gram_has_the_rank_of_its_factor():
    """Wishart: n×p factor with p < n leaves n − p eigenvalues below the floor; the largest is
    near (√n + √p)², the smallest resolved near (√n − √p)² (Marchenko and Pastur)."""
    n, p = 200, 50
    factor = torch.randn(n, p, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spec = mrviz.spectrum(factor @ factor.T)
    assert spec.rank == p
    assert spec.largest == pytest.approx((n**0.5 + p**0.5) ** 2, rel=0.1)
    assert float(spec.eigenvalues[p - 1]) == pytest.approx((n**0.5 - p**0.5) ** 2, rel=0.2)
