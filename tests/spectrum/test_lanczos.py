"""Extreme eigenvalues against dense decompositions, and what must be told about them."""

import json
import sys
from threading import Event

import pytest
import torch

import mrviz
from mrviz import mappings
from mrviz.ntk.operator import ntk_operator
from mrviz.ntk.symmetric import MatrixOperator
from mrviz.spectrum.lanczos import extreme_eigenvalues
from tests.ntk.common import conv_net, uniform
from tests.spectrum.test_dense import turned

LANCZOS = sys.modules[extreme_eigenvalues.__module__]

SPECTRA = {
    "power law": torch.arange(1, 201).double() ** -1.5,
    "geometric to round-off": torch.logspace(0, -14, 200, dtype=torch.float64),
    "two clusters": torch.tensor([2.0] * 40 + [1.0] * 160, dtype=torch.float64),
    "pairs": torch.arange(1, 101).double().flip(0).repeat_interleave(2),
    "rank 5": torch.tensor([9.0, 9.0, 4.0, 1.0, 0.1] + [0.0] * 195, dtype=torch.float64),
    "close on top": 1 + torch.logspace(-1, -6, 200, dtype=torch.float64),
}
SCALES = (1e-9, 1.0, 1e7)


def extremes(operator, k=10, which="largest", **options):
    return extreme_eigenvalues(operator, k, which, progress=False, **options)


def check(found, matrix, k):
    """Shapes, order, residuals as they are said to be, and vectors of unit length."""
    assert found.eigenvalues.shape == (k,) and found.eigenvectors.shape == (len(matrix), k)
    assert bool((found.eigenvalues.diff() <= 0).all())
    errors = (matrix @ found.eigenvectors - found.eigenvectors * found.eigenvalues).norm(dim=0)
    exact = float(torch.linalg.eigvalsh(matrix)[-1])
    assert torch.allclose(found.residuals, errors / exact, rtol=0.3, atol=1e-14)
    unit = torch.eye(k, dtype=torch.float64)
    assert torch.allclose(found.eigenvectors.T @ found.eigenvectors, unit, atol=1e-10)
    assert found.floor == pytest.approx(len(matrix) * found.epsilon * exact, rel=0.2)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SPECTRA)
def test_largest(name, scale):
    exact = SPECTRA[name] * scale
    matrix = turned(exact)
    found = extremes(matrix)
    assert found.method == "ARPACK" and found.which == "largest" and found.order == 200
    assert found.complete and found.notes == ()
    assert torch.allclose(found.eigenvalues, exact[:10], rtol=0, atol=1e-12 * float(exact[0]))
    assert torch.equal(found.resolved, exact[:10] > found.floor)
    check(found, matrix, 10)
    assert found.smallest is None


@pytest.mark.parametrize("k", [1, 2, 10, 29, 30, 200])
def test_any_number_of_them(k):
    exact = SPECTRA["power law"]
    found = extremes(turned(exact), k)
    assert found.method == ("ARPACK" if 5 * (k + 10) < 200 else "dense")
    assert torch.allclose(found.eigenvalues, exact[:k], rtol=0, atol=1e-13)
    assert found.smallest == (pytest.approx(float(exact[-1])) if k == 200 else None)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SPECTRA)
def test_smallest_by_writing_out(name, scale):
    exact, matrix = SPECTRA[name] * scale, turned(SPECTRA[name] * scale)
    found = extremes(matrix, 6, "smallest")
    assert found.method == "dense"
    assert found.floor == pytest.approx(200 * 2.0**-53 * float(exact[0]))
    above = mrviz.spectrum(matrix).eigenvalues
    above = above[above > found.floor]
    atol = 1e-14 * float(exact[0])
    assert torch.allclose(found.eigenvalues, above[-6:], rtol=1e-10, atol=atol)
    assert found.below == 200 - len(above)
    if name in ("geometric to round-off", "rank 5"):
        assert found.below > 0 and found.smallest is None
    else:
        assert found.below == 0
        assert found.smallest == pytest.approx(float(exact[-1]), rel=1e-9)


@pytest.fixture
def iterative(monkeypatch):
    monkeypatch.setattr(LANCZOS, "DENSE", 0)


