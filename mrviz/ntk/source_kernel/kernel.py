"""K_S, the source's own tangent kernel: by its parameters, or of its infinitely wide limit."""

from __future__ import annotations

import copy
import hashlib
import re
import time
from collections import OrderedDict
from dataclasses import replace
from threading import Lock

import torch
from torch import Tensor, nn

from mrviz._checks import Array, as_device, as_samples
from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.errors import InputError
from mrviz.ntk.factors import Reduce, Reduction
from mrviz.ntk.gram import Gram
from mrviz.ntk.plan import check_fits, full_precision
from mrviz.ntk.source_kernel.infinite_width import infinite_width_ntk
from mrviz.ntk.source_kernel.layerwise import LayerwiseGram
from mrviz.sources import SourceModel
from mrviz.sources.base import tensor_bytes
from mrviz.sources.families import BIAS_VARIANCE, WEIGHT_VARIANCE
from mrviz.targets.options import as_choice

KINDS = ("empirical", "infinite-width")


def source_ntk(
    source: SourceModel,
    x: Array,
    x2: Array | None = None,
    kind: str = "empirical",
    reduce: Reduce = "trace",
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    chunk_size: int | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Gram:
    """K_S, the tangent kernel of a source by its own parameters (docs/theory.md, section 7).

    The two kinds are different matrices, and neither is an estimate of the other:

    - "empirical" is the kernel of this network with these weights, random or trained:
      ⟨∂f_c(x_i)/∂w, ∂f_c'(x_j)/∂w⟩ over all weights and biases as they are stored, that is, in
      the standard parameterisation.
    - "infinite-width" is the limit for random weights of variance 2/fan-in and biases of
      variance 0.1 (what ``load_source`` starts with), in the NTK parameterisation
      (:func:`~mrviz.infinite_width_ntk`). Trained weights do not matter.

    At random weights and large width each layer's part of the first, that of its weights times
    2/fan-in and that of its biases times 0.1, approaches that layer's part of the second. As the
    factors differ from layer to layer, the sums are not proportional.

    Args:
        source: the frozen source; left as it is, a copy is differentiated.
        x: source inputs (n1, *input_shape) in [0, 1], floating point.
        x2: inputs of the columns; default: x, which computes the upper triangle only.
        kind: "empirical" (any source) or "infinite-width" (families dnn and cnn).
        reduce: "trace", "sum", a class number (n × n) or "full" (n·C × n·C), C the number of
            outputs; see :func:`~mrviz.ntk_gram`. "trace" and "full" take C backward passes a
            sample, "sum" and a class number take one: with 1,000 classes choose "sum", which took
            0.8 s where "trace" took 277 s (EfficientNet-Lite0 at 64 × 64, 8 samples, one core).
            It is another kernel, not an estimate of the trace.
        device: where to compute; default: where the source is.
        dtype: of the gradients; default: the source's. Their products are summed in float64,
            on GPUs that are slow at it in float32 unless ``dtype`` is float64. The
            infinite-width kernel is float64.
        chunk_size: samples differentiated at once; default: by memory. The result does not
            depend on it.
        progress: callback (done, total, label); ``False`` for silence; default: a text bar.
        cancel: flag with ``is_set()``, checked between passes.

    Returns:
        The Gram. ``info.why`` says how the gradients of the layers were had. Recent results
        are kept (:data:`gram_cache`) and found again by source, inputs and options.

    Raises:
        InputError: the inputs do not fit; the source has no parameters, or is not of a family
            with an infinite-width kernel.
        DeviceError: the device is not there.
        ResourceError: the computation does not fit into memory.
        Cancelled: ``cancel`` was set.

    Example:
        >>> source = mrviz.load_source("cnn", depth=2, width=8, input_size=8)
        >>> x = torch.rand(5, 1, 8, 8)
        >>> mrviz.source_ntk(source, x).matrix.shape
        torch.Size([5, 5])
        >>> mrviz.source_ntk(source, x, kind="infinite-width").info.why
        'infinite-width limit of a cnn with 2 convolutions and flattening'
    """
    started = time.perf_counter()
    if not isinstance(source, SourceModel):
        raise InputError(
            f"source must be a SourceModel, got {type(source).__name__}: pass model.source of a "
            "reprogrammed model, or wrap a module in mrviz.SourceModel(module, input_shape)"
        )
    kind = as_choice(kind, KINDS, "kind")
    place = as_device(device, source.device)
    if kind == "infinite-width":
        if dtype not in (None, torch.float64):
            raise InputError(f"kind='infinite-width' is computed in float64, got dtype={dtype}")
        dtype = torch.float64
    dtype = dtype or source.dtype
    if not dtype.is_floating_point:
        raise InputError(f"dtype must be a floating-point type, got {dtype}")
    if chunk_size is not None and chunk_size < 1:
        raise InputError(f"chunk_size must be at least 1, got {chunk_size}")
    reduction = Reduction(reduce, source.outputs)
    sides = [
        as_samples(value, name, source.input_shape, dtype).to(place)
        for value, name in ((x, "x"), (x2, "x2"))
        if value is not None
    ]
    check_fits(len(sides[0]), len(sides[-1]), reduction, place)
    key = _key(source, sides, kind, reduction)
    gram = gram_cache.get(key)
    if gram is None:
        if kind == "empirical":
            with full_precision():
                gram = LayerwiseGram(source, sides, reduction, chunk_size).compute(progress, cancel)
        else:
            gram = _infinite_width(source, sides, reduction, chunk_size, progress, cancel)
        gram_cache.put(key, gram)
        computed, cached = gram.info.computed, 0
    else:
        computed, cached = 0, gram.info.computed
    seconds = time.perf_counter() - started
    return replace(gram, info=replace(gram.info, computed=computed, cached=cached, seconds=seconds))


class GramCache:
    """Source kernels by source, inputs and options, least recently used out.

    Args:
        limit: bytes of matrices to keep at most.
    """

    def __init__(self, limit: int = 256 << 20) -> None:
        self.limit = limit
        self._grams: OrderedDict[bytes, Gram] = OrderedDict()
        self._lock = Lock()

    @property
    def n_bytes(self) -> int:
        """Bytes in use."""
        return sum(gram.matrix.numel() * 8 for gram in self._grams.values())

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._grams.clear()

    def get(self, key: bytes) -> Gram | None:
        """A Gram of its own for the caller, or ``None``."""
        with self._lock:
            gram = self._grams.get(key)
            if gram is None:
                return None
            self._grams.move_to_end(key)
        return replace(gram, matrix=gram.matrix.clone())

    def put(self, key: bytes, gram: Gram) -> None:
        """Keeps a copy, if it fits at all."""
        if gram.matrix.numel() * 8 > self.limit:
            return
        with self._lock:
            self._grams[key] = replace(gram, matrix=gram.matrix.clone())
            while self.n_bytes > self.limit:
                self._grams.popitem(last=False)


gram_cache = GramCache()
"""The source kernels that every call of this process shares; ``clear()`` empties it."""


def _key(source: SourceModel, sides: list[Tensor], kind: str, reduction: Reduction) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{source.fingerprint()}{kind}{reduction.name!r}".encode())
    for x in sides:
        digest.update(f"{tuple(x.shape)}{x.dtype}{x.device}".encode())
        digest.update(tensor_bytes(x))
    return digest.digest()


def _infinite_width(
    source: SourceModel,
    sides: list[Tensor],
    reduction: Reduction,
    chunk_size: int | None,
    progress: ProgressCallback | bool | None,
    cancel: CancelFlag | None,
) -> Gram:
    """Kernel of the source's architecture on inputs as its module takes them."""
    family, depth, pooling, biased = wide_architecture(source)
    normalized = [_normalized(source, x) for x in sides]
    gram = infinite_width_ntk(
        normalized[0],
        normalized[1] if len(normalized) > 1 else None,
        family=family,
        depth=depth,
        weight_std=WEIGHT_VARIANCE**0.5,
        bias_std=BIAS_VARIANCE**0.5 if biased else 0.0,
        pooling=pooling,
        chunk_size=chunk_size,
        progress=progress,
        cancel=cancel,
    )
    matrix, outputs = gram.matrix, source.outputs
    if reduction.name == "full":
        matrix = torch.kron(matrix, torch.eye(outputs, dtype=matrix.dtype, device=matrix.device))
    trace = float(matrix.trace()) if gram.symmetric else None
    return replace(
        gram,
        matrix=matrix,
        outputs=outputs,
        reduce=reduction.name,
        info=replace(gram.info, trace=trace),
    )


def _normalized(source: SourceModel, x: Tensor) -> Tensor:
    """Inputs as the source's module takes them, in float64."""
    twin = copy.deepcopy(source).to(x.device, x.dtype)
    with torch.no_grad():
        return twin.normalized(x)


def wide_architecture(source: SourceModel) -> tuple[str, int, str, bool]:
    """Family, depth and pooling of a dnn or cnn, and whether it has biases, read off its module.

    Raises:
        InputError: the module is neither.
    """
    module = source.module
    layers = list(module) if type(module) is nn.Sequential else []
    body = "".join(map(_letter, layers))
    weights = [layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]
    biases = {layer.bias is not None for layer in weights}
    if len(biases) == 1:
        for pattern, family, pooling in (
            (r"F?(LR)*L", "dnn", "flatten"),
            (r"(CR)+FL", "cnn", "flatten"),
            (r"(CR)+GFL", "cnn", "gap"),
        ):
            if re.fullmatch(pattern, body):
                return family, len(weights) - (family == "cnn"), pooling, biases.pop()
    raise InputError(
        f"source {source.name!r} ({type(module).__name__}) has no infinite-width kernel here: "
        "there is one for the families dnn and cnn (an nn.Sequential of dense layers, or of 3 × 3 "
        "convolutions with padding 1 and one dense layer, ReLU between them, all with biases or "
        "none). Pass kind='empirical', or choose a dnn or cnn to stand for it with "
        "mrviz.infinite_width_ntk(x, family=..., depth=...)"
    )


def _letter(layer: nn.Module) -> str:
    """One letter for each kind of layer that a family is made of, "?" for any other."""
    if type(layer) is nn.Conv2d:
        shape = layer.kernel_size, layer.stride, layer.dilation
        plain = shape == ((3, 3), (1, 1), (1, 1)) and layer.padding in ((1, 1), "same")
        return "C" if plain and layer.groups == 1 and layer.padding_mode == "zeros" else "?"
    if type(layer) is nn.AdaptiveAvgPool2d:
        return "G" if layer.output_size in (1, (1, 1)) else "?"
    if type(layer) is nn.Flatten:
        return "F" if (layer.start_dim, layer.end_dim) == (1, -1) else "?"
    return "L" if type(layer) is nn.Linear else "R" if type(layer) is nn.ReLU else "?"
