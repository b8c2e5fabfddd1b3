"""Assumption 3 of the paper: how the tangent features of a source move with its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mrviz._memory import is_out_of_memory
from mrviz._progress import CancelFlag, Progress, ProgressCallback, stop_if_cancelled
from mrviz.errors import InputError
from mrviz.theory.statistics import wilson_interval

DENSE_INPUTS = 64
"""Up to this many input values d_S the d_S × d_S matrix is formed; above, Lanczos iterations."""

LANCZOS_STEPS = 200
LANCZOS_TOLERANCE = 1e-2
"""Relative residual at which the smallest eigenvalue counts as found."""

CHUNK_VALUES = 1 << 24
"""Values of parameter gradients that are held at once."""


@dataclass(frozen=True)
class InputMotion:
    """Extreme eigenvalues of ∇_uΦ(u)ᵀ∇_uΦ(u), d_S × d_S, at one input u.

    Attributes:
        smallest: λ_min as computed; where ``converged`` is false it bounds λ_min from above.
        largest: λ_max, or a bound from below where not ``converged``.
        error: noise floor d_S·ε·λ_max, and the residual of the eigenpair.
        converged: whether λ_min was found, not only bounded.
        order: d_S.
    """

    smallest: float
    largest: float
    error: float
    converged: bool
    order: int

    @property
    def low(self) -> float:
        """What λ_min is at least."""
        return max(0.0, self.smallest - self.error) if self.converged else 0.0

    @property
    def high(self) -> float:
        """What λ_min is at most."""
        return max(0.0, self.smallest) + self.error


@dataclass(frozen=True)
class Assumption3:
    """λ_min of ∇_uΦ(u_t)ᵀ∇_uΦ(u_t) against λ_min[K_S] at sampled inputs (T9).

    Attributes:
        motions: one for each sampled input.
        kernel: interval of λ_min[K_S].
        reduce: which features: "trace", "sum" or a class number.
    """

    motions: tuple[InputMotion, ...]
    kernel: tuple[float, float]
    reduce: str | int

    @property
    def holding(self) -> int:
        """Inputs where the assumption holds beyond numerical error."""
        return sum(m.low >= self.kernel[1] for m in self.motions)

    @property
    def failing(self) -> int:
        """Inputs where it is violated beyond numerical error."""
        return sum(m.high < self.kernel[0] for m in self.motions)

    @property
    def undecided(self) -> int:
        """Inputs where the error could decide."""
        return len(self.motions) - self.holding - self.failing

    @property
    def share(self) -> float:
        """Share of the inputs where it holds."""
        return self.holding / len(self.motions)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the share; undecided inputs count either way."""
        n = len(self.motions)
        low, _ = wilson_interval(self.holding, n)
        _, high = wilson_interval(self.holding + self.undecided, n)
        return low, high

    @property
    def smallest(self) -> float:
        """The smallest λ_min of all sampled inputs, as computed."""
        return min(m.smallest for m in self.motions)

    @property
    def converged(self) -> bool:
        """Whether λ_min was found at every input, not only bounded from above."""
        return all(m.converged for m in self.motions)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            **asdict(self),
            "holding": self.holding,
            "failing": self.failing,
            "share": self.share,
            "interval": list(self.interval),
        }


