"""A target task: samples and labels or values, split, checked once and never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrviz._checks import Array, as_labels, as_samples
from mrviz.errors import InputError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Target:
    """A target task (X_T, Y_T): classification or regression on samples of one shape.

    The arrays are copied. Whether samples occur in two splits is not checked.

    Args:
        x_train: training samples (n, *shape), floating point; images in [0, 1].
        y_train: integer labels (n,) from 0, or real-valued outputs (n, C).
        x_test: test samples.
        y_test: test labels or outputs.
        x_val: validation samples, with ``y_val``; default: none.
        y_val: validation labels or outputs.
        classes: names of the classes or outputs; default: their numbers.
        name: shown in the interface.

    Attributes:
        x_train: float32 tensor (n, *shape); so are ``x_val`` (or None) and ``x_test``.
        y_train: int64 tensor (n,) or float32 tensor (n, C); so are ``y_val`` and ``y_test``.
        classes: tuple of C names.
        name: name of the task.

    Raises:
        InputError: shapes, types or values that do not fit; the message names the argument.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).random((6, 1, 4, 4))
        >>> target = Target(x[:4], [0, 1, 0, 1], x[4:], [0, 1], classes=("cat", "dog"))
        >>> target
        Target 'custom': 2 classes, samples (1, 4, 4), 4 train, 0 val, 2 test
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    x_val: Tensor | None
    y_val: Tensor | None
    classes: tuple[str, ...]
    name: str

    def __init__(
        self,
        x_train: Array,
        y_train: Array,
        x_test: Array,
        y_test: Array,
        *,
        x_val: Array | None = None,
        y_val: Array | None = None,
        classes: Sequence[str] | None = None,
        name: str = "custom",
    ) -> None:
        if (x_val is None) != (y_val is None):
            raise InputError("x_val and y_val come together: pass both or neither")
        given = {"train": (x_train, y_train), "val": (x_val, y_val), "test": (x_test, y_test)}
        checked: dict[str, Any] = {"x_val": None, "y_val": None, "name": str(name)}
        shape: tuple[int, ...] | None = None
        for split in ("train", "test", "val"):
            x, y = given[split]
            if x is None:
                continue
            samples = _own(as_samples(x, f"x_{split}", shape), torch.float32)
            shape = tuple(samples.shape[1:])
            checked[f"x_{split}"] = samples
            checked[f"y_{split}"] = _outputs(y, f"y_{split}", len(samples))
        labels = {split: checked[f"y_{split}"] for split in SPLITS}
        checked["classes"] = _class_names(
            {k: y for k, y in labels.items() if y is not None}, classes
        )
        for field in fields(self):
            object.__setattr__(self, field.name, checked[field.name])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.x_train.shape[1:])

    @property
    def n_classes(self) -> int:
        """Number C of classes or real-valued outputs."""
        return len(self.classes)

    @property
    def is_classification(self) -> bool:
        """Whether y holds class labels rather than real-valued outputs."""
        return self.y_train.ndim == 1

    def targets_of(self, y: Tensor) -> Tensor:
        """The values Y that f_T should take, float64 (n, C).

        Args:
            y: rows of ``y_train``, ``y_val`` or ``y_test``.

        Returns:
            One-hot rows for class labels, the values themselves for real-valued outputs.

        Raises:
            InputError: ``y`` is not of this target's kind.
        """
        if not self.is_classification:
            values = _outputs(y, "y", len(y))
            if tuple(values.shape[1:]) != (self.n_classes,):
                raise InputError(f"y must hold {self.n_classes} values per row, got {values.shape}")
            return values.double()
        labels = as_labels(y, "y", len(y), self.n_classes)
        return torch.nn.functional.one_hot(labels, self.n_classes).double()

    def to_dict(self) -> dict[str, Any]:
        """What the target is, without its arrays, as JSON values."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "is_classification": self.is_classification,
            "n_classes": self.n_classes,
            "classes": list(self.classes),
            "n_train": len(self.x_train),
            "n_val": 0 if self.x_val is None else len(self.x_val),
            "n_test": len(self.x_test),
        }

    def __repr__(self) -> str:
        info = self.to_dict()
        sizes = ", ".join(f"{info[f'n_{split}']} {split}" for split in SPLITS)
        kind = "classes" if self.is_classification else "real-valued outputs"
        return f"Target {self.name!r}: {self.n_classes} {kind}, samples {self.shape}, {sizes}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(key)}</th>"
            f"<td style='text-align:left'>{escape(_brief(value))}</td></tr>"
            for key, value in self.to_dict().items()
        )
        return f"<table><caption>Target</caption>{rows}</table>"


def _own(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype, copy=True)


def _outputs(y: Array, name: str, n: int) -> Tensor:
    tensor = y if isinstance(y, Tensor) else torch.as_tensor(np.array(y))
    if not tensor.is_floating_point():
        return _own(as_labels(tensor, name, n), torch.int64)
    if tensor.ndim != 2 or tensor.shape[0] != n or tensor.shape[1] == 0:
        raise InputError(
            f"{name} must hold integer labels ({n},) or real-valued outputs ({n}, C), got "
            f"{tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    return _own(as_samples(tensor, name), torch.float32)


def _class_names(y: dict[str, Tensor], classes: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the outputs, once all splits are known to agree on what the outputs are."""
    train = y["train"]
    for split, values in y.items():
        if values.ndim != train.ndim or values.shape[1:] != train.shape[1:]:
            raise InputError(
                f"y_{split} has shape {tuple(values.shape)}, y_train {tuple(train.shape)}: both "
                "must hold labels, or the same number of real-valued outputs"
            )
    is_labels = train.ndim == 1
    found = 1 + max(int(v.max()) for v in y.values()) if is_labels else train.shape[1]
    names = tuple(str(c) for c in (range(found) if classes is None else classes))
    if is_labels:
        for split, values in y.items():
            as_labels(values, f"y_{split}", len(values), len(names))
        if len(names) < 2:
            raise InputError("a classification target needs at least two classes, got one")
        if len(train) < len(names):
            raise InputError(
                f"x_train holds {len(train)} samples for {len(names)} classes: pass at least one "
                "of each class"
            )
    elif len(names) != found:
        raise InputError(f"classes names {len(names)} outputs, but y_train has {found}")
    return names


def _brief(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    text = ", ".join(str(v) for v in value[:12])
    return text + (", …" if len(value) > 12 else "")
