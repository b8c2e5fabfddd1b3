"""The program figure: what is drawn is the sample, the programmed input and what is trainable."""

import math

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from torch import nn

import mrviz
from mrviz.figures import program_figure
from mrviz.figures.theme import COLORS
from mrviz.programs import PROGRAMS, Border, LagAffine, Linear, Overlay, build_program
from mrviz.programs.parts import response, tiled
from tests.ntk.common import uniform

IMAGES, SERIES = ((3, 12, 12), (1, 6, 6)), ((2, 24), (1, 8))
EVERY = [
    (name, shapes)
    for name, spec in PROGRAMS.items()
    for shapes in (IMAGES, SERIES)
    if spec.fits(shapes[1])
]


def model_of(program, source_shape):
    net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(source_shape), 4))
    source = mrviz.SourceModel(net, source_shape)
    return mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())


def named(name, source, target):
    return model_of(build_program(name, source, target, seed=1), source)


def texts(figure):
    return (
        " ".join(a.text for a in figure.layout.annotations)
        .replace("<br>", " ")
        .replace("\u00a0", " ")
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("name", "shapes"), EVERY)
def test_every_program_can_be_drawn(name, shapes, theme):
    model = named(name, *shapes)
    x = uniform(2, *shapes[1]).float()
    figure = program_figure(model, x, theme=theme)
    parts = model.program.trainable_parts(x[:1])
    axes = {trace.xaxis or "x" for trace in figure.data}
    assert len(axes) == 2 + len(parts)
    words = texts(figure).replace("</b> <b>", " ")
    for expected in ("target sample x", "programmed input u", *(part.name for part in parts)):
        assert expected in words
    assert f"{model.n_parameters:,} trainable parameters" in words
    assert figure.layout.annotations[0].font.color == COLORS[theme].text
    assert figure.to_plotly_json() and figure.layout.height >= 300


def test_images_are_drawn_as_they_are():
    program = Border((1, 8, 8), (1, 4, 4), width=1)
    model, x = model_of(program, (1, 8, 8)), uniform(3, 1, 4, 4).float()
    figure = program_figure(model, x)
    sample, u, prompt = figure.data
    assert np.array_equal(sample.z, x[0, 0])
    assert np.array_equal(u.z, program(x).detach()[0, 0])
    assert (sample.zmin, sample.zmax, u.zmin, u.zmax) == (0, 1, 0, 1)
    trainable = program.trainable[0].numpy()
    assert np.isnan(prompt.z[~trainable]).all() and (prompt.z[trainable] == 0.5).all()
    assert "blank: fixed" in texts(figure) and "outermost 1 of 2 frame pixels" in texts(figure)
    assert figure.layout.yaxis.range == (3.5, -0.5) and figure.layout.yaxis.scaleanchor == "x"


def test_colours_are_colours_and_values_beyond_0_to_1_are_stretched():
    program = Overlay((3, 4, 4), (3, 4, 4))
    with torch.no_grad():
        program.delta[0, 0, 0] = 2.0
        program.delta[1] = -1.5
    model, x = model_of(program, (3, 4, 4)), uniform(1, 3, 4, 4).float()
    sample, u, prompt = program_figure(model, x).data
    assert isinstance(u, go.Image) and np.array_equal(
        sample.z, (255 * x[0].permute(1, 2, 0)).round().byte()
    )
    assert np.asarray(u.z).min() == 0 and np.asarray(u.z).max() == 255
    assert prompt.zmin == -prompt.zmax, "signed values have zero in the middle"


def test_series_are_curves_with_one_line_a_channel():
    program = LagAffine((2, 10), (1, 6), lags=3)
    model, x = model_of(program, (2, 10)), uniform(1, 1, 6).float()
    figure = program_figure(model, x)
    counts = [sum((t.xaxis or "x") == a for t in figure.data) for a in ("x", "x2", "x3", "x4")]
    assert counts == [1, 2, 2, 2]
    assert np.allclose(figure.data[0].y, x[0, 0]) and figure.data[1].y.shape == (10,)
    scale = figure.data[3].y
    assert np.isnan(scale[:7]).all() and (scale[7:] == 1).all()
    assert figure.layout.height == 60 + 130 * 4
    assert program_figure(model, x, height=777).layout.height == 777


def test_a_large_matrix_is_drawn_in_means():
    program = Linear((3, 12, 12), (1, 6, 6), seed=2)
    part = program_figure(model_of(program, (3, 12, 12)), uniform(1, 1, 6, 6)).data[2]
    assert part.z.shape == (108, 36)
    weight = program.weight.detach()
    assert np.allclose(part.z[5, 7], weight[20:24, 7].mean(), atol=1e-6)


def test_gaps_between_directions_are_not_called_fixed():
    figure = program_figure(named("low_rank", *IMAGES), uniform(1, 1, 6, 6).float())
    assert "16 of 36 directions V" in texts(figure) and "blank" not in texts(figure)
    convolution = program_figure(named("convolution", *IMAGES), uniform(1, 1, 6, 6).float())
    assert "blank: fixed" in texts(convolution)


def test_one_sample_and_arrays():
    model = named("border", *IMAGES)
    x = uniform(2, 1, 6, 6).float()
    figures = [program_figure(model, v) for v in (x, x[0], x.numpy(), x[:1].double().numpy())]
    assert all(np.allclose(f.data[0].z, x[0, 0]) for f in figures)


class Gains(nn.Module):
    """A module that is no Program: one gain for each row."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.arange(4.0))

    def forward(self, x):
        return x * self.gain[:, None]


def test_a_module_is_shown_by_its_response():
    model, x = model_of(Gains(), (1, 4, 4)), uniform(1, 1, 4, 4).float()
    figure = program_figure(model, x)
    assert "response of u to the parameters" in texts(figure).replace("</b> <b>", " ")
    assert np.allclose(figure.data[2].z, x[0, 0]) and "Gains: p = 4 trainable" in texts(figure)


def test_response_is_the_root_of_the_diagonal_of_b_b():
    x = uniform(1, 1, 4, 4).float()
    small = Linear((1, 3, 1), (1, 4, 4), bias=False)
    assert response(small, x).shape == (1, 3, 1)
    assert torch.allclose(response(small, x), x.norm().expand(1, 3, 1))
    large = Linear((1, 10, 10), (1, 4, 4))
    found, exact = response(large, x), (x.square().sum() + 1).sqrt()
    assert float((found / exact - 1).square().mean().sqrt()) < 0.15
    assert float(found.mean() / exact) == pytest.approx(1, abs=0.05)
    assert not response(large.requires_grad_(False), x).any()


def test_tiles():
    grid = tiled(torch.arange(5.0)[:, None, None].expand(5, 2, 3))
    assert grid.shape == (5, 11) and grid[0, 4] == 1 and grid[3, 0] == 3
    assert grid[2].isnan().all() and grid[:, 3].isnan().all() and grid[3:, 8:].isnan().all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 1, 5, 6)), r"samples of shape \(1, 5, 6\), but \(1, 6, 6\) is expected"),
        (np.zeros((1, 1, 6, 6), dtype=int), "floating point"),
        (np.full((1, 1, 6, 6), np.nan), "NaN"),
    ],
)
def test_inputs_that_are_none(x, message):
    with pytest.raises(mrviz.InputError, match=message):
        program_figure(named("border", *IMAGES), x)


def test_a_program_alone_is_no_model():
    with pytest.raises(mrviz.InputError, match="must be a ReprogrammedModel, got Border"):
        program_figure(Border(*IMAGES), uniform(1, 1, 6, 6))
