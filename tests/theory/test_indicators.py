"""Conditions on constructed kernels: each one holds, fails and stays undecided where it must."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mrviz
from mrviz.errors import InputError
from mrviz.ntk import Gram, GramInfo
from mrviz.theory import (
    Assumption3,
    BoundConstants,
    DistributionBound,
    InputMotion,
    KernelStrength,
    SourceFactors,
    Thresholds,
    indicators,
    proposition_gap,
    theorem_sum,
    trace_kernel,
)
from mrviz.theory.drift import Drift, kernel_drift
from mrviz.theory.dynamics import Trajectory
from mrviz.theory.indicators.compare import ratio_error
from mrviz.theory.prediction import Prediction
from mrviz.theory.statistics import wilson_interval

DEFAULTS = Thresholds()
SINGLE = 2.0**-24


def gram_of(matrix, n=None, reduce="full", epsilon=2.0**-53, parameters=10**6, outputs=None):
    """A Gram that holds a matrix, computed with a unit round-off of our choice."""
    matrix = torch.as_tensor(matrix).double()
    n = len(matrix) if n is None else n
    outputs = len(matrix) // n if outputs is None else outputs
    info = GramInfo(
        *("structured", "made up", "cpu", "float64", "float64", epsilon, parameters),
        *(1, 0, 0, 0.0, None, None),
    )
    return Gram(matrix, n, outputs, reduce, True, info)


def with_spectrum(gram):
    return gram, mrviz.spectrum(gram)


def random_psd(seed, order, rank=None, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    j = torch.randn(order, rank or order, generator=generator, dtype=torch.float64)
    j = j * torch.logspace(0, -scale, j.shape[1], dtype=torch.float64)
    return j @ j.T / order


def random_vector(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def within_floor(gram, floor, seed):
    """Another PSD kernel that is off by no more than the floor: any of them may be the true one."""
    error = random_vector(seed, gram.order, gram.order)
    error = error + error.T
    error *= floor / float(torch.linalg.matrix_norm(error, 2))
    values, vectors = torch.linalg.eigh(gram.matrix + error)
    return vectors @ (values.clamp_min(0)[:, None] * vectors.T)


# T4


def loss_after(matrix, r, steps, lr, n):
    """Relative squared loss of gradient descent, by the steps themselves."""
    left = r.flatten()
    step = torch.eye(len(matrix)).double() - lr / n * matrix
    for _ in range(steps):
        left = step @ left
    return float(left.square().sum() / r.square().sum())


def diagonal(values, shares, epsilon=2.0**-53):
    """A diagonal kernel, one output, whose modes hold given shares of the residual."""
    gram, spec = with_spectrum(gram_of(torch.diag(torch.tensor(values)), epsilon=epsilon))
    return gram, spec, torch.tensor(shares).double().sqrt().view(-1, 1)


@pytest.mark.parametrize(("budget", "status"), [(30, "holds"), (3, "fails")])
def test_speed_counts_the_steps_of_gradient_descent(budget, status):
    gram, spec = with_spectrum(gram_of(random_psd(0, 6), n=3))
    r = random_vector(1, 3, 2)
    found = indicators.speed(gram, spec, r, Thresholds(steps=budget, loss_fraction=0.3))
    lr, steps = found.details["lr"], int(found.value)
    assert lr == pytest.approx(3 / spec.largest) and found.status == status
    assert found.details["largest_stable_step"] == pytest.approx(2 * lr)
    assert loss_after(gram.matrix, r, steps, lr, 3) <= 0.3
    assert loss_after(gram.matrix, r, steps - 1, lr, 3) > 0.3
    assert found.details["time"] == pytest.approx(lr * steps) and found.error == 0


def test_speed_fails_where_unresolved_modes_hold_the_residual():
    """35 % of the residual lie in a mode that is zero to double precision."""
    found = indicators.speed(*diagonal([4.0, 1.0, 0.0], [0.35, 0.3, 0.35]), DEFAULTS)
    assert found.status == "fails" and found.value is None
    assert "never falls to 0.1" in found.why and "35.0%" in found.why


def test_one_is_not_put_in_the_plural():
    """All modes alike: half of the largest stable step is Newton's, and one step is enough."""
    gram, spec, r = diagonal([2.0, 2.0], [0.5, 0.5])
    found = indicators.speed(gram, spec, r, Thresholds(steps=1))
    assert found.value == 1 and found.status == "holds"
    assert found.why.startswith("1 step at ") and "brings the squared loss" in found.why
    assert found.why.endswith("the budget is 1 step")
    assert "the top 1 mode holds" in indicators.alignment(*diagonal([2.0], [1.0])).why
    gram, spec, r = diagonal([4.0, 1.0, 0.0], [0.35, 0.3, 0.35])
    assert indicators.complexity(gram, spec, r, DEFAULTS).why.startswith("1 mode below")
    assert "1 of 3 eigenvalues is not told" in indicators.trainability(gram, spec).why
    assert indicators.capacity(1, 1, 1).why == "p = 1 parameter for nC = 1 residual"


