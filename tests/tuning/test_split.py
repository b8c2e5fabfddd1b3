"""Validation samples: where they come from, their balance, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mrviz
from mrviz.targets import ForecastTarget
from mrviz.tuning import validation_split
from mrviz.tuning.split import without_test


def numbered(labels, **more):
    """Every sample is its own number, so that it can be found again."""
    x = torch.arange(float(len(labels)))[:, None, None, None] / 1000
    return mrviz.Target(
        x, labels, torch.rand(3, 1, 1, 1), [0, 1, 1], classes=range(max(*labels, 1) + 1), **more
    )


LABELS = st.lists(st.integers(0, 2), min_size=6, max_size=60)


@given(LABELS, st.floats(0.05, 0.9), st.integers(0, 9))
def test_a_share_of_each_class_is_parted_from_the_rest(labels, share, seed):
    target = numbered([0, 0, 1, 1, *labels])
    split = validation_split(target, share, seed)
    both = torch.cat([split.x_train, split.x_val]).flatten().sort().values
    assert both.equal(target.x_train.flatten())
    for name in ("train", "val"):
        x, y = getattr(split, f"x_{name}"), getattr(split, f"y_{name}")
        assert y.equal(target.y_train[(x.flatten() * 1000).round().long()])
    for c in range(target.n_classes):
        size = int((target.y_train == c).sum())
        taken = int((split.y_val == c).sum())
        assert taken <= max(0, size - 1)
        assert size < 2 or abs(taken - share * size) <= 1
    turns = [int((split.y_train[:2] == c).sum()) for c in (0, 1)]
    assert max(turns) == 1  # the first samples are of different classes
    assert split.x_test.equal(target.x_test)


def test_the_same_seed_takes_the_same_samples():
    target = numbered([0, 1] * 20)
    first, again, other = (validation_split(target, seed=seed) for seed in (1, 1, 2))
    assert first.x_val.equal(again.x_val) and first.x_train.equal(again.x_train)
    assert not first.x_val.equal(other.x_val)


def test_validation_samples_that_are_there_are_kept():
    x_val = torch.rand(4, 1, 1, 1)
    target = numbered([0, 1] * 5, x_val=x_val, y_val=[0, 0, 1, 1])
    split = validation_split(target)
    assert split.x_val.sort(0).values.equal(x_val.sort(0).values) and len(split.x_train) == 10
    assert split.y_val.unique_consecutive().numel() > 2  # in turn
    held_out = without_test(split)
    assert held_out.x_test.equal(split.x_val) and held_out.y_test.equal(split.y_val)


def test_real_valued_outputs_are_split_at_random():
    x = torch.rand(20, 1, 2, 2)
    split = validation_split(mrviz.Target(x, x.mean((2, 3)), x[:2], x[:2].mean((2, 3))))
    assert (len(split.x_train), len(split.x_val)) == (16, 4)
    assert split.y_val.equal(split.x_val.mean((2, 3)))


def test_what_cannot_be_split_is_refused_with_advice():
    with pytest.raises(mrviz.InputError, match=r"between 0 and 1, got 1\.5"):
        validation_split(numbered([0, 1] * 4), 1.5)
    with pytest.raises(mrviz.InputError, match="too few to take"):
        validation_split(numbered([0, 1]))
    with pytest.raises(mrviz.InputError, match="must be a Target"):
        validation_split([1, 2])
    x, y = torch.rand(6, 1, 4), torch.rand(6, 2)
    windows = {"train": (x, y), "test": (x, y)}
    series = ForecastTarget(windows, season=2, naive_error=1.0, offset=0.0, span=1.0, name="s")
    with pytest.raises(mrviz.InputError, match="overlap with those trained on"):
        validation_split(series)
