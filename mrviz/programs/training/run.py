"""The training loop: steps, measurements, early stopping, checkpoints, Cancel."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from mrviz._memory import Splitter
from mrviz._progress import CancelFlag, Progress, ProgressCallback, stop_if_cancelled
from mrviz.errors import Cancelled, InputError
from mrviz.programs.fit import Fit, Measurement, recorded_steps
from mrviz.programs.losses import check_loss
from mrviz.programs.model import ReprogrammedModel
from mrviz.programs.training.checkpoint import Checkpoint
from mrviz.programs.training.options import (
    BATCH_SIZE,
    check_amp,
    check_keep,
    check_schedule,
    deterministic_algorithms,
    make_settings,
    split_sizes,
)
from mrviz.programs.training.session import Session
from mrviz.programs.training.spsa import SPSA
from mrviz.sources.base import evaluation_mode
from mrviz.targets import Target
from mrviz.targets.options import as_count


def train(
    model: ReprogrammedModel,
    target: Target,
    *,
    loss: str = "cross_entropy",
    optimizer: str | SPSA = "adam",
    lr: float | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    momentum: float | None = None,
    schedule: str = "constant",
    n: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
    keep: str | None = None,
    patience: int | None = None,
    record_every: int | None = None,
    chunk_size: int = BATCH_SIZE,
    amp: bool | str = False,
    deterministic: bool = False,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int | None = None,
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
    on mini-batches; "adam" those of Adam (Kingma & Ba 2015) with its usual constants. "spsa"
    needs no gradients of the source, only its outputs; see
    :class:`~mrviz.programs.training.SPSA`.

    A mapping that ``refreshes`` is computed anew from the source's outputs for the programmed
    training samples before the first step of each pass over them.

    Args:
        model: the reprogrammed model; trained where it is, on its own device and in its dtype.
        target: the target data set.
        loss: "cross_entropy" or "squared".
        optimizer: "gd" or "momentum", on all samples at once, "sgd", "adam" or "spsa" on
            mini-batches; an :class:`~mrviz.programs.training.SPSA` is "spsa" with options.
        lr: step size. Adam's default is that of the paper, 0.1 for prompts δ (parameters
            called ``delta``) and 1e-3 for all others; that of "spsa" is 0.01. The others have
            none: ``mrviz.predict_training(model, target).lr`` is a stable one.
        steps: number of steps; default: 100, where ``epochs`` is not given either.
        epochs: passes over the training samples, instead of ``steps``; one step each on full
            batches.
        batch_size: samples of a mini-batch, at most n; default: 128. Batches are
            consecutive parts of a new permutation in each pass; the last may be smaller.
        momentum: of "momentum"; default: 0.9.
        schedule: "constant", or "cosine": step k of S is made with lr·(1 + cos(πk/S))/2
            (Loshchilov & Hutter 2017, without restarts).
        n: use the first ``n`` training samples; default: all.
        n_test: measure on the first ``n_test`` held-out samples; default: all.
        seed: of the permutations, and of the perturbations of "spsa".
        keep: which parameters the model has in the end: "last", or those at the recorded step
            with the lowest "val_loss" or the highest "val_accuracy" (of equals that with the
            lower loss) on the target's validation samples. Default: "last", or "val_loss" where
            ``patience`` is given. Test samples never decide.
        patience: stop after so many measurements in a row without a better one on the
            validation samples; default: never.
        record_every: measure at every so many steps, beside the start and the last step, on all
            splits; default: every step up to 100 steps, then at most 100 times.
        chunk_size: samples differentiated at once; gradients of larger batches are summed.
        amp: compute outputs and gradients in half precision where PyTorch's autocast does:
            "bfloat16", "float16" (with a loss scale; NVIDIA GPU), or ``True`` for the first that
            the device has. Parameters and measurements stay in float32.
        deterministic: use PyTorch's deterministic algorithms, so that a GPU gives the same
            bits each time; slower. An operation that has none raises PyTorch's error.
        checkpoint: a file that keeps the state of the training. Where it exists, training goes
            on from it, and ends with the same bits as without the interruption.
        checkpoint_every: write it at every so many steps, beside Cancel and the end; default:
            about twenty times.
        progress: callback (done, total, label); ``False`` for silence; default: a text bar. The
            label shows the loss of the last batch.
        cancel: flag with ``is_set()``, checked before each step.
        on_step: called with each :class:`Measurement` as it is made.

    Returns:
        The record of the training. Where a loss is no longer finite, training stops and the
        record says so in ``diverged``; a warning is given too.

    Raises:
        InputError: options that do not fit, or do not apply to the optimizer; a checkpoint of
            another training.
        DeviceError: a precision or determinism that the device does not offer.
        ResourceError: not even one sample fits into memory.
        Cancelled: ``cancel`` was set; the parameters stay as the last finished step left them,
            or are the best so far, as ``keep`` says. Its attribute ``fit`` is the record so far.

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
    settings = make_settings(optimizer, lr, steps, epochs, batch_size, momentum, n)
    keep, patience = check_keep(keep, patience, target)
    device, dtype = model.source.device, model.source.dtype
    settings |= {
        "loss": loss,
        "n": n,
        "n_test": n_test,
        "seed": as_count(seed, "seed", 0),
        "schedule": check_schedule(schedule, settings["optimizer"]),
        "keep": keep,
        "patience": patience,
        "amp": check_amp(amp, settings["optimizer"], device, dtype),
        "deterministic": bool(deterministic),
    }
    recorded = recorded_steps(settings["steps"], record_every)
    split = Splitter("a training step", as_count(chunk_size, "chunk_size", 1))
    if checkpoint_every is not None and checkpoint is None:
        raise InputError("checkpoint_every needs a file: pass checkpoint='training.safetensors'")
    with deterministic_algorithms(settings["deterministic"], device), evaluation_mode(model):
        session = Session(model, target, settings, split)
        saved = None
        if checkpoint is not None:
            fixed = {**settings, "record_every": record_every, "chunk_size": chunk_size}
            path = Path(fspath(checkpoint))
            saved = Checkpoint(path, checkpoint_every, fixed, session, target)
        try:
            return _run(session, recorded, saved, progress, cancel, on_step)
        except KeyboardInterrupt:
            session.finish()
            raise


def _run(
    session: Session,
    recorded: tuple[int, ...],
    saved: Checkpoint | None,
    progress: ProgressCallback | bool | None,
    cancel: CancelFlag | None,
    on_step: Callable[[Measurement], None] | None,
) -> Fit:
    started, total = time.perf_counter(), session.settings["steps"]
    notes: list[str] = []
    if saved is not None and saved.resume(session):
        notes.append(f"went on from {saved.path} after {session.step} of {total} steps")
    before, diverged, stopped = session.seconds, None, None

    def keep_state() -> None:
        session.seconds = before + time.perf_counter() - started
        if saved is not None:
            saved.write(session)

    with Progress(total, "training", progress, done=session.step) as bar:
        while True:
            known = bool(session.history) and session.history[-1].step == session.step
            if session.step in recorded and not known:
                measured = session.measure()
                if not math.isfinite(measured.train_loss):
                    diverged = session.step
                    break
                session.record(measured)
                if on_step is not None:
                    on_step(measured)
            if session.keeper.out_of_patience:
                stopped = "patience"
                break
            if session.step == total:
                break
            try:
                stop_if_cancelled(
                    cancel, f"training after {session.step} of {total} steps; {_left(session)}"
                )
            except Cancelled as reason:
                keep_state()
                reason.fit = _fit(session, None, "cancelled", notes)
                raise
            if saved is not None and saved.is_due(session.step):
                keep_state()
            loss = session.advance()
            if loss is None:
                diverged = session.step
                break
            bar.describe(f"training, loss {loss:.4g}")
            bar.advance()
    if not session.history:
        raise InputError("the loss is not finite at the start: look at the model's outputs")
    if diverged is None:
        keep_state()
    else:
        notes.append(_diverged(diverged, session))
        warnings.warn(notes[-1], stacklevel=3)
    session.seconds = before + time.perf_counter() - started
    return _fit(session, diverged, stopped, notes)


def _fit(session: Session, diverged: int | None, stopped: str | None, notes: list[str]) -> Fit:
    """The record, once the parameters to be kept are in the model."""
    kept: int | None = session.finish()
    if diverged is not None and session.keeper.best is None:
        kept = None
    return Fit(
        tuple(session.history),
        session.settings,
        session.seconds,
        diverged,
        (*session.split.notes, *notes),
        kept,
        stopped,
    )


def _left(session: Session) -> str:
    """What a cancelled training leaves in the model."""
    if session.keeper.best is None:
        return "the parameters stay as they are now"
    return f"the parameters are the best so far, those of step {session.keeper.best.step}"


def _diverged(step: int, session: Session) -> str:
    settings: dict[str, Any] = session.settings
    hint = ""
    if settings["optimizer"] in ("gd", "momentum", "sgd"):
        hint = (
            ", which is above the largest stable step that "
            "mrviz.predict_training(model, target).stable_step estimates"
        )
    lost = "The parameters are lost: build the model again and lower lr"
    if session.keeper.best is not None:
        lost = f"The parameters are the best before, those of step {session.keeper.best.step}"
    return (
        f"diverged at step {step}: numbers are no longer finite with lr={settings['lr']}{hint}. "
        f"{lost}"
    )
