"""Transferability scores against closed forms and against other ways to compute them."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from torch import nn

import mrviz
from mrviz.theory.baselines import h_score, leep, logme, nce, transfer_baselines


def sample(n=30, d=4, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return rng.normal(size=(n, d)) + 0.7 * rng.normal(size=(classes, d))[y], y


def evidence(f, y):
    """max over α, β of log N(y; 0, I/β + FFᵀ/α)/n with SciPy's density, from several starts."""

    def negative(logs):
        alpha, beta = np.exp(np.clip(logs, -30, 30))
        covariance = np.eye(len(y)) / beta + f @ f.T / alpha
        return -multivariate_normal.logpdf(y, np.zeros(len(y)), covariance, allow_singular=True)

    starts = [(a, b) for a in (-2.0, 2.0) for b in (0.0, 3.0)]
    found = [minimize(negative, s, method="Nelder-Mead", options={"xatol": 1e-9}) for s in starts]
    return -min(result.fun for result in found) / len(y)


@pytest.mark.parametrize("seed", range(3))
def test_logme_is_the_maximum_of_the_evidence(seed):
    f, y = sample(seed=seed)
    expected = np.mean([evidence(f, (y == c).astype(float)) for c in range(3)])
    assert logme(f, y) == pytest.approx(expected, abs=1e-6)


def fixed_point(f, y):
    """The iteration printed in the paper (algorithm 1), in its own symbols."""
    n, d = f.shape
    alpha = beta = 1.0
    values, vectors = np.linalg.eigh(f.T @ f)
    for _ in range(500):
        m = beta * vectors @ ((vectors.T @ (f.T @ y)) / (alpha + beta * values))
        gamma = (beta * values / (alpha + beta * values)).sum()
        alpha, beta = gamma / (m @ m), (n - gamma) / ((f @ m - y) ** 2).sum()
    m = beta * vectors @ ((vectors.T @ (f.T @ y)) / (alpha + beta * values))
    log = n * math.log(beta) + d * math.log(alpha) - n * math.log(2 * math.pi)
    log -= beta * ((f @ m - y) ** 2).sum() + alpha * (m @ m)
    return (log - np.log(alpha + beta * values).sum()) / (2 * n)


def test_logme_is_what_the_iteration_of_the_paper_finds():
    f, y = sample(60, 5, 3, seed=4)
    expected = np.mean([fixed_point(f, (y == c).astype(float)) for c in range(3)])
    assert logme(f, y) == pytest.approx(expected, abs=1e-6)


def test_logme_without_information_and_with_all_of_it():
    y = np.arange(20) % 2
    # F = 0: y ~ N(0, I/β) with β = n/‖y‖² = 2.
    expected = -0.5 * math.log(2 * math.pi * 0.5) - 0.5
    assert logme(np.zeros((20, 3)), y) == pytest.approx(expected)
    assert logme(np.eye(2)[y], y) == math.inf
    f, labels = sample(6, 6, 2)  # as many dimensions as samples: a maximum exists again
    assert math.isfinite(logme(f, labels))
    good, _ = sample(60, 3, 2)
    noise = np.random.default_rng(1).normal(size=(60, 3))
    assert logme(good + 3 * (np.arange(60) % 2)[:, None], np.arange(60) % 2) > logme(
        noise, np.arange(60) % 2
    )


def test_logme_does_not_depend_on_the_scale_of_the_features():
    f, y = sample()
    assert logme(1e3 * f, y) == pytest.approx(logme(f, y), abs=1e-7)


def test_h_score_by_its_definition():
    f, y = sample(40, 5, 4, seed=2)
    means = np.stack([f[y == c].mean(0) for c in range(4)])[y]
    covariance, between = np.cov(f, rowvar=False), np.cov(means, rowvar=False)
    expected = np.trace(np.linalg.pinv(covariance, rcond=1e-15) @ between)
    assert h_score(f, y) == pytest.approx(expected, rel=1e-10)
    turned = f @ np.random.default_rng(0).normal(size=(5, 5)) + 7
    assert h_score(turned, y) == pytest.approx(expected, rel=1e-8)


