"""Validation samples to choose by, taken from the training samples where a target has none."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mrviz.errors import InputError
from mrviz.targets import ForecastTarget, Target
from mrviz.targets.options import as_count
from mrviz.targets.raw import in_turn


def validation_split(target: Target, validation: float = 0.2, seed: int = 0) -> Target:
    """The target with validation samples, the classes of each split in turn.

    Validation samples that the target has are kept. Where it has none, a share of the training
    samples of each class becomes the validation split and is trained on no more. Training and
    validation samples of class labels are put in an order in which the classes take turns as long
    as they last, so that any first n of them are as balanced as they can be. Test samples stay as
    they are.

    Args:
        target: the target data set.
        validation: share of the training samples to take, rounded for each class; a class
            of one sample keeps it for training. Of no effect where the target has validation
            samples.
        seed: which samples are taken, and their order.

    Raises:
        InputError: a share that is not between 0 and 1, too few samples to split, or forecasting
            windows, which overlap and have to be split by time.

    Example:
        >>> x = torch.rand(10, 1, 2, 2)
        >>> target = mrviz.Target(x, [0, 1] * 5, x[:2], [0, 1])
        >>> split = validation_split(target)
        >>> split, split.y_val.tolist()
        (Target 'custom': 2 classes, samples (1, 2, 2), 8 train, 2 val, 2 test, [1, 0])
    """
    if not isinstance(target, Target):
        raise InputError(f"target must be a Target, got {type(target).__name__}")
    if not 0 < validation < 1:
        raise InputError(f"validation must be a share between 0 and 1, got {validation!r}")
    as_count(seed, "seed", 0)
    x, y, x_val, y_val = target.x_train, target.y_train, target.x_val, target.y_val
    if x_val is None or y_val is None:
        if isinstance(target, ForecastTarget):
            raise InputError(
                f"target {target.name!r} has no validation windows, and windows drawn at random "
                "overlap with those trained on: load it with n_val=..."
            )
        taken = _taken(target, validation, seed)
        x_val, y_val, x, y = x[taken], y[taken], x[~taken], y[~taken]
    rows, rows_val = _order(y, seed), _order(y_val, seed)
    return Target(
        x[rows],
        y[rows],
        target.x_test,
        target.y_test,
        x_val=x_val[rows_val],
        y_val=y_val[rows_val],
        classes=target.classes,
        name=target.name,
    )


def without_test(target: Target) -> Target:
    """The target with its validation samples for test samples, so that none of those are near."""
    return Target(
        target.x_train,
        target.y_train,
        target.x_val,
        target.y_val,
        x_val=target.x_val,
        y_val=target.y_val,
        classes=target.classes,
        name=target.name,
    )


def _taken(target: Target, share: float, seed: int) -> Tensor:
    """Which training samples become validation samples, boolean (n,)."""
    y, n = target.y_train, len(target.x_train)
    generator = torch.Generator().manual_seed(seed)
    taken = torch.zeros(n, dtype=torch.bool)
    groups = [torch.arange(n)]
    if target.is_classification:
        groups = [(y == c).nonzero().flatten() for c in range(target.n_classes)]
    for rows in groups:
        size = min(max(1, math.floor(share * len(rows) + 0.5)), len(rows) - 1)
        taken[rows[torch.randperm(len(rows), generator=generator)[: max(size, 0)]]] = True
    if not taken.any():
        raise InputError(
            f"target {target.name!r} has {n} training samples, too few to take validation samples "
            "from: pass x_val and y_val to mrviz.Target"
        )
    return taken


def _order(y: Tensor, seed: int) -> Tensor:
    """Row numbers in which classes take turns; those of real-valued outputs stay."""
    rows = torch.arange(len(y))
    return in_turn(y, rows, seed) if y.ndim == 1 else rows
