"""Image scale: where the image appears, how it changes with the scale, what is refused."""

import pytest
import torch

import mrviz
from mrviz.programs import Scale
from mrviz.programs.placement import Placement
from mrviz.programs.scale import triangle, triangle_slope
from tests.ntk.common import close, on_canvas, recolour, uniform


def by_hand(x, source, scale):
    """Each pixel's centre taken back to the image, bilinear between its neighbours."""
    x = recolour(x, source[0])
    (height, width), (h, w) = source[1:], x.shape[2:]
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    out = torch.zeros(len(x), *source, dtype=x.dtype)
    for row in range(height):
        for column in range(width):
            at = (row + 0.5 - height / 2) / scale + h / 2 - 0.5
            across = (column + 0.5 - width / 2) / scale + w / 2 - 0.5
            if not (-1 < at < h and -1 < across < w):
                continue
            i, j = int(at // 1) + 1, int(across // 1) + 1
            a, b = at % 1, across % 1
            out[:, :, row, column] = (
                (1 - a) * (1 - b) * padded[:, :, i, j]
                + a * (1 - b) * padded[:, :, i + 1, j]
                + (1 - a) * b * padded[:, :, i, j + 1]
                + a * b * padded[:, :, i + 1, j + 1]
            )
    return out


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((1, 8, 8), (1, 4, 4)),
        ((3, 9, 6), (1, 5, 4)),
        ((1, 7, 7), (3, 7, 7)),
        ((2, 4, 6), (2, 8, 2)),
    ],
)
def test_at_scale_one_the_image_is_placed_at_its_own_size(source, target):
    program = Scale(source, target, scale=1.0)
    x = uniform(2, *target).float()
    if target[1] <= source[1]:
        expected = Placement(source, target, target[1:])(x)
        assert close(expected, on_canvas(x, source), 1e-6)
    else:
        expected = on_canvas(x[:, :, 2:6], source)
    assert torch.equal(program(x).detach(), expected)


@pytest.mark.parametrize("scale", [0.1, 0.45, 1.0, 1.5, 2.0, 5.0])
@pytest.mark.parametrize(
    ("source", "target"), [((1, 9, 7), (1, 4, 5)), ((3, 6, 8), (1, 12, 5)), ((1, 8, 8), (3, 4, 4))]
)
def test_pixels_come_from_where_they_should(source, target, scale):
    program = Scale(source, target, scale=scale).double()
    with torch.no_grad():
        program.scale.fill_(scale)
    x = uniform(2, *target)
    expected = by_hand(x, source, scale)
    assert torch.allclose(program(x).detach(), expected, atol=1e-12)


def test_zeros_outside_stay_zeros_in_float32():
    program = Scale((1, 64, 64), (1, 8, 8), scale=1.7)
    u = program(torch.ones(1, 1, 8, 8)).detach()
    rows = (torch.arange(64) + 0.5 - 32).abs() < 1.7 * 4.5
    assert not u[:, :, ~rows].any() and not u[:, :, :, ~rows].any()
    assert bool((u[:, :, rows][:, :, :, rows] > 0).all())


def test_the_triangle_and_its_slope():
    d = torch.tensor([-3.0, -1.0, -0.75, 0.0, 0.25, 1.0, 1.5, 40.0], requires_grad=True)
    value = triangle(d)
    assert value.tolist() == [0, 0, 0.25, 1, 0.75, 0, 0, 0]
    (slope,) = torch.autograd.grad(value.sum(), d)
    assert slope.tolist() == [0, 0.5, 1, 0, -1, -0.5, 0, 0]
    assert torch.equal(triangle_slope(d.detach()), slope)
    _, forward = torch.func.jvp(triangle, (d.detach(),), (torch.ones(8),))
    assert torch.equal(forward, slope)


@pytest.mark.parametrize("scale", [0.37, 1.0, 1.61])
def test_the_derivative_is_that_of_both_modes_of_autograd(scale):
    program = Scale((3, 9, 8), (1, 5, 6), scale=scale).double()
    x = uniform(2, 1, 5, 6)
    weights = uniform(2, 3, 9, 8, seed=1)
    (backward,) = torch.autograd.grad((program(x) * weights).sum(), program.scale)
    found = program.derivative(x)
    assert float(found.norm()) > 0.1 and not found.requires_grad
    assert float((found * weights).sum()) == pytest.approx(backward.item(), rel=1e-12)
    _, forward = torch.func.jvp(
        lambda s: torch.func.functional_call(program, {"scale": s}, (x,)),
        (program.scale.detach(),),
        (torch.ones(()).double(),),
    )
    assert close(found, forward, 1e-12)


def test_derivative_between_kinks_is_the_finite_difference():
    program = Scale((1, 9, 9), (1, 5, 5), scale=1.37).double()
    x, step = uniform(2, 1, 5, 5), 1e-6

    def at(scale):
        with torch.no_grad():
            program.scale.fill_(scale)
            return program(x)

    expected = (at(1.37 + step) - at(1.37 - step)) / (2 * step)
    at(1.37)
    assert close(program.derivative(x), expected, 1e-6)


@pytest.mark.parametrize(
    ("source", "target", "start"),
    [
        ((1, 32, 32), (1, 28, 28), 1.0),
        ((1, 28, 28), (1, 28, 28), 1.0),
        ((1, 12, 21), (1, 28, 28), 12 / 28),
        ((1, 1, 1), (1, 28, 28), 0.1),
    ],
)
def test_start_is_one_or_what_fits(source, target, start):
    assert Scale(source, target).scale.item() == pytest.approx(start)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (0.0, "scale=0.0 is outside 0.1 to 5.0"),
        (5.5, "outside 0.1 to 5.0"),
        (float("nan"), "outside 0.1 to 5.0"),
        ("large", "scale must be a number, got 'large'"),
    ],
)
def test_bad_scales(scale, message):
    with pytest.raises(mrviz.InputError, match=message):
        Scale((1, 8, 8), (1, 4, 4), scale=scale)


def test_shapes_that_are_no_images():
    with pytest.raises(mrviz.InputError, match="source_shape must"):
        Scale((9,), (1, 4, 4))
    with pytest.raises(mrviz.InputError, match="target_shape must"):
        Scale((1, 9, 8), (4, 4))
    with pytest.raises(mrviz.InputError, match="convert the images first"):
        Scale((3, 9, 8), (2, 4, 4))


def test_it_has_one_parameter_and_no_capacity():
    program = Scale((1, 8, 8), (1, 4, 4))
    assert program.n_parameters == 1
    assert program.capacity is program.capacity_range is program.capacity_label is None
    with pytest.raises(mrviz.InputError, match="Scale has no capacity to set"):
        program.capacity = 1
    program.requires_grad_(False)
    assert program.n_parameters == 0


def test_training_finds_the_scale_of_a_given_image():
    truth, program = Scale((1, 12, 12), (1, 6, 6), scale=1.4), Scale((1, 12, 12), (1, 6, 6))
    ramp = torch.linspace(0, 1, 6)
    x = (ramp[:, None] * ramp.flip(0)).expand(1, 1, 6, 6)
    wanted = truth(x).detach()
    optimiser = torch.optim.Adam(program.parameters(), 0.02)
    for _ in range(80):
        loss = (program(x) - wanted).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert program.scale.item() == pytest.approx(1.4, abs=0.02)


def test_description():
    text = Scale((3, 8, 8), (1, 4, 4), scale=0.5).describe()
    for words in ("grey repeated over 3", "now 0.5", "8×8 input"):
        assert words in text
