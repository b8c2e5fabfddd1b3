"""Image sets that are too large to bundle: files of a system package, or OpenML's copies."""

from __future__ import annotations

import gzip
import io
import math
import os
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mrviz._cache import CacheEntry
from mrviz.errors import MissingDataError
from mrviz.targets.spec import RawData, TargetSpec

DIGITS = tuple(str(digit) for digit in range(10))
CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
OBJECTS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)

ONLINE: dict[str, TargetSpec] = {
    spec.name: spec
    for spec in (
        TargetSpec(
            name="fashion-mnist",
            label="Fashion-MNIST (package or download)",
            shape=(1, 28, 28),
            n_samples=70_000,
            per_class=7_000,
            classes=CLOTHES,
            own_train=60_000,
            online=True,
        ),
        TargetSpec(
            "cifar-10", "CIFAR-10 (download)", (3, 32, 32), 60_000, 6_000, OBJECTS, None, True
        ),
        TargetSpec("svhn", "SVHN (download)", (3, 32, 32), 99_289, 6_254, DIGITS, None, True),
        TargetSpec("usps", "USPS (download)", (1, 16, 16), 9_298, 708, DIGITS, None, True),
    )
}
"""The sets of this module; OpenML's rows are known to keep the publishers' split of the first."""


@dataclass(frozen=True)
class OpenMLSet:
    """How a set lies on OpenML.

    Attributes:
        data_id: its number there.
        name: its name there.
        labels: how its labels are written, in the order of the classes.
        counts: number of samples of each class; a copy with other numbers is refused.
        channels_last: whether a row holds (height, width, channels), not channels first.
        signed: whether values span [-1, 1] rather than 0 to 255.
    """

    data_id: int
    name: str
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    channels_last: bool = False
    signed: bool = False


OPENML: dict[str, OpenMLSet] = {
    "fashion-mnist": OpenMLSet(40996, "Fashion-MNIST", DIGITS, (7_000,) * 10),
    "cifar-10": OpenMLSet(40927, "CIFAR_10", DIGITS, (6_000,) * 10),
    "svhn": OpenMLSet(
        data_id=41081,
        name="SVHN",
        labels=("10", *DIGITS[1:]),
        counts=(6692, 18960, 14734, 11379, 9981, 9266, 7704, 7614, 6705, 6254),
        channels_last=True,
    ),
    "usps": OpenMLSet(
        data_id=41082,
        name="USPS",
        labels=(*DIGITS[1:], "10"),
        counts=(1553, 1269, 929, 824, 852, 716, 834, 792, 708, 821),
        signed=True,
    ),
}
"""The sets on OpenML, with the publishers' numbers of samples per class.

The numbers also tell what the labels of USPS mean, where "1" stands for the digit 0, and of SVHN,
where "10" does.
"""

FASHION_VARIABLE = "MRVIZ_FASHION_MNIST"
"""Environment variable that names another folder with Fashion-MNIST's four files."""

FASHION_FOLDER = "/usr/share/datasets/fashion-mnist"
"""Where Debian's and Ubuntu's package ``dataset-fashion-mnist`` puts them."""


