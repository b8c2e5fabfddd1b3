"""Training of a source on a data set known by name, and the cache of trained weights."""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mrviz._cache import CacheEntry
from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz.sources.base import SourceModel
from mrviz.targets.raw import LABELLED, balanced_split, content_hash, load_raw

FORMAT = 1
"""Goes up whenever the same configuration would give other weights than before."""

LEARNING_RATE = 1e-3
BATCH_SIZE = 128
SPLIT_SEED = 0

MOST_SAMPLES = 10_000
"""Samples of a larger data set that are used, so that training takes minutes."""


@dataclass(frozen=True)
class TrainingReport:
    """How a source was trained.

    Attributes:
        data: name of the data set.
        n_train: number of training samples.
        n_val: number of validation samples, which chose the epoch.
        n_test: number of test samples, used for ``test_accuracy`` only.
        train_loss: mean loss of each epoch, measured while training: cross-entropy, for
            forecasters the squared error.
        val_accuracy: validation accuracy before training and after each epoch, 0 to 1; empty
            for forecasters.
        best_epoch: number of epochs behind the weights that were kept; 0 = no training.
        test_accuracy: test accuracy of the weights that were kept; ``None`` for forecasters.
        seconds: time the training took.
        val_loss: of forecasters, mean squared validation error before training and after each
            epoch.
        test_loss: of forecasters, mean squared test error of the weights that were kept.
    """

    data: str
    n_train: int
    n_val: int
    n_test: int
    train_loss: tuple[float, ...]
    val_accuracy: tuple[float, ...]
    best_epoch: int
    test_accuracy: float | None
    seconds: float
    val_loss: tuple[float, ...] = ()
    test_loss: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingReport:
        """The inverse of ``to_dict``."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**fields)


class TrainedSource(SourceModel):
    """A source model that mrviz trained; ``training_report`` says how."""

    def __init__(self, *args: Any, training_report: TrainingReport, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.training_report = training_report


@dataclass(frozen=True)
class SourceData:
    """A data set split and resized for training: images or series, and labels."""

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @classmethod
    def load(cls, name: str, input_size: int) -> SourceData:
        """Loads a split that no seed changes: three quarters for training.

        Of sets with more than ``MOST_SAMPLES`` samples, a class-balanced part of that size.
        """
        raw, classes = load_raw(name), len(LABELLED[name].classes)
        per_class = min(LABELLED[name].per_class, MOST_SAMPLES // classes)
        held_out = classes * (per_class // 8)
        n_train = classes * per_class - 2 * held_out
        splits = balanced_split(raw.y, n_train, held_out, held_out, SPLIT_SEED)
        train, val, test = (
            (resized(raw.samples(rows), input_size), raw.y[rows]) for rows in splits
        )
        return cls(train, val, test)

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel of the training images."""
        x = self.train[0].double().transpose(0, 1).flatten(1)
        return x.mean(1).tolist(), x.std(1).tolist()


