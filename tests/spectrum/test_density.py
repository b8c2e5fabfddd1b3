"""Stochastic Lanczos quadrature: exact where it must be, within its error bars elsewhere."""

import json
import math
import sys
from threading import Event

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mrviz
from mrviz import mappings
from mrviz.ntk.operator import ntk_operator
from mrviz.ntk.symmetric import MatrixOperator
from mrviz.spectrum.density import Estimate, spectral_density
from mrviz.spectrum.quadrature import christoffel
from tests.ntk.common import conv_net, uniform
from tests.spectrum.test_dense import turned
from tests.spectrum.test_lanczos import SCALES, SPECTRA, border_model


def density(operator, **options):
    return spectral_density(operator, progress=False, **options)


def signs(order, seed, probes=1):
    """The probes that are used, by their definition."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(0, 2, (order,), generator=generator) * 2.0 - 1 for _ in range(probes)]
    return torch.stack(rows).double() / order**0.5


# Exact


@pytest.mark.parametrize("steps", [1, 2, 5, 12])
def test_moments_up_to_twice_the_steps(steps):
    matrix = turned(torch.linspace(0.1, 1, 80, dtype=torch.float64))
    found = density(matrix, probes=3, steps=steps, seed=5)
    powers = torch.eye(80, dtype=torch.float64)
    v = signs(80, 5, 3)
    for degree in range(2 * steps):
        exact = ((v @ powers) * v).sum(1)
        moments = (found.weights * found.nodes**degree).sum(1)
        assert torch.allclose(moments, exact, rtol=1e-12), degree
        powers = powers @ matrix
    if steps == 12:
        return  # converged to round-off by then
    beyond = (found.weights * found.nodes ** (2 * steps)).sum(1)
    assert not torch.allclose(beyond, ((v @ powers) * v).sum(1), rtol=1e-12)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SPECTRA)
def test_with_as_many_steps_as_rows_each_probe_holds_the_whole_spectrum(name, scale):
    exact = (SPECTRA[name] * scale).flip(0)
    matrix = turned(exact)
    found = density(matrix, probes=2, steps=500, seed=1)
    assert bool(found.exact.all())
    if name in ("rank 5", "two clusters"):
        assert bool((found.nodes.isfinite().sum(1) <= 8).all()), "five and two distinct ones"
    values, vectors = torch.linalg.eigh(matrix)
    shares = (signs(200, 1, 2) @ vectors).square()
    for threshold in torch.linspace(0.001, 0.999, 20).double() * exact[-1]:
        if threshold > found.floor and float((exact - threshold).abs().min()) > 1e-9 * exact[-1]:
            count = found.count_above(float(threshold))
            expected = 200 * shares[:, values > threshold].sum(1).mean()
            assert count.value == pytest.approx(float(expected), abs=1e-6)
            assert count.low == count.value == count.high


@pytest.mark.parametrize("name", SPECTRA)
def test_krylov_bases_stay_orthogonal(name):
    found = density(turned(SPECTRA[name]), probes=3, steps=150)
    assert found.orthogonality < 1e-12
    unit = found.weights.sum(1)
    assert torch.allclose(unit, torch.ones_like(unit), rtol=1e-12)
    assert bool((found.weights >= 0).all())
    for nodes in found.nodes:
        nodes = nodes[nodes.isfinite()]
        assert bool((nodes.diff() >= 0).all())


def test_no_eigenvalue_appears_twice():
    """Without reorthogonalisation the outliers, found after a few steps, are found again."""
    exact = torch.cat([torch.linspace(0, 1, 296), torch.tensor([50.0, 60.0, 80.0, 100.0])])
    found = density(turned(exact), probes=1, steps=120)
    assert int((found.nodes > 2).sum()) == 4


# Estimates


def test_trace_and_counts_lie_within_the_error_bars():
    exact = torch.logspace(0, -6, 400, dtype=torch.float64)
    matrix, misses = turned(exact), 0
    thresholds = (0.5, 0.1, 1e-2, 1e-3, 1e-4)
    for seed in range(10):
        found = density(matrix, probes=8, steps=60, seed=seed)
        misses += abs(found.trace.value - float(exact.sum())) > 3 * found.trace.error
        for threshold in thresholds:
            count = found.count_above(threshold)
            true = int((exact > threshold).sum())
            assert count.low <= count.value <= count.high
            slack = 3 * count.error
            misses += not count.low - slack <= true <= count.high + slack
    assert misses <= 2, "of 60; three standard errors of eight probes leave out about one in fifty"


def test_standard_error_is_that_of_the_mean():
    exact = torch.logspace(0, -3, 100, dtype=torch.float64)
    matrix = turned(exact)
    means = [density(matrix, probes=16, steps=20, seed=s).trace for s in range(30)]
    spread = torch.tensor([m.value for m in means]).std()
    stated = sum(m.error for m in means) / 30
    assert stated == pytest.approx(float(spread), rel=0.35)
    (one, many) = (density(matrix, probes=p, steps=20).trace.error for p in (10, 1000))
    assert many == pytest.approx(one / 10, rel=0.5)


@given(
    spread=st.floats(0.5, 8),
    steps=st.integers(2, 30),
    at=st.floats(0.02, 0.98),
    seed=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_bounds_on_counts_hold_for_each_probe(spread, steps, at, seed):
    """Of one probe's own measure, without any sampling error (Chebyshev–Markov–Stieltjes)."""
    exact = torch.logspace(-spread, 0, 60, dtype=torch.float64)
    matrix = turned(exact, seed)
    found = density(matrix, probes=1, steps=steps, seed=seed)
    values, vectors = torch.linalg.eigh(matrix)
    shares = (signs(60, seed)[0] @ vectors).square()
    threshold = 10 ** (-spread * at * 1.1)
    true = 60 * float(shares[values > threshold].sum())
    count = found.count_above(threshold)
    assert count.low - 1e-9 <= true <= count.high + 1e-9
    assert math.isnan(count.error)


