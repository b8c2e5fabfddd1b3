"""Convolution programs: where the kernel sits, what is trainable, what is refused."""

import pytest
import torch
from torch.nn import functional as F

import mrviz
from mrviz.programs import Convolution
from tests.ntk.common import close, fill, recolour, uniform

SHAPES = [((3, 8, 8), (1, 5, 5)), ((1, 8, 8), (3, 4, 4)), ((2, 7, 9), (2, 9, 4))]


def placed(x, source):
    x = recolour(x, source[0])
    return F.interpolate(x, source[1:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("max_size", range(1, 8))
@pytest.mark.parametrize(("source", "target"), SHAPES)
def test_starts_as_the_resized_image_whatever_the_kernel_size(source, target, max_size):
    program = Convolution(source, target, max_size=max_size)
    x = uniform(2, *target).float()
    assert torch.allclose(program(x), placed(x, source), atol=1e-6)


@pytest.mark.parametrize("max_size", [1, 2, 3, 4, 5])
def test_is_a_same_convolution(max_size):
    program = fill(Convolution((2, 7, 6), (2, 7, 6), max_size=max_size).double(), 1)
    x = uniform(2, 2, 7, 6)
    expected = F.conv2d(x, program.weight, program.bias, padding="same")
    assert close(program(x).detach(), expected.detach(), 1e-12)


@pytest.mark.parametrize("size", range(1, 7))
def test_trainable_offsets_are_centred_and_nested(size):
    program = fill(Convolution((2, 8, 8), (1, 4, 4), max_size=6), 1)
    x = uniform(3, 1, 4, 4).float()
    whole = program(x)
    program.capacity = size
    assert torch.equal(program(x), whole)
    (program(x) * uniform(3, 2, 8, 8).float()).sum().backward()
    moved = program.weight.grad.flatten(0, 1).any(0)
    wanted = [2 + offset for offset in range(-((size - 1) // 2), size // 2 + 1)]
    expected = torch.zeros(6, 6, dtype=torch.bool)
    for row in wanted:
        expected[row, wanted] = True
    assert torch.equal(moved, expected) and len(wanted) == size
    assert program.n_parameters == program.parameters_at(size) == 4 * size**2 + 2


def test_parameters_that_do_not_move_are_not_counted():
    program = Convolution((3, 8, 8), (1, 4, 4), size=2)
    assert program.n_parameters == 9 * 4 + 3
    program.bias.requires_grad_(False)
    assert program.n_parameters == 36
    program.weight.requires_grad_(False)
    assert program.n_parameters == 0
    assert Convolution((3, 8, 8), (1, 4, 4), size=2, bias=False).n_parameters == 36


@pytest.mark.parametrize(
    ("source", "options", "largest"),
    [((1, 32, 32), {}, 7), ((1, 5, 9), {}, 5), ((1, 32, 32), {"max_size": 11}, 11)],
)
def test_largest_size(source, options, largest):
    program = Convolution(source, (1, 4, 4), **options)
    assert program.capacity_range == (1, largest) and program.capacity == largest
    assert program.weight.shape == (1, 1, largest, largest)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size=0 is outside 1 to 7.*a larger max_size"),
        ({"size": 8}, "size=8 is outside 1 to 7"),
        ({"size": 4, "max_size": 3}, "size=4 is outside 1 to 3"),
        ({"size": 3.0}, "size must be a whole number, got 3.0"),
        ({"max_size": 0}, "max_size=0 is outside 1 to 8, the shorter side"),
        ({"max_size": 9}, "max_size=9 is outside 1 to 8"),
        ({"max_size": 2.5}, "max_size must be a whole number, got 2.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        Convolution((1, 9, 8), (1, 4, 4), **options)


def test_shapes_that_are_no_images():
    with pytest.raises(mrviz.InputError, match="source_shape must"):
        Convolution((9,), (1, 4, 4))
    with pytest.raises(mrviz.InputError, match="target_shape must"):
        Convolution((1, 9, 8), (4, 4))
    with pytest.raises(mrviz.InputError, match="convert the images first"):
        Convolution((3, 9, 8), (2, 4, 4))


def test_pullback_is_the_transpose_of_the_map():
    program = fill(Convolution((2, 6, 5), (1, 4, 4), max_size=4).double(), 2)
    jacobian = uniform(2, 3, 2, 6, 5)
    basis = torch.eye(16).double().view(16, 1, 4, 4)
    columns = (program(basis) - program(torch.zeros_like(basis))).detach().flatten(1)
    found = program.pullback(uniform(2, 1, 4, 4), jacobian)
    assert close(found.flatten(2), jacobian.flatten(2) @ columns.T, 1e-12)


def test_description():
    text = Convolution((3, 8, 8), (1, 4, 4), size=3).describe()
    for words in ("grey repeated over 3", "resized from 4×4 to 8×8", "3×3 of the 7×7 offsets"):
        assert words in text
