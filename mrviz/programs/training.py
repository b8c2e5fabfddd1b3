"""Training of the parameters of a reprogrammed model; the source stays frozen."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mrviz._memory import Splitter
from mrviz._progress import CancelFlag, Progress, ProgressCallback, stop_if_cancelled
from mrviz.errors import InputError
from mrviz.programs.fit import Fit, Measurement, recorded_steps
from mrviz.programs.losses import accuracy, check_loss, sample_losses
from mrviz.programs.model import ReprogrammedModel
from mrviz.sources.base import evaluation_mode
from mrviz.targets import Target
from mrviz.targets.options import as_choice, as_count

OPTIMIZERS = ("gd", "momentum", "sgd", "adam")
FULL_BATCH = ("gd", "momentum")
STEPS = 100
"""Steps where neither steps nor epochs are given."""
BATCH_SIZE = 128
MOMENTUM = 0.9
ADAM_RATES = {"delta": 0.1, "other": 1e-3}
"""Default step sizes of Adam, those of the paper: for prompts δ and for all other parameters."""


def train(
    model: ReprogrammedModel,
    target: Target,
    *,
    loss: str = "cross_entropy",
    optimizer: str = "adam",
    lr: float | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    momentum: float | None = None,
    n: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
    record_every: int | None = None,
    chunk_size: int = BATCH_SIZE,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
    on_step: Callable[[Measurement], None] | None = None,
) -> Fit:
    """Trains the program of a reprogrammed model, and its head where that is trainable.

    The parameters change in place; the source stays frozen, and everything runs in eval mode,
    as the tangent kernel does. The loss of a batch is the mean over its samples of
    ℓ = ½‖f − y‖² or cross-entropy. "gd" makes the plain steps θ ← θ − lr·∇ on the mean over all
    n samples that docs/theory.md, section 5, describes and :func:`~mrviz.predict_training`
    predicts; "momentum" the heavy-ball steps v ← momentum·v + ∇, θ ← θ − lr·v; "sgd" plain steps
    on mini-batches; "adam" those of Adam (Kingma & Ba 2015) with its usual constants.

    Args:
        model: the reprogrammed model; trained where it is, on its own device and in its dtype.
        target: the target data set.
        loss: "cross_entropy" or "squared".
        optimizer: "gd" or "momentum", on all samples at once, "sgd" or "adam" on mini-batches.
        lr: step size. Adam's default is that of the paper, 0.1 for prompts δ (parameters
            called ``delta``) and 1e-3 for all others. The others have none:
            ``mrviz.predict_training(model, target).lr`` is a stable one.
        steps: number of steps; default: 100, where ``epochs`` is not given either.
        epochs: passes over the training samples, instead of ``steps``; one step each on full
            batches.
        batch_size: samples of a mini-batch, at most n; default: 128. Batches are
            consecutive parts of a new permutation in each pass; the last may be smaller.
        momentum: of "momentum"; default: 0.9.
        n: use the first ``n`` training samples; default: all.
        n_test: measure on the first ``n_test`` held-out samples; default: all.
        seed: of the permutations.
        record_every: measure at every so many steps, beside the start and the last step, on both
            splits; default: every step up to 100 steps, then at most 100 times.
        chunk_size: samples differentiated at once; gradients of larger batches are summed.
        progress: callback (done, total, label); ``False`` for silence; default: a text bar.
        cancel: flag with ``is_set()``, checked before each step.
        on_step: called with each :class:`Measurement` as it is made.

    Returns:
        The record of the training. Where a loss is no longer finite, training stops and the
        record says so in ``diverged``; a warning is given too.

    Raises:
        InputError: options that do not fit, or do not apply to the optimizer.
        ResourceError: not even one sample fits into memory.
        Cancelled: ``cancel`` was set; the parameters stay as the last finished step left them.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> x, y = torch.rand(8, 1, 2, 2), [0, 1, 2, 0, 1, 2, 0, 1]
        >>> target = mrviz.Target(x, y, x, y)
        >>> model = mrviz.reprogram(source, target, program="linear")
        >>> fit = train(model, target, optimizer="gd", lr=0.1, steps=20)
        >>> len(fit.steps), fit.train_loss[-1] < fit.train_loss[0]
        (21, True)
    """
    if not isinstance(model, ReprogrammedModel):
        raise InputError(f"model must be a ReprogrammedModel, got {type(model).__name__}")
    check_loss(loss, target, model.outputs)
    n, n_test = split_sizes(target, n, n_test)
    settings = _settings(optimizer, lr, steps, epochs, batch_size, momentum, n)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise InputError(f"program {type(model.program).__name__} has no trainable parameters")
    method, settings["lr"] = _optimizer(settings, parameters)
    settings |= {"loss": loss, "n": n, "n_test": n_test, "seed": as_count(seed, "seed", 0)}
    device, values = model.source.device, list(parameters.values())
    samples, held_out = (
        (model.inputs(x), target.targets_of(y).to(device))
        for x, y in (
            (target.x_train[:n], target.y_train[:n]),
            (target.x_test[:n_test], target.y_test[:n_test]),
        )
    )
    started, total = time.perf_counter(), settings["steps"]
    recorded = recorded_steps(total, record_every)
    batches = _batches(n, settings["batch_size"], seed)
    split = Splitter("a training step", as_count(chunk_size, "chunk_size", 1))
    history: list[Measurement] = []
    diverged = None

    with Progress(total, "training", progress) as bar, evaluation_mode(model):
        for step in range(total + 1):
            if step in recorded:
                measured = _measure(model, step, samples, held_out, loss)
                if not math.isfinite(measured.train_loss):
                    diverged = step
                    break
                history.append(measured)
                if on_step is not None:
                    on_step(measured)
            if step == total:
                break
            stop_if_cancelled(
                cancel,
                f"training after {step} of {total} steps; the parameters stay as they are now",
            )
            rows = next(batches)
            x, y = samples if rows is None else (samples[0][rows], samples[1][rows])
            gradients = _gradients(model, values, x, y, loss, split)
            if not all(g.isfinite().all() for g in gradients):
                diverged = step
                break
            for parameter, gradient in zip(values, gradients, strict=True):
                parameter.grad = gradient
            method.step()
            method.zero_grad(set_to_none=True)
            bar.advance()
    if not history:
        raise InputError("the loss is not finite at the start: look at the model's outputs")
    notes = list(split.notes)
    if diverged is not None:
        notes.append(_diverged(diverged, settings))
        warnings.warn(notes[-1], stacklevel=2)
    seconds = time.perf_counter() - started
    return Fit(tuple(history), settings, seconds, diverged, tuple(notes))


def split_sizes(target: Target, n: int | None, n_test: int | None) -> tuple[int, int]:
    """Numbers of training and held-out samples in use, all by default.

    Raises:
        InputError: more than there are.
    """
    sizes = []
    for name, value, x in (("n", n, target.x_train), ("n_test", n_test, target.x_test)):
        size = len(x) if value is None else as_count(value, name, 1)
        if size > len(x):
            raise InputError(f"{name}={size}, but target {target.name!r} has {len(x)} such samples")
        sizes.append(size)
    return sizes[0], sizes[1]


def _settings(
    optimizer: str,
    lr: float | None,
    steps: int | None,
    epochs: int | None,
    batch_size: int | None,
    momentum: float | None,
    n: int,
) -> dict[str, Any]:
    """Checked settings; what does not apply to the optimizer is an error."""
    as_choice(optimizer, OPTIMIZERS, "optimizer")
    full = optimizer in FULL_BATCH
    if full and batch_size is not None:
        raise InputError(
            f"batch_size does not apply to optimizer={optimizer!r}, which uses all samples in "
            "each step: leave it out, or choose 'sgd' or 'adam'"
        )
    if momentum is not None and optimizer != "momentum":
        raise InputError(f"momentum applies to optimizer='momentum' only, got {optimizer!r}")
    momentum = check_momentum(momentum) if optimizer == "momentum" else None
    if lr is None and optimizer != "adam":
        raise InputError(
            f"optimizer={optimizer!r} needs a step size lr: "
            "mrviz.predict_training(model, target).lr is a stable one"
        )
    check_rate(lr)
    if steps is not None and epochs is not None:
        raise InputError("steps and epochs both say how long to train: pass one of them")
    size = (
        n
        if full
        else min(n, as_count(BATCH_SIZE if batch_size is None else batch_size, "batch_size", 1))
    )
    if epochs is not None:
        steps = as_count(epochs, "epochs", 1) * -(-n // size)
    return {
        "optimizer": optimizer,
        "lr": lr,
        "momentum": momentum,
        "steps": as_count(STEPS if steps is None else steps, "steps", 1),
        "batch_size": None if full else size,
    }


def check_momentum(momentum: float | None) -> float:
    """The momentum β, 0.9 by default; raises ``InputError`` outside 0 ≤ β < 1."""
    momentum = MOMENTUM if momentum is None else momentum
    if not 0 <= momentum < 1:
        raise InputError(f"momentum must be at least 0 and below 1, got {momentum}")
    return float(momentum)


def check_rate(lr: float | None) -> None:
    """Raises ``InputError`` for a step size that is not a positive finite number."""
    if lr is not None and not 0 < lr < float("inf"):
        raise InputError(f"lr must be a positive number, got {lr!r}")


def _optimizer(
    settings: dict[str, Any], parameters: Mapping[str, Tensor]
) -> tuple[torch.optim.Optimizer, float | dict[str, float]]:
    """The optimizer, and the step size or those of its groups."""
    lr = settings["lr"]
    if settings["optimizer"] != "adam":
        momentum = settings["momentum"] or 0.0
        return torch.optim.SGD(parameters.values(), lr=lr, momentum=momentum), lr
    if lr is not None:
        return torch.optim.Adam(parameters.values(), lr=lr), lr
    groups: dict[str, list[Tensor]] = {}
    for name, parameter in parameters.items():
        kind = "delta" if name.rpartition(".")[2] == "delta" else "other"
        groups.setdefault(kind, []).append(parameter)
    rates = {kind: ADAM_RATES[kind] for kind in groups}
    return torch.optim.Adam([{"params": groups[k], "lr": r} for k, r in rates.items()]), rates


def _batches(n: int, size: int | None, seed: int) -> Iterator[Tensor | None]:
    """Sample numbers of one batch after the other, without end; ``None`` is all samples."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from [None] if size is None else torch.randperm(n, generator=generator).split(size)