def feature_motions(
    function: Callable[[Tensor], Tensor],
    parameters: Sequence[Tensor],
    rows: Tensor,
    inputs: Tensor,
    *,
    enough: float = 0.0,
    dense: int = DENSE_INPUTS,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> tuple[InputMotion, ...]:
    """Extreme eigenvalues of ∇_uΦ(u)ᵀ∇_uΦ(u) = Σ_r H_rᵀH_r, input by input.

    Φ(u) are the gradients ∇_w (q_r · f(u)) over parameters w, stacked over the rows q_r, and
    H_r = ∂²(q_r · f)/∂w∂u, (P × d_S). Products with H_r and its transpose come from
    differentiating twice, without forming it. Kinks (ReLU) count with their derivative almost
    everywhere.

    Args:
        function: f: inputs (1, *shape) to outputs (1, C).
        parameters: w, which require gradients.
        rows: (R, C); K_S with trace reduction belongs to the identity divided by √C.
        inputs: u, (n, *shape), in the dtype of the parameters.
        enough: Lanczos iterations end once λ_min is known to be below this, which can take a few
            steps only; it is then bounded, not found.
        dense: largest d_S for which the matrix is formed.
        progress: callback (done, total, label); ``False`` for silence; default: a text bar.
        cancel: flag with ``is_set()``, checked between passes.

    Raises:
        InputError: f has no second derivative.
        Cancelled: ``cancel`` was set.

    Example:
        >>> layer = nn.Linear(4, 2).double()  # Φ(u) holds u itself: its motion is the identity
        >>> u = torch.rand(1, 4).double()
        >>> feature_motions(layer, list(layer.parameters()), torch.eye(2).double(), u)[0].smallest
        2.0...
    """
    found = []
    with Progress(len(inputs) * len(rows), "feature motion", progress, cancel) as bar:
        for u in inputs:
            try:
                motion = MixedDerivative(function, parameters, rows, u, bar.advance)
                if u.numel() <= dense:
                    found.append(_dense(motion, u, cancel))
                else:
                    found.append(_lanczos(motion, u, enough, cancel))
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                raise InputError(
                    "Assumption 3 needs second derivatives of the source by parameters and "
                    f"input: {str(error).splitlines()[0]}"
                ) from error
    return tuple(found)


class MixedDerivative:
    """Products with Σ_r H_rᵀH_r at one input.

    With g(u) = ∇_w (q·f(u)) and h(z) = ∂⟨g(u), z⟩/∂u = Hᵀz, a product Hᵀy is one backward pass
    through g, and Hv one through h, which is linear in z.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        parameters: Sequence[Tensor],
        rows: Tensor,
        u: Tensor,
        tick: Callable[[], None],
    ) -> None:
        self.u = u.detach()[None].clone().requires_grad_(True)
        self.size = sum(p.numel() for p in parameters)
        self.terms = []
        with torch.enable_grad():
            f = function(self.u)
            for row in rows:
                tick()
                term = self._term(f, parameters, row)
                if term is not None:
                    self.terms.append(term)
        if len(rows) and u.dtype == torch.float64:
            self._refuse_hidden(function, parameters, rows[0])

    def _term(
        self, f: Tensor, parameters: Sequence[Tensor], row: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor] | None:
        """g, z and h(z) of one row; ``None`` where g does not depend on u."""
        # A direction that requires gradients makes operations without second derivative say so.
        direction = row.detach()[None].clone().requires_grad_(True)
        grads = torch.autograd.grad(f, parameters, direction, create_graph=True, allow_unused=True)
        g = [grad for grad in grads if grad is not None and grad.requires_grad]
        z = [torch.zeros_like(grad, requires_grad=True) for grad in g]
        if not g:
            return None
        (h,) = torch.autograd.grad(g, self.u, z, create_graph=True, allow_unused=True)
        return None if h is None else (g, z, h)

    def _refuse_hidden(
        self, function: Callable[[Tensor], Tensor], parameters: Sequence[Tensor], row: Tensor
    ) -> None:
        """Raises ``RuntimeError`` where gradients move with u but autograd does not know.

        So it is behind operations that define a first derivative only. Both ways from u, as a
        step may cross the kink of a ReLU.
        """
        weights = [p for p in parameters if p.numel()]

        def gradients(u: Tensor) -> list[Tensor]:
            with torch.enable_grad():
                found = torch.autograd.grad(
                    function(u), weights, row.detach()[None], allow_unused=True, create_graph=True
                )
            return [
                torch.zeros_like(w) if g is None else g for g, w in zip(found, weights, strict=True)
            ]

        u = self.u.detach().clone().requires_grad_(True)
        here = gradients(u)
        step = 1e-8 * torch.randn(u.shape, generator=torch.Generator().manual_seed(0)).to(u)
        beside = [gradients(u.detach() + sign * step) for sign in (1, -1)]
        for k, g in enumerate(here):
            scale = 1e-12 * float(g.detach().abs().max())
            moved = all(float((other[k] - g).detach().abs().max()) > scale for other in beside)
            if moved and not _depends(g, u):
                raise RuntimeError("an operation hides how gradients depend on the input")

    def __call__(self, vectors: Tensor) -> Tensor:
        """Products with columns given as rows, (k, d_S)."""
        directions = vectors.view(-1, *self.u.shape)
        total = torch.zeros_like(vectors)
        for g, z, h in self.terms:
            pushed = _batched([h], z, [directions])
            moved = [(part, d) for part, d in zip(g, pushed, strict=True) if d is not None]
            (pulled,) = _batched([part for part, _ in moved], [self.u], [d for _, d in moved])
            if pulled is not None:
                total += pulled.flatten(1)
        return total


def _depends(output: Tensor, u: Tensor) -> bool:
    """Whether there is a way from u to the output in autograd's graph."""
    if not output.requires_grad:
        return False
    (found,) = torch.autograd.grad(
        output, u, torch.ones_like(output), retain_graph=True, allow_unused=True
    )
    return found is not None


def _batched(
    outputs: list[Tensor], inputs: list[Tensor], directions: Sequence[Tensor]
) -> list[Tensor | None]:
    """Backward passes in many directions (k, …) at once, or one by one where that fails.

    ``None`` for inputs that the outputs do not depend on.
    """
    fixed: dict[str, Any] = {"retain_graph": True, "allow_unused": True}
    try:
        return list(
            torch.autograd.grad(outputs, inputs, list(directions), is_grads_batched=True, **fixed)
        )
    except RuntimeError:
        each = [
            torch.autograd.grad(outputs, inputs, [d[k] for d in directions], **fixed)
            for k in range(len(directions[0]))
        ]
        return [
            None if grads[0] is None else torch.stack(grads) for grads in zip(*each, strict=True)
        ]


def _dense(motion: MixedDerivative, u: Tensor, cancel: CancelFlag | None) -> InputMotion:
    """From the matrix itself, put together by products with unit vectors."""
    order = u.numel()
    size = max(1, CHUNK_VALUES // max(1, motion.size))
    eye = torch.eye(order, dtype=u.dtype, device=u.device)
    columns = []
    for part in eye.split(size):
        stop_if_cancelled(cancel, "feature motion")
        columns.append(motion(part))
    matrix = torch.cat(columns)
    values = torch.linalg.eigvalsh(((matrix + matrix.T) / 2).double())
    smallest, largest = float(values[0]), max(float(values[-1]), 0.0)
    floor = order * torch.finfo(u.dtype).eps / 2 * largest
    return InputMotion(smallest, largest, floor, True, order)


def _lanczos(
    motion: MixedDerivative, u: Tensor, enough: float, cancel: CancelFlag | None
) -> InputMotion:
    """From Lanczos iterations with full reorthogonalisation and a seeded start."""
    order = u.numel()
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(order, generator=generator, dtype=torch.float64).to(u)
    basis = (vector / vector.norm())[None]
    alphas: list[float] = []
    betas: list[float] = []
    unit = torch.finfo(u.dtype).eps / 2
    for _ in range(min(order, LANCZOS_STEPS)):
        stop_if_cancelled(cancel, "feature motion")
        image = motion(basis[-1:])[0]
        alphas.append(float(image @ basis[-1]))
        for _ in range(2):
            image = image - (basis @ image) @ basis
        betas.append(float(image.norm()))
        small = torch.diag(torch.tensor(alphas, dtype=torch.float64))
        side = torch.tensor(betas[:-1], dtype=torch.float64)
        values, vectors = torch.linalg.eigh(small + torch.diag(side, 1) + torch.diag(side, -1))
        smallest, largest = float(values[0]), max(float(values[-1]), 0.0)
        floor = order * unit * largest
        residual = betas[-1] * abs(float(vectors[-1, 0]))
        if residual <= max(LANCZOS_TOLERANCE * smallest, floor) or betas[-1] <= floor:
            return InputMotion(smallest, largest, floor + residual, True, order)
        if smallest + floor < enough:
            break
        basis = torch.cat([basis, (image / betas[-1])[None]])
    return InputMotion(smallest, largest, floor, False, order)
