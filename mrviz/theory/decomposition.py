"""The paper's decomposition of the target kernel (Eq. 16–18), factor by factor, put together."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mrviz._checks import Array
from mrviz._progress import CancelFlag, Progress, ProgressCallback
from mrviz.errors import InputError
from mrviz.ntk import Gram, ntk_gram
from mrviz.ntk.factors import Reduce, trainable
from mrviz.ntk.plan import prepared
from mrviz.ntk.program_jacobian import parameter_jacobian
from mrviz.programs import KernelBlock, Linear, LowRankLinear, Program, ReprogrammedModel
from mrviz.sources.base import evaluation_mode
from mrviz.spectrum import Spectrum, spectrum
from mrviz.theory.factors import SAMPLES, SourceFactors, needed, source_factors
from mrviz.theory.kernel_regime import FeatureKernel, KernelRegimeSource
from mrviz.theory.strength import DRAWS, PER_CLASS, SourceData, draw_samples
from mrviz.theory.wide_limit import proposition_gap, theorem_sum

EXPLICIT_ORDER = 2048
"""Largest n·d_S for which the program kernel is formed."""


@dataclass(frozen=True, eq=False)
class ProgramFactor:
    """Θ̂_A = [B_i B_jᵀ], the program's own kernel, of order n·d_S.

    Attributes:
        order: n·d_S.
        n_parameters: p of the program.
        smallest: λ_min; 0 where it is exactly zero, ``None`` where it is not resolved or not
            computed.
        floor: noise floor; 0 where λ_min is exact.
        why: how it was found, in words.
        matrix: Θ̂_A where it was formed, sample-major.
    """

    order: int
    n_parameters: int
    smallest: float | None
    floor: float
    why: str
    matrix: Tensor | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the matrix, as plain values."""
        names = ("order", "n_parameters", "smallest", "floor", "why")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, eq=False)