def test_speed_is_undecided_where_round_off_could_decide():
    """In single precision the zero mode may be 7e-7: enough, if one waits a million steps."""
    case = diagonal([4.0, 1.0, 0.0], [0.35, 0.3, 0.35], SINGLE)
    assert indicators.speed(*case, DEFAULTS).status == "fails"
    patient = indicators.speed(*case, Thresholds(steps=10**7))
    assert patient.status == "undecided" and "repeat in float64" in patient.why
    exact = diagonal([4.0, 1.0, 0.0], [0.35, 0.3, 0.35])
    assert indicators.speed(*exact, Thresholds(steps=10**7)).status == "fails"


def test_speed_little_residual_in_unresolved_modes_does_not_matter():
    found = indicators.speed(*diagonal([4.0, 1.0, 0.0], [0.5, 0.45, 0.05]), DEFAULTS)
    assert found.status == "holds" and found.value > 0


def test_speed_exactly_at_the_budget_in_low_precision_is_undecided():
    case = diagonal([4.0, 0.1], [0.0, 1.0], 1e-4)
    steps = int(indicators.speed(*case, DEFAULTS).value)
    assert indicators.speed(*case, Thresholds(steps=steps)).status == "undecided"
    assert indicators.speed(*case, Thresholds(steps=steps)).error > 0
    sharp = diagonal([4.0, 0.1], [0.0, 1.0])
    assert indicators.speed(*sharp, Thresholds(steps=steps)).status == "holds"
    assert indicators.speed(*sharp, Thresholds(steps=steps - 1)).status == "fails"


@given(
    seed=st.integers(0, 10**6),
    budget=st.integers(1, 200),
    fraction=st.floats(0.02, 0.9),
    epsilon=st.sampled_from([1e-16, 1e-6, 1e-4, 1e-3]),
    size=st.sampled_from([0.25, 0.5, 0.9]),
)
@settings(max_examples=60)
def test_speed_is_never_wrong_about_any_kernel_within_the_floor(
    seed, budget, fraction, epsilon, size
):
    gram, spec = with_spectrum(gram_of(random_psd(seed, 8), n=4, epsilon=epsilon))
    r = random_vector(seed + 1, 4, 2)
    limits = Thresholds(steps=budget, loss_fraction=fraction, step_fraction=size)
    found = indicators.speed(gram, spec, r, limits)
    true = within_floor(gram, spec.floor, seed + 2)
    left = loss_after(true, r, budget, found.details["lr"], 4)
    assert found.status != "holds" or left <= fraction * (1 + 1e-9)
    assert found.status != "fails" or left > fraction * (1 - 1e-9)


@pytest.mark.parametrize("reduce", ["trace", 0])
def test_speed_of_reduced_kernels_is_an_approximation(reduce):
    gram, spec = with_spectrum(gram_of(torch.eye(3), reduce=reduce, outputs=2))
    found = indicators.speed(gram, spec, random_vector(0, 3, 2), DEFAULTS)
    assert found.status == "undecided" and found.value == 1 and "full kernel" in found.why


def test_speed_without_kernel_or_residual():
    zero, spec = with_spectrum(gram_of(torch.zeros(2, 2)))
    assert indicators.speed(zero, spec, torch.ones(2, 1), DEFAULTS).status == "fails"
    gram, spec = with_spectrum(gram_of(torch.eye(2)))
    found = indicators.speed(gram, spec, torch.zeros(2, 1), DEFAULTS)
    assert (found.status, found.value) == ("holds", 0.0)


