"""Checks of notebooks/06-scaling: right answers in several forms, and the usual slips."""

import pytest
import torch

import mrviz
from mrviz.classroom import check
from mrviz.ntk.symmetric import as_operator
from mrviz.spectrum import Estimate


def says(verdict, outcome, *words):
    assert verdict.outcome == outcome, verdict
    assert all(word in verdict.message for word in words), verdict


# --- 06.1 -----------------------------------------------------------------------------------


def size(full=8e12, trace=8e8):
    return check("06.1", {"full": full, "trace": trace}, n=10_000, outputs=100)


def test_bytes_of_both_kernels_are_right():
    says(size(), "right", "8 TB", "0.8 GB", "10,000 times")
    says(size(8 * 10**12, torch.tensor(8e8, dtype=torch.float64)), "right")
    gram = mrviz.ntk_gram(linear_model(), torch.rand(4, 1, 2, 2), progress=False)
    answer = {"full": gram.matrix.nbytes, "trace": 8 * 4**2}
    says(check("06.1", answer, n=4, outputs=3), "right")


def linear_model():
    source = mrviz.SourceModel(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)), (1, 2, 2)
    )
    program = mrviz.programs.Linear((1, 2, 2), (1, 2, 2))
    return mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())


@pytest.mark.parametrize(
    ("full", "words"),
    [
        (1e12, "number of entries"),
        (8e8, "one row for each sample"),
        (8e10, "C instead of C²"),
        (4e12, "4 bytes"),
        (8000, "in GB"),
        (8, "in TB"),
        (9e12, "too large"),
        (-1, "too small"),
        ("8 TB", "a number is asked for"),
    ],
)
def test_a_wrong_size_of_the_full_kernel_is_told_its_mistake(full, words):
    says(size(full=full), "wrong", words)


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        (1e8, "number of entries"),
        (8e10, "divided by C"),
        (8e12, "outputs in it"),
        (4e8, "4 bytes"),
        (800, "in MB"),
        (1, "too small"),
    ],
)
def test_a_wrong_size_of_the_trace_kernel_is_told_its_mistake(trace, words):
    says(size(trace=trace), "wrong", words, "`trace`")


def test_a_triangle_is_not_what_is_kept():
    says(check("06.1", {"full": 1600 * 4, "trace": 8}, n=4, outputs=10), "wrong", "4 bytes")
    says(size(full=4e12), "wrong")


def test_gaps_and_other_forms():
    says(size(full=...), "open", "`full`")
    says(check("06.1", {"full": 8e12}, n=10_000, outputs=100), "open", "`trace`")
    says(check("06.1", 8e12, n=10_000, outputs=100), "wrong", "dictionary")


# --- 06.2 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (49, "all tiles"),
        (21, "diagonal are missing, or 1,000 / 150 was rounded down"),
        (15, "missing, and"),
        (36, "all tiles, and"),
        (7, "number of chunks"),
        (29, "too large"),
        (24.5, "whole number"),
    ],
)
def test_a_wrong_number_of_tiles_is_told_its_mistake(answer, words):
    says(check("06.2", answer, n=1000, chunk_size=150), "wrong", words)


def test_the_tiles_of_the_upper_triangle_are_right():
    says(check("06.2", 28, n=1000, chunk_size=150), "right", "7 tiles on the diagonal", "21 above")
    says(check("06.2", 36, n=64, chunk_size=8), "right")
    says(check("06.2", 32, n=64, chunk_size=8), "wrong", "cuts the diagonal")


# --- 06.3 -----------------------------------------------------------------------------------


def rest(tiles=6, samples=24, finished=30):
    answer = {"tiles": tiles, "samples": samples}
    return check("06.3", answer, n=64, chunk_size=8, finished=finished)


def test_what_is_left_is_what_a_store_computes(tmp_path):
    says(rest(), "right", "chunks 6 to 8")
    says(rest(13, 40, 23), "right", "chunks 4 to 8")
    model, x = linear_model(), torch.rand(12, 1, 2, 2)
    stop, options = Flag(), {"chunk_size": 3, "store": tmp_path / "gram"}

    def interrupt(done, total, label):
        stop.on = label == "Gram tiles" and done == 4

    with pytest.raises(mrviz.Cancelled):
        mrviz.ntk_gram(model, x, progress=interrupt, cancel=stop, **options)
    gram = mrviz.ntk_gram(model, x, progress=False, **options)
    assert gram.info.notes[0].startswith("5 of 10 tiles")
    answer = {"tiles": 10 - 5, "samples": gram.info.computed}
    says(check("06.3", answer, n=12, chunk_size=3, finished=5), "right")