def _gradients(
    model: ReprogrammedModel,
    parameters: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    loss: str,
    split: Splitter,
) -> list[Tensor]:
    """Gradients of the mean loss of a batch, summed over as many parts as memory asks for."""
    sums = [torch.zeros_like(p) for p in parameters]

    def work(start: int, stop: int) -> None:
        with torch.enable_grad():
            outputs = model(x[start:stop])
            value = sample_losses(outputs, y[start:stop].to(outputs.dtype), loss).sum() / len(x)
        gradients = torch.autograd.grad(value, parameters, materialize_grads=True)
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient

    split(work, 0, len(x), lambda parts: None)
    return sums


def _measure(
    model: ReprogrammedModel,
    step: int,
    samples: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    loss: str,
) -> Measurement:
    """Losses and accuracies on both splits, in float64 and without gradients."""
    values: list[Any] = [step]
    for x, y in (samples, held_out):
        outputs = model.predict(x)
        values += [float(sample_losses(outputs, y, loss).mean()), accuracy(outputs, y)]
    return Measurement(*values)


def _diverged(step: int, settings: dict[str, Any]) -> str:
    hint = ""
    if settings["optimizer"] != "adam":
        hint = (
            ", which is above the largest stable step that "
            "mrviz.predict_training(model, target).stable_step estimates"
        )
    return (
        f"diverged at step {step}: numbers are no longer finite with lr={settings['lr']}{hint}. "
        "The parameters are lost: build the model again and lower lr"
    )
