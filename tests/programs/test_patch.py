"""Patches: where they lie, what a larger one adds, and that a random place stays."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mrviz
from mrviz.programs import Overlay, Patch, RandomPatch
from mrviz.programs.patch import nested_squares, patch_corner
from tests.ntk.common import uniform

CANVAS, IMAGE = (3, 9, 7), (1, 4, 5)


def trainable_box(program):
    """Rows and columns (first, one after the last) of what is trainable, which is a box."""
    found = program.trainable[0].nonzero()
    low, high = found.amin(0).tolist(), (found.amax(0) + 1).tolist()
    size = 1
    for a, b in zip(low, high, strict=True):
        size *= b - a
    assert int(program.trainable[0].sum()) == size == len(found)
    return tuple(zip(low, high, strict=True))


def test_the_image_fills_the_input_and_the_prompt_is_added():
    program = Patch(CANVAS, IMAGE, side=2).double()
    x, delta = uniform(2, *IMAGE), uniform(*CANVAS, seed=1)
    with torch.no_grad():
        program.delta.copy_(delta)
    resized = Overlay(CANVAS, IMAGE)(x)
    assert torch.allclose(program(x), resized + delta)


@pytest.mark.parametrize("side", [1, 3, 7])
def test_a_fixed_patch_lies_in_the_upper_left_corner(side):
    program = Patch(CANVAS, IMAGE, side=side)
    assert trainable_box(program) == ((0, side), (0, side))
    assert program.n_parameters == 3 * side**2 and program.capacity_range == (1, 7)
    assert f"{side}×{side} pixels from row 0 and column 0" in program.describe()


def test_of_a_series_it_is_a_window():
    program = Patch((2, 10), (1, 4), side=3)
    assert trainable_box(program) == ((0, 3),) and program.n_parameters == 6
    assert "patch of 3 points from point 0" in program.describe()


@given(st.integers(0, 10**6), st.integers(1, 7))
def test_a_random_patch_is_where_its_seed_says(seed, side):
    program, again = (RandomPatch(CANVAS, IMAGE, side=side, seed=seed) for _ in range(2))
    box = trainable_box(program)
    assert box == trainable_box(again)
    assert [stop - start for start, stop in box] == [side, side]
    corner = patch_corner(CANVAS[1:], side, program.place)
    assert tuple(start for start, _ in box) == corner
    x = uniform(2, *IMAGE).float()
    assert torch.equal(program(x), program(x)) and torch.equal(program(x), again(x))


shares = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 12), st.integers(1, 12), shares, shares)
def test_patches_are_nested_and_inside(height, width, down, right):
    sides, place = (height, width), (down, right)
    ring = nested_squares(sides, place)
    for k in range(1, min(sides) + 1):
        top, left = patch_corner(sides, k, place)
        assert 0 <= top <= height - k and 0 <= left <= width - k
        square = torch.zeros(sides, dtype=torch.bool)
        square[top : top + k, left : left + k] = True
        assert torch.equal(ring < k, square)


def test_every_place_is_as_likely():
    places = [RandomPatch((1, 5, 5), (1, 5, 5), side=4, seed=s).describe() for s in range(400)]
    counts = [sum(f"row {r} and column {c}" in p for p in places) for r in (0, 1) for c in (0, 1)]
    assert sum(counts) == 400 and min(counts) > 70  # 100 each, standard deviation 9


@pytest.mark.parametrize("kind", [Patch, RandomPatch])
def test_bad_values(kind):
    with pytest.raises(mrviz.InputError, match=r"side=8 is outside 1 to 7.*larger input_size"):
        kind(CANVAS, IMAGE, side=8)
    with pytest.raises(mrviz.InputError, match=r"target_shape must be \(channels, height, width"):
        kind(CANVAS, (1, 5))
    with pytest.raises(mrviz.InputError, match="source_shape must"):
        kind((9,), (4,))
