import dataclasses

import numpy as np
import pytest
import torch

from mrviz.errors import InputError
from mrviz.targets import Target

RNG = np.random.default_rng(0)


def data(**changes):
    base = {
        "x_train": RNG.random((6, 1, 4, 4)),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": RNG.random((3, 1, 4, 4)),
        "y_test": np.array([0, 1, 2]),
    }
    return base | changes


def test_numpy_and_torch_arrays_become_float32_and_int64_copies():
    given = data(x_test=torch.rand(3, 1, 4, 4), y_test=torch.tensor([0, 1, 2]))
    target = Target(*given.values(), name="mine")
    assert target.x_train.dtype == target.x_test.dtype == torch.float32
    assert target.y_train.dtype == target.y_test.dtype == torch.int64
    given["x_test"][0] = 5
    assert float(target.x_test.max()) <= 1
    assert (target.shape, target.n_classes, target.classes) == ((1, 4, 4), 3, ("0", "1", "2"))
    assert target.is_classification and target.x_val is None and target.name == "mine"
    with pytest.raises(dataclasses.FrozenInstanceError):
        target.name = "yours"


def test_real_valued_outputs():
    target = Target(**data(y_train=RNG.random((6, 2)), y_test=RNG.random((3, 2))))
    assert not target.is_classification and target.n_classes == 2
    assert target.y_train.dtype == torch.float32
    values = target.targets_of(target.y_test)
    assert values.dtype == torch.float64
    torch.testing.assert_close(values, target.y_test.double())
    with pytest.raises(InputError):
        target.targets_of(torch.tensor([0, 1]))


def test_labels_become_one_hot_rows():
    target = Target(**data())
    expected = torch.eye(3, dtype=torch.float64)[[2, 0]]
    assert torch.equal(target.targets_of(torch.tensor([2, 0])), expected)
    with pytest.raises(InputError, match="3 classes"):
        target.targets_of(torch.tensor([3]))


def nan():
    x = RNG.random((6, 1, 4, 4))
    x[2, 0, 1, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": nan()}, "x_train holds NaN or infinite values, first in sample 2"),
        ({"x_test": np.full((3, 1, 4, 4), np.inf)}, "x_test holds NaN or infinite"),
        ({"x_train": np.zeros((6, 1, 4, 4), np.uint8)}, "x_train / 255"),
        ({"x_test": RNG.random((3, 1, 4, 5))}, "x_test holds samples of shape"),
        ({"x_train": RNG.random(6)}, "x_train must have a sample axis"),
        ({"x_test": RNG.random((0, 1, 4, 4))}, "x_test holds no samples"),
        ({"y_train": np.arange(5)}, "y_train must be one label for each of 6"),
        ({"y_train": np.array([0, 1, 2, 0, 1, -1])}, "y_train must hold labels from 0"),
        ({"y_test": np.array([True, False, True])}, "y_test must hold integer labels"),
        ({"y_train": RNG.random(6)}, r"real-valued outputs \(6, C\)"),
        ({"y_train": RNG.random((6, 2))}, "y_test has shape"),
        ({"y_train": RNG.random((6, 2)), "y_test": RNG.random((3, 3))}, "y_test has shape"),
        ({"y_train": np.full((6, 2), np.nan), "y_test": RNG.random((3, 2))}, "y_train holds NaN"),
        ({"classes": ["a", "b"]}, "2 classes"),
        ({"classes": [str(i) for i in range(7)]}, "6 samples for 7 classes"),
        ({"y_train": np.zeros(6, int), "y_test": np.zeros(3, int)}, "at least two classes"),
        ({"x_val": RNG.random((3, 1, 4, 4))}, "x_val and y_val come together"),
        ({"x_val": RNG.random((3, 1, 4, 4)), "y_val": [0, 1, 7]}, "x_train holds 6 samples for 8"),
        (
            {"x_val": RNG.random((3, 1, 4, 4)), "y_val": [0, 1, 7], "classes": "abc"},
            "y_val must hold labels from 0 to 2",
        ),
        (
            {"y_train": RNG.random((6, 2)), "y_test": RNG.random((3, 2)), "classes": "abc"},
            "classes names 3 outputs, but y_train has 2",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_errors(changes, message):
    with pytest.raises(InputError, match=message):
        Target(**data(**changes))


def test_representations_and_metadata():
    target = Target(**data(x_val=RNG.random((2, 1, 4, 4)), y_val=[0, 1]), classes=["a", "<b>", "c"])
    assert repr(target) == ("Target 'custom': 3 classes, samples (1, 4, 4), 6 train, 2 val, 3 test")
    assert "&lt;b&gt;" in target._repr_html_() and "<b>" not in target._repr_html_()
    info = target.to_dict()
    assert (info["n_train"], info["n_val"], info["n_test"]) == (6, 2, 3)
    assert info["classes"] == ["a", "<b>", "c"] and info["shape"] == [1, 4, 4]
