"""Frequency prompts: a prompt made of waves of low frequency over the source's input."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mrviz.programs.base import AffineProgram, KernelBlock
from mrviz.programs.parts import Part
from mrviz.programs.placement import whole_canvas
from mrviz.programs.registry import program


@program
class FrequencyPrompt(AffineProgram):
    """Frequency prompt: the image resized to the whole input, plus trainable low frequencies.

    u = resize(x) + F_Hᵀ Z F_W for each channel, where the rows of F_N are the discrete Fourier
    basis of N points in its real, orthonormal form (a constant, then a cosine and a sine for
    each whole number of cycles), so that Z holds the Fourier coefficients of the prompt.
    Trainable are those of at most ``cutoff`` cycles across the input, down and across: a square
    block of low frequencies, as Guo et al. 2019 (Low Frequency Adversarial Perturbation, arXiv
    1809.08758) take from the cosine transform. The prompt is added; a prompt that multiplies
    the amplitudes of the image itself is another program.

    Pixels are a linear map of Z, so the kernel is A_i Q Qᵀ A_jᵀ with Q the waves as columns:
    source Jacobians are Fourier-transformed once, and each cut-off adds the coefficients it
    adds. At the highest cut-off Q is square and orthonormal, and the kernel that of an overlay.
    Of a series, the waves run along its time.

    Args:
        source_shape: (c, H, W) or (c, T) of the source's inputs.
        target_shape: (c, h, w) or (c, t) of the images or series.
        cutoff: highest trainable frequency in cycles; default: all frequencies there are.

    Attributes:
        coefficients: Z, shape of a source input, zero at the start.

    Raises:
        InputError: shapes that do not go together, or ``cutoff`` is out of range.

    Example:
        >>> program = mrviz.programs.FrequencyPrompt((3, 32, 32), (1, 28, 28), cutoff=2)
        >>> program.n_parameters, program.capacity_range
        (75, (1, 16))
    """

    key = "frequency"
    label = "low frequencies"
    capacity_label = "cut-off frequency (cycles)"
    capacity_option = "cutoff"
    capacity_advice = "a source with a larger input_size"
    closed_form = True
    highest: Tensor

    def __init__(
        self,
        source_shape: Sequence[int],
        target_shape: Sequence[int],
        *,
        cutoff: int | None = None,
    ) -> None:
        super().__init__(source_shape, target_shape)
        self.placement = whole_canvas(self.source_shape, self.target_shape)
        self.coefficients = nn.Parameter(torch.zeros(self.source_shape))
        sides = self.source_shape[1:]
        highest = torch.ones(sides, dtype=torch.int64)
        for axis, side in enumerate(sides):
            self.register_buffer(f"waves{axis}", fourier_basis(side), persistent=False)
            shape = [1] * len(sides)
            shape[axis] = side
            highest = torch.maximum(highest, cycles(side).view(shape))
        self.register_buffer("highest", highest, persistent=False)
        self._set_capacity(cutoff, int(highest.max()))

    def forward(self, x: Tensor) -> Tensor:
        """Programmed inputs u (n, *source_shape) of target inputs x (n, *target_shape)."""
        trainable = self._within(self.capacity)
        chosen = torch.where(trainable, self.coefficients, self.coefficients.detach())
        return self.placement(x) + self._synthesis(chosen)

    @property
    def trainable(self) -> Tensor:
        """Which coefficients training moves: a boolean for each value of a source input."""
        return self._within(self.capacity).expand(self.source_shape)

    def parameters_at(self, capacity: int | None) -> int:
        """P = number of trainable coefficients."""
        chosen = int(self._within(capacity).sum()) * self.source_shape[0]
        return chosen if self.coefficients.requires_grad else 0

    def kernel_increments(
        self, x: Tensor, jacobian: Tensor, capacities: Sequence[int | None]
    ) -> list[list[KernelBlock]]:
        """Fourier coefficients of A between two cut-offs; see :class:`Program`."""
        if not self.coefficients.requires_grad:
            return [[] for _ in capacities]
        spectrum, flat = self._analysis(jacobian).flatten(3), self.highest.flatten()
        increments = []
        for inner, outer in pairwise([0, *capacities]):
            ring = (flat > (inner or 0)) & (flat <= (outer or 0))
            increments.append([KernelBlock(spectrum[..., ring.nonzero()[:, 0]].flatten(2))])
        return increments

    def trainable_parts(self, x: Tensor) -> list[Part]:
        """What the trainable coefficients add to the image, and the coefficients."""
        values = self.coefficients.detach()
        within = self._within(self.capacity)
        kept = values.masked_fill(~within, float("nan"))
        return [
            self._part("prompt of trainable waves", self._synthesis(values * within)),
            self._part("trainable coefficients Z", kept),
        ]

    def describe(self) -> str:
        """One sentence: what happens to colours, sizes and pixels."""
        return (
            f"{self.placement.noun} {self.placement.describe()}, plus trainable waves of up to "
            f"{self.capacity} of {self._largest} cycles across the source's "
            f"{self.placement.canvas}"
        )

    def _within(self, cutoff: int | None) -> Tensor:
        return self.highest <= (cutoff or 0)

    def _waves(self, axis: int, like: Tensor) -> Tensor:
        waves: Tensor = getattr(self, f"waves{axis}")
        return waves.to(like)

    def _synthesis(self, values: Tensor) -> Tensor:
        """Pixels of coefficients (…, *sides): F_Hᵀ Z F_W."""
        result = values @ self._waves(len(self.source_shape) - 2, values)
        return result if len(self.source_shape) == 2 else self._waves(0, values).T @ result

    def _analysis(self, values: Tensor) -> Tensor:
        """Coefficients of pixels (…, *sides): F_H P F_Wᵀ."""
        result = values @ self._waves(len(self.source_shape) - 2, values).T
        return result if len(self.source_shape) == 2 else self._waves(0, values) @ result


def cycles(n: int) -> Tensor:
    """Cycles across n points of each row of :func:`fourier_basis`."""
    return (torch.arange(n) + 1) // 2


def fourier_basis(n: int) -> Tensor:
    """Real, orthonormal discrete Fourier basis (n, n), float64: 1, cos, sin, cos, sin and so on.

    Example:
        >>> (fourier_basis(4) * 2**0.5).round(decimals=3).abs().tolist()[1:3]
        [[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]
    """
    rows, k = torch.arange(n)[:, None], cycles(n)[:, None]
    angle = 2 * torch.pi * ((k * torch.arange(n)) % n).double() / n
    waves = torch.where(rows % 2 == 1, angle.cos(), angle.sin())
    waves[0] = 1.0
    return waves / waves.norm(dim=1, keepdim=True)