@pytest.mark.parametrize("name", ["two clusters", "pairs"])
def test_smallest_by_iteration(name, iterative):
    exact = SPECTRA[name]
    matrix = turned(exact)
    found = extremes(matrix, 6, "smallest")
    assert found.method == "LOBPCG" and found.complete, found.notes
    assert torch.allclose(found.eigenvalues, exact[-6:], rtol=0, atol=1e-8 * float(exact[0]))
    assert bool(found.resolved.all()) and found.below is None
    assert found.smallest == pytest.approx(float(exact[-1]), rel=1e-6)
    check(found, matrix, 6)


def test_no_more_is_asked_of_the_bottom_than_a_tenth_of_the_floor(iterative):
    matrix = turned(SPECTRA["pairs"])
    fine, rough = (
        extremes(MatrixOperator(matrix, epsilon=e), 6, "smallest") for e in (1e-16, 1e-5)
    )
    assert fine.complete and rough.complete
    assert rough.matvecs < 0.8 * fine.matvecs
    assert float(rough.residuals.max()) <= 200 * 1e-5 / 10
    assert torch.allclose(rough.eigenvalues, fine.eigenvalues, atol=rough.floor)


def test_ill_conditioned_bottom_is_found_with_enough_iterations(iterative):
    exact = SPECTRA["power law"]
    found = extremes(turned(exact), 3, "smallest", max_iter=1000)
    assert found.complete, found.notes
    assert torch.allclose(found.eigenvalues, exact[-3:], rtol=1e-4)


def test_values_below_the_floor_are_never_given_as_smallest(iterative):
    """Rank 5 of 200, and a matrix known to three digits only: a floor above its bottom."""
    for theta in (
        MatrixOperator(turned(SPECTRA["rank 5"])),
        MatrixOperator(turned(SPECTRA["power law"]), epsilon=1e-3),
    ):
        found = extremes(theta, 6, "smallest")
        assert not found.resolved.any() and found.smallest is None
        report = found.to_dict()
        assert report["eigenvalues"] == [None] * 6 and report["smallest"] is None
        for text in (repr(found), found._repr_html_()):
            assert f"not resolved (below {found.floor:.2g})" in text


def test_what_did_not_converge_is_not_passed_off_as_resolved(iterative):
    """Eigenvalues down to 1e-14: LOBPCG stops far above them and says how far off it may be."""
    found = extremes(turned(SPECTRA["geometric to round-off"]), 6, "smallest", max_iter=20)
    assert not found.converged.any() and not found.complete
    assert not found.resolved.any() and found.smallest is None
    assert any("6 of 6 eigenvalues did not converge to 1.0e-08 in 20" in n for n in found.notes)
    assert "±" in repr(found) and "not converged" in repr(found)
    exact = SPECTRA["geometric to round-off"][-6:]
    assert bool((found.eigenvalues >= exact - 1e-15).all()), "bounds from above"


def test_partial_results_of_arpack_are_kept_and_told(monkeypatch):
    found = extremes(turned(SPECTRA["close on top"]), 10, max_iter=1)
    assert not found.complete
    assert any(f"ARPACK found {len(found.eigenvalues)} of 10" in note for note in found.notes)
    assert found.largest > 1, "known even where nothing converged"
    assert bool((found.residuals < 1e-8).all())
    assert found.asked == 10 and found.to_dict()["complete"] is False


def test_floor_and_tolerance_follow_the_precision_of_the_operator():
    matrix = turned(SPECTRA["power law"])
    rough = extremes(MatrixOperator(matrix, epsilon=2.0**-24))
    assert rough.epsilon == 2.0**-24
    assert rough.floor == pytest.approx(200 * 2.0**-24)
    assert extremes(matrix.float()).floor == pytest.approx(rough.floor, rel=1e-5)


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_zero(which, iterative):
    found = extremes(torch.zeros(100, 100), 3, which)
    assert found.floor == 0 and not found.resolved.any() and found.smallest is None
    assert found.eigenvalues.tolist() == [0.0] * 3


def border_model(width):
    source = mrviz.SourceModel(conv_net((1, 4, 4), 3, 1), (1, 4, 4))
    program = mrviz.programs.Border((1, 4, 4), (1, 2, 2), width=width)
    return mrviz.ReprogrammedModel(source, program, mappings.Identity())


