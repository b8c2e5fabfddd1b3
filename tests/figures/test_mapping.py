"""The mapping figure: which source classes are drawn, in which order, and what is said."""

import numpy as np
import pytest
import torch

import mrviz
from mrviz.figures import mapping_figure
from mrviz.figures.theme import COLORS

SMALL = torch.tensor([[0.0, 0.75, 0.25], [1.0, 0.0, 0.0]])


def large(rows=10, columns=1000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = 1e-3 * torch.rand(rows, columns, generator=generator)
    for t in range(rows):
        weights[t, 900 - 7 * t] = 1 - t / 100
    return weights


def text(figure):
    return figure.layout.annotations[0].text


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("weights", [SMALL, large(), large(60), -large(3, 950), torch.zeros(2, 90)])
def test_every_figure_can_be_drawn(weights, theme):
    figure = mapping_figure(weights, theme=theme, height=350)
    layout, (heat,) = figure.layout, figure.data
    assert layout.height == 350 and layout.font.color == COLORS[theme].text
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert heat.z.dtype == np.float32 and heat.z.shape[0] == len(weights) == len(heat.y)
    assert heat.z.shape[1] == len(heat.x) == len(layout.xaxis.ticktext) <= 40
    assert heat.zmin < heat.zmax and np.isfinite(heat.z).all()
    assert layout.yaxis.range[0] > layout.yaxis.range[1]  # the first class at the top
    room = 350 - layout.margin.t - layout.margin.b
    assert 1 <= len(layout.yaxis.ticktext) <= room / 12
    assert f"× {weights.shape[1]:,} source classes" in text(figure)


def test_few_source_classes_are_drawn_in_their_own_order():
    figure = mapping_figure(SMALL, ["cat", "dog", "owl"], ["no", "yes"])
    (heat,) = figure.data
    assert np.array_equal(heat.z, SMALL.numpy())
    assert figure.layout.xaxis.ticktext == ("cat", "dog", "owl")
    assert figure.layout.yaxis.ticktext == ("no", "yes")
    assert heat.customdata[1][2].tolist() == ["yes", "owl"]
    assert text(figure) == "2 target classes × 3 source classes" and heat.zmin == 0


def test_of_many_source_classes_those_that_count_most_are_drawn():
    weights = large()
    figure = mapping_figure(weights)
    (heat,) = figure.data
    names = [int(name) for name in figure.layout.xaxis.ticktext]
    assert len(names) == 40 and {900 - 7 * t for t in range(10)} <= set(names)
    rest = [s for s in range(1000) if s not in names]
    assert weights[:, rest].max() <= weights[:, names].max(0).values.min()
    assert np.array_equal(heat.z, weights[:, names].numpy())
    best = heat.z.argmax(0)
    assert (np.diff(best) >= 0).all()  # by the target class they count most for
    share = float(weights[:, rest].sum() / weights.sum())
    assert f"the 40 that count most; the other 960 hold {share:.0%} of all weight" in text(figure)


def test_source_classes_without_weight_are_left_out():
    weights = torch.eye(100)[[3, 50, 7]]
    figure = mapping_figure(weights)
    assert figure.layout.xaxis.ticktext == ("3", "50", "7")
    assert "the other 97 count for nothing" in text(figure)


def test_equal_weights_leave_no_class_out():
    mapping = mrviz.mappings.LogitAverage([range(6 * t, 6 * t + 6) for t in range(10)])
    (heat,) = mapping_figure(mapping.matrix(100)).data
    assert (heat.z > 0).sum(1).tolist() == [4] * 10


def test_negative_weights_have_a_scale_around_zero():
    signed = SMALL - 0.5
    (heat,) = mapping_figure(signed).data
    assert heat.zmin == -heat.zmax == -0.5
    (positive,) = mapping_figure(SMALL).data
    assert positive.colorscale != heat.colorscale and positive.zmax == 1


def test_long_names_are_cut_in_ticks_but_not_in_the_hover_text():
    figure = mapping_figure(SMALL, ["a source class of many words", "b", "c"])
    assert figure.layout.xaxis.ticktext[0] == "a source class …"
    assert figure.data[0].customdata[0][0][1] == "a source class of many words"
    twice = mapping_figure(SMALL, ["crane", "crane", "owl"])
    assert twice.data[0].x.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0],), r"finite matrix \(C, c_S\).*shape \(2,\)"),
        (([[1.0, float("nan")]],), "finite matrix"),
        ((torch.zeros(0, 3),), "finite matrix"),
        ((SMALL, ["a", "b"]), "source_classes holds 2 names, but the weights are for 3"),
        ((SMALL, (), ["a"]), "target_classes holds 1 names, but the weights are for 2"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(mrviz.InputError, match=message):
        mapping_figure(*arguments)


def test_outputs_of_real_values_are_no_classes():
    figure = mapping_figure(SMALL, target_classes=("t+1", "t+2"), labels=False)
    words = [text(figure), figure.data[0].hovertemplate]
    words += [figure.layout.xaxis.title.text, figure.layout.yaxis.title.text]
    assert words[0] == "2 target outputs × 3 source outputs" and "class" not in "".join(words)
