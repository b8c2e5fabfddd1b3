"""Low-rank linear programs: directions, what is trainable, what is refused."""

import pytest
import torch

import mrviz
from mrviz.programs import LowRankLinear
from mrviz.programs.low_rank import orthonormal_rows
from tests.ntk.common import close, fill, on_canvas, uniform


@pytest.mark.parametrize(("rows", "columns"), [(1, 9), (5, 9), (9, 9), (64, 784)])
def test_directions_are_orthonormal_and_nested(rows, columns):
    found = orthonormal_rows(rows, columns, 3)
    assert torch.allclose(found @ found.T, torch.eye(rows), atol=1e-6)
    for fewer in {1, rows // 2 + 1}:
        assert torch.allclose(found[:fewer], orthonormal_rows(fewer, columns, 3), atol=1e-6)


def test_directions_span_what_gaussian_rows_span():
    """Row by row, as many draws as there are image values, and no others."""
    generator = torch.Generator().manual_seed(5)
    gaussian = torch.stack(
        [torch.randn(9, generator=generator, dtype=torch.float64) for _ in range(4)]
    )
    v = orthonormal_rows(4, 9, 5).double()
    triangular = gaussian @ v.T
    assert torch.allclose(triangular @ v, gaussian, atol=1e-5)
    assert torch.allclose(triangular.triu(1), torch.zeros(4, 4).double(), atol=1e-5)
    assert bool((triangular.diagonal() > 0).all())


def test_seeds_and_global_random_numbers():
    before = torch.get_rng_state()
    a, b, c = (LowRankLinear((1, 6, 6), (1, 4, 4), seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a.directions, b.directions)
    assert not torch.allclose(a.directions, c.directions, atol=0.1)


@pytest.mark.parametrize(
    ("source", "target", "size"),
    [
        ((3, 8, 8), (1, 5, 5), None),
        ((1, 8, 8), (3, 4, 4), 7),
        ((2, 9, 7), (2, 4, 5), 3),
        ((1, 4, 4), (1, 4, 4), None),
    ],
)
def test_starts_as_the_image_in_the_middle(source, target, size):
    program = LowRankLinear(source, target, image_size=size)
    x = uniform(2, *target).float()
    assert torch.allclose(program(x), on_canvas(x, source, size), atol=1e-6)


def test_adds_a_linear_map_of_rank_max_rank():
    program = fill(LowRankLinear((1, 6, 6), (1, 4, 4), max_rank=3).double(), 1)
    x = uniform(2, 1, 4, 4)
    matrix = (program.weight @ program.directions).detach()
    expected = on_canvas(x, (1, 6, 6)) + (x.flatten(1) @ matrix.T).view(-1, 1, 6, 6)
    assert close(program(x).detach(), expected, 1e-12)
    assert int(torch.linalg.matrix_rank(matrix)) == 3


def test_rank_does_not_change_the_programmed_input_only_what_moves():
    program = fill(LowRankLinear((2, 6, 6), (1, 4, 4)), 1)
    x = uniform(3, 1, 4, 4).float()
    assert program.capacity_range == (1, 16) and program.capacity == 16
    whole = program(x)
    for rank in (1, 7, 16):
        program.capacity = rank
        assert torch.equal(program(x), whole)
        program.zero_grad()
        (program(x) * uniform(3, 2, 6, 6).float()).sum().backward()
        moved = program.weight.grad.any(0).nonzero().flatten()
        assert moved.tolist() == list(range(rank))
        assert program.n_parameters == program.parameters_at(rank) == 72 * rank
    assert program.parameters_at(2) == 144
    program.weight.requires_grad_(False)
    assert program.n_parameters == 0


@pytest.mark.parametrize(
    ("target", "options", "largest"),
    [((1, 28, 28), {}, 64), ((1, 4, 4), {}, 16), ((1, 28, 28), {"max_rank": 100}, 100)],
)
def test_largest_rank(target, options, largest):
    program = LowRankLinear((1, 32, 32), target, **options)
    assert program.capacity_range == (1, largest)
    assert program.weight.shape == (1024, largest) and not program.weight.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, r"rank=0 is outside 1 to 16.*a larger max_rank"),
        ({"rank": 17}, r"rank=17 is outside 1 to 16"),
        ({"rank": 3, "max_rank": 2}, r"rank=3 is outside 1 to 2"),
        ({"rank": 1.0}, "rank must be a whole number, got 1.0"),
        ({"rank": True}, "rank must be a whole number"),
        ({"max_rank": 0}, "max_rank=0 is outside 1 to 16, the values of an image"),
        ({"max_rank": 17}, "max_rank=17 is outside 1 to 16"),
        ({"max_rank": "4"}, "max_rank must be a whole number, got '4'"),
        ({"image_size": 7}, "does not fit into"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        LowRankLinear((1, 6, 6), (1, 4, 4), **options)


def test_capacity_outside_its_range_leaves_the_rank_alone():
    program = LowRankLinear((1, 6, 6), (1, 4, 4), rank=3)
    with pytest.raises(mrviz.InputError, match="rank=20 is outside 1 to 16"):
        program.capacity = 20
    assert program.capacity == 3


def test_pullback_is_the_transpose_of_the_map():
    program = fill(LowRankLinear((1, 5, 5), (1, 3, 3)).double(), 2)
    jacobian = uniform(2, 4, 1, 5, 5)
    basis = torch.eye(9).double().view(9, 1, 3, 3)
    columns = program(basis).detach().flatten(1)
    found = program.pullback(uniform(2, 1, 3, 3), jacobian)
    assert close(found.flatten(2), jacobian.flatten(2) @ columns.T, 1e-12)


def test_description():
    program = LowRankLinear((3, 8, 8), (1, 4, 4), rank=5, image_size=6)
    text = program.describe()
    for words in ("grey repeated over 3", "resized from 4×4 to 6×6", "8×8 input", "5 of 16"):
        assert words in text


def test_state_holds_the_directions(tmp_path):
    a = fill(LowRankLinear((1, 6, 6), (1, 4, 4), seed=1), 3)
    b = LowRankLinear((1, 6, 6), (1, 4, 4), seed=2)
    torch.save(a.state_dict(), tmp_path / "p.pt")
    b.load_state_dict(torch.load(tmp_path / "p.pt"))
    x = uniform(2, 1, 4, 4).float()
    assert torch.equal(a(x), b(x))
