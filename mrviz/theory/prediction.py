"""What training will give, before training: the matched prediction of a reprogrammed model."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.errors import InputError
from mrviz.ntk import Gram, ntk_gram
from mrviz.ntk.factors import Reduce
from mrviz.ntk.plan import prepared
from mrviz.programs import ReprogrammedModel
from mrviz.programs.losses import accuracy, check_loss, mean_squared_error
from mrviz.programs.training import STEPS, check_momentum, check_rate, split_sizes
from mrviz.targets import Target
from mrviz.targets.options import as_choice, as_count
from mrviz.theory.dynamics import Descent, Trajectory, simulate
from mrviz.theory.leave_one_out import ridge_regression
from mrviz.theory.modes import stable_step
from mrviz.theory.products import apply, largest_eigenvalue

OPTIMIZERS = ("gd", "momentum", "flow", "sgd", "adam")
APPROXIMATIONS = {
    "sgd": "optimizer='sgd' is predicted by full-batch gradient descent with the same step size "
    "and number of steps: an approximation that leaves out the noise of mini-batches",
    "adam": "optimizer='adam' has no kernel flow of its own: it is predicted by full-batch "
    "gradient descent with a fixed step size and the same number of steps, an approximation",
}
LR_FRACTION = 0.5
"""The default step size as a fraction of the largest stable one."""
CROSS_BYTES = 256 << 20
"""Size of the part of the kernel between held-out and training samples that is held at once."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted training of a reprogrammed model, and two textbook predictors beside it.

    Attributes:
        trajectory: matched prediction: losses and accuracies over the steps.
        settings: what was simulated: loss, optimizer, lr, momentum, steps, n, n_test, reduce.
        stable_step: largest stable step size, see :func:`~mrviz.theory.stable_step`.
        gram: Θ of the training samples.
        ridge: R of the kernel ridge regression.
        ridge_accuracy: held-out accuracy of kernel ridge regression on the residual of the raw
            outputs, another predictor, not the prediction; ``None`` for real-valued targets.
        leave_one_out_accuracy: its leave-one-sample-out accuracy on the training samples.
        notes: what is approximate, unstable or otherwise to be known.
        seconds: wall-clock time.
    """

    trajectory: Trajectory
    settings: Mapping[str, Any]
    stable_step: float
    gram: Gram
    ridge: float
    ridge_accuracy: float | None
    leave_one_out_accuracy: float | None
    notes: tuple[str, ...]
    seconds: float

    @property
    def lr(self) -> float:
        """The step size that was simulated."""
        return float(self.settings["lr"])

    @property
    def accuracy(self) -> float | None:
        """Predicted held-out accuracy after the last step; ``None`` for real-valued targets."""
        curve = self.trajectory.test_accuracy
        return None if curve is None else curve[-1]

    @property
    def mse(self) -> float | None:
        """Predicted held-out mean squared error, over samples and outputs, after the last step.

        ``None`` for cross-entropy, and where the prediction diverges.
        """
        curve = self.trajectory.test_loss
        if self.settings["loss"] != "squared" or not curve or self.trajectory.diverged is not None:
            return None
        return mean_squared_error(curve[-1], self.gram.outputs)

    @property
    def train_options(self) -> dict[str, Any]:
        """The training that was predicted: ``mrviz.train(model, target, **train_options)``.

        Adam without a step size, which is then its default; gradient flow as gradient descent,
        which follows it with small steps.
        """
        names = ["loss", "optimizer", "steps", "n", "n_test"]
        names += {"adam": [], "momentum": ["lr", "momentum"]}.get(
            self.settings["optimizer"], ["lr"]
        )
        options = {name: self.settings[name] for name in names}
        return options | ({"optimizer": "gd"} if options["optimizer"] == "flow" else {})

    def to_dict(self) -> dict[str, Any]:
        """Everything but matrices and outputs, as plain values."""
        return {
            **self.settings,
            "stable_step": self.stable_step,
            "accuracy": self.accuracy,
            "mse": self.mse,
            "ridge": self.ridge,
            "ridge_accuracy": self.ridge_accuracy,
            "leave_one_out_accuracy": self.leave_one_out_accuracy,
            "notes": list(self.notes),
            "seconds": self.seconds,
            "trajectory": self.trajectory.to_dict(),
            "gram": self.gram.to_dict(),
        }

    def __repr__(self) -> str:
        kind = self.settings["optimizer"]
        return (
            f"Prediction({kind}, lr={self.lr:.4g} (stable below {self.stable_step:.4g}), "
            f"{self.trajectory!r})"
        )

    def _repr_html_(self) -> str:
        kept = self.to_dict()
        del kept["trajectory"], kept["gram"], kept["notes"]
        for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
            if (curve := getattr(self.trajectory, name)) is not None:
                kept[f"predicted {name.replace('_', ' ')}"] = f"{curve[0]:.4g} → {curve[-1]:.4g}"
        entries = [*kept.items(), *(("note", note) for note in self.notes)]
        rows = "".join(
            f"<tr><th>{k.replace('_', ' ')}</th><td>{html.escape(str(v))}</td></tr>"
            for k, v in entries
        )
        return f"<table><caption>Predicted training</caption>{rows}</table>"


def predict_training(
    model: ReprogrammedModel,
    target: Target,
    *,
    loss: str = "cross_entropy",
    optimizer: str = "gd",
    lr: float | None = None,
    steps: int = STEPS,
    momentum: float | None = None,
    n: int | None = None,
    n_test: int | None = None,
    gram: Gram | None = None,
    cross: Gram | None = None,
    reduce: Reduce | None = None,
    ridge: float | None = None,
    record_every: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    chunk_size: int | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Prediction:
    """Predicts what :func:`~mrviz.train` will give, without training (docs/theory.md, section 5).

    The matched prediction: the model is replaced by its linearisation at the present parameters,
    and its training simulated with the loss, the step size and the number of steps that will be
    run. For "gd" and "momentum" it is exact for a model that is linear in its parameters; for
    others it leaves out the change of the kernel, which :func:`~mrviz.theory.kernel_drift`
    measures. It needs the Gram of the training samples, the part of the kernel between held-out
    and training samples, and one product with the Gram for each step.

    Args:
        model: the reprogrammed model, before training; it is not changed.
        target: the target data set.
        loss: "cross_entropy" or "squared".
        optimizer: "gd", "momentum", "flow" (gradient flow to time lr·steps), or "sgd" and "adam",
            which are approximated by fixed steps on the full batch, as ``notes`` says.
        lr: step size, not for "adam"; default: half of the largest stable one. One above it is
            simulated as it is, and ``notes`` says so.
        steps: number of steps.
        momentum: of "momentum"; default: 0.9.
        n: use the first ``n`` training samples; default: those of ``gram``, or all.
        n_test: predict for the first ``n_test`` held-out samples; default: those of ``cross``,
            or all.
        gram: Gram of these training samples, where it is there already.
        cross: Gram of these held-out samples (rows) and training samples (columns), likewise.
        reduce: "full", or "trace" or "sum" for an approximation that acts on every output alike;
            default: that of ``gram``, or "full".
        ridge: R of the kernel ridge regression beside it; default: n/t, its counterpart of
            stopping at time t = lr·steps (Ali, Kolter and Tibshirani 2019), with momentum
            n(1 − momentum)/t.
        record_every: as in :func:`~mrviz.train`.
        device: as in :func:`~mrviz.ntk_gram`.
        dtype: as in :func:`~mrviz.ntk_gram`.
        chunk_size: as in :func:`~mrviz.ntk_gram`.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.

    Raises:
        InputError: options or Grams that do not fit, or a kernel that is zero.
        ResourceError: the Gram does not fit into memory.
        Cancelled: ``cancel`` was set.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> x, y = torch.rand(8, 1, 2, 2), [0, 1, 2, 0, 1, 2, 0, 1]
        >>> target = mrviz.Target(x, y, x, y)
        >>> model = mrviz.reprogram(source, target, program="linear")
        >>> prediction = predict_training(model, target, steps=20)
        >>> fit = mrviz.programs.training.train(model, target, **prediction.train_options)
        >>> abs(fit.test_loss[-1] - prediction.trajectory.test_loss[-1]) < 1e-3
        True
    """
    started = time.perf_counter()
    as_choice(optimizer, OPTIMIZERS, "optimizer")
    if optimizer == "adam" and lr is not None:
        raise InputError(
            "lr of Adam has no counterpart in the kernel's dynamics: leave it out, and the fixed "
            "step of gradient descent stands for it"
        )
    check_rate(lr)
    if momentum is not None and optimizer != "momentum":
        raise InputError(f"momentum applies to optimizer='momentum' only, got {optimizer!r}")
    beta = check_momentum(momentum) if optimizer == "momentum" else None
    steps = as_count(steps, "steps", 1)
    model = prepared(model, device, dtype)
    check_loss(loss, target, model.outputs)
    n = gram.n if n is None and gram is not None else n
    n, n_test = split_sizes(target, n, cross.n if n_test is None and cross is not None else n_test)
    options: dict[str, Any] = {"chunk_size": chunk_size, "progress": progress, "cancel": cancel}
    if gram is None:
        reduce = "full" if reduce is None else reduce
        gram = ntk_gram(model, target.x_train[:n], reduce=reduce, **options)
    _check_gram(gram, cross, model, n, n_test, reduce)

    matrix = gram.matrix
    edge = stable_step(largest_eigenvalue(matrix), n, loss=loss, momentum=beta)
    if lr is None:
        if math.isinf(edge):
            raise InputError("the kernel is zero: training cannot move the outputs")
        lr = LR_FRACTION * edge
    y, y_test = (
        target.targets_of(labels).to(matrix.device)
        for labels in (target.y_train[:n], target.y_test[:n_test])
    )
    start = model.predict(target.x_train[:n]).to(matrix.device)
    descent = simulate(
        matrix,
        start,
        y,
        loss=loss,
        optimizer="gd" if optimizer in APPROXIMATIONS else optimizer,
        lr=lr,
        steps=steps,
        momentum=beta,
        record_every=record_every,
        progress=progress,
        cancel=cancel,
    )
    ridge = n * (1 - (beta or 0.0)) / (lr * steps) if ridge is None else ridge
    regression, left_out = ridge_regression(matrix, y - start, ridge)
    duals = torch.cat([descent.dual, regression[None]])
    changes = _held_out(model, target, gram, cross, duals, n_test, options)
    held_out = model.predict(target.x_test[:n_test]).to(matrix.device) + changes
    return Prediction(
        trajectory=Trajectory.of(descent, y, held_out[:-1], y_test),
        settings={
            "loss": loss,
            "optimizer": optimizer,
            "lr": lr,
            "momentum": beta,
            "steps": steps,
            "n": n,
            "n_test": n_test,
            "reduce": gram.reduce,
        },
        stable_step=edge,
        gram=gram,
        ridge=ridge,
        ridge_accuracy=accuracy(held_out[-1], y_test),
        leave_one_out_accuracy=accuracy(y - left_out, y),
        notes=_notes(optimizer, loss, lr, edge, gram, descent),
        seconds=time.perf_counter() - started,
    )


def _check_gram(
    gram: Gram,
    cross: Gram | None,
    model: ReprogrammedModel,
    n: int,
    n_test: int,
    reduce: Reduce | None,
) -> None:
    """Checks that Grams are of the samples in use and of a kind that moves every output."""
    if isinstance(gram.reduce, int):
        raise InputError(
            f"the kernel of class {gram.reduce} alone does not say how the other outputs move: "
            "use reduce='full', or 'trace' for an approximation"
        )
    fits = gram.symmetric and (gram.n, gram.outputs) == (n, model.outputs)
    if not fits or gram.reduce != (gram.reduce if reduce is None else reduce):
        raise InputError(f"{gram!r} is not the Gram of {n} training samples asked for")
    rows = gram.order // n
    if cross is not None and (
        cross.reduce != gram.reduce or tuple(cross.matrix.shape) != (n_test * rows, n * rows)
    ):
        raise InputError(
            f"{cross!r} is not the Gram of {n_test} held-out and {n} training samples: "
            "ntk_gram(model, x_test, x_train) with the reduction of gram"
        )


def _held_out(
    model: ReprogrammedModel,
    target: Target,
    gram: Gram,
    cross: Gram | None,
    duals: Tensor,
    n_test: int,
    options: dict[str, Any],
) -> Tensor:
    """Changes of held-out outputs Θ(x, X) dual, (R, n_test, C), part after part."""
    if cross is not None:
        return apply(cross.matrix.to(duals), duals, n_test)
    rows = gram.order // gram.n
    size = max(1, CROSS_BYTES // (8 * rows * gram.order))
    x_train, x_test = target.x_train[: gram.n], target.x_test[:n_test]
    changes = []
    for x in x_test.split(size):
        part = ntk_gram(model, x, x_train, reduce=gram.reduce, **options)
        changes.append(apply(part.matrix.to(duals), duals, len(x)))
    return torch.cat(changes, 1)


def _notes(
    optimizer: str, loss: str, lr: float, edge: float, gram: Gram, descent: Descent
) -> tuple[str, ...]:
    notes = [APPROXIMATIONS[optimizer]] if optimizer in APPROXIMATIONS else []
    if gram.reduce != "full" and gram.outputs > 1:
        notes.append(
            f"the {gram.reduce} kernel acts on every output alike: an approximation, and the "
            "largest stable step may come out too large"
        )
    if lr > edge and optimizer != "flow":
        falls = loss == "cross_entropy" and optimizer != "momentum"
        sure = ", below which the loss is sure to fall" if falls else ""
        notes.append(f"unstable: lr={lr:.4g} is above the largest stable step {edge:.4g}{sure}")
    if descent.diverged is not None:
        notes.append(f"diverged at step {descent.diverged}: the loss is no longer finite")
    return tuple(notes)
