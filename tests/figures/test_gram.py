"""The Gram figure: what is drawn where, how samples become cells, and what is said about it."""

import re

import numpy as np
import pytest
import torch

from mrviz.figures import gram_figure
from mrviz.figures.theme import COLORS
from mrviz.theory import GramFactors


def made(labels, program=True, kernel=None, note="what the factors are"):
    labels = None if labels is None else torch.tensor(labels)
    n = len(kernel) if labels is None else len(labels)
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(n, n, generator=generator, dtype=torch.float64)
    source = source + source.T if kernel is None else kernel
    seen = torch.arange(1.0, n + 1).double()
    product = torch.outer(seen, seen)
    return GramFactors(
        kernel=product * source if program else source,
        source=source,
        program=product if program else None,
        labels=labels,
        order=torch.arange(n) if labels is None else labels.argsort(stable=True),
        distance=1e-16 if program else None,
        note=note,
    )


LABELS = [2, 0, 1, 1, 0, 2, 1]
THREE = made(LABELS)
ONE = made(LABELS, program=False, note="no product: why")
MANY = made([k % 10 for k in range(300)])
CROWD = made([k % 150 for k in range(300)])
REAL = made(None, program=False, kernel=torch.eye(5).double())
EVERY = {"three": THREE, "one": ONE, "many": MANY, "crowd": CROWD, "real": REAL}


def maps(figure):
    return [trace for trace in figure.data if trace.type == "heatmap"]


def texts(figure):
    return [a.text for a in figure.layout.annotations]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", EVERY)
def test_every_figure_can_be_drawn(name, theme):
    factors = EVERY[name]
    figure = gram_figure(factors, theme=theme, height=400)
    assert len(maps(figure)) == (1 if factors.program is None else 3)
    layout = figure.layout
    assert layout.height == 400 and layout.font.color == COLORS[theme].text
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert not [t for t in [*texts(figure), layout.title.text] if "$" in t]
    for trace in maps(figure):
        assert trace.z.dtype == np.float32 and max(trace.z.shape) <= 128
        assert trace.x.dtype == trace.y.dtype == np.int32
        assert np.isfinite(trace.z).all() and trace.zmin < trace.zmax
        axes = layout[trace.xaxis.replace("x", "xaxis")], layout[trace.yaxis.replace("y", "yaxis")]
        for axis in axes:
            assert sorted(axis.range) == [-0.5, len(trace.x) - 0.5]
            assert 0 <= axis.domain[0] < axis.domain[1] <= 1 and axis.constrain == "domain"
            assert len(axis.tickvals) == len(axis.ticktext) == len(trace.x)
        assert axes[1].scaleanchor == trace.xaxis  # square cells
        assert axes[1].range[0] > axes[1].range[1]  # the first class at the top
    assert all(a.font.color == COLORS[theme].text for a in layout.annotations)


def test_samples_are_in_the_order_of_their_classes():
    figure = gram_figure(THREE)
    order = [1, 4, 2, 3, 6, 0, 5]
    for trace, matrix in zip(
        maps(figure), (THREE.program, THREE.source, THREE.kernel), strict=True
    ):
        assert np.array_equal(trace.z, matrix[order][:, order].numpy().astype(np.float32))
    assert figure.layout.xaxis.ticktext[:3] == ("0: sample 1", "0: sample 4", "1: sample 2")
    lines = figure.data[1]
    assert lines.x.dtype == np.float64 and {1.5, 4.5} <= set(lines.x) and -0.5 in lines.x
    gaps = np.isnan(lines.x) | np.isnan(lines.y)
    assert gaps[2::3].all() and gaps.sum() == len(gaps) / 3


def test_titles_signs_and_caption():
    figure = gram_figure(THREE)
    found = "\n".join(texts(figure))
    for name in ("program kernel", "source Jacobian Gram", "trace kernel of Θ", "⊙", "="):
        assert name in found
    assert "what the factors are The product is off by 1e-16 of its norm." in found
    single = gram_figure(ONE)
    assert "no product: why" in texts(single) and "⊙" not in texts(single)
    assert [t.name for t in maps(single)] == ["trace kernel of Θ"]
    assert "s<sub>i</sub>" in texts(gram_figure(made(LABELS, note="s_i·s_j")))[0]


def test_many_samples_become_means_within_classes_and_the_title_says_so():
    figure = gram_figure(MANY)
    size = int(re.search(r"up to (\d+) × ", figure.layout.title.text)[1])
    assert figure.layout.title.text.startswith("300 samples, ordered by class")
    trace = maps(figure)[2]
    cells = [
        [i for i in range(c, 300, 10)][k : k + size] for c in range(10) for k in range(0, 30, size)
    ]
    assert len(trace.x) == len(cells) <= 128
    for a, b in ((0, 0), (3, 40), (-1, 7)):
        expected = float(MANY.kernel[cells[a]][:, cells[b]].mean())
        assert trace.z[a, b] == pytest.approx(expected, rel=1e-5)
    assert figure.layout.xaxis.ticktext[0] == f"0: {size} samples, the first no. 0"


def test_more_classes_than_cells_share_cells():
    figure = gram_figure(CROWD)
    assert len(maps(figure)[0].x) == 100 and "by class" not in figure.layout.title.text
    assert figure.layout.xaxis.ticktext[0].startswith("0, 1: 3 samples")


def test_class_names_stand_at_their_blocks_where_they_fit():
    figure = gram_figure(THREE, classes=("cat", "dog", "a very long name"))
    beside = {a.text: a.y for a in figure.layout.annotations if a.yref == "y"}
    assert beside == {"cat": 0.5, "dog": 3, "a very l…": 5.5}
    crowded = gram_figure(made([k % 60 for k in range(120)]))
    assert not [a for a in crowded.layout.annotations if a.yref == "y" or a.xref == "x"]
    assert not [a for a in gram_figure(REAL).layout.annotations if a.yref == "y"]


def test_negative_values_have_a_scale_around_zero():
    signed = torch.tensor([[2.0, -1.0], [-1.0, 2.0]]).double()
    (trace,) = maps(gram_figure(made(None, program=False, kernel=signed)))
    assert trace.zmin == -trace.zmax
    (positive,) = maps(gram_figure(made(None, program=False, kernel=signed.abs() + 1)))
    assert positive.zmin == 2.0 and positive.colorscale != trace.colorscale


def test_a_constant_and_a_zero_kernel_have_a_scale():
    ones = torch.ones(3, 3).double()
    for kernel, ends in ((ones, (0, 1)), (4 * ones, (0, 4)), (0 * ones, (0, 1))):
        (trace,) = maps(gram_figure(made(None, program=False, kernel=kernel)))
        assert (trace.zmin, trace.zmax) == ends


def test_a_diagonal_that_stands_out_does_not_darken_the_rest():
    kernel = torch.rand(120, 120, dtype=torch.float64)
    kernel = kernel + kernel.T + 100 * torch.eye(120).double()
    figure = gram_figure(made(None, program=False, kernel=kernel))
    (trace,) = maps(figure)
    assert trace.zmax < 3 and trace.z.max() > 100
    assert any("≥ " in t for t in texts(figure))
