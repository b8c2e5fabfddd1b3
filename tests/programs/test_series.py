"""Programs on series: padding, copies, lags, and images' programs where they make sense."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mrviz
from mrviz.programs import (
    Border,
    Convolution,
    LagAffine,
    Linear,
    LowRankLinear,
    Overlay,
    Scale,
    SeriesPadding,
    linear_border,
)
from tests.ntk.common import uniform


def test_a_border_of_a_series_is_padding_at_both_ends():
    program = Border((2, 11), (1, 4), width=2).double()
    with torch.no_grad():
        program.delta.copy_(uniform(2, 11, seed=1))
    x = uniform(3, 1, 4)
    expected = torch.sigmoid(program.delta.detach()).expand(3, -1, -1).clone()
    expected[:, :, 3:7] = x
    assert torch.allclose(program(x), expected)
    trainable = program.trainable[0].nonzero().flatten().tolist()
    assert trainable == [0, 1, 9, 10] and program.capacity_range == (1, 4)
    text = program.describe()
    assert "one channel repeated over 2" in text and "2 of 4 frame points" in text


def test_a_series_is_resized_by_linear_interpolation():
    program = Overlay((1, 5), (1, 3))
    u = program(torch.tensor([[[0.0, 3.0, 6.0]]]))[0, 0]
    at = (torch.arange(5) + 0.5) * 3 / 5 - 0.5  # where each point comes from
    assert torch.allclose(u, 3 * at.clamp(0, 2), atol=1e-6)
    placed = Border((1, 9), (1, 3), image_size=5)(torch.tensor([[[0.0, 3.0, 6.0]]]))[0, 0]
    assert torch.equal(placed[2:7], u) and placed[0] == 0.5


def test_low_rank_and_linear_border_start_as_the_padded_series():
    x = uniform(2, 1, 4).float()
    u = LowRankLinear((2, 10), (1, 4))(x)
    assert torch.equal(u[:, :, 3:7], x.expand(-1, 2, -1)) and not u[:, :, :3].any()
    program = linear_border((2, 10), (1, 4))
    assert program.first.source_shape == (2, 4)
    assert torch.equal(program(x)[:, :, 3:7], program.first(x))
    assert Linear((2, 10), (3, 4))(uniform(2, 3, 4).float()).shape == (2, 2, 10)


def copied(x, total, m):
    """As the code of Voice2Series: seg_num copies, ⌊⌊total/length⌋/seg_num⌋ lengths apart."""
    length = x.shape[-1]
    apart = total // length // m
    out = torch.zeros(*x.shape[:-1], total, dtype=x.dtype)
    for s in range(m):
        out[..., s * apart * length : s * apart * length + length] = x
    return out


@given(st.integers(1, 6), st.integers(2, 40), st.data())
def test_copies_are_where_voice2series_puts_them(length, total, data):
    if length >= total:
        return
    m = data.draw(st.integers(1, total // length))
    x = uniform(2, 1, length) + 1
    expected = copied(x, total, m)
    if bool((expected > 0).all()):
        with pytest.raises(mrviz.InputError, match="nothing to train"):
            SeriesPadding((1, total), (1, length), replicas=m)
        return
    program = SeriesPadding((1, total), (1, length), replicas=m).double()
    with torch.no_grad():
        assert torch.equal(program(x), expected), "at the start, where δ is zero"
        program.delta.copy_(uniform(1, total, seed=1))
        elsewhere = (expected[:1] == 0).double()
        assert torch.equal(program(x), expected + elsewhere * program.delta)
    assert program.n_parameters == int(elsewhere.sum())


def test_the_width_counts_points_on_either_side_of_a_copy():
    program = SeriesPadding((2, 20), (1, 4), replicas=2, width=3)
    assert program.placement.starts == (0, 8) and program.capacity_range == (1, 8)
    trainable = program.trainable[0].nonzero().flatten().tolist()
    assert trainable == [4, 5, 6, 7, 12, 13, 14] and program.n_parameters == 14
    assert "2 times along" in program.describe() and "3 of 8 points" in program.describe()


def test_lags_are_counted_from_the_newest():
    program = LagAffine((2, 6), (1, 4), lags=2).double()
    x = uniform(3, 1, 4)
    start = torch.zeros(3, 2, 6, dtype=torch.float64)
    start[:, :, 2:] = x
    assert torch.equal(program(x), start), "the identity at the end of the context"
    with torch.no_grad():
        program.scale.copy_(uniform(2, 4, seed=1))
        program.shift.copy_(uniform(2, 4, seed=2))
    expected = start.clone()
    expected[:, :, 2:] = program.scale * x + program.shift
    assert torch.equal(program(x), expected)
    program(x).sum().backward()
    for p in (program.scale, program.shift):
        assert not p.grad[:, :2].any() and bool((p.grad[:, 2:] != 0).all())
    assert program.n_parameters == 8 and program.capacity_range == (1, 4)
    assert "2 newest of 4 lags" in program.describe()


def test_kernel_of_lags_by_its_formula():
    """Θ_ij = W (X_i X_j + I) Wᵀ for a linear source."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(5, 3)).double()
    model = mrviz.ReprogrammedModel(
        mrviz.SourceModel(net, (1, 5)), LagAffine((1, 5), (1, 5)), mrviz.mappings.Identity()
    )
    x = uniform(2, 1, 5)
    w = net[1].weight.detach()
    gram = mrviz.ntk_gram(model, x).matrix.view(2, 3, 2, 3)
    for i in range(2):
        for j in range(2):
            middle = torch.diag(x[i, 0] * x[j, 0] + 1)
            assert torch.allclose(gram[i, :, j], w @ middle @ w.T)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LagAffine((1, 4), (1, 6)), "cut it to its last 4 points"),
        (lambda: LagAffine((1, 4, 4), (1, 4, 4)), r"source_shape must be \(channels, length\)"),
        (lambda: LagAffine((1, 6), (1, 4), lags=5), "lags=5 is outside 1 to 4"),
        (lambda: LagAffine((3, 6), (2, 4)), "only one channel can be repeated"),
        (lambda: SeriesPadding((1, 9), (1, 3, 3)), r"target_shape must be \(channels, length\)"),
        (lambda: SeriesPadding((1, 9), (1, 4), replicas=3), "replicas=3 is outside 1 to 2"),
        (lambda: SeriesPadding((1, 9), (1, 4), replicas=1.5), "replicas must be a whole number"),
        (lambda: SeriesPadding((1, 9), (1, 12)), "a series of 12 points does not fit"),
        (lambda: SeriesPadding((1, 9), (1, 3), width=7), "width=7 is outside 1 to 6"),
        (lambda: Border((1, 9), (1, 9)), "the series fills the source's 9 input points"),
        (lambda: Border((1, 9), (3, 4)), "cannot turn 3-channel series into 1-channel"),
        (lambda: Overlay((1, 9, 9), (1, 4)), "target_shape must be .*as source_shape"),
        (lambda: Scale((1, 9), (1, 4)), "source_shape must"),
        (lambda: Convolution((1, 9), (1, 4)), "source_shape must"),
    ],
)
def test_what_does_not_go_together_is_said(make, message):
    with pytest.raises(mrviz.InputError, match=message):
        make()
