"""How good the source is at its own task."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mrviz._memory import Splitter
from mrviz.sources import SourceModel


@dataclass(frozen=True)
class SourceStrength:
    """Accuracy and risk of a source on held-out data of its own task.

    Attributes:
        accuracy: share of correct arg-max predictions.
        interval: 95 % Wilson interval of the accuracy.
        risk: mean of ‖softmax(f(x)) − one-hot(y)‖₂ (Yang et al. 2021, Theorem 1).
        n: number of samples.
    """

    accuracy: float
    interval: tuple[float, float]
    risk: float
    n: int


def source_strength(source: SourceModel, batch_size: int = 256) -> SourceStrength | None:
    """Measures a source on its ``test_data``; ``None`` where it has none."""
    if source.test_data is None:
        return None
    from scipy.stats import binomtest

    x, y = source.test_data

    def run(start: int, stop: int) -> Tensor:
        return source(x[start:stop].to(source.device, source.dtype)).double().cpu()

    with torch.no_grad():
        logits = Splitter("the forward pass", batch_size)(run, 0, len(x), torch.cat)
    correct = int((logits.argmax(1) == y.cpu()).sum())
    one_hot = functional.one_hot(y.cpu(), source.outputs).double()
    risk = (logits.softmax(1) - one_hot).norm(dim=1).mean()
    interval = binomtest(correct, len(y)).proportion_ci(0.95, method="wilson")
    return SourceStrength(
        accuracy=correct / len(y),
        interval=(float(interval.low), float(interval.high)),
        risk=float(risk),
        n=len(y),
    )