def test_the_weight_below_all_nodes_is_bounded_sharply():
    """A third of the weight at zero, the rest from 1 on: the bound falls to the third."""
    matrix = turned(torch.cat([torch.zeros(100), torch.linspace(1, 2, 200)]))
    share = float((signs(300, 0) @ torch.linalg.eigh(matrix)[1])[0, :100].square().sum())
    bounds = []
    for steps in (1, 2, 3, 4):
        run = density(matrix, probes=1, steps=steps)
        assert run.nodes[0, 0] > 1e-12
        bounds.append(christoffel(run.recurrence[0], 1e-12))
    assert share <= bounds[-1] < share * 1.02
    assert bounds == sorted(bounds, reverse=True) and bounds[0] > share * 1.05
    away = density(turned(torch.linspace(1, 2, 300)), probes=2, steps=20)
    assert away.unresolved.value < 1e-9 and 0 <= away.unresolved.high < 1e-6, "nothing near zero"


def test_mass_near_zero_that_the_steps_do_not_resolve_is_doubtful():
    """Eigenvalues from 1 to 1e-30: whether they are below the floor shows after many steps only."""
    exact = torch.logspace(0, -30, 300, dtype=torch.float64)
    few = density(turned(exact), probes=4, steps=10)
    true = int((exact <= few.floor).sum())
    assert few.unresolved.low - 30 <= true <= few.unresolved.high + 30
    assert few.unresolved.high - few.unresolved.low > 100, "and says so"


# What is not resolved


def test_what_is_below_the_floor_is_one_bin():
    exact = torch.tensor([1.0, 0.5, 0.25] + [1e-4] * 57, dtype=torch.float64)
    theta = MatrixOperator(turned(exact), epsilon=1e-4)
    found = density(theta, probes=50, steps=20)
    assert found.floor == pytest.approx(60 * 1e-4)
    assert found.unresolved.value == pytest.approx(57, abs=4 * found.unresolved.error)
    assert found.count_above(found.floor).value == pytest.approx(3, abs=4 * found.unresolved.error)
    for threshold in (found.floor * 0.99, 0.0, -1.0, float("nan")):
        with pytest.raises(mrviz.InputError, match=r"is below the noise floor 0\.006"):
            found.count_above(threshold)
    resolved = found.trace_of(lambda values: (values > 0).double())
    assert resolved.value == pytest.approx(found.count_above(found.floor).value)


def test_density_integrates_to_what_is_resolved():
    exact = torch.cat([torch.logspace(0, -3, 150), torch.zeros(50)]).double()
    found = density(turned(exact), probes=6, steps=200)
    grid = torch.logspace(-5, 1.5, 3000, dtype=torch.float64)
    for width in (0.05, 0.2):
        curve = found.density(grid, width)
        assert torch.equal(curve.grid, grid)
        total = float(torch.trapezoid(curve.density, grid.log10()))
        assert total == pytest.approx(found.count_above(found.floor).value, rel=1e-3)
        assert total + curve.unresolved.value == pytest.approx(200, rel=1e-3)
        inside = (grid > 10**-2.3) & (grid < 10**-0.7)
        assert curve.density[inside].mean() == pytest.approx(50, rel=0.1), "150 in 3 decades"
        assert 0 < float(curve.error[inside].mean()) < 15
    default = found.density()
    assert float(default.grid[0]) == pytest.approx(found.floor)
    assert float(default.grid[-1]) > found.largest


def test_error_of_the_density_falls_with_more_probes():
    matrix = turned(torch.logspace(0, -3, 150))
    grid = torch.logspace(-3, 0, 50)
    few, many = (density(matrix, probes=p, steps=40).density(grid) for p in (5, 80))
    assert float(many.error.mean()) == pytest.approx(float(few.error.mean()) / 4, rel=0.4)


@pytest.mark.parametrize("order", [1, 50])
def test_zero_and_one_by_one(order):
    zero = density(torch.zeros(order, order), probes=2, steps=5)
    assert zero.floor == 0 and zero.largest == 0
    assert zero.unresolved.value == order and zero.trace.value == 0
    assert bool(zero.exact.all()) and zero.density().density.abs().max() == 0
    one = density(3 * torch.eye(order), probes=2, steps=5)
    assert one.nodes.tolist() == [[pytest.approx(3)]] * 2
    assert one.trace.value == pytest.approx(3 * order) and one.matvecs == 2


