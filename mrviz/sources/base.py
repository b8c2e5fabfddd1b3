"""The frozen source model f_S: any torch module, checked once and never trained here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mrviz._checks import Array, as_labels, as_samples, as_shape
from mrviz.errors import InputError

Normalize = tuple[Sequence[float], Sequence[float]] | Callable[[Tensor], Tensor]


_evaluating: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
_lock = Lock()


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Puts every submodule in eval mode and gives each its own mode back afterwards.

    Counts, so that threads that evaluate the same module do not end each other's eval mode.
    """
    with _lock:
        held = [m for m in module.modules() if m.training or m in _evaluating]
        for m in held:
            _evaluating[m] = _evaluating.get(m, 0) + 1
            m.training = False
    try:
        yield
    finally:
        with _lock:
            for m in held:
                _evaluating[m] -= 1
                if not _evaluating[m]:
                    del _evaluating[m]
                    m.training = True


class SourceModel(nn.Module):
    """A frozen source model f_S: R^{d_S} → R^{c_S} (docs/theory.md, section 1).

    The module's parameters are frozen (``requires_grad = False``). It is always evaluated in
    eval mode, whatever mode it is in, and gets its own mode back: dropout or batch statistics
    would make its tangent kernel noise. It is probed once with three samples.

    Args:
        module: any torch module that maps (batch, *input_shape) to (batch, outputs).
        input_shape: shape of one input, such as (3, 64, 64), without the batch axis.
        name: shown in the interface; default: the module's class name.
        normalize: (mean, std) per channel, or a callable, applied to inputs in [0, 1] before
            the module; differentiated through, so the kernel is that of unnormalised inputs.
        classes: names of the outputs.
        test_data: (x, y) of the source's own task, held out from its training; needed by the
            source-strength condition (T8).

    Raises:
        InputError: the module does not fit the description above; the message says where.

    Example:
        >>> source = SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (1, 2, 2))
        >>> source.outputs
        3
    """

    spec: dict[str, Any] | None = None
    """Name and options that :func:`~mrviz.load_source` made it from; ``None`` for others."""

    anchor: Tensor  # carries device and dtype where the module has no numbers of its own

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        input_shape: Sequence[int],
        *,
        name: str | None = None,
        normalize: Normalize | None = None,
        classes: Sequence[str] | None = None,
        test_data: tuple[Array, Array] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise InputError(f"module must be a torch.nn.Module, got {type(module).__name__}")
        self.module = module.requires_grad_(False)
        self.register_buffer("anchor", torch.zeros(()), persistent=False)
        self.input_shape = as_shape(input_shape, "input_shape")
        self.name = name or type(module).__name__
        self._normalize: Callable[[Tensor], Tensor] | None = None
        if normalize is not None:
            self._set_normalize(normalize)
        self.outputs = self._probe()
        self.classes = tuple(str(c) for c in classes) if classes is not None else None
        if self.classes is not None and len(self.classes) != self.outputs:
            raise InputError(
                f"classes names {len(self.classes)} classes, but the module has "
                f"{self.outputs} outputs"
            )
        self.test_data: tuple[Tensor, Tensor] | None = None
        if test_data is not None:
            x = as_samples(test_data[0], "test_data[0]", self.input_shape, self.dtype)
            self.test_data = x, as_labels(test_data[1], "test_data[1]", len(x), self.outputs)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self._reference().device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self._reference().dtype

    def forward(self, u: Tensor) -> Tensor:
        """Logits (batch, outputs) of inputs u (batch, *input_shape), in eval mode.

        Raises:
            InputError: u has another shape, or the module returned something else.
        """
        if tuple(u.shape[1:]) != self.input_shape:
            raise InputError(
                f"source {self.name!r} takes inputs of shape {self.input_shape}, "
                f"got {tuple(u.shape[1:])}"
            )
        with evaluation_mode(self):
            out = self.module(self.normalized(u))
        if not isinstance(out, Tensor):
            raise InputError(
                f"source {self.name!r} returned a {type(out).__name__}, not a tensor: wrap the "
                "module so that its forward returns the logits alone"
            )
        if out.ndim != 2 or out.shape[0] != u.shape[0]:
            raise InputError(
                f"source {self.name!r} returned shape {tuple(out.shape)} for a batch of "
                f"{u.shape[0]}, but (batch, outputs) is expected"
            )
        return out

    def normalized(self, u: Tensor) -> Tensor:
        """Inputs u as the module takes them."""
        return u if self._normalize is None else self._normalize(u)

    def fingerprint(self, *, outputs: bool = True) -> str:
        """Hash of what determines the outputs: structure, weights, and outputs on one sample.

        The outputs tell apart what the weights do not: attributes, buffers that ``state_dict``
        leaves out, another ``forward`` under the same name, another normalisation.

        Args:
            outputs: whether they count; without them the hash is the same on every device.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.name}|{self.input_shape}|{self.module}".encode())
        for key, value in self.state_dict().items():
            digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(tensor_bytes(value))
        found = self.sample_outputs() if outputs else None
        if found is not None:
            digest.update(tensor_bytes(found))
        return digest.hexdigest()

    @torch.no_grad()
    def sample_outputs(self) -> Tensor | None:
        """Outputs (1, outputs) on the fingerprint's sample; ``None`` where the source fails."""
        u = torch.rand((1, *self.input_shape), generator=torch.Generator().manual_seed(1))
        try:
            return self((3 * u - 1).to(self.device, self.dtype))
        except Exception:  # it fails on the user's samples too, with the right message
            return None

    def extra_repr(self) -> str:
        """Text for the module's repr."""
        return f"name={self.name!r}, input_shape={self.input_shape}, outputs={self.outputs}"

    def _reference(self) -> Tensor:
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            if tensor.is_floating_point():
                return tensor
        return self.anchor

    def _set_normalize(self, normalize: Normalize) -> None:
        if callable(normalize):
            self._normalize = normalize
            return
        try:
            mean, std = (
                torch.as_tensor(v, dtype=self.dtype, device=self.device) for v in normalize
            )
            channels = (-1,) + (1,) * (len(self.input_shape) - 1)
            mean, std = mean.reshape(channels), std.reshape(channels)
        except (TypeError, ValueError):
            raise InputError(
                f"normalize must be (mean, std) per channel or a callable, got {normalize!r}"
            ) from None
        if mean.shape[0] not in (1, self.input_shape[0]) or std.shape != mean.shape:
            raise InputError(
                f"normalize holds {mean.shape[0]} means and {std.shape[0]} standard deviations "
                f"for {self.input_shape[0]} channels"
            )
        if not bool((std > 0).all()):
            raise InputError(f"normalize: standard deviations must be positive, got {normalize[1]}")
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self._normalize = self._standardize

    def _standardize(self, u: Tensor) -> Tensor:
        return (u - self.mean) / self.std

    def _probe(self) -> int:
        """Runs three random samples together and alone; returns the number of outputs."""
        generator = torch.Generator().manual_seed(0)
        u = torch.rand((3, *self.input_shape), generator=generator)
        u = u.to(self.device, self.dtype)
        with torch.no_grad():
            try:
                together, again = self(u), self(u)
                alone = self(u[:1])
            except InputError:
                raise
            except Exception as error:
                raise InputError(
                    f"source {self.name!r} failed on a batch of shape {tuple(u.shape)}: "
                    f"{type(error).__name__}: {error}. Check input_shape={self.input_shape}"
                ) from error
        if not torch.isfinite(together).all():
            raise InputError(f"source {self.name!r} returned NaN or infinite values on [0, 1]")
        scale = float(together.abs().max()) + 1e-30
        if float((together - again).abs().max()) > 1e-3 * scale:
            raise InputError(
                f"source {self.name!r} gives other outputs on a second call in eval mode: it is "
                "random, so its tangent kernel would be noise. Remove the randomness"
            )
        if float((together[:1] - alone).abs().max()) > 1e-2 * scale:
            raise InputError(
                f"source {self.name!r} gives a sample other outputs alone than in a batch (batch "
                "statistics in eval mode?): use running statistics, so that samples are "
                "independent"
            )
        return int(together.shape[1])


def tensor_bytes(tensor: Tensor) -> bytes:
    """The raw bytes of a tensor's values, whatever its device and dtype."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def module_hash(module: nn.Module) -> str:
    """Hash of type, structure, numbers, and which of them are trainable."""
    text = f"{type(module).__qualname__}|{module}"
    digest = hashlib.blake2b(re.sub(r" at 0x[0-9a-fA-F]+", "", text).encode(), digest_size=16)
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}{value.requires_grad}".encode())
        digest.update(tensor_bytes(value))
    return digest.hexdigest()
