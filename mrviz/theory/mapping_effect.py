"""By how much another output mapping would change the kernel."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.errors import InputError
from mrviz.ntk import Gram, ntk_gram
from mrviz.ntk.factors import Reduce
from mrviz.programs import ReprogrammedModel, reprogram
from mrviz.programs.training import split_sizes
from mrviz.targets import Target
from mrviz.theory.drift import kernel_drift


@dataclass(frozen=True)
class MappingEffect:
    """Distance between the kernels of one source and program behind two output mappings.

    Attributes:
        mapping: name of the other mapping.
        instead_of: name of the model's own.
        relative: ‖Θ_other − Θ‖_F / ‖Θ‖_F.
        scale: ‖Θ_other‖_F / ‖Θ‖_F; averages over many source outputs have small kernels.
        alignment: centered kernel alignment (CKA), 0 to 1, which a factor does not change;
            ``None`` where a centered kernel is zero.
    """

    mapping: str
    instead_of: str
    relative: float
    scale: float
    alignment: float | None

    def describe(self) -> str:
        """One sentence.

        Example:
            >>> MappingEffect("random", "identity", 0.5, 0.9, 0.8).describe()
            'random instead of identity changes the kernel by 50 % of its norm (CKA 0.80)'
        """
        cka = "" if self.alignment is None else f" (CKA {self.alignment:.2f})"
        percent = 100 * self.relative
        number = f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
        return (
            f"{self.mapping} instead of {self.instead_of} changes the kernel by {number} % of "
            f"its norm{cka}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)

    def __repr__(self) -> str:
        return f"MappingEffect({self.describe()})"


def mapping_effect(
    model: ReprogrammedModel,
    target: Target,
    mapping: Any,
    *,
    gram: Gram | None = None,
    n: int | None = None,
    reduce: Reduce = "full",
    seed: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
    **options: Any,
) -> MappingEffect:
    """By how much the tangent kernel of a model would change with another output mapping.

    Source, program and samples stay the same; only b differs, and what training could move in it.

    Args:
        model: the reprogrammed model, with its own mapping.
        target: the target data set, to which a mapping chosen by name is fitted.
        mapping: the other one, as in :func:`~mrviz.reprogram`.
        gram: the model's Gram of these samples, where it is there already.
        n: use the first ``n`` training samples; default: all.
        reduce: as in :func:`~mrviz.ntk_gram`.
        seed: of mappings that are drawn at random.
        device: as in :func:`~mrviz.ntk_gram`.
        dtype: as in :func:`~mrviz.ntk_gram`.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.
        **options: of a mapping chosen by name, such as ``m=4``.

    Raises:
        InputError: a mapping or options that do not fit, or a kernel that is zero.
        Cancelled: ``cancel`` was set.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 6)), (1, 4, 4))
        >>> x, y = torch.rand(9, 1, 2, 2), [0, 1, 2] * 3
        >>> target = mrviz.Target(x, y, x, y)
        >>> model = mrviz.reprogram(source, target, program="linear", mapping="identity")
        >>> mapping_effect(model, target, "identity").relative
        0.0
        >>> mapping_effect(model, target, "logit_average", m=2).relative > 0
        True
    """
    if not isinstance(model, ReprogrammedModel):
        raise InputError(f"model must be a ReprogrammedModel, got {type(model).__name__}")
    n, _ = split_sizes(target, n, None)
    other = reprogram(
        model.source, target, program=model.program, mapping=mapping, seed=seed, **options
    )
    shared: dict[str, Any] = {"reduce": reduce, "device": device, "dtype": dtype}
    shared |= {"progress": progress, "cancel": cancel}
    x = target.x_train[:n]
    before = ntk_gram(model, x, **shared) if gram is None else gram
    after = ntk_gram(other, x, **shared)
    drift = kernel_drift(before, after)
    return MappingEffect(
        mapping=other.mapping.label,
        instead_of=model.mapping.label,
        relative=drift.relative,
        scale=float(after.matrix.norm()) / float(before.matrix.norm()),
        alignment=drift.alignment,
    )
