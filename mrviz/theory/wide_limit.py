"""How far a kernel is from the wide limit of the paper, and the sum its Theorem 2 is made of."""

from __future__ import annotations

import torch
from torch import Tensor

from mrviz.errors import InputError
from mrviz.ntk import Gram
from mrviz.spectrum import Spectrum


def trace_kernel(gram: Gram) -> Tensor:
    """(1/C) Σ_c Θ^{cc} of a full or trace kernel, (n, n), float64.

    In the wide limit of Proposition 1 it is the kernel that every output has.

    Args:
        gram: a symmetric Gram with reduction "full" or "trace".

    Raises:
        InputError: another reduction, which does not determine it, or a Gram of two sets.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        >>> program = mrviz.programs.Linear((1, 4, 4), (1, 2, 2))
        >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
        >>> full, trace = (
        ...     mrviz.ntk_gram(model, torch.ones(2, 1, 2, 2), reduce=kind)
        ...     for kind in ("full", "trace")
        ... )
        >>> torch.allclose(trace_kernel(full), trace.matrix)
        True
    """
    if not gram.symmetric:
        raise InputError("the trace kernel of two sets of samples has no spectrum: leave x2 out")
    if gram.reduce == "full":
        return gram.mean_over_outputs()
    if gram.reduce == "trace":
        return gram.matrix.double()
    raise InputError(
        f"reduce={gram.reduce!r} does not determine the trace kernel: use 'full' or 'trace'"
    )


def proposition_gap(gram: Gram, spec: Spectrum) -> float:
    """Relative distance of the spectrum of Θ_T from that of the trace kernel ⊗ I_C.

    ‖λ(Θ_T) − λ(K ⊗ I_C)‖ / ‖λ(Θ_T)‖ with both spectra sorted: zero where Proposition 1 of the
    paper holds exactly. By Hoffman and Wielandt (1953) it is at most
    ‖Θ_T − K ⊗ I_C‖_F / ‖Θ_T‖_F (docs/theory.md, section 4).

    Args:
        gram: the full kernel, sample-major.
        spec: its spectrum.

    Raises:
        InputError: a reduced kernel.
    """
    if gram.reduce != "full":
        raise InputError("the gap compares the full kernel with its trace: use reduce='full'")
    scale = float(spec.eigenvalues.norm())
    if scale == 0 or gram.outputs == 1:
        return 0.0
    single = torch.linalg.eigvalsh(trace_kernel(gram)).flip(0)
    repeated = single.repeat_interleave(gram.outputs).to(spec.eigenvalues)
    return float((spec.eigenvalues - repeated).norm()) / scale


def theorem_sum(gram: Gram) -> float:
    """Σ_{t,t'} |K(x_t, x_t')| / n of the trace kernel K: what Theorem 2 takes from the data.

    Args:
        gram: a symmetric Gram with reduction "full" or "trace".

    Raises:
        InputError: another reduction.
    """
    return float(trace_kernel(gram).abs().sum()) / gram.n
