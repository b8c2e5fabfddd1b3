"""Does screening by kernel predictions help? mrviz.autotune against random search and everything.

For each source, target and seed: autotune; random search over the same candidates and step sizes
for the same gradient steps, and for the same seconds, those of the screening included; and every
candidate trained as often as a finalist was on average, which is the yardstick of the regret. All
choose by the same validation samples; test accuracy is measured for what each of them chose.
Seconds are CPU seconds of this process, which other work on the machine does not lengthen.

Writes a Markdown table. The way of predicting was chosen on seed 0, which is not among the seeds
here.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _measure
import numpy as np

import mrviz
from mrviz._progress import Progress
from mrviz.programs import ReprogrammedModel
from mrviz.programs.losses import accuracy
from mrviz.tuning import candidates, search
from mrviz.tuning.candidates import make_choices
from mrviz.tuning.result import Trial, Tuning
from mrviz.tuning.search import RATES, Search
from mrviz.tuning.split import validation_split, without_test

PAIRS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("dnn", {"depth": 3, "width": 64, "input_size": 16, "trained_on": "mnist-5k"}, "digits"),
    ("cnn", {"depth": 2, "width": 8, "input_size": 16, "trained_on": "mnist-5k"}, "digits"),
    ("dnn", {"depth": 3, "width": 64, "input_size": 16}, "digits"),
)
PROGRAMS = ("border", "overlay", "linear", "low_rank", "convolution", "patch", "scale")
CAPACITIES, MAPPINGS = 2, ("frequency", "identity")
SAMPLES = {"n_train": 150, "n_val": 100, "n_test": 500}
BUDGET, STEPS, FINALISTS = 400, 50, 4
SEEDS = (1, 2, 3)
LINES = ("autotune", "random, same steps", "random, same seconds", "all candidates")

Found = tuple[Trial, ReprogrammedModel]


def main() -> None:
    """Runs everything and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="write Markdown here, not to the terminal")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    args = parser.parse_args()
    candidates.time = search.time = SimpleNamespace(perf_counter=time.process_time)
    rows = []
    for name, options, data in PAIRS:
        for seed in args.seeds:
            rows.append((name, options.get("trained_on"), data, compare(name, options, data, seed)))
            print(rows[-1], file=sys.stderr, flush=True)
    text = report(rows, args.seeds)
    print(text) if args.output is None else args.output.write_text(text, encoding="utf-8")


def compare(name: str, options: dict[str, Any], data: str, seed: int) -> dict[str, dict[str, Any]]:
    """One source, target and seed: what each way chose, and what that cost."""
    source = mrviz.load_source(name, seed=seed, progress=False, **options)
    target = mrviz.load_target(data, seed=seed, **SAMPLES)
    tuning = mrviz.autotune(
        source,
        target,
        BUDGET,
        programs=PROGRAMS,
        mappings=MAPPINGS,
        capacities=CAPACITIES,
        finalists=FINALISTS,
        steps=STEPS,
        seed=seed,
        progress=False,
    )
    assert tuning.best is not None and tuning.model is not None
    made = [t for t in tuning.trials if not t.audit]
    seconds = tuning.screening_seconds + tuning.training_seconds
    found = {"autotune": line((tuning.best, tuning.model), target, made, seconds)}
    found["autotune"]["screening"] = tuning.screening_seconds
    found |= others(source, target, tuning, seconds, seed)
    best = max(row["val"] for row in found.values())
    for row in found.values():
        row["regret"] = best - row["val"]
    return found


def others(
    source: mrviz.SourceModel, target: mrviz.Target, tuning: Tuning, seconds: float, seed: int
) -> dict[str, dict[str, Any]]:
    """Random search and the training of every candidate."""
    data = without_test(validation_split(target, seed=seed))
    choices = make_choices([(source.name, source)], data, PROGRAMS, MAPPINGS, CAPACITIES)
    searching = Search(choices, [None] * len(choices), data, tuning.settings, None)
    low, high = (math.log(rate) for rate in RATES["adam"])
    rng = np.random.default_rng(seed)

    def train(place: int, default: bool, steps: int) -> Found:
        rate = None if default else math.exp(rng.uniform(low, high))
        bar = Progress(1, "", False)
        return searching.train(place, rate, steps, bar)

    def drawn(limit: float, of_steps: bool) -> dict[str, Any]:
        made: list[Trial] = []
        best: Found | None = None
        while True:
            spent = sum(t.steps if of_steps else t.seconds for t in made)
            if spent >= limit:
                assert best is not None
                return line(best, target, made, sum(t.seconds for t in made))
            steps = min(STEPS, int(limit - spent)) if of_steps else STEPS
            tried = train(int(rng.integers(len(choices))), False, steps)
            made.append(tried[0])
            best = better(best, tried)

    found = {"random, same steps": drawn(tuning.steps, True)}
    found["random, same seconds"] = drawn(seconds, False)
    each = max(1, round(len(tuning.trials) / FINALISTS))
    best, made = None, []
    for place in range(len(choices)):
        for turn in range(each):
            tried = train(place, turn == 0, STEPS)
            made.append(tried[0])
            best = better(best, tried)
    assert best is not None
    found["all candidates"] = line(best, target, made, sum(t.seconds for t in made))
    return found


