"""The trace kernel of a target as a product of two: what the program sees, what the source does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.errors import InputError
from mrviz.ntk import jacobian_gram, ntk_gram
from mrviz.ntk.factors import trainable
from mrviz.ntk.plan import prepared
from mrviz.programs import KernelBlock, Program, ReprogrammedModel
from mrviz.programs.base import AffineProgram
from mrviz.sources.base import evaluation_mode
from mrviz.targets import Target
from mrviz.theory.decomposition import program_blocks


@dataclass(frozen=True, eq=False)
class GramFactors:
    """Trace kernel, source Jacobian Gram and program kernel of the same samples.

    Rows and columns are in the target's order; ``matrix[order][:, order]`` sorts them by class.

    Attributes:
        kernel: trace kernel of Θ_T, (1/C) Σ_c Θ^{cc}, (n, n), float64, on the CPU.
        source: source Jacobian Gram (1/C) tr(Γ_ij), (n, n). Γ_ij is A_i A_jᵀ by the whole source
            input, in a product by what the program can move: A_i D² A_jᵀ for a prompt, A taken
            back to the linear program's output where another program follows it.
        program: the program's scalar kernel s_i·s_j, (n, n), where Θ_T has one, so that
            kernel = program ⊙ source; else ``None``.
        labels: class of each sample, (n,); ``None`` for real-valued outputs.
        order: indices that sort the samples by class, (n,); as they come for real-valued outputs.
        distance: ‖program ⊙ source − kernel‖_F / ‖kernel‖_F, which is round-off; ``None``
            without a product.
        note: what the factors are, and why there is no product where there is none.
    """

    kernel: Tensor
    source: Tensor
    program: Tensor | None
    labels: Tensor | None
    order: Tensor
    distance: float | None
    note: str

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.kernel)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, matrices as lists of rows."""
        return {
            "n": self.n,
            "kernel": self.kernel.tolist(),
            "source": self.source.tolist(),
            "program": None if self.program is None else self.program.tolist(),
            "labels": None if self.labels is None else self.labels.tolist(),
            "order": self.order.tolist(),
            "distance": self.distance,
            "note": self.note,
        }

    def __repr__(self) -> str:
        product = "no product"
        if self.distance is not None:
            product = f"program ⊙ source = kernel to {self.distance:.1g}"
        return f"GramFactors(n={self.n}, {product}): {self.note}"


