"""The target NTKs of an independent library (tests/data/ntk_target.npz) come out again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import mrviz
from tests.ntk.common import close

RANKS = {
    ("cnn", "linear"): 200,
    ("cnn", "border"): 135,
    ("cnn", "linear_border"): 200,
    ("dnn", "linear"): 200,
    ("dnn", "border"): 24,
    ("dnn", "linear_border"): 200,
}
CANVAS, IMAGE = (1, 16, 16), (1, 8, 8)


@pytest.fixture(scope="module")
def stored():
    with np.load(Path(__file__).parents[1] / "data" / "ntk_target.npz") as arrays:
        return {k: torch.tensor(v, dtype=torch.float64) for k, v in arrays.items()}


def network(stored, name):
    if name == "cnn":
        net = nn.Sequential(
            *(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(96, 10)),
        ).double()
        places = {"cnn_c1": 0, "cnn_c2": 3, "cnn_l": 7}
    else:
        net = nn.Sequential(
            *(nn.Flatten(), nn.Linear(256, 32), nn.ReLU()),
            *(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)),
        ).double()
        places = {"dnn_d1": 1, "dnn_d2": 3, "dnn_d3": 5}
    for key, place in places.items():
        net[place].weight.data = stored[key].reshape(net[place].weight.shape).contiguous()
        net[place].bias.data = stored[key + "b"]
    return net


def linear(matrix, source_shape, target_shape):
    program = mrviz.programs.Linear(source_shape, target_shape).double()
    program.weight.data = matrix.reshape(program.weight.shape)
    program.bias.data.zero_()
    return program


def build(stored, source, program):
    if program == "linear":
        made = linear(stored["linear_W"], CANVAS, IMAGE)
    else:
        made = mrviz.programs.Border(CANVAS, IMAGE)
        if program == "linear_border":
            made = mrviz.programs.Chain(linear(stored["inner_W"], IMAGE, IMAGE), made)
    frozen = mrviz.SourceModel(network(stored, source), CANVAS)
    return mrviz.ReprogrammedModel(frozen, made, mrviz.mappings.Identity())


@pytest.mark.parametrize(("source", "program"), RANKS)
@pytest.mark.parametrize("method", ["structured", "contraction"])
def test_gram_of_the_independent_library(stored, source, program, method):
    model = build(stored, source, program)
    gram = mrviz.ntk_gram(model, stored["x"], method=method, chunk_size=7)
    assert close(gram.matrix, stored[f"gram_{source}_{program}"], 1e-8)
    assert gram.info.method == method


@pytest.mark.parametrize("program", ["border", "linear"])
def test_gram_of_the_independent_library_by_products(stored, program):
    model = build(stored, "dnn", program)
    gram = mrviz.ntk_gram(model, stored["x"], method="products")
    assert close(gram.matrix, stored[f"gram_dnn_{program}"], 1e-8)


@pytest.mark.parametrize(("case", "rank"), RANKS.items())
def test_rank_of_the_independent_library(stored, case, rank):
    gram = mrviz.ntk_gram(build(stored, *case), stored["x"])
    assert mrviz.spectrum(gram).rank == rank