def load_online(name: str) -> RawData:
    """Loads a whole set, from files of this machine where they are, else from OpenML.

    What OpenML sends stays in scikit-learn's data folder (``~/scikit_learn_data``, or
    ``$SCIKIT_LEARN_DATA``), which checks its MD5; the parsed samples stay in mrviz's own cache,
    because parsing takes minutes and some gigabytes of memory for the large sets.

    Args:
        name: a key of ``ONLINE``.

    Returns:
        Images as bytes (usps: float32 in [0, 1]), labels and class names.

    Raises:
        MissingDataError: the set is not here and cannot be downloaded, or is damaged.
    """
    if name == "fashion-mnist":
        folder = Path(os.environ.get(FASHION_VARIABLE) or FASHION_FOLDER)
        if folder.is_dir() or FASHION_VARIABLE in os.environ:
            return _fashion(folder)
    known, spec = OPENML[name], ONLINE[name]
    config = {"format": 1, "openml": known.data_id, "counts": known.counts}
    entry = CacheEntry("data", name, ".npz", config)

    def decode(payload: bytes, _: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        with np.load(io.BytesIO(payload)) as arrays:
            return arrays["x"], arrays["y"]

    found = entry.read(decode)
    if found is None:
        found = _downloaded(name)
        buffer = io.BytesIO()
        np.savez(buffer, x=found[0], y=found[1])
        entry.write(buffer.getvalue(), {"classes": list(spec.classes)})
    return RawData(torch.as_tensor(found[0]), torch.as_tensor(found[1]), spec.classes)


def _downloaded(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, channels, height, width) and labels (N,) of a set on OpenML."""
    known, spec = OPENML[name], ONLINE[name]
    values, labels = _fetch(name, known)
    position = {label: k for k, label in enumerate(known.labels)}
    written, which = np.unique(labels.astype(str), return_inverse=True)
    y = np.array([position.get(label, -1) for label in written])[which]
    counts = np.bincount(y + 1, minlength=len(position) + 1)
    if values.shape[1] != math.prod(spec.shape) or tuple(counts) != (0, *known.counts):
        raise _unusable(name, "its samples are not those of the publishers: other numbers")
    own = spec.own_train
    if own and (np.bincount(y[:own]) != own // len(position)).any():
        raise _unusable(name, "the publishers' training samples do not come first")
    channels, height, width = spec.shape
    if known.channels_last:
        x = values.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
    else:
        x = values.reshape(-1, channels, height, width)
    low, high = (-1, 1) if known.signed else (0, 255)
    if not (low <= x.min() and x.max() <= high):
        raise _unusable(name, f"its values are not between {low} and {high}")
    if known.signed:
        return ((x.astype(np.float64) + 1) / 2).astype(np.float32), y
    return np.ascontiguousarray(x.astype(np.uint8)), y


def _fetch(name: str, known: OpenMLSet) -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import fetch_openml
    except ImportError:
        raise MissingDataError(
            f"the data set {name!r} is downloaded by scikit-learn, which is not installed: "
            'pip install "mrviz[lab]" or pip install scikit-learn pandas'
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="A network error")
            data = fetch_openml(data_id=known.data_id, as_frame=False, n_retries=1)
    except ImportError as error:
        raise MissingDataError(
            f"the data set {name!r} needs pandas: pip install pandas ({error})"
        ) from None
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise _unusable(name, f"{type(error).__name__}: {error}") from None
    return np.asarray(data.data), np.asarray(data.target)


def _unusable(name: str, reason: str) -> MissingDataError:
    home = Path(os.environ.get("SCIKIT_LEARN_DATA") or "~/scikit_learn_data").expanduser()
    known = OPENML[name]
    package = ", or apt install dataset-fashion-mnist" if name == "fashion-mnist" else ""
    return MissingDataError(
        f"the data set {name!r} comes from OpenML (set {known.data_id}, {known.name!r}), and that "
        f"failed: {reason}. Its first use needs the internet; later ones read "
        f"{home / 'openml'} (SCIKIT_LEARN_DATA names another folder), which can be copied from "
        f"another machine{package}"
    )


def _fashion(folder: Path) -> RawData:
    """The four files as they are published: 60,000 training samples, then 10,000 for tests."""
    x, y = {}, {}
    for split, n in (("train", 60_000), ("t10k", 10_000)):
        x[split] = _read_idx(folder / f"{split}-images-idx3-ubyte.gz", (n, 28, 28))
        y[split] = _read_idx(folder / f"{split}-labels-idx1-ubyte.gz", (n,))
    images, labels = (np.concatenate(list(parts.values())) for parts in (x, y))
    if labels.max() >= len(CLOTHES):
        raise MissingDataError(f"{folder} holds labels above 9: it is not Fashion-MNIST")
    return RawData(
        torch.as_tensor(images)[:, None], torch.as_tensor(labels.astype(np.int64)), CLOTHES
    )


def _read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Bytes of one gzipped IDX file: 0, 0, 8, number of axes, their lengths, the values."""
    repair = "apt install --reinstall dataset-fashion-mnist"
    try:
        with gzip.open(path) as file:
            content = file.read()
    except FileNotFoundError:
        raise MissingDataError(
            f"Fashion-MNIST needs {path}, which is not there: {repair}, or set {FASHION_VARIABLE} "
            "to a folder with its four files"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise MissingDataError(f"{path} cannot be read ({error}): {repair}") from None
    header = bytes((0, 0, 8, len(shape))) + np.array(shape, ">u4").tobytes()
    if content[: len(header)] != header or len(content) != len(header) + math.prod(shape):
        raise MissingDataError(
            f"{path} is damaged or another data set: {len(content):,} bytes that do not describe "
            f"values of shape {shape}: {repair}"
        )
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy()
