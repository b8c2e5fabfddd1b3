"""Ready-made comparisons: a few experiments that are run, pinned and shown side by side."""

from __future__ import annotations

from dataclasses import replace

from mrviz.experiment import Experiment

_SMALL = Experiment(n=32)

PRESETS: dict[str, tuple[tuple[str, Experiment], ...]] = {
    "VP vs FC": (
        ("border prompt (VP)", replace(_SMALL, program="border")),
        ("linear (FC)", replace(_SMALL, program="linear")),
    ),
    "Does depth help?": tuple(
        (
            f"DNN, depth {depth}",
            replace(_SMALL, source="dnn", depth=depth, trained_on="digits", program="linear"),
        )
        for depth in (2, 4, 6)
    ),
    "Random vs pretrained source": (
        ("random weights", replace(_SMALL, weights="random")),
        ("pretrained on ImageNet", replace(_SMALL, weights="pretrained")),
    ),
    "Too little capacity": (
        ("whole frame", Experiment(n=80)),
        ("frame width 1", Experiment(n=80, capacity=1)),
    ),
}
"""Name and experiments; all but the last are pinned, the last is where the user goes on."""