def better(one: Found | None, other: Found) -> Found:
    """The better on validation samples; the first of equals."""
    return other if one is None or other[0].rank(True) > one[0].rank(True) else one


def line(
    best: Found, target: mrviz.Target, made: Sequence[Trial], seconds: float
) -> dict[str, Any]:
    """What a way of choosing came to."""
    trial, model = best
    test = accuracy(model.predict(target.x_test), target.targets_of(target.y_test))
    return {
        "val": trial.val_accuracy,
        "test": test,
        "trainings": len(made),
        "steps": sum(t.steps for t in made),
        "seconds": seconds,
    }


def report(rows: Sequence[Any], seeds: Sequence[int]) -> str:
    """The tables: mean ± standard deviation over seeds, and the mean over everything."""
    text = [HEAD]
    kinds = list(dict.fromkeys(row[:3] for row in rows))
    for kind in [*kinds, None]:
        of = [row[3] for row in rows if kind is None or row[:3] == kind]
        title = "all together" if kind is None else described(*kind)
        text += [f"## {title[0].upper()}{title[1:]}", "", *table(of), ""]
    return "\n".join([*text, provenance(seeds)])


def described(name: str, trained_on: str | None, data: str) -> str:
    """A source and a target in words."""
    weights = f"trained on {trained_on}" if trained_on else "random weights"
    return f"{name}, {weights} → {data}"


def table(runs: Sequence[dict[str, dict[str, Any]]]) -> list[str]:
    """One line a way of choosing."""
    titles = ["", "validation %", "regret, points", "test %", "trainings", "steps", "CPU seconds"]
    text = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for name in LINES:
        cells = [name]
        for key, scale, digits in (
            *(("val", 100, 1), ("regret", 100, 1), ("test", 100, 1)),
            *(("trainings", 1, 0), ("steps", 1, 0), ("seconds", 1, 1)),
        ):
            values = [scale * run[name][key] for run in runs]
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.{digits}f}{spread}")
        text.append(f"| {' | '.join(cells)} |")
    screening = statistics.mean(run["autotune"]["screening"] for run in runs)
    return [*text, "", f"Screening took {screening:.1f} s of autotune's CPU seconds, on average."]


def provenance(seeds: Sequence[int]) -> str:
    """Command, versions, seeds and machine."""
    versions = _measure.versions("torch", "numpy", "optuna")
    command = " ".join(["python", "benchmarks/autotune.py", *sys.argv[1:]])
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    return f"""## How it was made

`{command}` with OMP_NUM_THREADS {threads}, mrviz {mrviz.__version__}, {versions}, Python
{sys.version.split()[0]}; seeds {", ".join(map(str, seeds))};
{os.cpu_count()} CPU cores, shared with other work:
{_measure.machine("cpu")}.
{time.process_time() / 60:.1f} CPU minutes in all, the training of the sources included.
"""


HEAD = f"""# Autotune against random search and training everything

Candidates: {", ".join(PROGRAMS)}, each at
{CAPACITIES} capacities where it has one, with the mappings {" and ".join(MAPPINGS)}.
{SAMPLES["n_train"]} training, {SAMPLES["n_val"]} validation and {SAMPLES["n_test"]} test images.
Autotune: {BUDGET} gradient steps, {FINALISTS} finalists, Adam, trainings of at most {STEPS} steps.
Random search draws candidate and step size from the same space and stops early by the same
patience, but has no median rule. "All candidates" trains each as often as autotune trained a
finalist on average, once at the default step size and then at random ones.

Everything is chosen by validation accuracy. Regret: how far it is below the best of the four ways
for the same source, target and seed. Mean ± standard deviation over seeds, of which each changes
weights, samples, start values and draws. Validation accuracies are of the samples that chose, so
the more was tried the more optimistic they are; one image is {100 / SAMPLES["n_val"]:.1f} point.
The standard error of a test accuracy is up to {100 * math.sqrt(0.25 / SAMPLES["n_test"]):.1f}
points.
"""

if __name__ == "__main__":
    main()