# T5


def test_alignment_of_a_flat_kernel_is_decided_by_nothing():
    """Any residual has the alignment of a random one; round-off must not tip the balance."""
    for seed in range(20):
        gram, spec = with_spectrum(gram_of(0.3 * torch.eye(7)))
        found = indicators.alignment(gram, spec, random_vector(seed, 7, 1))
        assert found.status == "undecided"


# T6


def test_complexity_is_the_formula_of_arora_in_its_normalisation():
    """A kernel with Θ_ii = ½, as the theorem has it: √(2 rᵀΘ⁻¹r/n)."""
    matrix = random_psd(3, 5)
    scale = matrix.diagonal().rsqrt() / 2**0.5
    matrix = scale[:, None] * matrix * scale
    gram, spec = with_spectrum(gram_of(matrix))
    r = random_vector(4, 5, 1)
    expected = math.sqrt(2 * float(r.T @ torch.linalg.solve(matrix, r)) / 5)
    found = indicators.complexity(gram, spec, r, DEFAULTS)
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert found.details["unscaled"] == pytest.approx(expected, rel=1e-6)


def test_complexity_does_not_depend_on_the_scale_of_the_kernel():
    matrix, r = random_psd(3, 6), random_vector(4, 3, 2)
    values = [
        indicators.complexity(*with_spectrum(gram_of(c * matrix, n=3)), r, DEFAULTS).value
        for c in (1e-6, 1.0, 1e6)
    ]
    assert values[0] == pytest.approx(values[1]) == pytest.approx(values[2])


def test_complexity_holds_fails_and_is_undecided():
    def status(r, epsilon=2.0**-53, values=(1.0, 0.5, 0.0001), thresholds=DEFAULTS):
        gram, spec = with_spectrum(gram_of(torch.diag(torch.tensor(values)), epsilon=epsilon))
        return indicators.complexity(gram, spec, torch.tensor(r).view(3, 1), thresholds)

    assert status([0.3, 0.0, 0.0]).status == "holds"
    assert status([0.0, 0.0, 1.0]).status == "fails"
    # Unresolved, and so little residual there that it may or may not matter.
    unclear = status([0.3, 0.0, 1e-4], epsilon=1e-4)
    assert unclear.status == "undecided" and unclear.value is None and "below" in unclear.why
    # Unresolved, and refuted all the same: the bound from below is enough.
    refuted = status([0.3, 0.0, 1.0], epsilon=1e-4)
    assert refuted.status == "fails" and refuted.value is None
    # Singular by design: infinite for any residual that is not in the range.
    assert status([0.3, 0.0, 0.3], values=(1.0, 0.5, 0.0)).status == "fails"
    # Exactly at the threshold.
    at = status([0.3, 0.0, 0.0]).value
    assert status([0.3, 0.0, 0.0], thresholds=Thresholds(complexity=at)).status == "undecided"


@given(seed=st.integers(0, 10**6), epsilon=st.sampled_from([1e-16, 1e-6, 1e-4, 1e-3]))
def test_complexity_is_never_wrong_about_any_kernel_within_the_floor(seed, epsilon):
    gram, spec = with_spectrum(gram_of(random_psd(seed, 6), n=6, epsilon=epsilon))
    r = random_vector(seed + 1, 6, 1)
    found = indicators.complexity(gram, spec, r, DEFAULTS)
    true = within_floor(gram, spec.floor, seed + 2) + 1e-14 * torch.eye(6)
    norm = float(r.T @ torch.linalg.solve(true, r))
    value = 2 * math.sqrt(norm * float(gram.matrix.trace())) / 6
    assert found.status != "holds" or value < 1
    assert found.status != "fails" or value >= 1 - 1e-6
    if found.value is not None:
        assert abs(value - found.value) <= found.error * (1 + 1e-6) + 1e-6 * value