class Flag:
    on = False

    def is_set(self):
        return self.on


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"tiles": 30}, "what was finished"),
        ({"tiles": 34}, "below the diagonal"),
        ({"tiles": 7}, "too large"),
        ({"samples": 64}, "All samples"),
        ({"samples": 3}, "number of chunks"),
        ({"samples": 72}, "counted anew"),
        ({"samples": 40}, "that are finished"),
        ({"samples": 25}, "too large"),
    ],
)
def test_a_wrong_rest_is_told_its_mistake(answer, words):
    says(rest(**answer), "wrong", words)


def test_rows_and_columns_are_told_apart():
    # After 33 tiles (6, 6), … (6, 8) are done; after 32, (6, 8) and rows 7 and 8 are left.
    says(rest(4, 24, 32), "right")
    says(rest(4, 16, 32), "wrong", "column chunks")
    says(rest(tiles=...), "open", "`tiles`")


# --- 06.4 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (384, "the same"),
        (193, "One way only"),
        (52, "features are left out"),
        (333, "products with A_i"),
        (38_401, "nC rows and columns"),
        (3841, "not nC²"),
        (400, "too large"),
        (100, "too small"),
    ],
)
def test_a_wrong_break_even_is_told_its_mistake(answer, words):
    says(check("06.4", answer, outputs=10, pixels=256, features=65), "wrong", words)


def test_the_break_even_is_where_the_operator_is_first_cheaper():
    says(check("06.4", 385, outputs=10, pixels=256, features=65), "right", "14,784,000")
    assert 2 * 385 * 256 * 75 == 14_784_000 < 3850**2


# --- 06.5 -----------------------------------------------------------------------------------

VALUES = torch.tensor([9.0, 4.0, 1.0], dtype=torch.float64)
V = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)  # λ = 8, Θv − λv = (2, −4, 0)
SPECTRUM = mrviz.spectrum(torch.diag(VALUES))
RADIUS = 2.0  # √20 / √5


def read(estimate=8.0, radius=RADIUS):
    operator = as_operator(torch.diag(VALUES))
    return check("06.5", (estimate, radius), operator=operator, v=V, spectrum=SPECTRUM)


def test_the_residual_is_read():
    says(read(), "right", "8 ± 2", "1 eigenvalue ", "largest is 9")
    says(read(torch.tensor(8.0), torch.tensor([2.0])), "right")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"estimate": 40.0}, "not divided by vᵀv"),
        ({"estimate": 40 / 5**0.5}, "divided by ‖v‖, not"),
        ({"estimate": (340 / 5) ** 0.5}, "‖Θv‖ / ‖v‖"),
        ({"estimate": 9.0}, "largest eigenvalue of the matrix"),
        ({"estimate": 5.0}, "too small"),
        ({"radius": 20**0.5}, "not divided by ‖v‖"),
        ({"radius": 4.0}, "squared"),
        ({"radius": 0.25}, "relative to λ"),
        ({"radius": 20**0.5 / 5}, "divided by vᵀv"),
        ({"radius": 1.0}, "distance from the largest"),
        ({"radius": 3.0}, "too large"),
    ],
)
def test_a_wrong_reading_is_told_its_mistake(answer, words):
    says(read(**answer), "wrong", words)


def test_a_gap_in_the_pair_is_open():
    says(read(estimate=...), "open", "λ is still missing")
    says(read(radius=...), "open", "radius is still missing")
    operator = as_operator(torch.diag(VALUES))
    says(check("06.5", 8.0, operator=operator, v=V, spectrum=SPECTRUM), "wrong", "pair")


# --- 06.6 -----------------------------------------------------------------------------------


def probes(answer, error=4.0):
    estimate = Estimate(400.0, error, 380.0, 420.0)
    return check("06.6", answer, estimate=estimate, probes=10, wanted=1.0)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (40, "not with the number"),
        (20, "do not take its root"),
        (16, "how many times"),
        (150, "on top"),
        (500, "too large"),
        (90, "too small"),
    ],
)
def test_a_wrong_number_of_probes_is_told_its_mistake(answer, words):
    says(probes(answer), "wrong", words)


def test_the_error_falls_with_the_root():
    says(probes(160), "right", "16 times as many")
    says(probes(161.2), "right")
    says(probes(194, error=4.383), "right")  # worked out from 4.4
