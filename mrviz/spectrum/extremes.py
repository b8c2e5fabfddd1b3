"""The largest or smallest eigenvalues of an operator, and what is known about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class ExtremeEigenvalues:
    """The largest or smallest eigenvalues of a PSD operator Θ of order N, in float64.

    Attributes:
        which: "largest" or "smallest".
        order: N.
        asked: how many were asked for.
        eigenvalues: descending; as many as were asked for, or fewer where no more were found.
        eigenvectors: columns in the same order, (N, k).
        residuals: ‖Θv − λv‖ / λ_max of each, from a product of its own. An eigenvalue of Θ lies
            within residual·λ_max of λ.
        converged: boolean; whether the residual reached the tolerance.
        resolved: boolean; whether the eigenvalue is above the floor by more than its residual.
        largest: λ_max, or an estimate of it from below where the smallest were asked for.
        floor: noise floor N·ε·λ_max (docs/theory.md, section 6).
        epsilon: unit round-off of the least precise step behind the operator.
        below: eigenvalues of Θ smaller than those given that are at or below the floor, where
            their number is known; else ``None``.
        method: "ARPACK", "LOBPCG", "dense", or "dual" for the decomposition of JᵀJ.
        matvecs: products of Θ with a vector.
        notes: what could not be done as asked.
    """

    which: str
    order: int
    asked: int
    eigenvalues: Tensor
    eigenvectors: Tensor
    residuals: Tensor
    converged: Tensor
    resolved: Tensor
    largest: float
    floor: float
    epsilon: float
    below: int | None
    method: str
    matvecs: int
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether as many as were asked for were found and converged."""
        return len(self.eigenvalues) == self.asked and bool(self.converged.all())

    @property
    def smallest(self) -> float | None:
        """λ_min of Θ where it is established: found, converged and above the floor."""
        at_the_end = self.which == "smallest" or len(self.eigenvalues) == self.order
        if not at_the_end or self.below or not len(self.eigenvalues):
            return None
        sure = bool(self.converged.all()) and bool(self.resolved[-1])
        return float(self.eigenvalues[-1]) if sure else None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the vectors, as plain values; what is not resolved is ``None``."""
        pairs = zip(self.eigenvalues.tolist(), self.resolved.tolist(), strict=True)
        return {
            "which": self.which,
            "order": self.order,
            "asked": self.asked,
            "complete": self.complete,
            "eigenvalues": [value if resolved else None for value, resolved in pairs],
            "residuals": self.residuals.tolist(),
            "converged": self.converged.tolist(),
            "resolved": self.resolved.tolist(),
            "largest": self.largest,
            "smallest": self.smallest,
            "floor": self.floor,
            "epsilon": self.epsilon,
            "below": self.below,
            "method": self.method,
            "matvecs": self.matvecs,
            "notes": list(self.notes),
        }

    def _texts(self) -> list[str]:
        """Each eigenvalue in words that do not claim more than is known."""
        texts = []
        for value, residual, resolved, converged in zip(
            self.eigenvalues.tolist(),
            self.residuals.tolist(),
            self.resolved.tolist(),
            self.converged.tolist(),
            strict=True,
        ):
            text = f"{value:.4g}"
            if value <= self.floor:
                text = f"not resolved (below {self.floor:.2g})"
            elif not resolved:
                text = f"not resolved ({value:.2g} ± {residual * self.largest:.1g})"
            texts.append(text if converged else text + ", not converged")
        return texts

    def __repr__(self) -> str:
        texts = self._texts()
        shown = texts if len(texts) <= 2 else [texts[0], "…", texts[-1]]
        return (
            f"ExtremeEigenvalues({self.which} {len(texts)} of {self.order}: {', '.join(shown)}; "
            f"{int(self.converged.sum())} converged, {int(self.resolved.sum())} resolved, "
            f"{self.matvecs} products)"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{text}</td><td>{residual:.1e}</td></tr>"
            for text, residual in zip(self._texts(), self.residuals.tolist(), strict=True)
        )
        notes = "".join(f"<p>{note}</p>" for note in self.notes)
        return (
            f"<table><caption>{self.which} eigenvalues of {self.order}</caption>"
            f"<tr><th>λ</th><th>‖Θv − λv‖ / λ_max</th></tr>{rows}</table>{notes}"
        )
