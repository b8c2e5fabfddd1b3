"""What is known of a bundled data set before it is loaded, and what loading gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

Kind = Literal["image", "series", "other"]
"""Samples by shape: (channels, height, width), (channels, length), or something else."""

DEFAULT_TRAIN, DEFAULT_TEST = 256, 500
"""Samples drawn where nothing else is asked for; fewer where a data set is small."""


def kind_of(shape: Sequence[int]) -> Kind:
    """The kind of a sample or source input of some shape.

    Example:
        >>> kind_of((3, 64, 64)), kind_of((1, 128)), kind_of((5,))
        ('image', 'series', 'other')
    """
    return "image" if len(shape) == 3 else "series" if len(shape) == 2 else "other"


@dataclass(frozen=True)
class TargetSpec:
    """What an interface needs to know about a data set with class labels before loading it.

    Attributes:
        name: the name to pass to ``load_target``.
        label: name for people.
        shape: shape of one sample, (channels, height, width) or (channels, length).
        n_samples: number of samples.
        per_class: number of samples of the rarest class; balanced splits hold at most this many
            samples of each class together.
        classes: names of the classes.
        own_train: number of samples of the data set's own training split, which come first;
            ``None`` where it has no split of its own.
        online: whether its samples may have to be downloaded when first used.
    """

    name: str
    label: str
    shape: tuple[int, ...]
    n_samples: int
    per_class: int
    classes: tuple[str, ...]
    own_train: int | None = None
    online: bool = False

    @property
    def kind(self) -> Kind:
        """Either "image" or "series"."""
        return kind_of(self.shape)

    @property
    def is_classification(self) -> bool:
        """Whether there are class labels to predict."""
        return True

    @property
    def fewest_train(self) -> int:
        """Smallest number of training samples, one of each class."""
        return len(self.classes)

    @property
    def default_train(self) -> int:
        """Training samples of a balanced split where no number is given."""
        return min(DEFAULT_TRAIN, len(self.classes) * (self.per_class // 2))

    @property
    def default_test(self) -> int:
        """Test samples of a balanced split where no number is given."""
        return min(DEFAULT_TEST, len(self.classes) * (self.per_class // 3))

    @property
    def most_train(self) -> int:
        """Largest number of training samples beside the default test split."""
        classes = len(self.classes)
        return classes * (self.per_class + self.default_test // -classes)


class RawData(NamedTuple):
    """Samples x (N, *shape), labels y (N,) int64, names of the classes.

    Samples are float32, or bytes from 0 to 255 where there are many: take them by ``samples``.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]

    def samples(self, rows: Tensor) -> Tensor:
        """The samples (n, *shape) of some rows, float32; bytes become images in [0, 1].

        Example:
            >>> import torch
            >>> raw = RawData(torch.tensor([[0], [255]], dtype=torch.uint8), torch.arange(2), ())
            >>> raw.samples(torch.tensor([1]))
            tensor([[1.]])
        """
        x = self.x[rows]
        return x if x.is_floating_point() else x.float().div_(255)