def test_complexity_of_several_outputs_and_of_reduced_kernels():
    matrix, r = random_psd(5, 3), random_vector(6, 3, 2)
    full = indicators.complexity(
        *with_spectrum(gram_of(torch.kron(matrix, torch.eye(2).double()), n=3)), r, DEFAULTS
    )
    trace = indicators.complexity(
        *with_spectrum(gram_of(matrix, reduce="trace", outputs=2)), r, DEFAULTS
    )
    assert trace.value == pytest.approx(full.value) and trace.status == "undecided"
    norm = float((r * torch.linalg.solve(matrix, r)).sum() * 2 * matrix.trace())
    assert full.value == pytest.approx(2 * math.sqrt(2 * norm) / 3)


def test_complexity_without_kernel_or_residual():
    zero, spec = with_spectrum(gram_of(torch.zeros(2, 2)))
    assert indicators.complexity(zero, spec, torch.ones(2, 1), DEFAULTS).status == "fails"
    gram, spec = with_spectrum(gram_of(torch.eye(2)))
    assert indicators.complexity(gram, spec, torch.zeros(2, 1), DEFAULTS).status == "holds"


# T7


def prediction(accuracy, n_test=100, diverged=None, notes=()):
    curve = None if accuracy is None else (0.1, accuracy)
    nothing = torch.zeros(1, 1)
    path = Trajectory(
        (0, 9), (0.0, 0.9), (1.0, 0.5), None, (1.0, 0.5), curve, nothing, None, diverged
    )
    settings = {"loss": "squared", "lr": 0.1, "steps": 9, "n_test": n_test}
    return Prediction(path, settings, 1.0, gram_of([[1.0]]), 1.0, 0.4, None, notes, 0.0)


@pytest.mark.parametrize(
    ("accuracy", "n_test", "status"),
    [(0.5, 100, "holds"), (0.1, 400, "fails"), (0.25, 100, "undecided"), (1.0, 1, "undecided")],
)
def test_predicted_accuracy_against_chance(accuracy, n_test, status):
    found = indicators.predicted_accuracy(prediction(accuracy, n_test), 4, DEFAULTS)
    assert (found.status, found.threshold, found.value) == (status, 0.25, accuracy)
    assert "kernel ridge regression 40.0%" in found.why


def test_predicted_accuracy_that_there_is_not():
    for given_, words in (
        (None, "predict=True"),
        (prediction(None), "mean squared error is 1 (100 held-out samples) after 9 steps"),
        (prediction(None, diverged=3, notes=("diverged at step 3",)), "diverged at step 3"),
        (prediction(0.9, diverged=3, notes=("diverged at step 3",)), "diverged at step 3"),
    ):
        found = indicators.predicted_accuracy(given_, 4, DEFAULTS)
        assert found.status == "undecided" and found.value is None and words in found.why


def test_predicted_accuracy_against_a_threshold_of_ones_own():
    found = indicators.predicted_accuracy(prediction(0.5), 4, Thresholds(accuracy=0.7))
    assert (found.status, found.threshold) == ("fails", 0.7)


# T8 and T9


def factors(smallest, error=0.01, kernel=1.0, floor=0.01, converged=True, spread=()):
    motions = tuple(InputMotion(s, 10.0, error, converged, 5) for s in smallest)
    draws = (kernel, *spread)
    strength = KernelStrength(
        "empirical", draws, (floor,) * len(draws), (10.0,) * len(draws), order=20
    )
    return SourceFactors((strength,), None, Assumption3(motions, strength.interval, "trace"))


@pytest.mark.parametrize(
    ("given_", "status", "share"),
    [
        (factors([2.0] * 16), "holds", 1.0),
        (factors([2.0] * 15), "undecided", 1.0),  # too few to say "for all"
        (factors([2.0] * 15 + [0.5]), "fails", 15 / 16),
        (factors([2.0] * 15 + [1.01]), "undecided", 15 / 16),  # within the errors
        (factors([2.0] * 16, converged=False), "undecided", 0.0),  # bounds from above only
        (factors([0.5] * 16, converged=False), "fails", 0.0),
        (factors([2.0] * 16, error=3.0), "undecided", 0.0),
        (factors([2.0] * 16, spread=(4.0,)), "undecided", 0.0),  # K_S differs between draws
        (factors([2.0] * 16, kernel=1e-9), "holds", 1.0),  # K_S is below its floor: even easier
        (factors([-1e-9] * 16, kernel=1e-9), "undecided", 0.0),
    ],
)
def test_assumption_3(given_, status, share):
    found = indicators.assumption3(given_, DEFAULTS)
    assert (found.status, found.value) == (status, share)
    assert found.details["n"] == len(given_.assumption.motions)


