"""The two losses that training and its prediction share, and accuracy."""

from __future__ import annotations

import torch
from torch import Tensor

from mrviz.errors import InputError
from mrviz.targets import Target
from mrviz.targets.options import as_choice

LOSSES = ("cross_entropy", "squared")
"""Losses ℓ of one sample: −Σ_c y_c log softmax(f)_c, and ½‖f − y‖²."""


def check_loss(loss: str, target: Target, outputs: int) -> None:
    """Checks that a loss and a model with ``outputs`` outputs suit a target.

    Raises:
        InputError: an unknown loss, cross-entropy for real values, or another number of outputs.
    """
    as_choice(loss, LOSSES, "loss")
    if outputs != target.n_classes:
        raise InputError(
            f"the model has {outputs} outputs, but target {target.name!r} has "
            f"{target.n_classes}: the mapping must give one output for each"
        )
    if loss == "cross_entropy" and not target.is_classification:
        raise InputError(
            f"target {target.name!r} has real-valued outputs, cross-entropy needs class labels: "
            "pass loss='squared'"
        )


def sample_losses(outputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """ℓ(f_i, y_i) of each sample (docs/theory.md, section 5).

    Args:
        outputs: f, shape (…, n, C).
        targets: Y, shape (n, C): one-hot labels, probabilities or, for squared loss, real values.
        loss: "cross_entropy" or "squared".

    Returns:
        Shape (…, n).

    Example:
        >>> float(sample_losses(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), "squared"))
        12.5
    """
    if loss == "squared":
        return (outputs - targets).square().sum(-1) / 2
    return -(targets * outputs.log_softmax(-1)).sum(-1)


def mean_squared_error(loss: float, outputs: int) -> float:
    """The mean over samples and outputs of (f − y)², from the mean of ½‖f − y‖² over samples."""
    return 2 * loss / outputs


def output_gradient(outputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """∇_f ℓ of each sample: f − y, or softmax(f) − y for targets that sum to one; (…, n, C)."""
    return (outputs if loss == "squared" else outputs.softmax(-1)) - targets


def accuracies(outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Share of samples whose largest output is that of their class, ties to the first.

    Args:
        outputs: f, shape (…, n, C).
        targets: Y, shape (n, C).

    Returns:
        Shape (…); ``None`` unless the rows of Y name one of at least two classes.
    """
    ones = targets == 1
    named = (ones | (targets == 0)).all(1) & (ones.sum(1) == 1)
    if targets.shape[1] < 2 or not named.all():
        return None
    return (outputs.argmax(-1) == ones.to(torch.int8).argmax(-1)).double().mean(-1)


def accuracy(outputs: Tensor, targets: Tensor) -> float | None:
    """The same for one set of outputs (n, C), as a number."""
    share = accuracies(outputs, targets)
    return None if share is None else float(share)
