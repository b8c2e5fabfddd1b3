"""What a Gram is made of, written so that another process can tell whether it makes the same."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import torch
from torch import Tensor

from mrviz.ntk.plan import Plan, full_precision
from mrviz.ntk.tiles import Place
from mrviz.sources.base import evaluation_mode, module_hash, tensor_bytes

KIND = "mrviz Gram"
FORMAT = 1

WORDS = {
    "source": "the source has another structure or other weights",
    "program": "the program has another type, other parameters or others that are trainable",
    "mapping": "the output mapping is another one",
    "x1": "x1 holds other samples",
    "x2": "x2 is not the same",
}
"""How a difference is put where the manifest holds only a hash."""


def manifest(plan: Plan, place: Place) -> dict[str, Any]:
    """Everything that determines a Gram, and a description for people, as JSON values.

    Args:
        plan: what is computed.
        place: where.

    Returns:
        ``made_of`` is compared by :func:`differences`; so are ``outputs``, those of the model
        for the first sample, because attributes and code have no hash. ``about`` is for people.
    """
    model = plan.model
    with torch.no_grad(), evaluation_mode(model), full_precision():
        outputs = model(plan.x1[:1]).double().flatten().tolist()
    rows, columns = plan.shape
    return {
        "kind": KIND,
        "format": FORMAT,
        "made_of": {
            "source": module_hash(model.source),
            "program": module_hash(model.program),
            "capacity": model.capacity,
            "mapping": module_hash(model.head),
            "x1": _samples_hash(plan.x1),
            "x2": None if plan.x2 is None else _samples_hash(plan.x2),
            "reduce": plan.reduction.name,
            "method": plan.method,
            "chunk_size": plan.chunk_size,
            "dtype": str(model.source.dtype).removeprefix("torch."),
            "device": torch.device(place.device).type,
            "accumulation": str(place.accumulation).removeprefix("torch."),
            "tf32": plan.tf32,
            "bare": plan.bare,
        },
        "outputs": outputs,
        "about": {
            "matrix": f"{rows}×{columns}, float64, rows sample-major: (sample, output)",
            "source": model.source.name,
            "program": f"{type(model.program).__name__} with {model.n_parameters} parameters",
            "tiles": len(plan.tiles),
            "torch": torch.__version__,
            "mrviz": sys.modules["mrviz"].__version__,
        },
    }


def differences(stored: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two manifests, in words; nothing where they make the same Gram.

    Outputs are compared to half the digits of their dtype: other processors round differently.
    """
    there, here = stored["made_of"], now["made_of"]
    found = []
    for key, value in here.items():
        if there.get(key) == value:
            continue
        found.append(WORDS.get(key, f"{key} is {there.get(key)!r} there and {value!r} here"))
    if not found and not _close(stored["outputs"], now["outputs"], here["dtype"]):
        found.append("the model gives other outputs for the first sample")
    return found


def _close(a: list[float], b: list[float], dtype: str) -> bool:
    if len(a) != len(b):
        return False
    first, second = torch.tensor([a, b], dtype=torch.float64)
    tolerance = torch.finfo(getattr(torch, dtype)).eps ** 0.5
    return bool((first - second).norm() <= tolerance * second.norm())


def _samples_hash(x: Tensor) -> str:
    digest = hashlib.blake2b(f"{tuple(x.shape)}{x.dtype}".encode(), digest_size=16)
    digest.update(tensor_bytes(x))
    return digest.hexdigest()
