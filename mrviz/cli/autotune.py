"""``mrviz autotune``: chooses program, capacity, mapping and step size, and trains the best."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from mrviz.experiment import HELP, SOURCE_OPTIONS, Experiment
from mrviz.programs import MAPPINGS, PROGRAMS
from mrviz.programs.losses import LOSSES
from mrviz.programs.training import STEPS
from mrviz.targets import FORECASTS, TARGETS
from mrviz.tuning import Tuning, autotune
from mrviz.tuning.search import RATES

CHOICES = {
    "target": tuple(TARGETS),
    "trained_on": (*TARGETS, *FORECASTS),
    "weights": ("pretrained", "random"),
}
TEXTS = ("source", "trained_on", "weights", "target", "device")
SAMPLES = 256
"""Training samples of the target, validation samples included, where no number is given."""


def add_to(commands: Any) -> None:
    """Adds ``autotune`` to the commands of the parser."""
    text = "choose program, capacity, mapping and step size, and train the best"
    parser = commands.add_parser(
        "autotune",
        help=text,
        description=f"{text}; docs/autotune.md says what that is worth",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name in ("source", *SOURCE_OPTIONS, "target", "device", "seed"):
        parser.add_argument(
            "--" + name.replace("_", "-"),
            default=getattr(Experiment, name),
            choices=CHOICES.get(name),
            type=str if name in TEXTS else int,
            help=HELP[name],
        )
    parser.add_argument(
        "--n", type=int, default=SAMPLES, help="training samples; a fifth of them validates"
    )
    parser.add_argument(
        "--budget", type=int, default=20 * STEPS, help="gradient steps of all trainings together"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="most steps of a training")
    parser.add_argument("--programs", nargs="+", choices=tuple(PROGRAMS), help="default: all")
    parser.add_argument(
        "--mappings",
        nargs="+",
        choices=tuple(MAPPINGS),
        help="default: frequency and identity",
    )
    parser.add_argument("--capacities", type=int, default=3, help="of each program that has one")
    parser.add_argument("--finalists", type=int, default=4, help="candidates that are trained")
    parser.add_argument(
        "--audit", type=int, default=0, help="rejected candidates to train, beside the budget"
    )
    parser.add_argument("--optimizer", choices=tuple(RATES), default="adam", help="of trainings")
    parser.add_argument("--loss", choices=LOSSES, default="cross_entropy", help="of trainings")
    parser.add_argument("--save", metavar="FOLDER", help="write the best model to a folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    names = ("source", *SOURCE_OPTIONS, "target", "device", "seed", "n")
    chosen: dict[str, Any] = {name: getattr(args, name) for name in names}
    experiment = Experiment(program="linear", **chosen)  # which takes images and series alike
    options = [*("programs", "mappings", "capacities", "finalists", "audit", "steps")]
    options += ["optimizer", "loss", "seed"]
    target = experiment.load_target()
    tuning = autotune(
        experiment.load_source(),
        target,
        args.budget,
        **{name: getattr(args, name) for name in options},
    )
    print(json.dumps(tuning.to_dict()) if args.json else tuning)
    if args.save is not None and tuning.model is not None:
        folder = tuning.model.save(args.save, target=target, metrics=_metrics(tuning))
        print(f"written: {folder}; mrviz.load({str(folder)!r}) reads it", file=sys.stderr)


def _metrics(tuning: Tuning) -> dict[str, Any]:
    return {
        name: getattr(tuning, name)
        for name in ("val_accuracy", "val_loss", "test_accuracy", "test_loss")
    }
