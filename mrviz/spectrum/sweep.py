"""Spectra over a whole range of capacities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mrviz._checks import Array
from mrviz._progress import CancelFlag, ProgressCallback
from mrviz.ntk.factors import Reduce
from mrviz.ntk.gram import GramInfo
from mrviz.ntk.sweep import capacity_grams
from mrviz.programs import ReprogrammedModel
from mrviz.spectrum.dense import Spectrum, spectrum


@dataclass(frozen=True, eq=False)
class CapacitySweep:
    """Spectra of one reprogrammed model at several capacities of its program.

    Attributes:
        capacities: increasing.
        spectra: the spectrum at each capacity, without eigenvectors.
        infos: how each Gram was computed, with its number of parameters p.
        capacity_label: what a capacity counts.
        reduce: the kernel reduction.
    """

    capacities: tuple[int, ...]
    spectra: tuple[Spectrum, ...]
    infos: tuple[GramInfo, ...]
    capacity_label: str
    reduce: Reduce

    def __getitem__(self, capacity: int) -> Spectrum:
        """The spectrum at one of the capacities."""
        return self.spectra[self.capacities.index(capacity)]

    def to_dict(self) -> dict[str, Any]:
        """One entry a capacity, as plain values."""
        return {
            "capacity_label": self.capacity_label,
            "reduce": self.reduce,
            "sweep": [
                {"capacity": c, "n_parameters": info.n_parameters, **spec.to_dict()}
                for c, spec, info in zip(self.capacities, self.spectra, self.infos, strict=True)
            ],
        }

    def _rows(self) -> list[tuple[str, ...]]:
        rows = zip(self.capacities, self.spectra, self.infos, strict=True)
        return [
            (
                str(c),
                str(info.n_parameters),
                f"{spec.rank} of {spec.order}",
                f"{spec.effective_rank:.1f}",
                f"{spec.largest:.3g}",
                spec.describe_smallest(),
            )
            for c, spec, info in rows
        ]

    def __repr__(self) -> str:
        head = ("capacity", "p", "rank", "effective rank", "largest", "smallest")
        lines = [f"CapacitySweep over {self.capacity_label}, reduce={self.reduce!r}"]
        for row in (head, *self._rows()):
            lines.append("".join(f"{cell:>16}" for cell in row))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th>{name}</th>"
            for name in ("capacity", "p", "rank", "effective rank", "λ_max", "λ_min")
        )
        body = "".join(
            "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in self._rows()
        )
        return (
            f"<table><caption>Spectrum over {self.capacity_label}</caption>"
            f"<tr>{head}</tr>{body}</table>"
        )


def capacity_sweep(
    model: ReprogrammedModel,
    x: Array,
    capacities: Sequence[int] | None = None,
    *,
    reduce: Reduce = "full",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    chunk_size: int | None = None,
    memory: int | None = None,
    progress: ProgressCallback | bool | None = None,
    cancel: CancelFlag | None = None,
) -> CapacitySweep:
    """Spectra at many capacities from one pass over the source's Jacobians.

    A border prompt's kernel is a sum over rings and a low-rank program's a sum over columns, so
    all capacities cost little more than the largest (docs/theory.md, section 2, Capacity).

    Args:
        model: a reprogrammed model whose program has a capacity; its own is left alone.
        x: target inputs (n, *target_shape).
        capacities: which; default: the whole range.
        reduce: as in :func:`~mrviz.ntk_gram`.
        device: as in :func:`~mrviz.ntk_gram`.
        dtype: as in :func:`~mrviz.ntk_gram`.
        chunk_size: as in :func:`~mrviz.ntk_gram`.
        memory: as in :func:`~mrviz.ntk_gram`.
        progress: as in :func:`~mrviz.ntk_gram`.
        cancel: as in :func:`~mrviz.ntk_gram`.

    Raises:
        InputError: the program has no capacity or no closed form, or a capacity is out of range.

    Example:
        >>> source = mrviz.SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), (1, 8, 8))
        >>> program = mrviz.programs.Border((1, 8, 8), (1, 4, 4))
        >>> model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
        >>> mrviz.capacity_sweep(model, torch.rand(5, 1, 4, 4), [1, 2])[2].order
        15
    """
    found = [
        (capacity, spectrum(gram, eigenvectors=False), gram.info)
        for capacity, gram in capacity_grams(
            model,
            x,
            capacities,
            reduce=reduce,
            device=device,
            dtype=dtype,
            chunk_size=chunk_size,
            memory=memory,
            progress=progress,
            cancel=cancel,
        )
    ]
    return CapacitySweep(
        capacities=tuple(c for c, _, _ in found),
        spectra=tuple(spec for _, spec, _ in found),
        infos=tuple(info for _, _, info in found),
        capacity_label=model.program.capacity_label,  # type: ignore[arg-type]
        reduce=reduce,
    )