def test_h_score_between_nothing_and_one_less_than_the_classes():
    y = np.arange(12) % 3
    assert h_score(np.eye(3)[y], y) == pytest.approx(2.0)
    assert h_score(np.ones((12, 4)), y) == 0
    same = np.repeat(np.random.default_rng(0).normal(size=(4, 2)), 3, axis=0)  # one of each class
    assert h_score(same, y) == pytest.approx(0.0, abs=1e-12)


def test_leep_by_hand_and_by_loops():
    # θ = (.8, .2), (.4, .6) with labels 0 and 1: P(0|z) = (2/3, 1/4), P(1|z) = (1/3, 3/4).
    expected = (math.log(0.8 * 2 / 3 + 0.2 / 4) + math.log(0.4 / 3 + 0.6 * 3 / 4)) / 2
    assert leep([[0.8, 0.2], [0.4, 0.6]], [0, 1]) == pytest.approx(expected)
    rng = np.random.default_rng(0)
    theta, y = rng.dirichlet(np.ones(4), 25), np.arange(25) % 3
    total = 0.0
    for i in range(25):
        inner = 0.0
        for z in range(4):
            joint = sum(theta[j, z] for j in range(25) if y[j] == y[i])
            inner += joint / theta[:, z].sum() * theta[i, z]
        total += math.log(inner)
    assert leep(theta, y) == pytest.approx(total / 25)


def test_leep_of_certain_sources_is_nce_and_an_unused_label_changes_nothing():
    rng = np.random.default_rng(3)
    z, y = rng.integers(0, 4, 40), rng.integers(0, 3, 40)
    assert leep(np.eye(6)[z], y) == pytest.approx(nce(z, y))


def test_nce_in_closed_form():
    y = np.array([0, 1] * 8)
    assert nce(np.zeros(16, int), y) == pytest.approx(-math.log(2))
    assert nce(1 - y, y) == 0  # a permutation of labels
    # Source label 0 is one class for sure, label 1 a coin: −H(Y | Z) = −½ log 2.
    assert nce([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1]) == pytest.approx(
        -0.5 * math.log(2)
    )
    rng = np.random.default_rng(5)
    z, labels = rng.integers(0, 5, 60), rng.integers(0, 4, 60)
    shares = [np.mean(labels[z == a] == b) for a, b in zip(z, labels, strict=True)]
    assert nce(z, labels) == pytest.approx(np.log(shares).mean())


@pytest.mark.parametrize("score", [logme, h_score, leep])
def test_degenerate_input_is_refused(score):
    with pytest.raises(mrviz.InputError, match="all 3 labels are 1"):
        score([[0.5, 0.5]] * 3, [1, 1, 1])
    with pytest.raises(mrviz.InputError, match="two samples or more, got 1"):
        score([[0.5, 0.5]], [1])
    with pytest.raises(mrviz.InputError, match="NaN"):
        score([[0.5, float("nan")]] * 2, [0, 1])
    with pytest.raises(mrviz.InputError, match="one row for each of 3"):
        score([[0.5, 0.5]] * 2, [0, 1, 1])


def test_other_input_that_is_refused():
    with pytest.raises(mrviz.InputError, match="all 2 labels"):
        nce([0, 1], [0, 0])
    with pytest.raises(mrviz.InputError, match=r"logits\.softmax"):
        leep([[2.0, 0.5]] * 2, [0, 1])


def test_scores_of_a_model_are_those_of_its_source_outputs():
    torch.manual_seed(0)
    source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), (1, 4, 4))
    x, y = torch.rand(30, 1, 2, 2), torch.arange(30) % 3
    target = mrviz.Target(x, y, x, y)
    model = mrviz.reprogram(source, target, program="border")
    with torch.no_grad():
        logits = source(model.programmed(x[:20])).double()
    found = transfer_baselines(model, target, 20, batch_size=7)
    assert found.logme == pytest.approx(logme(logits, y[:20]), abs=1e-6)
    assert found.h_score == pytest.approx(h_score(logits, y[:20]), rel=1e-4)
    assert found.leep == pytest.approx(leep(logits.softmax(1), y[:20]), abs=1e-6)
    assert found.nce == nce(logits.argmax(1), y[:20])
    assert json.loads(json.dumps(found.to_dict()))["n"] == 20
    real = mrviz.Target(x, torch.rand(30, 3), x, torch.rand(30, 3))
    with pytest.raises(mrviz.InputError, match="real-valued"):
        transfer_baselines(model, real)
