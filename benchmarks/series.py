"""How accurate are sources for series once they are reprogrammed? Two tables from one command.

Classification: sources trained on one UCR set, and random ones, are reprogrammed to five others.
Every run trains by Adam at a few step sizes; step size and number of steps are those with the
best accuracy on validation samples drawn from the set's own training split (ties: the lower
loss), and the accuracy in the table is that on its own test split. Forecasting: the same with the
squared error, a linear program that starts at the identity, and the scores of the source alone
and of the seasonal naive rule beside it.

Writes a Markdown table. PROGRAMS and MAPPINGS are what is tried: further ones need one line each.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import _measure
import torch

import mrviz
from mrviz.programs import Chain, Linear, Program, compare_forecasts
from mrviz.targets import TARGETS, Target, load_forecast, load_target

LENGTH = 128
ON_ACSF1 = {"trained_on": "ucr:ACSF1", "epochs": 150}
SOURCES: dict[str, dict[str, Any]] = {
    "fcn, trained on ACSF1": {"name": "fcn", "width": 16, **ON_ACSF1},
    "resnet1d, trained on ACSF1": {"name": "resnet1d", "width": 8, **ON_ACSF1},
    "fcn, random": {"name": "fcn", "width": 16},
}
SETS = ("ArrowHead", "GunPoint", "ItalyPowerDemand", "OSULeaf", "PickupGestureWiimoteZ")

Shape = tuple[int, ...]
PROGRAMS: dict[str, Callable[[Shape, Shape, int], Program]] = {
    "linear": lambda source, target, seed: Linear(source, target, seed=seed),
    "linear, 16 values, linear": lambda source, target, seed: Chain(
        Linear((1, 16), target, seed=seed), Linear(source, (1, 16), seed=seed + 1000)
    ),
}
RUNS = (
    ("linear", "frequency"),
    ("linear", "identity"),
    ("linear", "trainable head"),
    ("linear, 16 values, linear", "frequency"),
)
"""Programs and mappings that are combined with every source and set."""

RATES, STEPS, EVERY = (1e-3, 1e-2), 100, 10
FORECAST_RATES, FORECAST_STEPS, FORECAST_BATCH = (1e-4, 1e-3), 30, 16
HORIZON = 12
FORECASTS = {"airline": 36, "solar": 96, "blood-pressure": 183}
"""Contexts of the forecasting targets."""
FORECASTERS = {"fracast": None, "conv-forecaster": "blood-pressure"}
"""What the forecasters are trained on; fracast has its pretrained weights."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="seeds of everything")
    parser.add_argument("--output", type=Path, help="write the table to this file")
    parser.add_argument("--quick", action="store_true", help="one seed, one set, few steps")
    args = parser.parse_args()
    seeds = range(1 if args.quick else args.seeds)
    sets = SETS[1:2] if args.quick else SETS
    series = ["airline"] if args.quick else list(FORECASTS)
    scale = 10 if args.quick else 1
    parts = [HEAD, classification(sets, seeds, STEPS // scale), FORECAST_HEAD]
    parts += [forecasting(series, seeds, FORECAST_STEPS // scale), provenance(seeds)]
    text = "\n".join(parts)
    print(text)
    if args.output is not None:
        args.output.write_text(text, encoding="utf-8")


# Classification


def classification(sets: Sequence[str], seeds: Iterable[int], steps: int) -> str:
    """Rows source × program × mapping, one column for each set, and what was measured beside."""
    rows: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    minutes: dict[tuple[str, str, str], float] = {}
    beside: list[str] = []
    for seed in seeds:
        targets = {name: split(name, seed) for name in sets}
        for label, options in SOURCES.items():
            started = time.process_time()
            source = mrviz.load_source(**options, input_size=LENGTH, seed=seed, progress=False)
            if seed == 0 and "trained_on" in options:
                report = source.training_report
                beside.append(
                    f"{label}: {report.test_accuracy:.0%} on {report.n_test} held-out series of "
                    f"its own task, {time.process_time() - started:.0f} s of training"
                )
            for (program, mapping), (name, target) in (
                (run, item) for run in RUNS for item in targets.items()
            ):
                started, key = time.process_time(), (label, program, mapping)
                accuracy = best_accuracy(source, target, program, mapping, seed, steps)
                rows.setdefault(key, {}).setdefault(name, []).append(accuracy)
                minutes[key] = minutes.get(key, 0) + (time.process_time() - started) / 60
                print(seed, *key, name, f"{accuracy:.3f}", file=sys.stderr, flush=True)
    nearest = [f"{100 * nearest_neighbour(load_target('ucr:' + s, split='own')):.1f}" for s in sets]
    head = ["source", "program", "mapping", *sets, "CPU minutes"]
    lines = [cells(head), cells(["---"] * len(head))]
    for key, found in rows.items():
        values = [spread([100 * v for v in found[name]]) for name in sets]
        lines.append(cells([*key, *values, f"{minutes[key]:.2f}"]))
    lines.append(cells(["none: nearest training series", "", "", *nearest, ""]))
    chances = [f"{100 / len(TARGETS['ucr:' + name].classes):.1f}" for name in sets]
    lines.append(cells(["none: chance", "", "", *chances, ""]))
    return "\n".join([*lines, "", "; ".join(beside) + " (seed 0)." if beside else "", ""])


def split(name: str, seed: int) -> Target:
    """The set's own splits, a quarter of the training samples or a little less for validation."""
    spec = TARGETS["ucr:" + name]
    classes = len(spec.classes)
    n_val = classes * max(1, (spec.own_train or 0) // (4 * classes))
    return load_target(spec.name, n_val=n_val, split="own", seed=seed)


def best_accuracy(
    source: mrviz.SourceModel, target: Target, program: str, mapping: str, seed: int, steps: int
) -> float:
    """Test accuracy of what does best on validation samples."""

    def build() -> mrviz.ReprogrammedModel:
        made = PROGRAMS[program](source.input_shape, target.shape, seed)
        head = mapping == "trainable head"
        model = mrviz.reprogram(
            source, target, program=made, mapping="frequency" if head else mapping
        )
        if head:
            start = mrviz.mappings.LinearHead(model.mapping)
            model = mrviz.ReprogrammedModel(source, made, start)
        return model

    model = selected(build, target, RATES, steps, "cross_entropy", len(target.x_train), seed)
    right = model.predict(target.x_test).argmax(1) == target.y_test
    return float(right.double().mean())


def selected(
    build: Callable[[], mrviz.ReprogrammedModel],
    target: Target,
    rates: Sequence[float],
    steps: int,
    loss: str,
    batch_size: int,
    seed: int,
) -> mrviz.ReprogrammedModel:
    """Trains at each rate; the model as it was when it did best on the validation samples."""
    assert target.x_val is not None and target.y_val is not None
    watched = Target(
        target.x_train, target.y_train, target.x_val, target.y_val, classes=target.classes
    )
    best: tuple[tuple[float, float], mrviz.ReprogrammedModel, dict[str, Any]] | None = None
    for rate in rates:
        model = build()

        def keep(measured: Any, model: mrviz.ReprogrammedModel = model) -> None:
            nonlocal best
            found = measured.test_accuracy or 0.0, -measured.test_loss
            if best is None or found > best[0]:
                state = {"program": model.program.state_dict(), "head": model.head.state_dict()}
                best = found, model, copy.deepcopy(state)

        mrviz.train(
            model,
            watched,
            loss=loss,
            lr=rate,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            record_every=EVERY,
            progress=False,
            on_step=keep,
        )
    assert best is not None
    _, model, state = best
    model.program.load_state_dict(state["program"])
    model.head.load_state_dict(state["head"])
    return model


def nearest_neighbour(target: Target) -> float:
    """Test accuracy of the label of the nearest training series (Euclidean distance)."""
    distances = torch.cdist(target.x_test.flatten(1).double(), target.x_train.flatten(1).double())
    return float((target.y_train[distances.argmin(1)] == target.y_test).double().mean())


# Forecasting


def forecasting(names: Sequence[str], seeds: Iterable[int], steps: int) -> str:
    """Rows source × series: MASE and MSE reprogrammed, of the source alone and of the rule."""
    head = ["source", "series", "reprogrammed", "source alone", "seasonal naive"]
    head += ["MSE reprogrammed", "MSE source alone", "MSE naive", "CPU minutes"]
    lines = [cells(head), cells(["---"] * len(head))]
    for label, trained_on in FORECASTERS.items():
        for name in names:
            if name == trained_on:
                continue
            started, found = time.process_time(), []
            target = load_forecast(
                name, context=FORECASTS[name], horizon=HORIZON, n_train=32, n_val=16, n_test=32
            )
            for seed in seeds:
                model = reprogrammed_forecaster(label, target, seed, steps)
                found.append(compare_forecasts(model, target))
                print(label, name, seed, found[-1], file=sys.stderr, flush=True)
            scores = [
                [getattr(c[who], what) for c in found]
                for what in ("mase", "mse")
                for who in ("reprogrammed", "source", "seasonal naive")
            ]
            texts = [spread(s, 3 if k < 3 else 4) for k, s in enumerate(scores)]
            spent = (time.process_time() - started) / 60
            lines.append(cells([label, name, *texts, f"{spent:.2f}"]))
    return "\n".join([*lines, ""])


def reprogrammed_forecaster(
    label: str, target: Target, seed: int, steps: int
) -> mrviz.ReprogrammedModel:
    """A forecaster behind a linear program that starts at the identity, trained."""
    options: dict[str, Any] = {"input_size": target.shape[-1], "horizon": HORIZON}
    source = mrviz.load_source(
        label, **options, trained_on=FORECASTERS[label], seed=seed, progress=False
    )

    def build() -> mrviz.ReprogrammedModel:
        program = Linear(source.input_shape, target.shape)
        with torch.no_grad():
            program.weight.copy_(torch.eye(len(program.weight)))
            assert program.bias is not None
            program.bias.zero_()
        return mrviz.reprogram(source, target, program=program, mapping="identity")

    return selected(build, target, FORECAST_RATES, steps, "squared", FORECAST_BATCH, seed)


# Output


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard deviation, or the number where all are the same."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) < 2 or max(values) == min(values):
        return mean
    return f"{mean} ± {statistics.stdev(values):.{digits}f}"


def cells(values: Iterable[str]) -> str:
    return "| " + " | ".join(values) + " |"


def provenance(seeds: Sequence[int]) -> str:
    """Command, versions, seeds and machine."""
    packages = ("torch", "numpy", "aeon", "fracast")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    command = " ".join(["python", "benchmarks/series.py", *sys.argv[1:]])
    return f"""## How it was made

`{command}` with mrviz {mrviz.__version__}, {versions}, Python {sys.version.split()[0]}; seeds
{", ".join(map(str, seeds))}; {os.cpu_count()} CPU cores, shared with other work:
{_measure.machine("cpu")}.
{time.process_time() / 60:.1f} CPU minutes in all. Each row's CPU minutes are those of all its runs.
"""


HEAD = f"""# Reprogrammed sources for series

## Classification of UCR sets

Accuracy in percent on each set's own test split, mean ± standard deviation over seeds; a seed
changes the source's weights, the program's start and which training samples are held out for
validation. Sources take series of length {LENGTH} and
have 16 (fcn) and 8 (resnet1d) channels in front. Adam on cross-entropy, all training samples in
each step, {STEPS} steps at {" and ".join(map(str, RATES))}; step size and step (every {EVERY}) are
those with the best validation accuracy.
"""
FORECAST_HEAD = f"""## Forecasting

Mean over {HORIZON} steps of each test window, by time after all training and validation windows;
MASE (below 1: better than the seasonal naive rule was on the training part) and mean squared
error of the series scaled to [0, 1]. A linear program that starts at the identity, so at the
source alone; Adam on squared loss, batches of {FORECAST_BATCH}, {FORECAST_STEPS} steps at
{" and ".join(map(str, FORECAST_RATES))}, chosen on validation windows, step 0 among the choices.
fracast has its pretrained weights; conv-forecaster was trained on blood-pressure.
"""


if __name__ == "__main__":
    main()
