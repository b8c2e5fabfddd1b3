"""The decay figure: predicted lines and measured markers on one log axis."""

import numpy as np
import pytest
import torch

from mrviz.errors import InputError
from mrviz.figures import Decay, decay_figure
from mrviz.figures.theme import COLORS, PALETTE
from mrviz.theory import remaining

STEPS = torch.arange(101)
LEFT = remaining(torch.tensor([2.0, 0.5]), STEPS, n=4, lr=1.0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_are_predicted_and_markers_are_measured(theme):
    measured = LEFT * 1.01
    figure = decay_figure(
        [Decay("fast", LEFT[:, 0], measured[:, 0]), Decay("slow", LEFT[:, 1], measured[:, 1])],
        theme=theme,
        height=300,
        label="left",
    )
    line, markers, other, _ = figure.data
    assert (line.mode, markers.mode) == ("lines", "markers")
    assert [t.name for t in figure.data] == ["fast", "fast", "slow", "slow"]
    assert [t.showlegend for t in figure.data] == [True, False, True, False]
    assert line.line.color == markers.marker.color == PALETTE[0] != other.line.color
    assert list(other.x) == list(range(101))
    assert other.y[:20] == pytest.approx(LEFT[:20, 1].numpy())
    assert len(markers.x) <= 26
    assert markers.y[1] == pytest.approx(float(measured[int(markers.x[1]), 0]))
    assert "markers" in figure.layout.title.text
    assert figure.layout.yaxis.type == "log" and figure.layout.yaxis.title.text == "left"
    assert figure.layout.height == 300 and figure.layout.font.color == COLORS[theme].text


def test_signs_are_left_out_and_what_a_log_axis_cannot_show_is_a_gap():
    values = [1.0, -0.5, 0.0, float("inf"), float("nan"), 1e-6, 2e-3]
    figure = decay_figure([Decay("a", measured=values)], lowest=1e-3)
    assert list(np.isnan(figure.data[0].y)) == [False, False, True, True, True, True, False]
    assert figure.data[0].y[1] == 0.5
    assert figure.data[0].showlegend and not figure.layout.title.text
    assert list(figure.layout.yaxis.range) == pytest.approx([-3.05, 0.05])


def test_what_grows_is_within_the_axis():
    grows = remaining(torch.tensor([9.0]), STEPS, n=4, lr=1.0)[:, 0]
    figure = decay_figure([Decay("unstable", grows)])
    assert figure.layout.yaxis.range[1] > np.log10(float(grows.abs().max()))
    assert not np.isnan(np.array(figure.data[0].y)).any()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="nothing to draw"):
        decay_figure([Decay("a")])
    with pytest.raises(InputError, match=r"predicted of 'a' .* got \(101, 2\)"):
        decay_figure([Decay("a", LEFT)])
    with pytest.raises(InputError, match="lowest must be positive"):
        decay_figure([Decay("a", LEFT[:, 0])], lowest=0)