def gram_factors(
    model: ReprogrammedModel,
    target: Target,
    *,
    n: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> GramFactors:
    """Trace kernel of training samples and its factors (docs/theory.md, section 2).

    There is a product where Θ_T is one kernel block: (s_i·s_j) A_i A_jᵀ for a linear program; for
    a prompt s = 1, and the source's part is that of the trainable pixels, A_i D² A_jᵀ. Source
    Jacobians are kept (:data:`mrviz.ntk.cache`), so that after a Gram of the same samples the
    factors cost products of matrices only.

    Args:
        model: the reprogrammed model.
        target: the target data set.
        n: use the first ``n`` training samples; default: all.
        device: as in :func:`~mrviz.ntk_gram`.
        dtype: as in :func:`~mrviz.ntk_gram`.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.

    Raises:
        InputError: ``n`` is not a number of training samples, or nothing is trainable.
        Cancelled: ``cancel`` was set.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> x, y = torch.rand(6, 1, 2, 2), [2, 0, 1, 1, 0, 2]
        >>> target = mrviz.Target(x, y, x, y)
        >>> model = mrviz.reprogram(source, target, program="linear")
        >>> found = gram_factors(model, target)
        >>> torch.allclose(found.program * found.source, found.kernel)
        True
        >>> found.order
        tensor([1, 4, 2, 3, 0, 5])
    """
    available = len(target.x_train)
    n = available if n is None else n
    if not 1 <= n <= available:
        raise InputError(f"n={n} does not fit: the target has {available} training samples")
    model = prepared(model, device, dtype)
    x = model.inputs(target.x_train[:n])
    options: dict[str, Any] = {"reduce": "trace", "progress": progress, "cancel": cancel}
    kernel = ntk_gram(model, x, **options).matrix.double().cpu()
    features, note = _scalar_kernel(model, x)
    program = None if features is None else (features @ features.T).cpu()
    if features is None:
        source = _whole_input_gram(model, x, options)
    elif features.shape[1]:
        source = jacobian_gram(model, x, **options).matrix.double().cpu()
    else:
        program, source = torch.ones_like(kernel), kernel.clone()
    labels = target.y_train[:n] if target.is_classification else None
    return GramFactors(
        kernel=kernel,
        source=source,
        program=program,
        labels=labels,
        order=torch.arange(n) if labels is None else labels.argsort(stable=True),
        distance=None if program is None else _distance(program * source, kernel),
        note=note,
    )


PRODUCT = (
    "Entry by entry, the program kernel (s_i·s_j: which inputs the program sees as alike) times "
    "the source Jacobian Gram (tr(A_i A_jᵀ)/C: where the source answers alike) is the trace kernel."
)
CONSTANT = (
    "The program moves every input alike, so its kernel is 1 for all pairs: the source Jacobian "
    "Gram of what it can move, tr(A_i D² A_jᵀ)/C, is the trace kernel."
)


def _scalar_kernel(model: ReprogrammedModel, x: Tensor) -> tuple[Tensor | None, str]:
    """Features s (n, m) in float64 with Θ = (s_i·s_j) Γ_ij, and what there is to say.

    No columns stand for s = 1. ``None`` where Θ is no such product.
    """
    program = model.program
    name = program.label if isinstance(program, Program) else type(program).__name__
    if trainable(model.head):
        why = "the trainable output mapping adds a kernel of its own"
    elif not isinstance(program, Program) or not program.closed_form:
        why = f"the kernel of {name} is not known in closed form"
    else:
        with evaluation_mode(model):
            blocks = program_blocks(program, x, _probe(model, len(x)))
        if len(blocks) > 1:
            why = f"the kernel is a sum of {len(blocks)}, one for each trainable part"
        elif blocks[0].features is not None:
            return blocks[0].features.double(), PRODUCT
        elif _same_for_all(blocks[0]):
            return x.new_empty((len(x), 0), dtype=torch.float64), CONSTANT
        else:
            why = f"what a parameter of the {name} program does depends on the input's pixels"
    return None, f"The trace kernel is no product of two kernels here: {why}."


def _probe(model: ReprogrammedModel, n: int) -> Tensor:
    """One random row in place of the Jacobian of every sample, (n, 1, *source_shape)."""
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(model.source.input_shape, generator=generator)
    return row.to(model.source.device, model.source.dtype).expand(n, 1, *row.shape)


def _same_for_all(block: KernelBlock) -> bool:
    """Whether samples with the same Jacobian have the same factor, so that B_i is the same."""
    factor = block.factor
    off = float((factor - factor[:1]).abs().max()) if factor.numel() else 0.0
    return off <= 8 * torch.finfo(factor.dtype).eps * float(factor.abs().max() if off else 0.0)


def _whole_input_gram(model: ReprogrammedModel, x: Tensor, options: dict[str, Any]) -> Tensor:
    """(1/C) tr(A_i A_jᵀ) at the programmed inputs, (n, n), whatever the program."""
    with evaluation_mode(model), torch.no_grad():
        u = model.programmed(x)
    shift = _Shift(model.source.input_shape, model.source.input_shape)
    return ntk_gram(model.with_program(shift), u, **options).matrix.double().cpu()


class _Shift(AffineProgram):
    """u = x + δ, whose tangent kernel is A_i A_jᵀ for a source input of any shape."""

    label = "shift"
    closed_form = True

    def __init__(self, source_shape: Sequence[int], target_shape: Sequence[int]) -> None:
        super().__init__(source_shape, target_shape)
        self.delta = torch.nn.Parameter(torch.zeros(self.source_shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.delta

    def kernel_increments(
        self, x: Tensor, jacobian: Tensor, capacities: Sequence[int | None]
    ) -> list[list[KernelBlock]]:
        return [[KernelBlock(jacobian.flatten(2))], *([] for _ in capacities[1:])]


def _distance(product: Tensor, kernel: Tensor) -> float:
    scale = float(kernel.norm())
    return float((product - kernel).norm()) / scale if scale else float(product.norm())