def test_a_single_probe_has_no_error_bar():
    found = density(turned(SPECTRA["power law"]), probes=1, steps=10)
    assert math.isnan(found.trace.error) and math.isnan(found.count_above(0.1).error)
    assert bool(found.density().error.isnan().all())


# Operators


@pytest.mark.parametrize("memory", [None, 10])
def test_operators_by_factors_and_by_autograd(memory):
    source = mrviz.SourceModel(conv_net((1, 5, 5), 3, 1), (1, 5, 5))
    program = mrviz.programs.Linear((1, 5, 5), (1, 3, 3))
    model = mrviz.ReprogrammedModel(source, program, mappings.Identity())
    x = uniform(8, 1, 3, 3)
    gram = mrviz.ntk_gram(model, x)
    found = density(ntk_operator(model, x, memory=memory, progress=False), probes=3, steps=6)
    expected = density(gram, probes=3, steps=6)
    assert torch.allclose(found.nodes, expected.nodes, rtol=1e-8, atol=1e-10 * found.largest)
    assert torch.allclose(found.weights, expected.weights, rtol=1e-6, atol=1e-10)
    assert found.floor == pytest.approx(expected.floor)
    assert not found.dual and found.matvecs == 18


def test_a_small_dual_leaves_nothing_to_estimate():
    model, x = border_model(1), uniform(60, 1, 2, 2)
    exact = torch.linalg.eigvalsh(mrviz.ntk_gram(model, x).matrix)
    for operator in (ntk_operator(model, x, progress=False), mrviz.ntk_gram(model, x)):
        found = density(operator)
        assert found.dual and found.matvecs == 0 and found.order == 180
        assert found.trace.value == pytest.approx(float(exact.sum())) and found.trace.error == 0
        rank = int((exact > found.floor).sum())
        unresolved = found.unresolved
        assert unresolved.low == unresolved.high == unresolved.value == pytest.approx(180 - rank)
        count = found.count_above(float(exact[-3:-1].mean()))
        assert (count.value, count.error) == (pytest.approx(2), 0)
        assert not found.density().error.any()


def test_probes_in_groups(monkeypatch):
    matrix = turned(SPECTRA["power law"])
    together = density(matrix, probes=5, steps=12)
    monkeypatch.setattr(sys.modules[spectral_density.__module__], "BASIS_BYTES", 2 * 8 * 200 * 12)
    apart = density(matrix, probes=5, steps=12)
    assert torch.allclose(together.nodes, apart.nodes, rtol=1e-10)
    assert torch.allclose(together.weights, apart.weights, rtol=1e-8, atol=1e-14)


def test_seeds():
    matrix = turned(SPECTRA["power law"])
    one, same, other = (density(matrix, probes=4, steps=10, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.nodes, same.nodes) and torch.equal(one.weights, same.weights)
    assert not torch.equal(one.nodes, other.nodes)
    fewer = density(matrix, probes=2, steps=10, seed=1)
    assert torch.allclose(fewer.nodes, one.nodes[:2], rtol=1e-10)


def test_progress_and_cancel():
    matrix, steps, flag = turned(SPECTRA["power law"]), [], Event()

    def report(done, total, label):
        steps.append((done, total))
        if done >= 9:
            flag.set()

    spectral_density(matrix, probes=3, steps=7, progress=report)
    assert steps[-1] == (21, 21)
    steps.clear()
    flag.clear()
    with pytest.raises(mrviz.Cancelled):
        spectral_density(matrix, probes=3, steps=7, progress=report, cancel=flag)
    assert steps[-1] == (9, 21)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"probes": 0}, "probes must be at least 1"), ({"steps": 0}, "steps must be at least 1")],
)
def test_bad_arguments(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        density(torch.eye(3), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be a positive number of decades"),
        ({"grid": [1.0, 0.0]}, "grid must be a list of positive numbers"),
        ({"grid": [[1.0]]}, "grid must be a list of positive numbers"),
    ],
)
def test_bad_grids(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        density(torch.eye(3)).density(**options)


def test_reports():
    found = density(turned(SPECTRA["rank 5"]), probes=4, steps=30)
    report = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert report["order"] == 200 and report["probes"] == 4
    assert [len(row) for row in report["nodes"]] == [len(row) for row in report["weights"]]
    assert report["unresolved"]["value"] == found.unresolved.value
    assert "SpectralDensity(order=200, probes=4" in repr(found) and "not resolved" in repr(found)
    assert "<table>" in found._repr_html_() and "±" in found._repr_html_()
    assert repr(Estimate(3.0, 0.5, 3.0, 3.0)) == "3 ± 0.5"
    assert repr(Estimate(3.0, 0.5, 2.0, 4.0)) == "3 ± 0.5, between 2 and 4"
