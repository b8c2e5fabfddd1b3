"""The widgets for the choices of an experiment, before any of them is known."""

from __future__ import annotations

from typing import Any

import ipywidgets as w
import torch

from mrviz.experiment import DTYPES
from mrviz.programs import MAPPINGS, PROGRAMS
from mrviz.sources import SOURCES
from mrviz.targets import TARGETS

NONE = ""
"""Stands for ``None`` in dropdowns, which take ``None`` for "nothing selected"."""


def make_inputs() -> dict[str, Any]:
    """A widget for each choice but the options, with all that is the same for every source."""

    def dropdown(label: str, options: Any, tooltip: str) -> w.Dropdown:
        return w.Dropdown(description=label, options=options, tooltip=tooltip)

    def slider(label: str, low: int, high: int, tooltip: str, live: bool = False) -> Any:
        return w.IntSlider(
            description=label,
            min=low,
            max=high,
            tooltip=tooltip,
            continuous_update=live,
        )

    return {
        "source": dropdown(
            "Source model",
            [(spec.label, name) for name, spec in SOURCES.items()],
            "The frozen model in the middle",
        ),
        "weights": dropdown("Weights", [("random", NONE)], "Trained or random weights"),
        "depth": slider("Depth", 1, 6, "Level of the family"),
        "groups": slider("Groups", 1, 4, "Groups of layers"),
        "width": slider("Width", 1, 512, "Channels or hidden units"),
        "input_size": slider("Source input size (pixels)", 8, 224, "Side of its input"),
        "target": dropdown(
            "Target data",
            [(spec.label, name) for name, spec in TARGETS.items()],
            "The task the source is reprogrammed to",
        ),
        "n": slider(
            "Samples in the Gram",
            10,
            256,
            "Training samples, balanced over classes or time",
        ),
        "program": dropdown(
            "Input program",
            programs_on((1, 1, 1)),
            "The trainable map in front of the source",
        ),
        "capacity": slider("Capacity", 1, 64, "How much of the program is trainable", True),
        "image_size": dropdown(
            "Image size on the canvas", [("own size", NONE)], "Resize the image first"
        ),
        "mapping": dropdown(
            "Output mapping",
            [(spec.label, name) for name, spec in MAPPINGS.items()],
            "Which source outputs stand for which target classes or outputs",
        ),
        "reduce": dropdown("Kernel", [("full", "full")], "What is kept of each C×C block"),
        "dtype": dropdown(
            "Precision",
            [(name, name) for name in DTYPES],
            "float64 is slower and resolves smaller eigenvalues",
        ),
        "device": dropdown("Device", _devices(), "Where Jacobians and Grams are computed"),
        "seed": w.BoundedIntText(
            description="Seed",
            min=0,
            max=2**31 - 1,
            tooltip="Of weights, programs and samples",
        ),
    }


def programs_on(target_shape: tuple[int, ...]) -> list[tuple[str, Any]]:
    """Labels and names of the programs that work on inputs of a shape."""
    return [(spec.label, name) for name, spec in PROGRAMS.items() if spec.fits(target_shape)]


def _devices() -> list[tuple[str, str]]:
    found = [("CPU", NONE)]
    for k in range(torch.cuda.device_count()):
        found.append((f"{torch.cuda.get_device_name(k)} (cuda:{k})", f"cuda:{k}"))
    return found
