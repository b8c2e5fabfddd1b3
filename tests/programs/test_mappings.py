"""Output mappings: the matrices behind identity, frequency and explicit mappings."""

import pytest
import torch

import mrviz
from mrviz.programs.mappings import Frequency, Identity, Matrix


def test_identity_takes_the_first_outputs():
    assert torch.equal(Identity(2).matrix(4), torch.eye(4).double()[:2])
    assert torch.equal(Identity().matrix(3), torch.eye(3).double())


def test_frequency_by_hand():
    """Counts, largest first: (1, 0) with 9, then (0, 2) with 6 although row 1 has 8 there, then
    class 2 must take what is left of its 7, 5, 4, 1: column 1 with 5."""
    counts = torch.tensor([[5, 2, 6, 0], [9, 1, 8, 0], [7, 5, 4, 1]])
    assert Frequency.assign(counts) == (2, 0, 1)
    b = Frequency((2, 0, 1)).matrix(4)
    assert b.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    assert counts[1, 0] == 9, "the counts given are left alone"


def test_ties_go_to_the_first_pair():
    assert Frequency.assign(torch.tensor([[3, 3, 0], [3, 3, 0]])) == (0, 1)
    assert Frequency.assign(torch.tensor([[0, 4, 4], [4, 4, 0]])) == (1, 0)


def test_classes_never_predicted_get_unused_outputs():
    assert Frequency.assign(torch.tensor([[0, 0, 0], [0, 5, 0], [0, 9, 0]])) == (0, 2, 1)
    zero = Frequency.assign(torch.zeros(3, 5, dtype=torch.long))
    assert len(set(zero)) == 3


def test_fit_counts_predictions_per_class():
    predicted = torch.tensor([1, 1, 0, 3, 3, 1])
    logits = torch.eye(4)[predicted] + 0.01 * torch.rand(6, 4)
    mapping = Frequency.fit(logits, [0, 0, 0, 1, 1, 1], 2)
    assert mapping.assignment == (1, 3)
    assert mapping == Frequency((1, 3))


def test_fit_gives_every_class_an_output_of_its_own():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        logits = torch.randn(30, 6, generator=generator)
        y = torch.randint(0, 5, (30,), generator=generator)
        found = Frequency.fit(logits, y, 5).assignment
        assert len(set(found)) == 5 and set(found) <= set(range(6))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, 2, 3], r"labels from 0 to 2 \(3 classes\), got labels from 0 to 3"),
        ([0, 1, -1, 2], "got labels from -1 to 2"),
        ([0.0, 1.0, 2.0, 0.0], "must hold integer labels"),
        ([0, 1, 2], "one label for each of 4 samples"),
    ],
)
def test_fit_with_bad_labels(y, message):
    with pytest.raises(mrviz.InputError, match=message):
        Frequency.fit(torch.rand(4, 5), y, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Frequency.fit(torch.rand(4, 2), [0, 1, 2, 0], 3),
        lambda: Frequency.assign(torch.zeros(3, 2)),
        lambda: Identity(3).matrix(2),
    ],
)
def test_more_classes_than_source_outputs(call):
    with pytest.raises(mrviz.InputError, match=r"2 outputs, too few for 3 target classes.*matrix"):
        call()


def test_mapping_fitted_on_another_source():
    with pytest.raises(mrviz.InputError, match="uses source output 4, but the source has 3"):
        Frequency((4, 0)).matrix(3)


def test_explicit_matrix_is_a_copy():
    given = torch.ones(2, 3)
    mapping = Matrix(given)
    given.zero_()
    assert float(mapping.matrix(3).sum()) == 6
    assert mapping.matrix(3).dtype == torch.float64


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([1.0, 2.0], r"has shape \(C, c_S\)"),
        ([[1.0, float("nan")]], "must be finite"),
        ([[1.0, float("inf")]], "must be finite"),
    ],
)
def test_bad_matrices(matrix, message):
    with pytest.raises(mrviz.InputError, match=message):
        Matrix(matrix)


def test_matrix_of_the_wrong_width():
    with pytest.raises(mrviz.InputError, match="has 3 columns, but the source has 4 outputs"):
        Matrix(torch.ones(2, 3)).matrix(4)
