"""Transferability scores from the literature, to set beside the predicted training.

They read source outputs on programmed target inputs and know nothing of a program's training:
where they are compared with a prediction, they are the yardstick, not part of the theory.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrviz._checks import Array, as_labels, as_samples
from mrviz._memory import Splitter
from mrviz.errors import InputError
from mrviz.programs import ReprogrammedModel
from mrviz.programs.training import split_sizes
from mrviz.sources.base import evaluation_mode
from mrviz.targets import Target

Matrix = np.ndarray[Any, np.dtype[np.float64]]

GRID = np.linspace(-14.0, 14.0, 113)
"""Powers of ten of α/(β σ_max) between which LogME's maximum is looked for."""


@dataclass(frozen=True)
class Baselines:
    """Four transferability scores; larger is better. They compare models on one data set only.

    Attributes:
        logme: LogME, see :func:`logme`; infinite where the features fit the labels exactly.
        h_score: H-score, between 0 and C − 1, see :func:`h_score`.
        leep: LEEP, at most 0, see :func:`leep`.
        nce: negative conditional entropy, at most 0, see :func:`nce`.
        n: number of samples.
    """

    logme: float
    h_score: float
    leep: float
    nce: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """All scores as plain values."""
        return asdict(self)


def transfer_baselines(
    model: ReprogrammedModel, target: Target, n: int | None = None, batch_size: int = 256
) -> Baselines:
    """The four scores on source outputs f_S(a_θ(x)) of programmed training inputs.

    The source's outputs before the mapping, its logits, are the features of LogME and the
    H-score, their softmax is the source distribution of LEEP, and their arg-max the source label
    of NCE. The papers take penultimate features for LogME and the H-score; a program acts on a
    source that need not have any, so logits stand for them here.

    Args:
        model: the reprogrammed model, at its present parameters; its mapping has no influence.
        target: the target data set, with class labels.
        n: use the first ``n`` training samples; default: all.
        batch_size: samples at once.

    Raises:
        InputError: a target without labels, one class alone, or fewer than two samples.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> x, y = torch.rand(9, 1, 2, 2), [0, 1, 2] * 3
        >>> target = mrviz.Target(x, y, x, y)
        >>> model = mrviz.reprogram(source, target, program="border")
        >>> transfer_baselines(model, target).n
        9
    """
    if not target.is_classification:
        raise InputError(
            f"target {target.name!r} has real-valued outputs: LogME, H-score, LEEP and NCE are "
            "measured on class labels"
        )
    n, _ = split_sizes(target, n, None)
    x = model.inputs(target.x_train[:n])

    def run(start: int, stop: int) -> Tensor:
        return model.source(model.programmed(x[start:stop])).double().cpu()

    with evaluation_mode(model), torch.no_grad():
        logits = Splitter("the forward pass", batch_size)(run, 0, n, torch.cat)
    y = target.y_train[:n]
    return Baselines(
        logme=logme(logits, y),
        h_score=h_score(logits, y),
        leep=leep(logits.softmax(1), y),
        nce=nce(logits.argmax(1), y),
        n=n,
    )


def logme(features: Array, y: Array) -> float:
    """LogME: logarithm of maximum evidence a sample (You et al. 2021, arXiv 2102.11005).

    Labels y of one class against the rest, 0 or 1, are modelled as y ~ N(F w, β⁻¹ I) with
    w ~ N(0, α⁻¹ I). The score is max_{α,β} log p(y | F) / n, averaged over the classes that
    occur. For given t = α/β the best β is known, which leaves a search in one dimension; it
    finds the maximum that the paper's fixed-point iteration may miss. The features are used as
    they are: no bias, no centring.

    Args:
        features: F, (n, D): source features of the target samples.
        y: integer labels (n,).

    Returns:
        The score; infinite where F fits the labels exactly with fewer than n dimensions, as
        the evidence then has no maximum.

    Raises:
        InputError: one class alone, fewer than two samples, or values that are not finite.

    Example:
        >>> round(logme(torch.zeros(4, 2), [0, 1, 0, 1]), 4)  # log N(y; 0, I/2) / 4
        -1.0724
    """
    f, labels = _checked(features, y)
    left, singular, _ = np.linalg.svd(f, full_matrices=False)
    kept = singular > singular.max(initial=0.0) * max(f.shape) * np.finfo(float).eps
    left, squares = left[:, kept], singular[kept] ** 2
    scores = [_evidence(left, squares, (labels == c).astype(np.float64)) for c in np.unique(labels)]
    return float(np.mean(scores))


