"""Checks of the exercises in notebooks/06-scaling: sizes, tiles, costs and errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mrviz._words import counted
from mrviz.classroom.answers import Mistake, Unanswered, is_gap, number, same, whole
from mrviz.classroom.exercises import exercise
from mrviz.ntk.plan import spans_of
from mrviz.ntk.symmetric import SymmetricOperator, multiply
from mrviz.spectrum import Estimate, Spectrum

BYTES = 8
"""Of a number in float64."""

ROUNDED = 0.03
"""A number of probes that is worked out from rounded errors may be off by this share."""


@exercise("06.1")
def memory(answer: Any, *, n: int, outputs: int) -> str:
    """Bytes of a full Gram matrix, 8 (nC)², and of a trace kernel, 8 n².

    Args:
        answer: bytes by "full" and "trace".
        n: number of samples.
        outputs: C.
    """
    full, trace = (number(value, f"`{name}`") for name, value in _parts(answer, ("full", "trace")))
    entries = (n * outputs) ** 2
    mistakes: dict[str, float] = {
        "`full` is the number of entries. Each takes 8 bytes in float64.": entries,
        "`full` has one row for each sample. There is one for each sample and output: "
        "(nC)² entries.": BYTES * n**2,
        "`full` has C instead of C²: rows and columns are both nC.": BYTES * n**2 * outputs,
        "`full` counts 4 bytes for an entry. Gram matrices are float64, whatever the precision of "
        "the Jacobians: 8.": entries * 4,
        "`full` counts one triangle. The matrix is kept as a whole.": BYTES * entries / 2,
    }
    mistakes |= _in_other_units("full", BYTES * entries)
    same(full, BYTES * entries, name="`full`", mistakes=mistakes, tolerance=1e-6)
    mistakes = {
        "`trace` is the number of entries. Each takes 8 bytes in float64.": n**2,
        "`trace` is divided by C. The trace kernel has n² entries, C² times fewer.": (
            BYTES * n**2 * outputs
        ),
        "`trace` has the outputs in it. It keeps one number for each pair of samples.": (
            BYTES * entries
        ),
        "`trace` counts 4 bytes for an entry, not 8.": n**2 * 4,
    }
    mistakes |= _in_other_units("trace", BYTES * n**2)
    same(trace, BYTES * n**2, name="`trace`", mistakes=mistakes, tolerance=1e-6)
    return f"{full / 1e12:.3g} TB against {trace / 1e9:.3g} GB: C² = {outputs**2:,} times as much."


@exercise("06.2")
def upper_tiles(answer: Any, *, n: int, chunk_size: int) -> str:
    """Tiles in the upper triangle, the diagonal included: k(k + 1)/2 for k chunks.

    Args:
        answer: the number of tiles.
        n: number of samples.
        chunk_size: samples in a chunk.
    """
    count, chunks = whole(answer, "The number of tiles"), len(spans_of(n, chunk_size))
    rounded = f"{n:,} / {chunk_size:,} was rounded down, so the last, smaller chunk is missing"
    mistakes: dict[str, float] = {
        "Those are all tiles. The ones below the diagonal are mirror images.": chunks**2,
        f"Either the tiles on the diagonal are missing, or {rounded}.": chunks * (chunks - 1) / 2,
        f"The tiles on the diagonal are missing, and {rounded}.": (chunks - 1) * (chunks - 2) / 2,
        f"Those are all tiles, and {rounded}.": (chunks - 1) ** 2,
        "That is the number of chunks. A tile belongs to two of them.": chunks,
        "Half of all tiles cuts the diagonal in two. Its tiles are computed as a whole.": (
            chunks**2 / 2
        ),
    }
    expected = chunks * (chunks + 1) // 2
    same(count, expected, name="The number", mistakes=mistakes, tolerance=0)
    return f"{chunks} chunks make {chunks} tiles on the diagonal and {count - chunks} above it."


@exercise("06.3")
def left_to_do(answer: Any, *, n: int, chunk_size: int, finished: int) -> str:
    """Tiles and source Jacobians that an interrupted Gram still needs.

    Args:
        answer: numbers by "tiles" and "samples".
        n: number of samples.
        chunk_size: samples in a chunk.
        finished: tiles that were finished, row by row.
    """
    tiles, samples = (
        whole(value, f"`{name}`") for name, value in _parts(answer, ("tiles", "samples"))
    )
    spans = spans_of(n, chunk_size)
    every = [(i, j) for i in range(len(spans)) for j in range(i, len(spans))]
    rest = every[finished:]
    all_left = len(spans) ** 2 - finished
    same(
        tiles,
        len(rest),
        name="`tiles`",
        mistakes={
            "`tiles` is what was finished.": finished,
            "`tiles` counts those below the diagonal too.": all_left,
        },
        tolerance=0,
    )

    def size(chunks: set[int]) -> int:
        return sum(spans[k][1] - spans[k][0] for k in chunks)

    needed = {k for tile in rest for k in tile}
    rows, columns = {i for i, _ in rest}, {j for _, j in rest}
    mistakes: dict[str, float] = {
        "All samples are counted. Look at which chunks are in a tile that is left.": n,
        "`samples` is a number of chunks. Each has several samples.": len(needed),
        "Each tile's chunks are counted anew. A Jacobian is computed once and kept.": sum(
            size(set(tile)) for tile in rest
        ),
        "Only the row chunks of the tiles that are left are counted.": size(rows),
        "Only the column chunks of the tiles that are left are counted.": size(columns),
        "The samples of chunks that are finished are counted.": n - size(needed),
    }
    mistakes = {text: wrong for text, wrong in mistakes.items() if wrong != size(needed)}
    same(samples, size(needed), name="`samples`", mistakes=mistakes, tolerance=0)
    return (
        f"The tiles left lie in chunks {min(needed) + 1} to {max(needed) + 1}. Rows are finished "
        "one after the other, so that the first chunks are never needed again."
    )


@exercise("06.4")
def matrix_free_from(answer: Any, *, outputs: int, pixels: int, features: int) -> str:
    """The smallest n with 2 n q (C + m) < (nC)².

    Args:
        answer: n.
        outputs: C.
        pixels: q, columns of a source Jacobian.
        features: m, entries of (φ, 1).
    """
    n = whole(answer, "The number of samples")

    def first(per_sample: float, rows: int = outputs) -> int:
        """The smallest n at which n times the cost of a sample is below (n · rows)²."""
        return math.floor(per_sample / rows**2) + 1

    there, back = pixels * outputs, pixels * features
    expected = first(2 * (there + back))
    mistakes: dict[str, float] = {
        "There both need the same. Fewer is asked for.": (
            expected - 1 if 2 * (there + back) % outputs**2 == 0 else math.nan
        ),
        "One way only is counted: Jᵀv, and then J times the result.": first(there + back),
        "The features are left out: the result of A_iᵀv_i is spread over m of them.": (
            first(2 * there)
        ),
        "The products with A_i are left out.": first(2 * back),
        "The matrix has nC rows and columns, not n.": first(2 * (there + back), 1),
        "A product with the matrix takes (nC)² multiplications, not nC².": (
            first(2 * (there + back) / outputs, 1)
        ),
    }
    mistakes = {text: wrong for text, wrong in mistakes.items() if wrong != expected}
    same(n, expected, name="The number", mistakes=mistakes, tolerance=0)
    return (
        f"At n = {n:,} a product takes {2 * n * (there + back):,} multiplications without the "
        f"matrix and {(n * outputs) ** 2:,} with it. At ten times as many samples it is ten and a "
        "hundred times as many."
    )


@exercise("06.5")
def residual(answer: Any, *, operator: SymmetricOperator, v: Tensor, spectrum: Spectrum) -> str:
    """A Rayleigh quotient, and the radius around it that holds an eigenvalue.

    Args:
        answer: λ and the radius.
        operator: Θ.
        v: a vector, not normalised.
        spectrum: of Θ, to say what the interval holds.
    """
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Mistake("A pair is asked for: the estimate and the radius.")
    estimate, radius = (
        number(value, name) for name, value in zip(("λ", "The radius"), answer, strict=True)
    )
    product, norm = multiply(operator, v), float(v.norm())
    quotient = float(v @ product) / norm**2
    same(
        estimate,
        quotient,
        name="λ",
        mistakes={
            "λ is not divided by vᵀv: v is not normalised.": float(v @ product),
            "λ is divided by ‖v‖, not by vᵀv = ‖v‖².": float(v @ product) / norm,
            "That is ‖Θv‖ / ‖v‖, by how much the product stretches v; the Rayleigh quotient is "
            "vᵀΘv / vᵀv.": float(product.norm()) / norm,
            "That is the largest eigenvalue of the matrix. What v alone says is asked for.": (
                spectrum.largest
            ),
        },
    )
    left = float((product - quotient * v).norm())
    same(
        radius,
        left / norm,
        name="The radius",
        mistakes={
            "The radius is not divided by ‖v‖: v is not normalised.": left,
            "The radius is squared.": (left / norm) ** 2,
            "The radius is relative to λ. The interval λ ± ρ needs it in the units of λ.": (
                left / norm / quotient
            ),
            "The radius is divided by vᵀv, not by ‖v‖.": left / norm**2,
            "That is the distance from the largest eigenvalue, which v alone does not tell.": (
                spectrum.largest - quotient
            ),
        },
    )
    inside = int(((spectrum.eigenvalues - quotient).abs() <= left / norm).sum())
    return (
        f"{quotient:.4g} ± {left / norm:.2g} holds {counted(inside, 'eigenvalue')} of the matrix; "
        f"the largest is {spectrum.largest:.4g}."
    )


@exercise("06.6")
def probes_needed(answer: Any, *, estimate: Estimate, probes: int, wanted: float) -> str:
    """Probes that bring a standard error down to another: it falls with their root.

    Args:
        answer: the number of probes.
        estimate: with the error of ``probes``.
        probes: how many there were.
        wanted: the error that is wanted.
    """
    count, ratio = number(answer, "The number of probes"), estimate.error / wanted
    exact = probes * ratio**2
    expected = math.ceil(exact)
    mistakes: dict[str, float] = {
        "The error falls with the root of the number of probes, not with the number.": (
            probes * ratio
        ),
        "The error falls with the root of the number: square the ratio, do not take its root.": (
            probes * ratio**0.5
        ),
        f"That is how many times the {probes} probes it takes.": ratio**2,
        "That is how many probes come on top.": exact - probes,
    }
    if abs(count - expected) <= max(1.0, ROUNDED * expected):
        return (
            f"{expected:,} probes, {ratio**2:.3g} times as many, for an error that is {ratio:.2g} "
            f"times smaller. And the error of {counted(probes, 'probe')} is an estimate itself."
        )
    for text, wrong in mistakes.items():
        if abs(count - wrong) <= max(1.0, ROUNDED * wrong):
            raise Mistake(text)
    raise Mistake(f"The number is too {'large' if count > expected else 'small'}.")


def _parts(answer: Any, names: tuple[str, ...]) -> list[tuple[str, Any]]:
    """The entries of a dictionary that a student filled in.

    Raises:
        Mistake: no dictionary.
        Unanswered: one of them is still a gap.
    """
    if not isinstance(answer, Mapping):
        raise Mistake(f"A dictionary with the keys {', '.join(map(repr, names))} is asked for.")
    for name in names:
        if is_gap(answer.get(name)):
            raise Unanswered(f"`{name}` is still missing.")
    return [(name, answer[name]) for name in names]


def _in_other_units(name: str, size: float) -> dict[str, float]:
    units = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "GiB": 2.0**30, "TiB": 2.0**40}
    return {f"`{name}` is in {unit}. Bytes are asked for.": size / u for unit, u in units.items()}