class Decomposition:
    """The target kernel and the factors that the paper takes it apart into.

    Attributes:
        direct: Θ_T itself.
        program: Θ̂_A.
        source: K_S, Θ_S^b and Assumption 3.
        reassembled: Eq. 16 put together from the factors, of the shape of Θ_T; ``None`` where it
            was not asked for.
        distance: ‖Eq. 16 − Θ_T‖_F / ‖Θ_T‖_F: round-off for a source in the kernel regime, else
            how far the source is from being one.
        proposition_gap: relative distance between the spectra of Θ_T and of trace kernel ⊗ I_C.
        theorem_sum: Σ |K(x_t, x_t')| / n of Theorem 2, K the trace kernel.
        notes: what is missing or to be known.
    """

    direct: Gram
    program: ProgramFactor
    source: SourceFactors
    reassembled: Tensor | None
    distance: float | None
    proposition_gap: float
    theorem_sum: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the matrices of the size of Θ_T, as plain values."""
        return {
            "gram": self.direct.to_dict(),
            "program": self.program.to_dict(),
            "source": self.source.to_dict(),
            "distance": self.distance,
            "proposition_gap": self.proposition_gap,
            "theorem_sum": self.theorem_sum,
            "notes": list(self.notes),
        }

    def _lines(self) -> list[tuple[str, str]]:
        shown = [("Θ̂_A, the program", self.program.why)]
        shown += [("K_S, the source", kernel.describe()) for kernel in self.source.kernels]
        if self.source.effectiveness is not None:
            found = self.source.effectiveness.spectrum
            text = f"eigenvalues {found.describe_smallest()} to {found.largest:.3g}"
            shown.append(("Θ_S^b, its effectiveness", text))
        if self.source.assumption is not None:
            found3 = self.source.assumption
            text = f"holds at {found3.holding} of {len(found3.motions)} inputs"
            shown.append(("Assumption 3", f"{text}, fails at {found3.failing}"))
        if self.distance is not None:
            shown.append(("Eq. 16 against Θ_T", f"relative distance {self.distance:.2g}"))
        shown.append(("Proposition 1, gap", f"{self.proposition_gap:.3g}"))
        shown.append(("Theorem 2, sum", f"{self.theorem_sum:.4g}"))
        return shown + [("note", note) for note in self.notes]

    def __repr__(self) -> str:
        head = f"Decomposition of Θ_T ({self.direct.order} × {self.direct.order})"
        return "\n".join([head, *(f"{name}: {text}" for name, text in self._lines())])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
            for name, text in self._lines()
        )
        return f"<table><caption>Decomposition of the target kernel</caption>{rows}</table>"


def decompose(
    model: ReprogrammedModel,
    x: Array,
    source_data: SourceData | None = None,
    *,
    gram: Gram | None = None,
    reassemble: bool | None = None,
    ridge: float = 0.0,
    samples: int = SAMPLES,
    per_class: int = PER_CLASS,
    draws: int = DRAWS,
    reduce: Reduce = "trace",
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Decomposition:
    """Takes Θ_T apart as the paper does: program, feature motion, effectiveness (Eq. 16–18).

    Eq. 16 is put together again from b Y_Sᵀ(K_S + σ_S I)⁻¹, the derivatives ∇_u k(X_S, u) and the
    program's Jacobian. For a :class:`~mrviz.theory.KernelRegimeSource` the result is Θ_T; for any
    other source it is the kernel that Θ_T would be if the source were the ridge regression with
    its own tangent kernel, and the distance says how far that is.

    Args:
        model: the reprogrammed model.
        x: target inputs (n, *target_shape).
        source_data: inputs and labels of the source's own task; a source in the kernel regime
            brings its own.
        gram: the full Gram of x, where it is there already.
        reassemble: whether to put Eq. 16 together, which needs a linear mapping; default: for
            sources in the kernel regime. Other sources must be small, as their tangent features
            are written out.
        ridge: as in :func:`~mrviz.theory.source_factors`.
        samples: as in :func:`~mrviz.theory.source_factors`.
        per_class: as in :func:`~mrviz.theory.source_factors`.
        draws: as in :func:`~mrviz.theory.source_factors`.
        reduce: as in :func:`~mrviz.theory.source_factors`.
        seed: as in :func:`~mrviz.theory.source_factors`.
        device: where to compute; default: where the model is.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.

    Raises:
        InputError: data or options that do not fit, or a singular K_S to put together.
        ResourceError: matrices or features that do not fit into memory.
        Cancelled: ``cancel`` was set.

    Example:
        >>> from mrviz.theory import KernelRegimeSource, WideKernel
        >>> regime = KernelRegimeSource(WideKernel(2), torch.rand(9, 1, 4, 4), torch.arange(9) % 3)
        >>> source = mrviz.SourceModel(regime, (1, 4, 4))
        >>> program = mrviz.programs.Linear((1, 4, 4), (1, 2, 2))
        >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
        >>> decompose(model, torch.rand(4, 1, 2, 2), progress=False).distance < 1e-10
        True
    """
    options: dict[str, Any] = {"progress": progress, "cancel": cancel}
    model = prepared(model, device, torch.float64)
    inputs = model.inputs(x)
    if gram is None:
        gram = ntk_gram(model, inputs, **options)
    if not gram.symmetric or (gram.n, gram.reduce) != (len(inputs), "full"):
        raise InputError(f"{gram!r} is not the full Gram of these {len(inputs)} samples")
    factors = source_factors(
        model,
        inputs,
        source_data,
        ridge=ridge,
        samples=samples,
        per_class=per_class,
        draws=draws,
        reduce=reduce,
        seed=seed,
        **options,
    )
    notes = list(factors.notes)
    if trainable(model.head):
        notes.append("b is trained here, which Assumption 2 excludes: Eq. 16 leaves its part out")
    regime = model.source.module if isinstance(model.source.module, KernelRegimeSource) else None
    reassembled = distance = None
    if reassemble or (reassemble is None and regime is not None and model.mapping.linear):
        if regime is None:
            x_s, y_s = needed(model.source, source_data)
            pick = draw_samples(y_s, per_class, 1, seed)[0]
            outputs = model.source.outputs
            kernel = FeatureKernel(model.source, outputs=outputs, reduce=reduce)
            chosen = x_s[pick].to(inputs.device), y_s[pick]
            stand_in = KernelRegimeSource(kernel, *chosen, ridge=ridge, n_classes=outputs)
            reassembled = equation_16(model, inputs, stand_in, normalized=False, **options)
        else:
            reassembled = equation_16(model, inputs, regime, normalized=True, **options)
        theta = gram.matrix.to(reassembled)
        scale = float(theta.norm())
        distance = float((reassembled - theta).norm()) / scale if scale > 0 else None
    return Decomposition(
        direct=gram,
        program=program_factor(model, inputs),
        source=factors,
        reassembled=reassembled,
        distance=distance,
        proposition_gap=proposition_gap(gram, spectrum(gram, eigenvectors=False)),
        theorem_sum=theorem_sum(gram),
        notes=tuple(notes),
    )


def equation_16(
    model: ReprogrammedModel,
    x: Tensor,
    regime: KernelRegimeSource,
    *,
    normalized: bool,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> Tensor:
    """Eq. 16 from its factors, (n·C, n·C), sample-major.

    Args:
        model: gives b and the program, in float64.
        x: target inputs.
        regime: gives K_S, Y_S, σ_S and ∇_u k(X_S, u).
        normalized: whether the source's normalisation comes before the kernel.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.
    """
    left = model.b @ regime.dual.T
    with evaluation_mode(model):
        with torch.no_grad():
            u = model.programmed(x)
        u = u.detach().requires_grad_(True)
        with torch.enable_grad():
            values = regime.kernel(model.source.normalized(u) if normalized else u, regime.inputs)
        motion = []
        with Progress(
            len(regime.inputs), "derivatives of the source kernel", progress, cancel
        ) as bar:
            for column in values.unbind(1):
                (grad,) = torch.autograd.grad(column.sum(), u, retain_graph=True)
                motion.append(grad)
                bar.advance()
        jacobian = torch.einsum("cs,sn...->nc...", left, torch.stack(motion))
        blocks = program_blocks(model.program, x, jacobian)
    return blocks_gram(blocks)


def program_factor(model: ReprogrammedModel, x: Tensor) -> ProgramFactor:
    """Θ̂_A with its smallest eigenvalue, in closed form where there is one.

    With fewer parameters than n·d_S it is exactly singular, and so is every bound through its
    λ_min: a border prompt's B_i is the same for all inputs, so for n > 1 the bound says nothing
    about border prompts (docs/theory.md, section 4).

    Args:
        model: the reprogrammed model, in float64.
        x: checked target inputs (n, *target_shape).
    """
    program, n = model.program, len(x)
    size = math.prod(model.source.input_shape)
    order = n * size
    p = model.n_parameters - sum(q.numel() for q in trainable(model.head))
    if p < order and order > EXPLICIT_ORDER:
        return ProgramFactor(order, p, 0.0, 0.0, _singular(p, order))
    if order <= EXPLICIT_ORDER:
        eye = torch.eye(size, dtype=x.dtype, device=x.device).view(
            1, size, *model.source.input_shape
        )
        with evaluation_mode(model):
            blocks = program_blocks(program, x, eye.expand(n, *eye.shape[1:]))
        matrix = blocks_gram(blocks)
        if p < order:
            return ProgramFactor(order, p, 0.0, 0.0, _singular(p, order), matrix)
        return _measured(order, p, spectrum(matrix, eigenvectors=False), "", matrix)
    if isinstance(program, Linear | LowRankLinear):
        features = program.scalar_features(x)
        if features is not None:
            found = spectrum(features.double() @ features.double().T, eigenvectors=False)
            return _measured(order, p, found, "Θ̂_A = K ⊗ I with K = [s_i·s_j]: ")
    return ProgramFactor(
        order, p, None, 0.0, f"not computed: of order n·d_S = {order:,}, use fewer samples"
    )


def program_blocks(program: torch.nn.Module, x: Tensor, jacobian: Tensor) -> list[KernelBlock]:
    """Kernel blocks of a program for given left factors A_i, (n, rows, *source_shape)."""
    with torch.no_grad():
        if isinstance(program, Program) and program.closed_form:
            return program.kernel_blocks(x, jacobian)
    if not trainable(program):
        return []
    return [KernelBlock(parameter_jacobian(program, trainable(program), x, jacobian))]


def blocks_gram(blocks: list[KernelBlock]) -> Tensor:
    """Σ (s_i·s_j) G_i G_jᵀ, (n·rows, n·rows), sample-major."""
    if not blocks:
        raise InputError("the program has no trainable parameters: its tangent kernel is zero")
    n, rows, _ = blocks[0].factor.shape
    total = torch.zeros(n, rows, n, rows, dtype=torch.float64, device=blocks[0].factor.device)
    for block in blocks:
        flat = block.factor.double().flatten(0, 1)
        product = (flat @ flat.T).view(n, rows, n, rows)
        if block.features is not None:
            features = block.features.double()
            product = product * (features @ features.T)[:, None, :, None]
        total += product
    return total.view(n * rows, n * rows)


def _singular(p: int, order: int) -> str:
    return (
        f"λ_min = 0 exactly: p = {p:,} parameters for an order of {order:,}; a bound through it "
        "says nothing"
    )


def _measured(
    order: int, p: int, found: Spectrum, how: str, matrix: Tensor | None = None
) -> ProgramFactor:
    smallest = found.smallest if found.full_rank else None
    why = f"{how}λ_min = {found.describe_smallest()}"
    return ProgramFactor(order, p, smallest, found.floor, why, matrix)
