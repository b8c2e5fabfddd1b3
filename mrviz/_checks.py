"""Checks of what users hand in, and the conversion of arrays to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrviz.errors import DeviceError, InputError

Array = Any
"""A torch tensor, a numpy array or nested sequences of numbers."""


def as_shape(shape: Sequence[int], name: str) -> tuple[int, ...]:
    """Returns ``shape`` as a tuple of positive ints or says what is wrong with it."""
    try:
        result = tuple(int(s) for s in shape)
    except TypeError:
        raise InputError(f"{name} must be a tuple such as (3, 64, 64), got {shape!r}") from None
    if not result or min(result) < 1:
        raise InputError(f"{name} must hold positive sizes only, got {result}")
    return result


def as_samples(
    x: Array, name: str, shape: tuple[int, ...] | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Returns ``x`` as a finite floating-point tensor of shape (n, *shape).

    Args:
        x: samples, first axis = sample.
        name: how the caller calls them, for the error message.
        shape: shape of one sample; ``None`` accepts any.
        dtype: dtype of the result; ``None`` keeps that of ``x``.

    Raises:
        InputError: integer values, NaN or infinite values, no samples or another shape.
    """
    tensor = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
    if not tensor.is_floating_point():
        raise InputError(
            f"{name} holds {tensor.dtype} values, but inputs are floating point in [0, 1]: "
            f"for 8-bit images pass {name} / 255"
        )
    if tensor.ndim < 2:
        raise InputError(
            f"{name} must have a sample axis and at least one more, got shape "
            f"{tuple(tensor.shape)}; a single sample is {name}[None]"
        )
    if tensor.shape[0] == 0:
        raise InputError(f"{name} holds no samples (shape {tuple(tensor.shape)})")
    if shape is not None and tuple(tensor.shape[1:]) != shape:
        raise InputError(
            f"{name} holds samples of shape {tuple(tensor.shape[1:])}, but {shape} is expected"
        )
    if not bool(torch.isfinite(tensor).all()):
        bad = (~torch.isfinite(tensor)).flatten(1).any(1).nonzero().flatten()
        raise InputError(
            f"{name} holds NaN or infinite values, first in sample {int(bad[0])} "
            f"({bad.numel()} of {tensor.shape[0]} samples): remove or repair them"
        )
    return tensor if dtype is None else tensor.to(dtype)


def as_labels(y: Array, name: str, n: int, n_classes: int | None = None) -> Tensor:
    """Returns ``y`` as an int64 tensor of ``n`` class labels in 0 … n_classes − 1.

    Raises:
        InputError: another length, labels that are not integers, or labels out of range.
    """
    tensor = y if isinstance(y, Tensor) else torch.as_tensor(np.asarray(y))
    if tensor.ndim != 1 or tensor.shape[0] != n:
        raise InputError(
            f"{name} must be one label for each of {n} samples, got shape {tuple(tensor.shape)}"
        )
    if tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise InputError(f"{name} must hold integer labels, got {tensor.dtype}")
    tensor = tensor.long()
    low, high = int(tensor.min()), int(tensor.max())
    if low < 0 or (n_classes is not None and high >= n_classes):
        upper = "" if n_classes is None else f" to {n_classes - 1} ({n_classes} classes)"
        raise InputError(f"{name} must hold labels from 0{upper}, got labels from {low} to {high}")
    return tensor


def as_device(device: torch.device | str | None, default: torch.device) -> torch.device:
    """Returns the device asked for.

    Raises:
        DeviceError: an unknown device, or CUDA where PyTorch finds none.
    """
    if device is None:
        return default
    try:
        result = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"device={device!r} is not a device PyTorch knows: {error}") from None
    if result.type == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError(
                f"device={device!r} asks for CUDA, but PyTorch finds no usable NVIDIA GPU here: "
                "pass device='cpu', or install a CUDA build of torch and its driver"
            )
        if result.index is not None and result.index >= torch.cuda.device_count():
            raise DeviceError(
                f"device={device!r} does not exist: this machine has "
                f"{torch.cuda.device_count()} GPU(s), numbered from 0"
            )
    return result