def test_assumption_3_interval_counts_undecided_inputs_either_way():
    seen = factors([2.0] * 6 + [1.0] * 3 + [0.1]).assumption
    assert (seen.holding, seen.undecided, seen.failing) == (6, 3, 1)
    assert seen.interval == (wilson_interval(6, 10)[0], wilson_interval(9, 10)[1])


def test_assumption_3_that_was_not_looked_at():
    assert "source_data=(x, y)" in indicators.assumption3(None, DEFAULTS).why
    without = dataclasses.replace(factors([1.0]), assumption=None)
    assert "samples=16" in indicators.assumption3(without, DEFAULTS).why
    noted = dataclasses.replace(without, notes=("no derivative, so Assumption 3 has none",))
    assert indicators.assumption3(noted, DEFAULTS).why == noted.notes[0]


def test_kernel_strength_never_reports_what_is_not_resolved():
    weak = KernelStrength("empirical", (1.0, 0.001), (0.01, 0.01), (9.0, 9.0), 20)
    assert weak.mean is None and not weak.resolved
    assert "not resolved (below 0.01; 20 samples, 2 draws)" in weak.describe()
    strong = KernelStrength("empirical", (1.0, 3.0), (0.01, 0.01), (9.0, 9.0), 20)
    assert strong.mean == 2.0 and strong.spread == pytest.approx(2**0.5)
    low, high = strong.interval
    assert (low, high) == (pytest.approx(2 - 0.01 - 2**0.5), pytest.approx(2 + 0.01 + 2**0.5))


# T10


def bound(distance, risk=0.1, split=0.0, error=0.0, classes=4):
    return DistributionBound(risk, 0.01, distance, error, split, classes, 100)


@pytest.mark.parametrize(
    ("given_", "status"),
    [
        (bound(0.0), "holds"),
        (bound(5.0), "fails"),
        (bound(5.0, split=5.0), "undecided"),  # no further apart than halves of one sample
        (bound(0.3), "holds"),
        (bound(0.3, error=0.1), "undecided"),
        (bound(0.0, risk=2**0.5), "undecided"),
    ],
)
def test_distribution_alignment(given_, status):
    found = indicators.distribution_alignment(given_, DEFAULTS)
    assert found.status == status and given_.low <= found.value <= given_.high
    assert found.value == given_.risk + 4 * given_.distance
    assert indicators.distribution_alignment(None, DEFAULTS).status == "undecided"


# T11


def test_spectrum_gap_of_the_wide_limit_is_zero():
    gram, spec = with_spectrum(gram_of(torch.kron(random_psd(0, 4), torch.eye(3).double()), n=4))
    found = indicators.spectrum_gap(gram, spec, DEFAULTS)
    assert found.value == pytest.approx(0, abs=1e-12) and found.status == "holds"


def test_spectrum_gap_by_hand():
    """Θ = 1 ⊗ diag(3, 1): trace kernel 2, so the spectrum (3, 1) against (2, 2)."""
    gram, spec = with_spectrum(gram_of(torch.diag(torch.tensor([3.0, 1.0])), n=1))
    found = indicators.spectrum_gap(gram, spec, DEFAULTS)
    assert found.value == pytest.approx((2 / 10) ** 0.5) and found.status == "fails"
    exactly = Thresholds(spectrum_gap=found.value)
    assert indicators.spectrum_gap(gram, spec, exactly).status == "undecided"


