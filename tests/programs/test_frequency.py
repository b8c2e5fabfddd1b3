"""Frequency prompts: the waves are the Fourier basis, and the cut-off is one in the FFT."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mrviz
from mrviz.programs import FrequencyPrompt, Overlay
from mrviz.programs.frequency import cycles, fourier_basis
from tests.ntk.common import close, dense_net, uniform


@given(st.integers(1, 40))
def test_the_basis_is_orthonormal_and_each_wave_has_its_frequency(n):
    basis = fourier_basis(n)
    assert torch.allclose(basis @ basis.T, torch.eye(n).double(), atol=1e-12)
    power = torch.fft.rfft(basis).abs()
    assert power.argmax(1).tolist() == cycles(n).tolist() == [(k + 1) // 2 for k in range(n)]
    power.scatter_(1, cycles(n)[:, None], 0)
    assert float(power.max()) < 1e-10


@pytest.mark.parametrize("canvas", [(1, 8, 8), (2, 9, 6), (1, 7, 12)])
@pytest.mark.parametrize("cutoff", [1, 2, 3])
def test_the_prompt_has_no_frequency_beyond_the_cut_off(canvas, cutoff):
    program = FrequencyPrompt(canvas, canvas, cutoff=cutoff).double()
    with torch.no_grad():
        program.coefficients.copy_(uniform(*canvas) * program.trainable)
    x = uniform(2, *canvas, seed=1)
    spectrum = torch.fft.fft2((program(x) - x)[0].detach()).abs()
    down, across = (torch.fft.fftfreq(side, 1 / side).abs() for side in canvas[1:])
    kept = torch.maximum(down[:, None], across) <= cutoff
    assert float(spectrum[:, ~kept].sum()) < 1e-9
    assert bool((spectrum[:, kept] > 1e-3).all()), "and all that there are below it"
    assert program.n_parameters == canvas[0] * int(kept.sum())


def test_the_image_is_resized_to_the_whole_input_first():
    program, overlay = (kind((3, 8, 8), (1, 4, 4)) for kind in (FrequencyPrompt, Overlay))
    x = uniform(2, 1, 4, 4).float()
    assert torch.equal(program(x), overlay(x))


@pytest.mark.parametrize("shape", [(2, 6, 7), (1, 9)])
def test_all_frequencies_are_an_overlay(shape):
    source = mrviz.SourceModel(dense_net(shape, 3), shape)
    x = uniform(3, *shape)
    grams = [
        mrviz.ntk_gram(
            mrviz.ReprogrammedModel(source, kind(shape, shape).double(), mrviz.mappings.Identity()),
            x,
        ).matrix
        for kind in (FrequencyPrompt, Overlay)
    ]
    assert close(*grams, 1e-12)


def test_of_a_series_the_waves_run_along_time():
    program = FrequencyPrompt((1, 12), (1, 12), cutoff=1).double()
    with torch.no_grad():
        program.coefficients[0, 1] = 6**0.5
    wave = program(torch.zeros(1, 1, 12).double())[0, 0]
    expected = torch.cos(2 * torch.pi * torch.arange(12).double() / 12)
    assert torch.allclose(wave, expected) and program.n_parameters == 3


def test_capacity_range_and_bad_values():
    assert FrequencyPrompt((1, 9, 16), (1, 4, 4)).capacity_range == (1, 8)
    assert FrequencyPrompt((1, 1, 1), (1, 1, 1)).capacity_range == (1, 1)
    with pytest.raises(mrviz.InputError, match="cutoff=9 is outside 1 to 8"):
        FrequencyPrompt((1, 9, 16), (1, 4, 4), cutoff=9)
    with pytest.raises(mrviz.InputError, match="source_shape must"):
        FrequencyPrompt((1, 2, 3, 4), (1, 4, 4))
    assert "up to 2 of 8 cycles" in FrequencyPrompt((1, 9, 16), (1, 4, 4), cutoff=2).describe()
