"""Kernel regression without the matrix against a dense solve, and what it must tell."""

import json
from threading import Event

import numpy as np
import pytest
import torch

import mrviz
from mrviz import mappings
from mrviz.ntk.operator import ntk_operator
from mrviz.programs import Border, Linear, linear_border
from mrviz.theory.regression import kernel_regression
from mrviz.theory.residuals import residual_columns
from tests.ntk.common import REDUCTIONS, close, conv_net, dense_net, uniform

CANVAS, IMAGE = (1, 5, 5), (1, 3, 3)


def make(program=None, net=None):
    source = mrviz.SourceModel(net or conv_net(CANVAS, 3, 1), CANVAS)
    return mrviz.ReprogrammedModel(source, program or Linear(CANVAS, IMAGE), mappings.Identity())


def images(n=8, seed=0):
    return uniform(n, *IMAGE, seed=seed)


def targets(n=8, seed=7):
    return uniform(n, 3, seed=seed) - 0.5


def operator(model, x, **options):
    return ntk_operator(model, x, progress=False, **options)


def fit(theta, y, **options):
    return kernel_regression(theta, y, progress=False, **options)


@pytest.mark.parametrize("memory", [None, 10])
@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("program", [Linear, Border, linear_border])
def test_against_a_dense_solve(program, reduce, memory):
    model, x, new, y = make(program(CANVAS, IMAGE)), images(), images(3, 5), targets()
    gram = mrviz.ntk_gram(model, x, reduce=reduce)
    cross = mrviz.ntk_gram(model, new, x, reduce=reduce).matrix
    ridge = 0.05 * gram.info.trace / gram.order
    found = fit(operator(model, x, reduce=reduce, memory=memory), y, ridge=ridge, tol=1e-11)
    identity = torch.eye(gram.order, dtype=torch.float64)
    alpha = torch.linalg.solve(gram.matrix + ridge * identity, residual_columns(gram, y))
    assert found.converged and found.notes == ()
    assert found.residual <= 1e-11 == found.tol
    columns = 1 if isinstance(reduce, int) else 3
    assert found.coefficients.shape == (8, columns)
    assert close(found.coefficients, alpha.reshape(8, columns), 1e-8)
    change = found.predict_change(new, progress=False)
    assert close(change, (cross @ alpha).reshape(3, columns), 1e-8)


def test_prediction_on_the_training_samples_is_what_the_ridge_leaves():
    x, y = images(), targets()
    found = fit(operator(make(), x), y, ridge=1e-3, tol=1e-12)
    change = found.predict_change(x, progress=False)
    assert close(y - change, 1e-3 * found.coefficients, 1e-6)


def test_the_end_of_training():
    """f_0 + Θ(x, X) α is where gradient descent on the linearised model ends."""
    model, x, y = make(net=dense_net(CANVAS, 3)), images(4), targets(4)
    theta = operator(model, x)
    matrix = theta @ torch.eye(12, dtype=torch.float64)
    r = y - model.predict(x)
    f, step = torch.zeros(12, dtype=torch.float64), 1 / float(torch.linalg.eigvalsh(matrix)[-1])
    for _ in range(20_000):
        f = f + step * (matrix @ (r.flatten() - f))
    found = fit(theta, r, ridge=0, tol=1e-11)
    assert close(found.predict_change(x, progress=False).flatten(), f, 1e-5)


def test_numpy_and_single_precision_targets():
    theta, y = operator(make(), images()), targets()
    expected = fit(theta, y, ridge=0.1).coefficients
    for given in (y.numpy(), y.tolist()):
        assert torch.equal(fit(theta, given, ridge=0.1).coefficients, expected)
    rough = fit(theta, y.numpy().astype(np.float32), ridge=0.1).coefficients
    assert rough.dtype == torch.float64 and close(rough, expected, 1e-5)


def ill_conditioned():
    """Pixels of very different brightness behind a linear program."""
    scales = torch.logspace(0, -4, 9, dtype=torch.float64).view(1, 3, 3)
    return operator(make(), uniform(40, *IMAGE) * scales)


def test_the_preconditioner_reduces_iterations():
    theta, y = ill_conditioned(), targets(40)
    plain, good = (fit(theta, y, ridge=1e-4, preconditioner_rank=r) for r in (0, 60))
    assert plain.converged and good.converged
    assert (plain.rank, good.rank) == (0, 60)
    assert good.iterations < plain.iterations / 3
    assert close(plain.coefficients, good.coefficients, 1e-3)
    assert fit(theta, y, ridge=1.0).rank == 12, "a tenth of the order by default"


