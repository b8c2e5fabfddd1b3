"""What is run for each question, in three sizes, and the rules of the verdicts.

Both were fixed before the stored runs and are not to be tuned to their outcome. The hash of a
size is in every row of its tables, and rows of other settings are refused. Seed 0 was used to see
how long runs take, so the studies start at seed 1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mrviz.errors import InputError
from mrviz.theory.conditions import Thresholds

Settings = Mapping[str, Any]

PROGRAMS = ["linear", "border", "linear_border"]
"""FC, VP and VP+FC of the paper."""

RULES: dict[str, Any] = {
    # Every interval is two-sided. A verdict is "agrees" where all of it is on the claim's side
    # of the threshold, "disagrees" where all of it is on the other, else "cannot tell".
    "level": 0.95,
    "trend": 0.0,  # rank correlations and differences of accuracies: their sign decides
    "spectrum_gap": Thresholds.spectrum_gap,  # Proposition 1 taken as valid up to here
    "reassembly": Thresholds.spectrum_gap,  # Eq. 16 taken as valid up to here
    "drift": Thresholds.drift,  # lazy training up to here
    # "for all inputs": sources in which it is violated at an input, at most this share.
    "violated_share": 0.25,
    "risk": Thresholds.risk,  # √2: no risk is larger
    "bound_share": 0.5,  # a bound that says something in more than this share of the runs
    "bound_holds": 0.9,  # a bound that holds in more than this share of the runs
    "fewest": 3,  # fewer independent units than this: "cannot tell"
    "resamples": 1000,
    "seed": 0,
}

DEFAULT: dict[str, Any] = {
    "kernels": {
        # λ_min[K_S] over depth, random networks: 10 images a class, several draws (question 1)
        "families": {
            "dnn": {"depths": [1, 2, 3, 4, 5, 6, 7, 8, 9], "width": 256},
            "cnn": {"depths": [1, 2, 3, 4, 5, 6], "width": 16},
        },
        "input_sizes": {"mnist-5k": {"dnn": 28, "cnn": 14}, "digits": {"dnn": 8, "cnn": 8}},
        "per_class": 10,
        "draws": 6,
        "weight_seeds": [1, 2, 3, 4],
        "seed": 1,
    },
    "depth": {
        # sources of every depth, reprogrammed with all programs (questions 2 and 3)
        "sweeps": [
            {"family": "dnn", "width": 256, "input_size": 28, "seeds": [1, 2, 3, 4]},
            {"family": "dnn", "width": 256, "input_size": 56, "seeds": [1, 2, 3, 4]},
            {"family": "dnn", "width": 256, "input_size": 112, "seeds": [1, 2, 3, 4]},
            {"family": "cnn", "width": 8, "input_size": 28, "seeds": [1, 2, 3, 4]},
        ],
        "depths": [1, 2, 3, 4, 5, 6],
        "trained_on": "mnist-5k",
        "epochs": 3,
        "target": "digits",
        "programs": PROGRAMS,
        "image_size": 20,  # of programs with a frame, whatever the source's size
        "n": 128,
        "n_test": 500,
        "steps": 100,
        "per_class": 10,
        "draws": 3,
    },
    "extractor": {
        # EfficientNet-Lite0 up to a stage, then a network of each depth (question 2)
        "extractor": "efficientnet-lite0",
        "blocks": 11,  # of 16: 112 channels at a sixteenth of the input's size
        "input_size": 48,
        "heads": {"dnn": 256, "cnn": 32},
        "depths": [1, 2, 3, 4, 5, 6],
        "trained_on": "mnist-5k",
        "epochs": 3,
        "target": "digits",
        "programs": ["linear", "border"],
        "image_size": 32,
        "n": 64,
        "n_test": 300,
        "steps": 40,
        "seeds": [1, 2],
    },
    "indicators": {
        # one grid as in mrviz.study, a run for each combination (question 4)
        "grids": [
            {
                "source": "dnn",
                "depth": 3,
                "width": 256,
                "input_size": 16,
                "trained_on": [None, "digits"],
                "target": "mnist-5k",
                "seed": [1, 2, 3],
            },
            {
                "source": "cnn",
                "depth": 2,
                "width": 8,
                "input_size": 16,
                "trained_on": [None, "digits"],
                "target": "mnist-5k",
                "seed": [1, 2, 3],
            },
            {
                "source": "dnn",
                "depth": 3,
                "width": 256,
                "input_size": 16,
                "trained_on": [None, "mnist-5k"],
                "target": "digits",
                "seed": [1, 2, 3],
            },
            {
                "source": "fcn",
                "depth": 2,
                "width": 8,
                "input_size": 64,
                "trained_on": [None, "ucr:ACSF1"],
                "target": ["ucr:GunPoint", "ucr:ItalyPowerDemand", "ucr:ArrowHead"],
                "seed": [1, 2, 3],
            },
        ],
        "image_programs": [
            {"program": "border", "capacity": [1, None], "image_size": 10},
            {"program": "linear"},
            {"program": "linear_border", "image_size": 10},
            {"program": "low_rank", "capacity": [2, 16], "image_size": 10},
        ],
        "series_programs": [
            {"program": "linear"},
            {"program": "low_rank", "capacity": [2, 8], "image_size": 48},
            {"program": "overlay"},
            {"program": "frequency"},
        ],
        "shared": {
            "n": 60,
            "n_test": 300,
            "optimizer": "gd",
            "steps": 60,
            "mapping": "frequency",
            "dtype": "float64",
        },
        "series_shared": {
            "n": 36,
            "n_test": 100,
            "optimizer": "gd",
            "steps": 60,
            "mapping": "frequency",
            "dtype": "float64",
        },
    },
    "assumptions": {
        # Assumption 3, Eq. 16 and the drift on trained and random sources (question 5)
        "sources": [
            {"family": "dnn", "depth": 2, "width": 32, "trained_on": "digits"},
            {"family": "dnn", "depth": 3, "width": 32, "trained_on": "digits"},
            {"family": "cnn", "depth": 1, "width": 4, "trained_on": "digits"},
            {"family": "dnn", "depth": 2, "width": 32, "trained_on": None},
            {"family": "dnn", "depth": 3, "width": 32, "trained_on": None},
            {"family": "cnn", "depth": 1, "width": 4, "trained_on": None},
        ],
        "input_size": 8,
        "data": "digits",  # of K_S
        "target": "mnist-5k",
        "program": "linear",
        "epochs": 15,
        "n": 16,
        "samples": 16,
        "ridge": 1e-3,  # times the mean diagonal entry of K_S
        "steps": 60,
        "seeds": [1, 2, 3],
    },
    "width": {
        # the gap of Proposition 1 as the source gets wider (question 5)
        "families": {"dnn": [8, 32, 128, 512, 2048], "cnn": [2, 4, 8, 16, 32]},
        "depth": 2,
        "input_size": 12,
        "trained_on": [None, "digits"],
        "epochs": 5,
        "target": "mnist-5k",
        "programs": ["linear", "border"],
        "image_size": 8,
        "n": 20,
        "seeds": [1, 2, 3],
    },
    "bound": {
        # Voice2Series: bound and target risk after training (question 6)
        "pairs": [
            {
                "family": "dnn",
                "options": {"depth": 3, "width": 256, "input_size": 28, "epochs": 3},
                "trained_on": "mnist-5k",
                "target": "digits",
                "programs": PROGRAMS,
                "image_size": 20,
            },
            {
                "family": "cnn",
                "options": {"depth": 2, "width": 8, "input_size": 28, "epochs": 3},
                "trained_on": "mnist-5k",
                "target": "digits",
                "programs": PROGRAMS,
                "image_size": 20,
            },
            {
                "family": "dnn",
                "options": {"depth": 3, "width": 256, "input_size": 16, "epochs": 15},
                "trained_on": "digits",
                "target": "mnist-5k",
                "programs": PROGRAMS,
                "image_size": 10,
            },
            {
                "family": "fcn",
                "options": {"depth": 2, "width": 16, "input_size": 64, "epochs": 50},
                "trained_on": "ucr:ItalyPowerDemand",
                "target": "ucr:GunPoint",
                "programs": ["linear", "overlay"],
                "image_size": None,
            },
        ],
        "n": 100,
        "n_test": 500,
        "series_n_test": 66,
        "steps": 100,
        "seeds": [1, 2, 3, 4],
    },
}


def _with(base: Mapping[str, Any], **parts: Mapping[str, Any]) -> dict[str, Any]:
    """A size with some choices of some tables replaced."""
    return {name: {**table, **parts.get(name, {})} for name, table in base.items()}


QUICK: dict[str, Any] = _with(
    DEFAULT,
    kernels={
        "input_sizes": {"digits": {"dnn": 8, "cnn": 8}},
        "draws": 3,
        "weight_seeds": [1, 2, 3],
    },
    depth={
        "sweeps": [
            {"family": "dnn", "width": 128, "input_size": 28, "seeds": [1, 2, 3]},
            {"family": "dnn", "width": 128, "input_size": 56, "seeds": [1, 2, 3]},
        ],
        "depths": [1, 3, 6],
        "epochs": 1,
        "n": 64,
        "n_test": 200,
        "steps": 30,
    },
    extractor={
        "input_size": 32,
        "image_size": 20,
        "heads": {"dnn": 64},
        "depths": [1, 3, 6],
        "epochs": 1,
        "n": 20,
        "n_test": 50,
        "steps": 8,
        "seeds": [1, 2, 3],
    },
    indicators={
        "grids": [
            {**DEFAULT["indicators"]["grids"][2], "seed": [1]},
            {**DEFAULT["indicators"]["grids"][3], "target": "ucr:GunPoint", "seed": [1]},
        ],
        "shared": {**DEFAULT["indicators"]["shared"], "n": 30, "n_test": 100, "steps": 20},
        "series_shared": {**DEFAULT["indicators"]["series_shared"], "n": 20, "steps": 20},
    },
    assumptions={"seeds": [1], "n": 10, "samples": 8, "epochs": 5, "steps": 20},
    width={
        "families": {"dnn": [8, 32, 128, 512]},
        "seeds": [1, 2],
        "epochs": 1,
        "n": 10,
    },
    bound={
        "pairs": [DEFAULT["bound"]["pairs"][0], DEFAULT["bound"]["pairs"][3]],
        "n": 40,
        "n_test": 200,
        "steps": 30,
        "seeds": [1],
    },
)

FULL: dict[str, Any] = _with(
    DEFAULT,
    kernels={
        "families": {
            "dnn": {"depths": [1, 2, 3, 4, 5, 6, 7, 8, 9], "width": 2048},
            "cnn": {"depths": [1, 2, 3, 4, 5, 6], "width": 128},
        },
        "input_sizes": {"mnist-5k": {"dnn": 28, "cnn": 28}, "digits": {"dnn": 8, "cnn": 8}},
        "draws": 10,
        "weight_seeds": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    },
    depth={
        "sweeps": [
            {"family": family, "width": width, "input_size": size, "seeds": [1, 2, 3, 4, 5, 6]}
            for family, width in (("dnn", 2048), ("cnn", 64))
            for size in (28, 56, 112)
        ],
        "epochs": 15,
        "steps": 300,
    },
    extractor={
        "blocks": 16,
        "input_size": 224,
        "image_size": 128,
        "epochs": 15,
        "n": 256,
        "n_test": 500,
        "steps": 200,
        "seeds": [1, 2, 3, 4, 5],
    },
    indicators={
        "grids": [
            {**grid, "seed": [1, 2, 3, 4, 5, 6, 7, 8]} for grid in DEFAULT["indicators"]["grids"]
        ],
    },
    assumptions={"seeds": [1, 2, 3, 4, 5, 6, 7, 8]},
    width={"families": {"dnn": [8, 32, 128, 512, 2048, 8192], "cnn": [2, 4, 8, 16, 32, 64, 128]}},
    bound={"seeds": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]},
)

SIZES: dict[str, dict[str, Any]] = {"default": DEFAULT, "quick": QUICK, "full": FULL}


def settings_of(size: str) -> dict[str, Any]:
    """The settings of a size.

    Raises:
        InputError: there is no such size.
    """
    if size not in SIZES:
        raise InputError(f"there is no size {size!r}; the sizes are {', '.join(SIZES)}")
    return SIZES[size]


def mark_of(settings: Settings) -> str:
    """Hash of settings and rules, which is in every row measured with them.

    Example:
        >>> len(mark_of(DEFAULT)), mark_of(DEFAULT) == mark_of(QUICK)
        (12, False)
    """
    text = json.dumps({"settings": settings, "rules": RULES}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
