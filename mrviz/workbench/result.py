"""What one run of an experiment found."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from mrviz.experiment import Experiment
from mrviz.ntk import GramInfo
from mrviz.spectrum import Spectrum
from mrviz.theory import Conditions


@dataclass(frozen=True, eq=False)
class Result:
    """What one run of an experiment found.

    Attributes:
        experiment: the choices, capacity filled in.
        n: samples in the Gram.
        sketch: what a sketch leaves out and how far it can be off; empty for the exact result.
        spectrum: eigenvalues (without eigenvectors).
        energy: share of the residual in each eigenspace, (N,).
        conditions: the transfer conditions.
        info: how the Gram was computed.
        capacity_range: smallest and largest capacity, where there is one.
        capacity_label: what the capacity counts, where there is one.
        description: what the program does, in one sentence.
        seconds: wall-clock time of the run.
    """

    experiment: Experiment
    n: int
    sketch: str
    spectrum: Spectrum
    energy: Tensor
    conditions: Conditions
    info: GramInfo
    capacity_range: tuple[int, int] | None
    capacity_label: str | None
    description: str
    seconds: float

    @property
    def exact(self) -> bool:
        """Whether these are all the samples and outputs asked for."""
        return not self.sketch

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "experiment": self.experiment.to_dict(),
            "n": self.n,
            "exact": self.exact,
            "sketch": self.sketch,
            "program": self.description,
            "gram": asdict(self.info),
            "spectrum": self.spectrum.to_dict(),
            "residual_energy": self.energy.tolist(),
            "conditions": self.conditions.to_dict(),
            "code": self.experiment.code(),
        }

    def to_csv(self) -> str:
        """Index, eigenvalue, whether it is resolved, and residual energy, one row a mode."""
        spec = self.spectrum
        rows = zip(spec.eigenvalues, spec.resolved, self.energy, strict=True)
        return as_csv(
            ("index", "eigenvalue", "resolved", "residual_energy"),
            ([k, float(v), bool(ok), float(e)] for k, (v, ok, e) in enumerate(rows, start=1)),
        )


def as_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()
