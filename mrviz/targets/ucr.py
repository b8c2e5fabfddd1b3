"""UCR time series classification sets, from the files that come inside the package aeon."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mrviz.errors import MissingDataError
from mrviz.targets.spec import RawData, TargetSpec

PREFIX = "ucr:"


def _spec(
    name: str, length: int, n_train: int, n_test: int, per_class: int, classes: str, what: str
) -> TargetSpec:
    return TargetSpec(
        name=PREFIX + name,
        label=f"{name} ({what}, length {length})",
        shape=(1, length),
        n_samples=n_train + n_test,
        per_class=per_class,
        classes=tuple(classes.split()),
        own_train=n_train,
    )


UCR: dict[str, TargetSpec] = {
    spec.name: spec
    for spec in (
        _spec("ACSF1", 1460, 100, 100, 20, "0 1 2 3 4 5 6 7 8 9", "power of home appliances"),
        _spec("ArrowHead", 251, 36, 175, 65, "0 1 2", "outlines of arrowheads"),
        _spec("GunPoint", 150, 50, 150, 100, "1 2", "hand motion"),
        _spec("ItalyPowerDemand", 24, 67, 1029, 547, "1 2", "power demand of a day"),
        _spec("OSULeaf", 427, 200, 242, 38, "1 2 3 4 5 6", "outlines of leaves"),
        _spec("PickupGestureWiimoteZ", 361, 50, 50, 10, "1 2 3 4 5 6 7 8 9 10", "gestures"),
    )
}
"""The univariate sets of the UCR archive (Dau et al. 2019, arXiv 1810.07758) in aeon's wheel.

The wheel holds further collections that are not here: multivariate ones (BasicMotions,
JapaneseVowels), regression targets and a subset of Chinatown that serves its own tests.
"""

FILES = {"PickupGestureWiimoteZ": "PickupGestureWiimoteZ_eq"}
"""Start of the file names where it is not the name: series padded to equal length."""


def load_ucr(name: str) -> RawData:
    """Loads a whole set: its own training samples first, then its test samples, in file order.

    The archive's values, most of them z-normalised series by series, are moved by one affine
    map for the whole set: the training split spans [0, 1], and test values may lie a little
    outside. No file is downloaded.

    Args:
        name: a key of ``UCR``.

    Returns:
        Series (N, 1, length), labels and class names.

    Raises:
        MissingDataError: aeon is not installed, or comes without the file.
    """
    x, y = {}, {}
    for split in ("TRAIN", "TEST"):
        x[split], y[split] = _read(name, split)
    low, high = x["TRAIN"].min(), x["TRAIN"].max()
    values = (np.concatenate(list(x.values())) - low) / (high - low)
    classes = UCR[name].classes
    labels = [classes.index(str(label)) for label in np.concatenate(list(y.values()))]
    return RawData(torch.as_tensor(values, dtype=torch.float32), torch.tensor(labels), classes)


def aeon_folder(what: str) -> Path:
    """Folder of the data files inside the package aeon.

    Raises:
        MissingDataError: aeon is not installed.
    """
    try:
        import aeon.datasets
    except ImportError:
        raise MissingDataError(
            f"{what} comes with the package aeon, which is not installed: "
            'pip install "mrviz[series]" or pip install aeon'
        ) from None
    return Path(aeon.datasets.__file__).parent / "data"


def _read(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    folder = name.removeprefix(PREFIX)
    path = aeon_folder(f"the data set {name!r}") / folder
    path = path / f"{FILES.get(folder, folder)}_{split}.ts"
    if not path.is_file():
        raise MissingDataError(
            f"the installed package aeon comes without {path.name}, which {name!r} needs: "
            "pip install --upgrade aeon"
        )
    from aeon.datasets import load_from_ts_file

    x, y = load_from_ts_file(str(path))
    return x, y
