"""Sample-specific masks: the network of the paper, its patches, and a mask for each sample."""

import pytest
import torch
from torch import nn

import mrviz
from mrviz.programs import Overlay, SampleMasks
from tests.ntk.common import close, uniform


def by_hand(program, x):
    """The network layer by layer in PyTorch's modules, each value repeated over its patch."""
    widths = [program.source_shape[0], 8, 16, 32, 64, 128][: len(program.convolutions)]
    layers, pools = [], {1: 0, 2: 1, 4: 2, 8: 3, 16: 4, 32: 5}[program.patch_size]
    for k, convolution in enumerate(program.convolutions):
        assert tuple(convolution.weight.shape[1:]) == (widths[k], 3, 3)
        layers.append(convolution)
        if k < len(program.convolutions) - 1:
            layers.append(nn.ReLU())
            if k < pools:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
    small = nn.Sequential(*layers)(Overlay(program.source_shape, program.target_shape)(x))
    patch = program.patch_size
    height, width = program.source_shape[1:]
    mask = torch.zeros(len(x), *program.source_shape, dtype=x.dtype)
    for row in range(height):
        for column in range(width):
            mask[:, :, row, column] = small[:, :, row // patch, column // patch]
    return mask


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ((3, 32, 32), {"patch_size": 8}),
        ((1, 16, 24), {"patch_size": 1}),
        ((2, 17, 13), {"patch_size": 4}),
        ((3, 32, 32), {"patch_size": 32, "layers": 6}),
        ((3, 20, 20), {"patch_size": 16, "seed": 4}),
    ],
)
def test_the_mask_is_that_of_the_network_patch_by_patch(source, options):
    program = SampleMasks(source, (1, 10, 12), **options).double()
    x = uniform(2, 1, 10, 12)
    with torch.no_grad():
        program.delta.copy_(uniform(*source, seed=2) - 0.5)
        expected = by_hand(program, x)
        assert close(program.mask(x), expected, 1e-12)
        resized = Overlay(source, (1, 10, 12))(x)
        assert close(program(x), resized + program.delta * expected, 1e-12)
    assert not close(expected[0], expected[1], 1e-3), "each sample has its own"


def test_it_starts_as_the_resized_image_with_a_kernel_of_the_prompt_alone():
    source, target = (3, 16, 16), (1, 8, 8)
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 3)).double()
    program = SampleMasks(source, target).double()
    x = uniform(3, *target)
    assert torch.equal(program(x), Overlay(source, target)(x))
    model = mrviz.ReprogrammedModel(
        mrviz.SourceModel(net, source), program, mrviz.mappings.Identity()
    )
    w, mask = net[1].weight.detach(), program.mask(x).detach().flatten(1)
    rows = (w[None] * mask[:, None]).flatten(0, 1)
    assert close(mrviz.ntk_gram(model, x).matrix, rows @ rows.T)


def test_parameters_are_those_of_the_layers():
    five, six = (SampleMasks((3, 32, 32), (3, 32, 32), layers=k) for k in (5, 6))
    by_layers = [3 * 8, 8 * 16, 16 * 32, 32 * 64]
    assert sum(p.numel() for p in five.convolutions.parameters()) == (
        9 * sum([*by_layers, 64 * 3]) + 8 + 16 + 32 + 64 + 3
    )
    assert sum(p.numel() for p in six.convolutions.parameters()) == (
        9 * sum([*by_layers, 64 * 128, 128 * 3]) + 8 + 16 + 32 + 64 + 128 + 3
    )
    assert five.n_parameters == sum(p.numel() for p in five.parameters())


def test_start_values_are_seeded():
    a, b, c = (SampleMasks((3, 16, 16), (1, 8, 8), seed=s) for s in (1, 1, 2))
    x = uniform(2, 1, 8, 8).float()
    assert torch.equal(a.mask(x), b.mask(x)) and not torch.equal(a.mask(x), c.mask(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 3}, "patch_size must be one of 1, 2, 4, 8, 16 with 5 layers, got 3"),
        ({"patch_size": 32}, "patch_size must be one of"),
        ({"patch_size": True}, "patch_size must be one of"),
        ({"layers": 4}, "layers must be 5 or 6, got 4"),
    ],
)
def test_bad_values(options, message):
    with pytest.raises(mrviz.InputError, match=message):
        SampleMasks((3, 16, 16), (1, 8, 8), **options)
    with pytest.raises(mrviz.InputError, match="source_shape must"):
        SampleMasks((3, 16), (1, 8), **options)


def test_small_inputs_get_small_patches():
    assert [SampleMasks((1, s, s), (1, 4, 4)).patch_size for s in (1, 2, 4, 9, 64)] == [
        1,
        1,
        2,
        4,
        8,
    ]
