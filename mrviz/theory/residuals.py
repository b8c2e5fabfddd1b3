"""How the training residual lies in the eigenspaces of the kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrviz._checks import Array
from mrviz.errors import InputError
from mrviz.ntk import Gram
from mrviz.ntk.factors import Reduce
from mrviz.programs import ReprogrammedModel
from mrviz.spectrum import Spectrum
from mrviz.targets import Target


def residual(model: ReprogrammedModel, x: Array, targets: Tensor) -> Tensor:
    """Residual r = Y − f_0(X) at the program's present parameters, (n, C), float64.

    Args:
        model: the reprogrammed model.
        x: target inputs (n, *target_shape).
        targets: Y, (n, C): one-hot labels or real-valued outputs.

    Raises:
        InputError: Y does not have the model's outputs.
    """
    outputs = model.predict(x)
    if outputs.shape != targets.shape:
        raise InputError(
            f"targets have shape {tuple(targets.shape)}, but the model's outputs have "
            f"{tuple(outputs.shape)}: the mapping must give one output for each target class"
        )
    return targets.to(outputs.device, outputs.dtype) - outputs


def training_residual(model: ReprogrammedModel, target: Target, n: int | None = None) -> Tensor:
    """Residual on the first ``n`` training samples of a target; all of them by default."""
    return residual(model, target.x_train[:n], target.targets_of(target.y_train[:n]))


def residual_columns(gram: Gram, r: Tensor) -> Tensor:
    """The residual (n, C) as columns that the Gram acts on, (N, m).

    One column of n·C values for the full kernel; one column a class for the trace kernel and
    the pseudo-NTK, which act on every output alike; the class's own column for Θ^{cc}.
    """
    if r.shape != (gram.n, gram.outputs):
        raise InputError(
            f"the residual has shape {tuple(r.shape)}, the Gram is of {gram.n} samples and "
            f"{gram.outputs} outputs"
        )
    return output_columns(r.to(gram.matrix.device, torch.float64), gram.reduce)


def output_columns(values: Tensor, reduce: Reduce) -> Tensor:
    """Values (n, C) as the columns (N, m) that a kernel with that reduction acts on."""
    if reduce == "full":
        return values.reshape(-1, 1)
    if isinstance(reduce, int):
        return values[:, reduce : reduce + 1]
    return values


def residual_energy(gram: Gram, spectrum: Spectrum, r: Tensor) -> Tensor:
    """Share of ‖r‖² in each eigenspace, in the order of the eigenvalues, (N,); sums to one.

    Args:
        gram: the Gram.
        spectrum: its spectrum, with eigenvectors.
        r: residual (n, C).
    """
    if spectrum.eigenvectors is None:
        raise InputError("residual energy needs eigenvectors: spectrum(gram, eigenvectors=True)")
    columns = residual_columns(gram, r).to(spectrum.eigenvectors.device)
    energy = (spectrum.eigenvectors.T @ columns).square().sum(1)
    total = energy.sum()
    return energy / total if total > 0 else energy


@dataclass(frozen=True)
class Alignment:
    """Kernel-target alignment and what a residual of random direction would give.

    Attributes:
        value: ⟨Θ, rrᵀ⟩ / (‖Θ‖_F ‖r‖²).
        chance: its mean over directions of r uniform on the sphere, tr Θ / (N ‖Θ‖_F).
        deviation: its standard deviation over those directions.
    """

    value: float
    chance: float
    deviation: float


def kernel_target_alignment(gram: Gram, spectrum: Spectrum, r: Tensor) -> Alignment:
    """Kernel-target alignment (Cristianini et al. 2001) of the residual, with its chance level.

    For uniform v on the sphere in N dimensions, vᵀΘv has mean tr Θ/N and variance
    2 (N tr Θ² − (tr Θ)²) / (N² (N + 2)).
    """
    values = spectrum.eigenvalues
    order, norm = len(values), float(values.norm())
    if norm == 0 or not r.any():
        return Alignment(0.0, 0.0, 0.0)
    energy = residual_energy(gram, spectrum, r)
    trace, squares = float(values.sum()), float(values.square().sum())
    variance = 2 * (order * squares - trace**2) / (order**2 * (order + 2))
    return Alignment(
        value=float(values @ energy) / norm,
        chance=trace / order / norm,
        deviation=max(variance, 0.0) ** 0.5 / norm,
    )
