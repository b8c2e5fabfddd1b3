"""Options of a training: what is known, what is checked, and what the defaults are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from mrviz.errors import DeviceError, InputError
from mrviz.programs.training.spsa import SPSA, SPSA_RATE
from mrviz.targets import Target
from mrviz.targets.options import as_choice, as_count

OPTIMIZERS = ("gd", "momentum", "sgd", "adam")
"""Optimizers that follow gradients."""
FULL_BATCH = ("gd", "momentum")
STEPS = 100
"""Steps where neither steps nor epochs are given."""
BATCH_SIZE = 128
MOMENTUM = 0.9
ADAM_RATES = {"delta": 0.1, "other": 1e-3}
"""Default step sizes of Adam, those of the paper: for prompts δ and for all other parameters."""
SCHEDULES = ("constant", "cosine")
KEEP = ("last", "val_loss", "val_accuracy")
"""Which parameters training leaves in the model."""
AMP_TYPES = ("bfloat16", "float16")


def make_settings(
    optimizer: str | SPSA,
    lr: float | None,
    steps: int | None,
    epochs: int | None,
    batch_size: int | None,
    momentum: float | None,
    n: int,
) -> dict[str, Any]:
    """Checked settings of the steps; what does not apply to the optimizer is an error."""
    spsa = SPSA() if optimizer == "spsa" else optimizer
    if isinstance(spsa, SPSA):
        optimizer = "spsa"
    optimizer = as_choice(optimizer, (*OPTIMIZERS, "spsa"), "optimizer")
    full = optimizer in FULL_BATCH
    if full and batch_size is not None:
        raise InputError(
            f"batch_size does not apply to optimizer={optimizer!r}, which uses all samples in "
            "each step: leave it out, or choose 'sgd' or 'adam'"
        )
    if momentum is not None and optimizer != "momentum":
        hint = ": pass optimizer=SPSA(momentum=...)" if optimizer == "spsa" else ""
        raise InputError(f"momentum applies to optimizer='momentum' only, got {optimizer!r}{hint}")
    momentum = check_momentum(momentum) if optimizer == "momentum" else None
    if lr is None and optimizer == "spsa":
        lr = SPSA_RATE
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
        "spsa": asdict(spsa) if isinstance(spsa, SPSA) else None,
    }


def check_schedule(schedule: str, optimizer: str) -> str:
    """The schedule; raises ``InputError`` for an unknown one, or one on top of SPSA's own."""
    as_choice(schedule, SCHEDULES, "schedule")
    if schedule != "constant" and optimizer == "spsa":
        raise InputError(
            f"schedule={schedule!r} does not apply to optimizer='spsa', whose step sizes fall as "
            "SPSA(decay=...) says"
        )
    return schedule


def check_keep(keep: str | None, patience: int | None, target: Target) -> tuple[str, int | None]:
    """Which parameters are kept, and after how many measurements training gives up.

    Raises:
        InputError: an unknown choice, or one that the target has no validation samples for.
    """
    keep = ("last" if patience is None else "val_loss") if keep is None else keep
    as_choice(keep, KEEP, "keep")
    if patience is not None:
        as_count(patience, "patience", 1)
        if keep == "last":
            raise InputError("patience needs keep='val_loss' or 'val_accuracy', got keep='last'")
    if keep != "last" and target.x_val is None:
        raise InputError(
            f"target {target.name!r} has no validation samples to choose parameters by: load it "
            "with n_val=..., or pass x_val and y_val to mrviz.Target. Test samples are never "
            "used for this"
        )
    if keep == "val_accuracy" and not target.is_classification:
        raise InputError(
            f"target {target.name!r} has real-valued outputs and no accuracy: use keep='val_loss'"
        )
    return keep, patience


def check_amp(
    amp: bool | str, optimizer: str, device: torch.device, dtype: torch.dtype
) -> str | None:
    """The half-precision type to compute in, or ``None`` for full precision.

    Raises:
        InputError: an unknown type, or a model or an optimizer that needs full precision.
        DeviceError: a device without mixed precision.
    """
    if amp is False:
        return None
    if amp is not True:
        as_choice(amp, AMP_TYPES, "amp")
    if optimizer == "spsa":
        raise InputError(
            "amp does not apply to optimizer='spsa': differences of losses that are nearly equal "
            "need full precision"
        )
    if dtype != torch.float32:
        raise InputError(f"amp speeds up float32 models, but this source computes in {dtype}")
    if device.type not in ("cuda", "cpu") or not torch.amp.is_autocast_available(device.type):
        raise DeviceError(f"mixed precision is not available on {device}: leave amp out")
    if device.type == "cpu":
        if amp == "float16":
            raise DeviceError(
                "amp='float16' needs an NVIDIA GPU, but the model is on the CPU: use "
                "amp='bfloat16', move the model, or leave amp out"
            )
        return "bfloat16"
    if amp is True:
        return "bfloat16" if torch.cuda.is_bf16_supported(False) else "float16"
    return str(amp)


@contextmanager
def deterministic_algorithms(wanted: bool, device: torch.device) -> Iterator[None]:
    """Deterministic algorithms of PyTorch for a while, and what was set before afterwards.

    Raises:
        DeviceError: CUDA without the setting that makes cuBLAS deterministic.
    """
    if not wanted:
        yield
        return
    if device.type == "cuda" and "CUBLAS_WORKSPACE_CONFIG" not in os.environ:
        raise DeviceError(
            "deterministic=True on CUDA needs the environment variable "
            "CUBLAS_WORKSPACE_CONFIG=:4096:8, set before Python starts"
        )
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


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


def adam_rates(names: Mapping[str, Any]) -> dict[str, list[str]]:
    """Parameters by the kind of their default step size in :data:`ADAM_RATES`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        kind = "delta" if name.rpartition(".")[2] == "delta" else "other"
        groups.setdefault(kind, []).append(name)
    return groups