def _evidence(left: Matrix, squares: Matrix, y: Matrix) -> float:
    """Maximum of log p(y | F)/n for F Fᵀ with eigenvectors ``left`` and eigenvalues ``squares``."""
    from scipy.optimize import minimize_scalar

    n = len(y)
    inside = (left.T @ y) ** 2
    outside = float(((y - left @ (left.T @ y)) ** 2).sum())
    exact = outside <= n * np.finfo(float).eps * float(y @ y)
    if exact and len(squares) < n:
        return math.inf
    scale = float(squares.max(initial=1.0))

    def negative(power: float) -> float:
        t = scale * 10.0**power
        residual = float((inside * t / (t + squares)).sum()) + (0.0 if exact else outside)
        return 0.5 * (math.log(residual / n) + float(np.log1p(squares / t).sum()) / n)

    values = [negative(power) for power in GRID]
    best = int(np.argmin(values))
    bounds = GRID[max(best - 1, 0)], GRID[min(best + 1, len(GRID) - 1)]
    found = minimize_scalar(negative, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return -min(values[best], float(found.fun)) - 0.5 * math.log(2 * math.pi) - 0.5


def h_score(features: Array, y: Array) -> float:
    """H-score tr(cov(F)⁻¹ cov(E[F | y])) (Bao et al. 2019, arXiv 2212.10082).

    Both covariances are those of the sample; where cov(F) is singular, its pseudo-inverse is
    used. The score lies between 0, for features whose class means agree, and C − 1, which it
    also reaches by chance where D is near n. It does not change under invertible affine maps.

    Args:
        features: F, (n, D): source features of the target samples.
        y: integer labels (n,).

    Raises:
        InputError: one class alone, fewer than two samples, or values that are not finite.

    Example:
        >>> round(h_score([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [0, 0, 1, 1]), 12)
        1.0
    """
    f, labels = _checked(features, y)
    f = f - f.mean(0)
    means = np.zeros_like(f)
    for c in np.unique(labels):
        means[labels == c] = f[labels == c].mean(0)
    # tr(pinv(FᵀF) MᵀM) by the singular vectors of F, which squares no condition number.
    _, singular, right = np.linalg.svd(f, full_matrices=False)
    scale = max(float(singular.max(initial=0.0)), float(np.finfo(float).tiny))
    kept = singular > scale * max(f.shape) * np.finfo(float).eps
    return float((((means @ right[kept].T) / singular[kept]) ** 2).sum())


def leep(probabilities: Array, y: Array) -> float:
    """LEEP, log expected empirical prediction (Nguyen et al. 2020, arXiv 2002.12462).

    (1/n) Σ_i log Σ_z P(y_i | z) θ(x_i)_z, where θ(x) is the source's distribution over its own
    labels z, P(y, z) = (1/n) Σ_{i: y_i = y} θ(x_i)_z and P(y | z) = P(y, z)/P(z).

    Args:
        probabilities: θ, (n, c_S): softmax outputs of the source, rows that sum to one.
        y: integer labels (n,).

    Raises:
        InputError: one class alone, fewer than two samples, or rows that are no distribution.

    Example:
        >>> round(leep([[0.5, 0.5], [0.5, 0.5]], [0, 1]), 6)  # log ½
        -0.693147
    """
    theta, labels = _checked(probabilities, y, "probabilities")
    if (theta < 0).any() or not np.allclose(theta.sum(1), 1, atol=1e-4):
        raise InputError(
            "probabilities must be rows that are positive and sum to one: for logits pass "
            "logits.softmax(1)"
        )
    classes, number = np.unique(labels, return_inverse=True)
    joint = np.zeros((len(classes), theta.shape[1]))
    np.add.at(joint, number, theta)
    total = joint.sum(0)
    given = np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)
    return float(np.log((given[number] * theta).sum(1)).mean())


def nce(source_labels: Array, y: Array) -> float:
    """Negative conditional entropy −H(Y | Z) (Tran et al. 2019, arXiv 1908.08142).

    (1/n) Σ_i log P(y_i | z_i) with the empirical P(y | z), in nats.

    Args:
        source_labels: z, integers (n,): the source's label of each sample, such as its arg-max.
        y: integer labels (n,).

    Raises:
        InputError: one class alone, or fewer than two samples.

    Example:
        >>> nce([5, 5, 7, 7], [0, 0, 1, 1])
        0.0
    """
    labels = _labels(y)
    z = as_labels(source_labels, "source_labels", len(labels)).cpu().numpy()
    _, counts = np.unique(np.stack([z, labels]), axis=1, return_counts=True)
    totals = np.unique(z, return_counts=True)[1]
    pairs = float((counts * np.log(counts)).sum())
    return min(0.0, (pairs - float((totals * np.log(totals)).sum())) / len(labels))


def _checked(features: Array, y: Array, name: str = "features") -> tuple[Matrix, Any]:
    """Features (n, D) and labels (n,) as arrays."""
    labels = _labels(y)
    f = as_samples(features, name, dtype=torch.float64).detach().cpu()
    if f.ndim != 2 or len(f) != len(labels):
        raise InputError(
            f"{name} must be a matrix with one row for each of {len(labels)} labels, got shape "
            f"{tuple(f.shape)}"
        )
    return f.numpy(), labels


def _labels(y: Array) -> Any:
    values = y if isinstance(y, Tensor) else torch.as_tensor(np.asarray(y))
    n = values.numel()
    if n < 2:
        raise InputError(f"transferability is estimated from two samples or more, got {n}")
    labels = as_labels(values, "y", n).cpu().numpy()
    if (labels == labels[0]).all():
        raise InputError(
            f"all {len(labels)} labels are {labels[0]}: transferability is estimated from samples "
            "of two classes or more"
        )
    return labels