def test_spectrum_gap_is_undecided_in_low_precision_and_for_reduced_kernels():
    matrix = torch.diag(torch.tensor([1.0, 0.9]))
    sharp, rough = (with_spectrum(gram_of(matrix, n=1, epsilon=e)) for e in (1e-16, 0.05))
    assert indicators.spectrum_gap(*sharp, DEFAULTS).status == "holds"
    assert indicators.spectrum_gap(*rough, DEFAULTS).status == "undecided"
    trace = with_spectrum(gram_of(matrix, reduce="trace", outputs=2))
    found = indicators.spectrum_gap(*trace, DEFAULTS)
    assert found.status == "undecided" and "full kernel" in found.why
    zero = with_spectrum(gram_of(torch.zeros(2, 2), n=1))
    assert indicators.spectrum_gap(*zero, DEFAULTS).status == "undecided"


@given(seed=st.integers(0, 10**6), epsilon=st.sampled_from([1e-16, 1e-4, 1e-2]))
def test_spectrum_gap_is_at_most_the_distance_of_the_matrices(seed, epsilon):
    """Hoffman and Wielandt; and its error covers every kernel within the floor."""
    gram, spec = with_spectrum(gram_of(random_psd(seed, 6), n=2, epsilon=epsilon))
    limit = torch.kron(trace_kernel(gram), torch.eye(3).double())
    gap = proposition_gap(gram, spec)
    assert gap <= float((gram.matrix - limit).norm() / gram.matrix.norm()) * (1 + 1e-9)
    found = indicators.spectrum_gap(gram, spec, DEFAULTS)
    true = gram_of(within_floor(gram, spec.floor, seed), n=2)
    assert abs(proposition_gap(*with_spectrum(true)) - gap) <= found.error + 1e-12


@given(seed=st.integers(0, 10**6))
def test_trace_kernels(seed):
    full = gram_of(random_psd(seed, 6), n=2)
    blocks = [full.matrix[c::3, c::3] for c in range(3)]
    trace = trace_kernel(full)
    assert torch.allclose(trace, sum(blocks) / 3)
    reduced = gram_of(trace, reduce="trace", outputs=3)
    assert theorem_sum(full) == pytest.approx(theorem_sum(reduced))
    assert theorem_sum(full) == pytest.approx(float(trace.abs().sum()) / 2)


def test_spectrum_gap_of_one_output_is_zero():
    gram, spec = with_spectrum(gram_of(random_psd(0, 5)))
    found = indicators.spectrum_gap(gram, spec, DEFAULTS)
    assert (found.value, found.status) == (0.0, "holds") and "one output" in found.why


def test_trace_kernels_that_there_are_not():
    for gram in (
        gram_of(torch.eye(2), reduce="sum", outputs=3),
        dataclasses.replace(gram_of(torch.eye(2)), symmetric=False),
    ):
        with pytest.raises(InputError):
            trace_kernel(gram)
    trace = gram_of(torch.eye(2), reduce="trace", outputs=2)
    with pytest.raises(InputError, match="reduce='full'"):
        proposition_gap(*with_spectrum(trace))


# T12


@pytest.mark.parametrize(
    ("relative", "epsilon", "status"),
    [(0.02, 1e-16, "holds"), (0.5, 1e-16, "fails"), (0.1, 1e-16, "undecided"),
     (0.02, 0.05, "undecided"), (0.5, 0.7, "undecided")],
)  # fmt: skip
def test_lazy_training(relative, epsilon, status):
    spec = mrviz.spectrum(torch.eye(2), epsilon=epsilon)
    found = indicators.lazy_training(Drift(relative, 0.9), spec, DEFAULTS)
    assert found.status == status and found.value == relative
    assert found.details == {"centered_kernel_alignment": 0.9}
    untrained = indicators.lazy_training(None, spec, DEFAULTS)
    assert untrained.status == "undecided" and "drift=" in untrained.why


@given(seed=st.integers(0, 10**6), epsilon=st.sampled_from([1e-16, 1e-4, 1e-2]))
def test_drift_error_covers_every_kernel_within_the_floor(seed, epsilon):
    before, after = gram_of(random_psd(seed, 5), epsilon=epsilon), gram_of(random_psd(seed + 1, 5))
    spec = mrviz.spectrum(before)
    drift = kernel_drift(before, after)
    found = indicators.lazy_training(drift, spec, DEFAULTS)
    moved = kernel_drift(
        gram_of(within_floor(before, spec.floor, seed + 2)),
        gram_of(within_floor(after, spec.floor, seed + 3)),
    )
    assert abs(moved.relative - drift.relative) <= found.error + 1e-12


