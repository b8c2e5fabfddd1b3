"""AutoVP's program: the mask follows the scale, the frame is the prompt, both are trained."""

from math import floor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mrviz
from mrviz.programs import Border, Scale, ScaledBorder
from tests.ntk.common import close, frame_pixels, uniform


def by_hand(program, x):
    """Pixel by pixel: the scaled image, and σ(δ) outside the ⌊s h⌋ × ⌊s w⌋ in the middle."""
    source, target, s = program.source_shape, program.target_shape, program.scale.item()
    alone = Scale(source, target).double()
    with torch.no_grad():
        alone.scale.fill_(s)
        u = alone(x)
    shown = [min(floor(own * s), side) for own, side in zip(target[1:], source[1:], strict=True)]
    firsts = [(side - n) // 2 for n, side in zip(shown, source[1:], strict=True)]
    ends = [(side + n) // 2 for n, side in zip(shown, source[1:], strict=True)]
    prompt = torch.sigmoid(program.delta.detach())
    for row in range(source[1]):
        for column in range(source[2]):
            inside = firsts[0] <= row < ends[0] and firsts[1] <= column < ends[1]
            if not inside:
                u[:, :, row, column] += prompt[:, row, column]
    return u


@settings(max_examples=40, deadline=None)
@given(st.floats(0.1, 5.0), st.sampled_from([((1, 9, 7), (1, 4, 5)), ((3, 8, 8), (1, 6, 6))]))
def test_the_mask_is_rebuilt_at_every_call(scale, shapes):
    program = ScaledBorder(*shapes, scale=0.5).double()
    with torch.no_grad():
        program.scale.fill_(scale)
        program.delta.copy_(uniform(*shapes[0], seed=1) * 4 - 2)
    x = uniform(2, *shapes[1])
    assert close(program(x).detach(), by_hand(program, x), 1e-12)


def test_at_scale_one_it_is_a_border_prompt():
    source, target = (3, 12, 12), (1, 6, 6)
    program, border = ScaledBorder(source, target, width=2), Border(source, target, width=2)
    with torch.no_grad():
        border.delta.copy_(uniform(*source).float())
        program.delta.copy_(border.delta)
    x = uniform(2, *target).float()
    assert torch.allclose(program(x), border(x))
    assert (
        program.n_parameters == border.n_parameters + 1 == len(frame_pixels(source, (6, 6), 2)) + 1
    )
    assert program.capacity_range == border.capacity_range


def test_all_of_a_frame_that_has_grown_is_trainable_at_the_largest_width():
    program = ScaledBorder((1, 12, 12), (1, 10, 10))
    assert program.capacity_range == (1, 1) and program.n_parameters == 144 - 100 + 1
    with torch.no_grad():
        program.scale.fill_(0.41)
    assert program.n_parameters == 144 - 16 + 1
    program(torch.rand(1, 1, 10, 10)).sum().backward()
    assert int((program.delta.grad != 0).sum()) == 144 - 16


def test_training_moves_scale_and_prompt():
    truth = ScaledBorder((1, 12, 12), (1, 6, 6), scale=1.15)  # six pixels shown, as at 1
    program = ScaledBorder((1, 12, 12), (1, 6, 6))
    with torch.no_grad():
        truth.delta.copy_(uniform(1, 12, 12, seed=3).float() * 2 - 1)
    ramp = torch.linspace(0.2, 1, 6)
    x = (ramp[:, None] * ramp.flip(0)).expand(1, 1, 6, 6)
    wanted = truth(x).detach()
    optimiser = torch.optim.Adam(
        [{"params": [program.scale], "lr": 0.01}, {"params": [program.delta], "lr": 0.2}]
    )
    for _ in range(200):
        loss = (program(x) - wanted).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert program.scale.item() == pytest.approx(1.15, abs=0.05)
    assert float((program(x) - wanted).detach().abs().max()) < 0.1


@pytest.mark.parametrize(
    ("source", "target", "start"),
    [
        ((1, 32, 32), (1, 28, 28), 1.0),
        ((1, 28, 28), (1, 28, 28), 26 / 28),
        ((1, 14, 21), (1, 28, 28), 12 / 28),
    ],
)
def test_the_start_leaves_a_frame(source, target, start):
    program = ScaledBorder(source, target)
    assert program.scale.item() == pytest.approx(start, rel=1e-4)
    frame = program.mask()
    assert frame[0].all() and frame[:, 0].all() and frame[-1].all() and frame[:, -1].all()
    assert not frame.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 2.0}, r"at scale=2 the image fills the source's 8×8 input and leaves no frame"),
        ({"scale": 0.05}, "outside 0.1 to 5.0"),
        ({"width": 3}, r"width=3 is outside 1 to 2.*smaller scale"),
        ({"activation": "tanh"}, "activation must be one of sigmoid, identity"),
    ],
)
def test_bad_values(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        ScaledBorder((1, 8, 8), (1, 4, 4), **options)


def test_description():
    text = ScaledBorder((3, 8, 8), (1, 4, 4), scale=0.5, width=1).describe()
    assert "resized by a trainable factor, now 0.5" in text and "outermost 1 of 3 frame" in text
