"""How far a kernel has moved: relative change and centered kernel alignment."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from mrviz.errors import InputError
from mrviz.ntk import Gram


@dataclass(frozen=True)
class Drift:
    """Distance between a kernel before and after training (T12).

    Attributes:
        relative: ‖Θ_t − Θ_0‖_F / ‖Θ_0‖_F; zero for a kernel that has not moved.
        alignment: centered kernel alignment (CKA) of the two, 0 to 1; one where they differ by a
            factor and a constant alone. ``None`` where a centered kernel is zero.
    """

    relative: float
    alignment: float | None

    def to_dict(self) -> dict[str, Any]:
        """Both as plain values."""
        return asdict(self)


def kernel_drift(before: Gram, after: Gram) -> Drift:
    """Drift of a kernel between two Grams of the same samples (docs/theory.md, section 5).

    CKA is ⟨HΘ_0H, HΘ_tH⟩_F / (‖HΘ_0H‖_F ‖HΘ_tH‖_F) with H = I − 11ᵀ/N (Cortes, Mohri and
    Rostamizadeh 2012; Kornblith et al. 2019); the points it compares are the N rows, each a pair
    of sample and output for the full kernel. Small drift and CKA near one say that training
    stayed in the regime that its prediction assumes.

    Args:
        before: Gram at the start.
        after: Gram of the same samples, with the same reduction, after training.

    Raises:
        InputError: the Grams are not of the same samples and outputs, or the first is zero.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> program = mrviz.programs.Linear((1, 4, 4), (1, 2, 2))
        >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
        >>> gram = mrviz.ntk_gram(model, torch.rand(5, 1, 2, 2))
        >>> kernel_drift(gram, gram).relative
        0.0
    """
    for gram in (before, after):
        if not gram.symmetric:
            raise InputError("drift compares symmetric Grams: compute them without x2")
    kinds = [(g.n, g.outputs, g.reduce) for g in (before, after)]
    if kinds[0] != kinds[1]:
        raise InputError(
            "the two Grams must be of the same samples, outputs and reduction, got (n, outputs, "
            f"reduce) = {kinds[0]} and {kinds[1]}"
        )
    first = before.matrix.double()
    second = after.matrix.to(first)
    scale = float(first.norm())
    if scale == 0:
        raise InputError("the kernel before training is zero: its drift is undefined")
    return Drift(float((second - first).norm()) / scale, centered_alignment(first, second))


def centered_alignment(first: Tensor, second: Tensor) -> float | None:
    """CKA of two symmetric matrices (N, N); ``None`` where one is zero once centered."""
    a, b = _centered(first), _centered(second)
    sizes = float(a.norm()), float(b.norm())
    round_off = len(first) * 1e-15
    if sizes[0] <= round_off * float(first.norm()) or sizes[1] <= round_off * float(second.norm()):
        return None
    return float((a * b).sum()) / (sizes[0] * sizes[1])


def _centered(matrix: Tensor) -> Tensor:
    return matrix - matrix.mean(0) - matrix.mean(1, keepdim=True) + matrix.mean()