@pytest.mark.parametrize("memory", [None, 5000])
def test_the_dual_gives_the_bottom_of_what_is_resolved(memory):
    model, x = border_model(1), uniform(60, 1, 2, 2)
    theta = ntk_operator(model, x, memory=memory, progress=False)
    assert theta.info.method == ("structured" if memory is None else "products")
    exact = torch.linalg.eigvalsh(mrviz.ntk_gram(model, x).matrix).flip(0)
    found = extremes(theta, 4, "smallest")
    rank = int((exact > found.floor).sum())
    assert found.method == "dual" and 4 < rank <= 12
    assert found.below == 180 - rank
    assert found.smallest is None, "Θ is singular"
    atol = 1e-13 * float(exact[0])
    assert torch.allclose(found.eigenvalues, exact[rank - 4 : rank], rtol=1e-6, atol=atol)
    assert bool(found.resolved.all()) and found.complete
    fewer = extremes(theta, 20, "smallest")
    assert len(fewer.eigenvalues) == rank and not fewer.complete
    assert f"only {rank} eigenvalues are resolved" in fewer.notes[0]


@pytest.mark.parametrize("memory", [None, 10])
@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_operators_by_factors_and_by_autograd(which, memory):
    source = mrviz.SourceModel(conv_net((1, 5, 5), 3, 1), (1, 5, 5))
    program = mrviz.programs.Linear((1, 5, 5), (1, 3, 3))
    model = mrviz.ReprogrammedModel(source, program, mappings.Identity())
    x = uniform(20, 1, 3, 3)
    exact = torch.linalg.eigvalsh(mrviz.ntk_gram(model, x).matrix).flip(0)
    found = extremes(ntk_operator(model, x, memory=memory, progress=False), 3, which)
    chosen = exact[:3] if which == "largest" else exact[exact > found.floor][-3:]
    assert torch.allclose(found.eigenvalues, chosen, rtol=1e-6, atol=1e-12 * float(exact[0]))


def test_gram_as_operator():
    gram = mrviz.ntk_gram(border_model(1), uniform(60, 1, 2, 2))
    found, spec = extremes(gram, 5), mrviz.spectrum(gram)
    assert torch.allclose(found.eigenvalues, spec.eigenvalues[:5], rtol=1e-10)
    assert found.floor == pytest.approx(spec.floor)
    cross = mrviz.ntk_gram(border_model(1), uniform(2, 1, 2, 2), uniform(2, 1, 2, 2))
    with pytest.raises(mrviz.InputError, match="compute it without x2"):
        extremes(cross, 1)


def test_seeds(iterative):
    matrix = turned(SPECTRA["pairs"])
    for which in ("largest", "smallest"):
        one, same, other = (extremes(matrix, 4, which, seed=s) for s in (3, 3, 4))
        assert torch.equal(one.eigenvectors, same.eigenvectors)
        assert one.matvecs == same.matvecs
        assert not torch.equal(one.eigenvectors, other.eigenvectors)
        assert torch.allclose(one.eigenvalues, other.eigenvalues, rtol=1e-7)


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_progress_and_cancel(which, iterative):
    matrix, steps, flag = turned(SPECTRA["power law"]), [], Event()

    def report(done, total, label):
        steps.append((done, total))
        if done >= 12:
            flag.set()

    whole = extreme_eigenvalues(matrix, 3, which, progress=report)
    assert steps[-1] == (whole.matvecs, steps[0][1]) and whole.matvecs <= steps[0][1]
    steps.clear()
    flag.clear()
    with pytest.raises(mrviz.Cancelled):
        extreme_eigenvalues(matrix, 3, which, progress=report, cancel=flag)
    assert steps[-1][0] < whole.matvecs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be at least 1"),
        ({"k": 31}, "k=31 is more than the 30 eigenvalues"),
        ({"which": "middle"}, "which must be one of 'largest', 'smallest'"),
        ({"tol": 0}, "tol must be positive"),
        ({"max_iter": 0}, "max_iter must be at least 1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        extremes(torch.eye(30), **options)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.ones(2, 3), "square matrix"),
        (torch.tensor([[1.0, 0.5], [0.4, 1.0]]), "not symmetric"),
        (torch.tensor([[float("nan"), 0], [0, 1.0]]), "NaN or infinite"),
    ],
)
def test_bad_matrices(matrix, message):
    with pytest.raises(mrviz.InputError, match=message):
        extremes(matrix, 1)


def test_reports():
    found = extremes(turned(SPECTRA["rank 5"]), 7)
    report = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert report["eigenvalues"][5:] == [None, None] and report["resolved"][4:6] == [True, False]
    assert report["method"] == "ARPACK" and report["matvecs"] == found.matvecs
    assert repr(found).startswith("ExtremeEigenvalues(largest 7 of 200: 9, …, not resolved")
    assert "7 converged, 5 resolved" in repr(found)
    assert found._repr_html_().count("<tr>") == 8
