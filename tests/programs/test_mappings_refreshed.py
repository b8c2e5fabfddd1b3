"""Iterative and Bayesian mappings: hand-worked definitions, guards, and what a refresh changes."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mrviz
from mrviz.programs import Linear
from mrviz.programs.mappings import Bayesian, BayesianPlus, Frequency, Iterative, LinearHead
from mrviz.programs.mappings.refreshed import bayesian_weights
from tests.ntk.common import close, conv_net, uniform

CANVAS, IMAGE = (1, 5, 5), (1, 3, 3)

PREDICTED, LABELS = [0, 0, 1, 1, 1, 1, 2], [0, 0, 0, 1, 1, 1, 1]
"""d = [[2, 1, 0], [0, 3, 1]]: counts of (target class, predicted source class)."""

PROBABILITIES = [[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.1, 0.7]]


def predicting(sources, n_source=3):
    return torch.eye(n_source)[sources]


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def model_of(mapping, seed=1, outputs=4):
    source = mrviz.SourceModel(conv_net(CANVAS, outputs, seed), CANVAS)
    return mrviz.ReprogrammedModel(source, Linear(CANVAS, IMAGE, seed=seed), mapping)


def test_bayesian_by_hand():
    """Σ_t d = (2, 4, 1). λ = 1: (2/3, 1/5, 0) and (0, 3/5, 1/2), over 13/15 and 11/10;
    λ = 0: (1, 1/4, 0) and (0, 3/4, 1), over 5/4 and 7/4."""
    for lam, expected in (
        (1, rows([10 / 13, 3 / 13, 0], [0, 6 / 11, 5 / 11])),
        (0, rows([4 / 5, 1 / 5, 0], [0, 3 / 7, 4 / 7])),
    ):
        found = Bayesian.fit(predicting(PREDICTED), LABELS, 2, lam=lam)
        assert close(found.matrix(3), expected, 1e-15)


def test_bayesian_plus_by_hand():
    """The two largest of each sample: d = [[.5, .9, .3], [.2, 0, .7]], Σ_t d = (.7, .9, 1);
    (5/7, 1, .3) over 14.1/7 and (2/7, 0, .7) over 6.9/7."""
    outputs = torch.tensor(PROBABILITIES).log()
    found = BayesianPlus.fit(outputs, [0, 0, 1], 2, lam=0, ratio=1)
    assert found.top(3) == 2
    expected = rows([5 / 14.1, 7 / 14.1, 2.1 / 14.1], [2 / 6.9, 0, 4.9 / 6.9])
    assert close(found.matrix(3), expected, 1e-6)
    smoothed = BayesianPlus.fit(outputs, [0, 0, 1], 2, lam=1, ratio=1).matrix(3)
    raw = rows([0.5 / 1.7, 0.9 / 1.9, 0.3 / 2], [0.2 / 1.7, 0, 0.7 / 2])
    assert close(smoothed, raw / raw.sum(1, keepdim=True), 1e-6)


def test_bayesian_plus_with_one_probability_counts_only_the_largest():
    outputs = torch.tensor(PROBABILITIES).log()
    raw = rows([0.5, 0.6, 0], [0, 0, 0.7]) / rows([0.5, 0.6, 0.7])
    found = BayesianPlus.fit(outputs, [0, 0, 1], 2, lam=0).matrix(3)
    assert close(found, raw / raw.sum(1, keepdim=True), 1e-6)


@pytest.mark.parametrize(
    ("n_classes", "n_source", "ratio", "k"),
    [
        *((100, 1000, 0.15, 15), (20, 1000, 0.15, 3), (6, 1000, 0.15, 1), (2, 9, 0.15, 1)),
        *((100, 10, 0.15, 10), (10, 1000, 0.3, 3), (10, 1000, 0.29, 2)),
    ],
)
def test_k_is_a_share_of_the_target_classes_and_at_least_one(n_classes, n_source, ratio, k):
    assert BayesianPlus(n_classes, ratio=ratio).top(n_source) == k


@pytest.mark.parametrize("kind", [Bayesian, BayesianPlus])
@pytest.mark.parametrize("lam", [0, 1])
def test_unseen_source_classes_and_absent_target_classes(kind, lam):
    """Source class 3 is never predicted; target class 1 has no samples."""
    outputs = 200 * predicting([0, 0, 1, 2], 4)
    found = kind.fit(outputs, [0, 2, 2, 2], 3, lam=lam).matrix(4)
    assert torch.isfinite(found).all() and close(found.sum(1), torch.ones(3).double(), 1e-12)
    assert float(found[[0, 2], 3].abs().max()) < 1e-80
    assert found[1].tolist() == [0.25] * 4


@given(
    st.integers(1, 5).flatmap(
        lambda c: st.tuples(
            st.just(c),
            st.lists(st.tuples(st.integers(0, 5), st.integers(0, c - 1)), min_size=1, max_size=25),
        )
    ),
    st.sampled_from([0.0, 0.3, 1.0, 20.0]),
)
def test_bayesian_weights_are_those_of_loops(samples, lam):
    n_classes, pairs = samples
    d = [[sum(p == (s, t) for p in pairs) for s in range(6)] for t in range(n_classes)]
    expected = []
    for t in range(n_classes):
        raw = [d[t][s] / (sum(row[s] for row in d) + lam) if d[t][s] else 0.0 for s in range(6)]
        expected.append([w / sum(raw) for w in raw] if sum(raw) else [1 / 6] * 6)
    outputs, labels = predicting([s for s, _ in pairs], 6), [t for _, t in pairs]
    found = Bayesian.fit(outputs, labels, n_classes, lam=lam).matrix(6)
    assert close(found, rows(*expected), 1e-12)
    assert close(bayesian_weights(torch.tensor(d), lam), found, 1e-12)


def test_bayesian_mappings_need_no_source_class_for_each():
    """Two source classes for three target classes."""
    found = Bayesian.fit(predicting([0, 1, 1], 2), [0, 1, 2], 3, lam=0)
    assert found.matrix(2).tolist() == [[1, 0], [0, 1], [0, 1]]


def test_iterative_is_frequency_at_every_refresh():
    first, second = uniform(30, 6, seed=1), uniform(30, 6, seed=2)
    y = torch.arange(30) % 4
    mapping = Iterative.fit(first, y, 4)
    assert mapping.assignment == Frequency.fit(first, y, 4).assignment
    mapping.refresh(second, y)
    assert mapping.assignment == Frequency.fit(second, y, 4).assignment
    assert mapping.assignment != Frequency.fit(first, y, 4).assignment
    assert torch.equal(mapping.matrix(6), Frequency(mapping.assignment).matrix(6))


@pytest.mark.parametrize("kind", [Iterative, Bayesian, BayesianPlus])
def test_a_refresh_changes_the_model_and_its_kernel(kind):
    x, y = uniform(12, *IMAGE), torch.arange(12) % 3
    given = kind.fit(uniform(12, 4, seed=5), y, 3)
    model = model_of(given)
    assert model.mapping is not given and model.mapping.refreshes
    before, kernel = model.predict(x), mrviz.ntk_gram(model, x[:3]).matrix
    with torch.no_grad():
        outputs = model.source(model.programmed(x))
    assert model.mapping.refresh(outputs, y) is None
    expected = kind.fit(outputs, y, 3).matrix(4)
    assert not torch.allclose(expected, given.matrix(4))
    assert torch.equal(model.b, expected) and torch.equal(model.mapping.matrix(4), expected)
    assert close(model.predict(x), outputs @ expected.T, 1e-12)
    assert not torch.allclose(model.predict(x), before)
    again = mrviz.ntk_gram(model, x[:3])
    assert not torch.allclose(again.matrix, kernel)
    assert close(again.matrix, mrviz.ntk_gram(model, x[:3], method="contraction").matrix)


def test_a_refresh_of_a_copy_leaves_the_model_alone_and_the_other_way_round():
    y = torch.arange(12) % 3
    model = model_of(Bayesian.fit(uniform(12, 4, seed=5), y, 3))
    other = copy.deepcopy(model).to(torch.float32)
    before = model.b.clone()
    other.mapping.refresh(uniform(12, 4, seed=6).float(), y)
    assert torch.equal(model.b, before) and not torch.allclose(other.b.double(), before)
    assert other.b.dtype == torch.float32
    changed = other.b.clone()
    model.mapping.refresh(uniform(12, 4, seed=7), y)
    assert torch.equal(other.b, changed) and not torch.equal(model.b, before)


def test_two_models_of_one_mapping_are_refreshed_each_for_itself():
    y = torch.arange(12) % 3
    mapping = Bayesian.fit(uniform(12, 4, seed=5), y, 3)
    first, second = model_of(mapping, 1), model_of(mapping, 2)
    kept = second.b.clone()
    first.mapping.refresh(uniform(12, 4, seed=1), y)
    assert torch.equal(second.b, kept) and not torch.equal(first.b, kept)


@pytest.mark.parametrize("kind", [Iterative, Bayesian, BayesianPlus])
def test_a_mapping_made_again_from_its_matrix_goes_on(kind):
    y = torch.arange(12) % 3
    model = model_of(kind.fit(uniform(12, 4, seed=5), y, 3))
    model.mapping = kind(3, matrix=model.mapping.matrix(4))
    assert torch.equal(model.mapping.matrix(4), model.b)
    layer = model.mapping.layer(4)
    model.mapping.refresh(uniform(12, 4, seed=6), y)
    assert torch.equal(model.b, kind.fit(uniform(12, 4, seed=6), y, 3).matrix(4))
    assert not torch.equal(layer.weight, model.b), "a layer made by hand belongs to nobody"


def test_a_head_may_start_from_a_refreshed_mapping_and_is_then_trained():
    mapping = Bayesian.fit(predicting(PREDICTED), LABELS, 2)
    head = LinearHead(mapping)
    assert not head.refreshes and torch.equal(head.matrix(3), mapping.matrix(3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Bayesian(3, lam=-1), "lam must be a number of at least 0, got -1"),
        (lambda: Bayesian(3, lam=float("inf")), "lam must be"),
        (lambda: BayesianPlus(3, ratio=0), "ratio must be a positive number, got 0"),
        (lambda: Bayesian(3, matrix=torch.eye(2)), "has 2 rows, but there are 3 classes"),
        (lambda: Bayesian(0), "n_classes must be at least 1"),
        (lambda: Bayesian(3).matrix(4), "has seen no data yet"),
        (lambda: Bayesian.fit(uniform(2, 4), [0, 3], 3), "labels from 0 to 2"),
        (lambda: Bayesian.fit(uniform(2, 4), [0.5, 1.0], 3), "must hold integer labels"),
        (lambda: Bayesian.fit(uniform(3, 4), [0, 1, 2], 3).matrix(5), "fitted to 4 source outputs"),
        (
            lambda: Bayesian.fit(uniform(3, 4), [0, 1, 2], 3).refresh(uniform(3, 5), [0, 1, 2]),
            "fitted to 4 source outputs, got 5",
        ),
        (lambda: Iterative.fit(uniform(3, 2), [0, 1, 2], 3), "too few for 3 target classes"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(mrviz.InputError, match=message):
        call()
