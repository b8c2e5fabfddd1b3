"""Exact W₁ against known cases, and the bound made of it."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mrviz
from mrviz.errors import InputError
from mrviz.programs import Linear, Overlay
from mrviz.theory import distribution_bound, source_strength, wasserstein1
from tests.ntk.common import uniform

SHAPE = (1, 4, 4)


def cloud(seed, n, d):
    return torch.randn((n, d), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), d=st.integers(1, 4))
def test_translated_clouds_are_as_far_apart_as_the_shift(seed, n, d):
    """W₁(P, P + v) = ‖v‖: no transport beats it, by Jensen's inequality."""
    points, shift = cloud(seed, n, d), cloud(seed + 1, 1, d)
    assert wasserstein1(points, points + shift) == pytest.approx(float(shift.norm()), abs=1e-9)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 20), d=st.integers(1, 4))
def test_permuted_clouds_are_the_same(seed, n, d):
    points = cloud(seed, n, d)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert wasserstein1(points, points[order]) == 0.0


@given(seed=st.integers(0, 10**6), n=st.integers(1, 30))
def test_one_dimension_is_that_of_scipy(seed, n):
    from scipy.stats import wasserstein_distance

    a, b = cloud(seed, n, 1), 2 * cloud(seed + 1, n, 1) + 1
    expected = wasserstein_distance(a.flatten().numpy(), b.flatten().numpy())
    assert wasserstein1(a, b) == pytest.approx(float(expected), abs=1e-9)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 5), d=st.integers(1, 3))
def test_no_assignment_is_shorter(seed, n, d):
    a, b = cloud(seed, n, d), cloud(seed + 1, n, d)
    costs = torch.cdist(a, b)
    best = min(
        float(costs[range(n), list(order)].mean()) for order in itertools.permutations(range(n))
    )
    assert wasserstein1(a, b) == pytest.approx(best, abs=1e-9)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 15), d=st.integers(1, 3))
def test_it_is_a_distance(seed, n, d):
    a, b, c = (cloud(seed + k, n, d) * (k + 1) for k in range(3))
    assert wasserstein1(a, b) == pytest.approx(wasserstein1(b, a))
    assert wasserstein1(a, c) <= wasserstein1(a, b) + wasserstein1(b, c) + 1e-9
    assert wasserstein1(a, b) >= float((a.mean(0) - b.mean(0)).norm()) - 1e-9


@pytest.mark.parametrize(("first", "second"), [((3, 2), (4, 2)), ((3, 2), (3, 3))])
def test_clouds_of_different_shape(first, second):
    with pytest.raises(InputError, match="equally many points"):
        wasserstein1(torch.zeros(first), torch.zeros(second))


# The bound


class Reader(nn.Module):
    """The first three pixels, times a gain: classifies one-hot images."""

    def __init__(self, gain):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))

    def forward(self, u):
        return self.gain * u.flatten(1)[:, :3]


def one_hot_task(n):
    x, y = torch.zeros(n, 16).double(), torch.arange(n) % 3
    x[torch.arange(n), y] = 1
    return x.view(n, *SHAPE), y


def reading(gain, program=None):
    source = mrviz.SourceModel(Reader(gain), SHAPE)
    return mrviz.ReprogrammedModel(
        source, program or Overlay(SHAPE, SHAPE), mrviz.mappings.Identity()
    )


def test_the_target_is_the_source_task():
    """A prompt of zero shows source images as they are: nothing but the risk is left."""
    model, (x, y) = reading(30.0), one_hot_task(60)
    found = distribution_bound(model, x, (x, y))
    assert found.n == 60 and found.distance == 0.0
    assert found.value == pytest.approx(found.risk) == pytest.approx(0, abs=1e-9)
    assert found.low <= found.value <= found.high < 0.01
    cond = mrviz.theory.indicators.distribution_alignment(found, mrviz.theory.Thresholds())
    assert cond.status == "holds"


def test_the_target_is_somewhere_else():
    model, (x, y) = reading(30.0), one_hot_task(60)
    found = distribution_bound(model, x + 1, (x, y))
    assert found.distance == pytest.approx(30 * 3**0.5)
    assert found.classes == 3
    assert found.value == pytest.approx(found.risk + 2 * 3**0.5 * 30 * 3**0.5)
    assert found.low > 2**0.5
    cond = mrviz.theory.indicators.distribution_alignment(found, mrviz.theory.Thresholds())
    assert cond.status == "fails"


def test_distance_and_risk_by_hand():
    model = reading(2.0, Linear(SHAPE, (1, 2, 2)))
    x, data = uniform(9, 1, 2, 2), (uniform(9, *SHAPE, seed=1), torch.arange(9) % 3)
    found = distribution_bound(model, x, data)
    targets = model.source(model.programmed(x.double())).detach()
    expected = wasserstein1(targets, model.source(data[0]).detach())
    strength = source_strength(model.source, data=data)
    assert found.distance == pytest.approx(expected)
    assert (found.risk, found.risk_error) == (strength.risk, strength.risk_error)
    assert found.low <= found.value <= found.high and found.split > 0


def test_samples_of_one_distribution_are_not_told_apart():
    """W₁ of finite samples is positive; halves of the samples show how much of it is chance."""
    model = reading(3.0)
    x, source_x = uniform(100, *SHAPE), uniform(100, *SHAPE, seed=1)
    found = distribution_bound(model, x, (source_x, torch.arange(100) % 3))
    assert found.distance > 0.05 and found.distance < found.split
    assert found.low == pytest.approx(found.risk - found.risk_error)


def test_numbers_of_samples():
    model, (x, y) = reading(2.0), one_hot_task(12)
    assert distribution_bound(model, x, (x, y), n=5).n == 5
    again = [distribution_bound(model, x, (x, y), n=5, seed=s).distance for s in (1, 1, 2, 3)]
    assert again[0] == again[1] and len(set(again)) > 1
    with pytest.raises(InputError, match="W₁ of 20 samples does not fit"):
        distribution_bound(model, x, (x, y), n=20)
    with pytest.raises(InputError, match="at least 2 of each"):
        distribution_bound(model, x[:1], (x, y))
    assert math.isfinite(distribution_bound(model, x[:2], (x, y)).high)
