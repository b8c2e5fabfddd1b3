import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mrviz.errors import InputError, MissingDataError
from mrviz.targets import TARGETS, load_target, raw
from mrviz.targets.ucr import UCR

needs_aeon = pytest.mark.skipif(
    not __import__("importlib").util.find_spec("aeon"), reason="aeon is not installed"
)


@needs_aeon
@pytest.mark.parametrize("name", sorted(UCR))
def test_the_registry_describes_the_files(name):
    spec = TARGETS[name]
    x, y, classes = raw.load_raw(name)
    assert (len(x), tuple(x.shape[1:]), classes) == (spec.n_samples, spec.shape, spec.classes)
    assert int(y.bincount(minlength=len(classes)).min()) == spec.per_class
    own = x[: spec.own_train]
    assert (float(own.min()), float(own.max())) == (0, 1)
    assert float(x.min()) > -0.5 and float(x.max()) < 1.5
    target = load_target(name)  # the defaults fit any set
    assert len(target.x_train) == spec.default_train and len(target.x_test) == spec.default_test
    assert len(load_target(name, n_train=spec.most_train).x_train) == spec.most_train


@needs_aeon
def test_values_and_labels_are_those_of_the_archive_up_to_one_affine_map():
    from aeon.datasets import load_gunpoint

    x, y = load_gunpoint(split="test")
    target = load_target("ucr:GunPoint", split="own")
    archive = torch.as_tensor(x)
    ours = target.x_test.double()
    slope = (archive[0, 0, 0] - archive[1, 0, 30]) / (ours[0, 0, 0] - ours[1, 0, 30])
    moved = (ours - ours[0, 0, 0]) * slope + archive[0, 0, 0]
    torch.testing.assert_close(moved, archive, atol=1e-5, rtol=0)
    assert [target.classes[k] for k in target.y_test] == y.tolist()


@needs_aeon
def test_the_own_split_keeps_the_publishers_apart():
    x, y, _ = raw.load_raw("ucr:OSULeaf")
    target = load_target("ucr:OSULeaf", n_val=12, split="own", seed=3)
    assert torch.equal(target.x_test, x[200:]) and torch.equal(target.y_test, y[200:])
    assert target.y_val.bincount().tolist() == [2] * 6
    rows = {bytes(s.numpy().tobytes()) for s in (*target.x_train, *target.x_val)}
    assert rows == {bytes(s.numpy().tobytes()) for s in x[:200]} and len(rows) == 200


@given(
    labels=st.lists(st.integers(0, 3), min_size=8, max_size=60),
    n_val=st.sampled_from([0, 4, 5]),
    seed=st.integers(0, 99),
)
def test_own_splits_part_the_rows_and_take_classes_in_turn(labels, n_val, seed):
    labels = torch.tensor([0, 1, 2, 3] * 2 + labels + [0, 1, 2, 3])
    own = len(labels) - 4
    train, val, test = raw.own_split(labels, own, None, n_val, None, seed)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(own)) and len(val) == n_val
    assert test.tolist() == list(range(own, own + 4))
    counts = torch.nn.functional.one_hot(labels[train], 4).cumsum(0)
    totals = counts[-1]
    # No class is two ahead of another that still has samples left.
    assert all(
        row[a] <= row[b] + 1
        for row in counts
        for a in range(4)
        for b in range(4)
        if row[b] < totals[b]
    )
    assert len(raw.own_split(labels, own, 5, 0, 4, seed)[0]) == 5


def test_without_aeon_the_way_to_get_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon", None)
    monkeypatch.setitem(sys.modules, "aeon.datasets", None)
    raw.load_raw.cache_clear()
    with pytest.raises(MissingDataError, match=r'pip install "mrviz\[series\]"'):
        load_target("ucr:GunPoint")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ucr:Gunpoint", {}, "Did you mean 'ucr:GunPoint'"),
        ("digits", {"split": "own"}, "comes without a split of its own"),
        ("ucr:GunPoint", {"split": "ucr"}, "'balanced', 'own'"),
        ("ucr:ArrowHead", {"n_train": 2}, "n_train must be at least 3"),
    ],
)
def test_what_a_set_does_not_offer_is_an_error(name, options, message):
    with pytest.raises(InputError) as caught:
        load_target(name, **options)
    assert message in str(caught.value)


@needs_aeon
def test_more_than_there_is_is_an_error():
    with pytest.raises(InputError, match="of each class"):
        load_target("ucr:PickupGestureWiimoteZ", n_train=100)
    with pytest.raises(InputError, match="of each class"):
        load_target("ucr:PickupGestureWiimoteZ", n_val=60, split="own")