def test_not_converged_is_told():
    found = fit(ill_conditioned(), targets(40), ridge=1e-9, max_iter=3)
    assert not found.converged and found.iterations == 3
    assert found.residual > 1e-8
    assert any(note.startswith("not converged: residual") for note in found.notes)
    assert "NOT converged" in repr(found)
    assert "not converged" in found._repr_html_()


def test_more_columns_do_not_cost_more_products(monkeypatch):
    theta, y = operator(make(), images(20), reduce="trace"), targets(20)
    calls = []
    apply = theta.apply
    monkeypatch.setattr(theta, "apply", lambda v, t=None: calls.append(v.shape[1]) or apply(v, t))
    found = fit(theta, y, ridge=0.1, preconditioner_rank=0)
    assert len(calls) <= found.iterations + 3 and set(calls) == {3}


# Without a ridge


def test_singular_kernel_without_ridge_is_noted_and_judged_by_its_residual():
    model, x = make(Border(CANVAS, IMAGE)), images(10)  # p = 16, order 30
    theta = operator(model, x)
    anywhere = fit(theta, targets(10), ridge=0, max_iter=200)
    assert any("Θ is singular: its rank is at most p = 16" in note for note in anywhere.notes)
    assert not anywhere.converged and anywhere.residual > 0.1
    inside = (theta @ targets(10).flatten()).reshape(10, 3)
    solvable = fit(theta, inside, ridge=0, max_iter=2000, tol=1e-6)
    assert any("Θ is singular" in note for note in solvable.notes)
    assert solvable.converged
    assert close((theta @ solvable.coefficients.flatten()).reshape(10, 3), inside, 1e-5)


@pytest.mark.parametrize("rank", [0, 3])
def test_ridge_below_the_noise_floor_is_noted(rank):
    model, x, y = make(net=conv_net(CANVAS, 3, 1).float()), images().float(), targets()
    theta = operator(model, x)
    floor = 24 * 2.0**-24 * float(torch.linalg.eigvalsh(theta @ torch.eye(24))[-1])
    low, high = (
        fit(theta, y, ridge=r * floor, tol=1e-4, preconditioner_rank=rank) for r in (1e-2, 1.0)
    )
    assert any("is below the noise floor" in note for note in low.notes)
    assert not any("noise floor" in note for note in high.notes)


def test_no_note_without_reason():
    found = fit(operator(make(), images(3)), targets(3), ridge=1e-8)
    assert found.converged and found.notes == ()


# Arguments and reports


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": uniform(8, 2)}, r"y has shape \(8, 2\), the operator is of 8 samples and 3 outputs"),
        ({"y": uniform(24)}, r"y has shape \(24,\)"),
        ({"y": torch.full((8, 3), float("nan"))}, "y holds NaN or infinite values"),
        ({"ridge": -1.0}, "ridge must be zero or a positive number"),
        ({"ridge": float("nan")}, "ridge must be zero or a positive number"),
        ({"ridge": float("inf")}, "ridge must be zero or a positive number"),
        ({"tol": 0.0}, "tol must be positive"),
        ({"max_iter": 0}, "max_iter must be at least 1"),
        ({"preconditioner_rank": -1}, "preconditioner_rank must be at least 0"),
        ({"preconditioner_rank": 25}, "must be 0 to 24, got 25"),
    ],
)
def test_bad_arguments(options, message):
    given = {"y": targets(), "ridge": 0.1} | options
    with pytest.raises(mrviz.InputError, match=message):
        fit(operator(make(), images()), given.pop("y"), **given)


def test_seeds():
    theta, y = ill_conditioned(), targets(40)
    one, same, other = (fit(theta, y, ridge=1e-2, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.coefficients, same.coefficients)
    assert not torch.equal(one.coefficients, other.coefficients)
    assert close(one.coefficients, other.coefficients, 1e-4)


def test_progress_and_cancel():
    theta, y, steps, flag = ill_conditioned(), targets(40), [], Event()

    def report(done, total, label):
        steps.append((done, total, label))
        if done >= 4:
            flag.set()

    whole = kernel_regression(theta, y, ridge=1e-3, progress=report)
    assert steps[-1] == (whole.iterations, 1000, "conjugate gradients")
    steps.clear()
    flag.clear()
    with pytest.raises(mrviz.Cancelled):
        kernel_regression(theta, y, ridge=1e-3, progress=report, cancel=flag)
    assert steps[-1][0] == 4 < whole.iterations
    flag.set()
    with pytest.raises(mrviz.Cancelled):
        whole.predict_change(images(2), progress=False, cancel=flag)


def test_reports():
    found = fit(operator(make(), images()), targets(), ridge=0.25)
    report = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert report["ridge"] == 0.25 and report["converged"] is True
    assert repr(found).startswith("KernelRegression(8×3, ridge=0.25, converged: residual")
    assert "operator" not in repr(found)
    assert "<table>" in found._repr_html_()
