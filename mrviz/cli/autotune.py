"""``mrviz autotune``: chooses program, capacity, mapping and step size, and trains the best."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from mrviz.experiment import HELP, SOURCE_OPTIONS, Experiment, default_of
from mrviz.programs import MAPPINGS, PROGRAMS, compare_forecasts
from mrviz.programs.losses import LOSSES
from mrviz.programs.training import STEPS
from mrviz.targets import TARGETS, ForecastTarget
from mrviz.tuning import Tuning, autotune
from mrviz.tuning.search import RATES

CHOICES = {
    "target": tuple(TARGETS),
    "trained_on": tuple(TARGETS),
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
            default=argparse.SUPPRESS,
            choices=CHOICES.get(name),
            type=str if name in TEXTS else int,
            help=HELP[name] + default_of(name),
        )
    parser.add_argument(
        "--n",
        type=int,
        default=argparse.SUPPRESS,
        help="training samples, a fifth of which validates; windows of a series are validated on "
        f"those after them (default: {SAMPLES}, or all there are)",
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
        help="default: frequency and identity, for real values identity alone",
    )
    parser.add_argument("--capacities", type=int, default=3, help="of each program that has one")
    parser.add_argument("--finalists", type=int, default=4, help="candidates that are trained")
    parser.add_argument(
        "--audit", type=int, default=0, help="rejected candidates to train, beside the budget"
    )
    parser.add_argument("--optimizer", choices=tuple(RATES), default="adam", help="of trainings")
    parser.add_argument(
        "--loss", choices=LOSSES, help="of trainings; default: squared for real values only"
    )
    parser.add_argument("--save", metavar="FOLDER", help="write the best model to a folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    names = ("source", *SOURCE_OPTIONS, "target", "device", "seed", "n")
    given: dict[str, Any] = {name: value for name, value in vars(args).items() if name in names}
    # A program that takes images and series alike.
    experiment = Experiment(n=SAMPLES).changed(program="linear", **given)
    options = [*("programs", "mappings", "capacities", "finalists", "audit", "steps")]
    options += ["optimizer", "loss"]
    target = experiment.load_target()
    tuning = autotune(
        experiment.load_source(),
        target,
        args.budget,
        seed=experiment.seed,
        **{name: getattr(args, name) for name in options},
    )
    found, beside = tuning.to_dict(), None
    if isinstance(target, ForecastTarget) and tuning.model is not None:
        beside = compare_forecasts(tuning.model, target)
        found["forecasts"] = beside.to_dict()
    print(json.dumps(found) if args.json else tuning)
    if beside is not None and not args.json:
        print(f"\n{beside}")
    if args.save is not None and tuning.model is not None:
        folder = tuning.model.save(args.save, target=target, metrics=_metrics(tuning))
        print(f"written: {folder}; mrviz.load({str(folder)!r}) reads it", file=sys.stderr)


def _metrics(tuning: Tuning) -> dict[str, Any]:
    return {
        name: getattr(tuning, name)
        for name in ("val_accuracy", "val_loss", "test_accuracy", "test_loss")
    }