def train_source(
    build: Callable[[], nn.Module],
    config: Mapping[str, Any],
    *,
    name: str,
    label: str,
    data: str,
    input_size: int,
    epochs: int,
    seed: int,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> TrainedSource:
    """Trains a network, or takes its weights from the cache.

    Adam (1e-3) on cross-entropy in batches of 128; the weights kept are those of the epoch with
    the best validation accuracy, the earliest of equals being those with the lower loss.

    Args:
        build: returns the network with its initial weights.
        config: everything that ``build`` depends on, as JSON values.
        name: name of the source.
        label: start of the cache file's name.
        data: a key of ``LABELLED``.
        input_size: height and width, or length, of the inputs; the samples are resized to it.
        epochs: passes over the training data; 0 keeps the initial weights.
        seed: of the order of the samples.
        progress: reports batches; see :class:`~mrviz._progress.Progress`.
        cancel: flag that ends the training.

    Returns:
        The trained source with the held-out test data.

    Raises:
        Cancelled: ``cancel`` was set.
    """
    config = {
        **config,
        "format": FORMAT,
        "torch": torch.__version__.split("+")[0],
        "data": data,
        "content": content_hash(data),
        "input_size": input_size,
        "epochs": epochs,
        "learning_rate": LEARNING_RATE,
        "batch_size": BATCH_SIZE,
        "seed": seed,
    }
    network = build()
    samples = SourceData.load(data, input_size)
    mean, std = samples.statistics()
    entry = CacheEntry("sources", label, ".pt", config)

    def decode(payload: bytes, info: dict[str, Any]) -> TrainingReport:
        network.load_state_dict(torch.load(io.BytesIO(payload), weights_only=True))
        return TrainingReport.from_dict(info)

    report = entry.read(decode)
    if report is None:
        network = build()
        total = epochs * -(-len(samples.train[0]) // BATCH_SIZE)
        with Progress(total, f"Training {name}", progress, cancel) as bar:
            report = fit_network(network, samples, (mean, std), data, epochs, seed, bar)
        buffer = io.BytesIO()
        torch.save(network.state_dict(), buffer)
        entry.write(buffer.getvalue(), report.to_dict())
    return TrainedSource(
        network,
        tuple(samples.train[0].shape[1:]),
        name=name,
        normalize=(mean, std),
        classes=LABELLED[data].classes,
        test_data=samples.test,
        training_report=report,
    )


def fit_network(
    network: nn.Module,
    samples: SourceData,
    normalize: tuple[list[float], list[float]],
    data: str,
    epochs: int,
    seed: int,
    bar: Progress,
) -> TrainingReport:
    """Trains a network in place as :func:`train_source` does, without looking into the cache.

    Args:
        network: maps standardised inputs (n, c, …) to logits.
        samples: inputs and labels of the three splits.
        normalize: means and standard deviations of the channels.
        data: name of the data set, for the report.
        epochs: passes over the training data.
        seed: of the order of the samples.
        bar: advances by one with every batch.
    """
    start = time.perf_counter()
    channels = (-1,) + (1,) * (samples.train[0].ndim - 2)
    mean, std = (torch.tensor(v, dtype=torch.float32).reshape(channels) for v in normalize)
    (x, y), (x_val, y_val), (x_test, y_test) = (
        ((x - mean) / std, y) for x, y in (samples.train, samples.val, samples.test)
    )
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    best_accuracy, best_loss = _evaluate(network, x_val, y_val)
    best_epoch, best_state = 0, copy.deepcopy(network.state_dict())
    losses, accuracies = [], [best_accuracy]
    for epoch in range(1, epochs + 1):
        loss_sum = 0.0
        for rows in torch.randperm(len(x), generator=generator).split(BATCH_SIZE):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            loss_sum += float(loss.detach()) * len(rows)
            bar.advance()
        losses.append(loss_sum / len(x))
        accuracy, val_loss = _evaluate(network, x_val, y_val)
        accuracies.append(accuracy)
        if (accuracy, -val_loss) > (best_accuracy, -best_loss):
            best_accuracy, best_loss, best_epoch = accuracy, val_loss, epoch
            best_state = copy.deepcopy(network.state_dict())
    network.load_state_dict(best_state)
    return TrainingReport(
        data=data,
        n_train=len(x),
        n_val=len(x_val),
        n_test=len(x_test),
        train_loss=tuple(losses),
        val_accuracy=tuple(accuracies),
        best_epoch=best_epoch,
        test_accuracy=_evaluate(network, x_test, y_test)[0],
        seconds=time.perf_counter() - start,
    )


@torch.no_grad()
def _evaluate(network: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Accuracy and mean cross-entropy."""
    logits = torch.cat([network(batch) for batch in x.split(BATCH_SIZE)])
    accuracy = float((logits.argmax(1) == y).double().mean())
    return accuracy, float(F.cross_entropy(logits.double(), y))


def resized(x: Tensor, size: int) -> Tensor:
    """Images (n, c, size, size) in [0, 1] or series (n, c, size), bilinear or linear.

    Pixels and steps count from their centres; what shrinks is smoothed first.

    Args:
        x: images (n, c, h, w) in [0, 1], or series (n, c, length).
        size: height and width, or length, of the result.
    """
    if x.ndim == 3:
        return x if x.shape[-1] == size else _interpolated(x[:, :, None], (1, size))[:, :, 0]
    if tuple(x.shape[-2:]) == (size, size):
        return x
    return _interpolated(x, (size, size)).clamp(0, 1)


def _interpolated(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", antialias=size[1] < x.shape[-1])