def test_errors_as_large_as_the_kernel_decide_nothing():
    assert ratio_error(0.5, 1.0) == math.inf and ratio_error(0.5, 0.0) == 0.0
    gram, spec = with_spectrum(gram_of(torch.eye(2), n=1, epsilon=0.9))
    for found in (
        indicators.lazy_training(Drift(0.0, None), spec, DEFAULTS),
        indicators.spectrum_gap(gram, spec, DEFAULTS),
    ):
        assert found.status == "undecided" and found.error is None


# T13


def test_generalization_needs_constants():
    gram, spec = with_spectrum(gram_of(torch.tensor([[2.0, -1.0], [-1.0, 2.0]])))
    found = indicators.generalization(gram, spec, None, DEFAULTS)
    assert found.value == 3.0 and found.status == "undecided" and found.threshold is None
    assert "constants=" in found.why


@pytest.mark.parametrize(
    ("rho", "epsilon", "status"),
    [(0.01, 1e-16, "holds"), (1.0, 1e-16, "fails"), (0.16, 0.05, "undecided")],
)
def test_generalization_with_constants(rho, epsilon, status):
    gram, spec = with_spectrum(gram_of(torch.tensor([[2.0, -1.0], [-1.0, 2.0]]), epsilon=epsilon))
    constants = BoundConstants(rho, B=1.0, T=1.0, L=0.0, Gamma=1.0)
    found = indicators.generalization(gram, spec, constants, DEFAULTS)
    assert found.value == pytest.approx(6 * rho) and found.status == status


def test_generalization_bound_by_hand():
    gram, spec = with_spectrum(gram_of(torch.eye(8)))
    constants = BoundConstants(0.5, B=0.3, T=4.0, L=0.2, Gamma=0.7, delta=0.1)
    found = indicators.generalization(gram, spec, constants, DEFAULTS)
    expected = 2 * 0.5 * 0.3 * 2 * 1 + 3 * 0.2 * 0.7 * math.sqrt(math.log(20) / 16)
    assert found.value == pytest.approx(expected)


@given(seed=st.integers(0, 10**6), outputs=st.integers(1, 3))
def test_generalization_error_covers_every_kernel_within_the_floor(seed, outputs):
    gram, spec = with_spectrum(gram_of(random_psd(seed, 6), n=6 // outputs, epsilon=1e-3))
    found = indicators.generalization(gram, spec, None, DEFAULTS)
    true = gram_of(within_floor(gram, spec.floor, seed), n=6 // outputs)
    assert abs(theorem_sum(true) - found.value) <= found.error * (1 + 1e-9)


def test_generalization_of_other_reductions():
    gram, spec = with_spectrum(gram_of(torch.eye(2), reduce="sum", outputs=2))
    found = indicators.generalization(gram, spec, None, DEFAULTS)
    assert found.status == "undecided" and found.value is None


# Conventions


@pytest.mark.parametrize(
    "wrong",
    [{"loss_fraction": 0.0}, {"step_fraction": 1.0}, {"steps": 0}, {"drift": -1.0},
     {"accuracy": 2.0}, {"risk": math.nan}, {"assumption_share": 1.0}],
)  # fmt: skip
def test_thresholds_that_make_no_sense(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Thresholds(**wrong)


@pytest.mark.parametrize("wrong", [{"delta": 0.0}, {"rho": -1.0}, {"Gamma": math.inf}])
def test_constants_that_make_no_sense(wrong):
    fine = {"rho": 1.0, "B": 1.0, "T": 1.0, "L": 1.0, "Gamma": 1.0}
    with pytest.raises(InputError, match=next(iter(wrong))):
        BoundConstants(**(fine | wrong))


@given(n=st.integers(1, 400), data=st.data())
def test_wilson_interval_is_that_of_scipy(n, data):
    from scipy.stats import binomtest

    k = data.draw(st.integers(0, n))
    expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(k, n)
    assert low == pytest.approx(expected.low, abs=1e-9)
    assert high == pytest.approx(expected.high, abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 3), (4, 3)])
def test_wilson_interval_of_no_share(k, n):
    with pytest.raises(InputError):
        wilson_interval(k, n)
