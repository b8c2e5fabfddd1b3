"""How well does the matched prediction foretell what training gives? Many runs, one table.

Every run reprograms one source to one target with one program and one seed: predicts training
before it happens (mrviz.predict_training), then trains with the same loss, step size and number
of steps by full-batch gradient descent, and beside it by mini-batch SGD with that step size and
by Adam with its default. Rows go to a CSV file as they are finished; runs that are in it already
are not repeated. At the end: rank correlations of predicted with measured held-out accuracy over
all runs, with intervals from a bootstrap over sources, and a table by group.

``--report benchmarks/results/prediction.csv`` prints the same from the stored study without running
anything, and ``--figure FILE`` draws it; docs/prediction.md says what it shows.

SETTINGS was fixed before any run of the study and is not to be tuned to its outcome: its hash is
in every row, and rows of other settings are refused.
"""

from __future__ import annotations

import argparse
import copy
import csv
import hashlib
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from _prediction import KEY, MEASURED, PREDICTORS, check, read, report
from _prediction_figure import check_picture, figure, save

import mrviz
from mrviz.programs import PROGRAMS
from mrviz.programs.training import train
from mrviz.theory.drift import kernel_drift
from mrviz.theory.prediction import LR_FRACTION, predict_training

BOTH = ["mnist-5k", "digits"]
ALL = ("border", "overlay", "linear", "linear_border", "low_rank", "convolution", "scale")
"""All programs there were when the settings were fixed."""
SETTINGS: dict[str, Any] = {
    "sources": [
        {
            "family": family,
            "options": {"depth": depth, "width": width, "input_size": 32},
            "weights": ["trained", "random"],
            "targets": BOTH,
            "seeds": [0, 1, 2],
        }
        for family, depth, width in (("dnn", 3, 256), ("cnn", 2, 16))
    ]
    + [
        {
            "family": "efficientnet-lite0",
            "options": {"input_size": 32},
            "weights": ["pretrained"],
            "targets": ["mnist-5k"],
            "seeds": [0],
        }
    ],
    "trained_on": {"mnist-5k": "digits", "digits": "mnist-5k"},  # by target
    "source_epochs": 5,
    "programs": "all",
    "program_options": {"image_size": 20},  # where the program has the option
    "mapping": "frequency",
    "n": 100,
    "n_test": 500,
    "loss": "cross_entropy",
    "lr_fraction": LR_FRACTION,  # of the largest stable step
    "steps": 100,
    "batch_size": 25,  # of SGD and Adam, which make the same number of steps
}
QUICK: dict[str, Any] = SETTINGS | {
    "sources": [
        {
            "family": "dnn",
            "options": {"depth": 2, "width": 32, "input_size": 16},
            "weights": ["trained", "random"],
            "targets": ["digits"],
            "seeds": [0],
        }
    ],
    "source_epochs": 1,
    "programs": ["linear", "border"],
    "program_options": {"image_size": 8},
    "n": 20,
    "n_test": 100,
    "steps": 10,
    "batch_size": 10,
}
COLUMNS = (
    *KEY,
    *PREDICTORS,
    *MEASURED,
    *("predicted_loss", "gd_loss", "lr", "stable_step", "parameters", "source_accuracy"),
    *("drift", "alignment", "predict_seconds", "gd_seconds", "seconds", "diverged", "skipped"),
    "settings",
)


def runs(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The design: every combination, programs innermost so that a source is loaded once."""
    programs = ALL if settings["programs"] == "all" else settings["programs"]
    for source in settings["sources"]:
        axes = (source["targets"], [source["family"]], source["weights"], source["seeds"])
        for values in itertools.product(*axes, programs):
            yield dict(zip(KEY, values, strict=True))


def load(run: dict[str, Any], settings: dict[str, Any]) -> tuple[Any, Any]:
    """Source and target of a run."""
    (source,) = (s for s in settings["sources"] if s["family"] == run["family"])
    options = dict(source["options"], seed=run["seed"])
    if run["weights"] == "trained":
        options |= {
            "trained_on": settings["trained_on"][run["target"]],
            "epochs": settings["source_epochs"],
        }
    elif run["weights"] == "pretrained":
        options["weights"] = "pretrained"
    loaded = mrviz.load_source(run["family"], **options, progress=False)
    sizes = {"n_train": settings["n"], "n_test": settings["n_test"], "seed": run["seed"]}
    return loaded, mrviz.load_target(run["target"], **sizes)


def measure(run: dict[str, Any], source: Any, target: Any, settings: dict[str, Any]) -> dict:
    """One run: predicted, then measured."""
    started = time.perf_counter()
    options = {
        name: value
        for name, value in settings["program_options"].items()
        if name in PROGRAMS[run["program"]].options
    }
    try:
        model = mrviz.reprogram(
            source,
            target,
            program=run["program"],
            mapping=settings["mapping"],
            seed=run["seed"],
            **options,
        )
    except mrviz.InputError as error:
        return run | {"skipped": str(error)}
    shared = {"loss": settings["loss"], "steps": settings["steps"], "progress": False}
    prediction = predict_training(model, target, record_every=settings["steps"], **shared)
    shared |= {"record_every": settings["steps"]}
    batches = {"batch_size": settings["batch_size"], "seed": run["seed"]}
    models = {name: copy.deepcopy(model) for name in MEASURED}
    fits = {
        "gd": train(models["gd"], target, optimizer="gd", lr=prediction.lr, **shared),
        "sgd": train(models["sgd"], target, optimizer="sgd", lr=prediction.lr, **batches, **shared),
        "adam": train(models["adam"], target, optimizer="adam", **batches, **shared),
    }
    after = mrviz.ntk_gram(models["gd"], target.x_train, progress=False)
    drift = kernel_drift(prediction.gram, after)
    curve = prediction.trajectory
    report = getattr(source, "training_report", None)
    return run | {
        "predicted": prediction.accuracy,
        "start": curve.test_accuracy[0] if curve.test_accuracy else None,
        "ridge": prediction.ridge_accuracy,
        "leave_one_out": prediction.leave_one_out_accuracy,
        **{name: fit.test_accuracy[-1] for name, fit in fits.items()},
        "predicted_loss": curve.test_loss[-1] if curve.test_loss else None,
        "gd_loss": fits["gd"].test_loss[-1],
        "lr": prediction.lr,
        "stable_step": prediction.stable_step,
        "parameters": model.n_parameters,
        "source_accuracy": report.test_accuracy if report else None,
        "drift": drift.relative,
        "alignment": drift.alignment,
        "predict_seconds": prediction.seconds,
        "gd_seconds": fits["gd"].seconds,
        "seconds": time.perf_counter() - started,
        "diverged": " ".join(name for name, fit in fits.items() if fit.diverged is not None),
    }


def mark_of(settings: dict[str, Any]) -> str:
    """Hash of the settings, which is in every row."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def study(settings: dict[str, Any], path: Path) -> list[dict[str, str]]:
    """Makes the runs that are not in the CSV file yet; all its rows."""
    text, mark = json.dumps(settings, sort_keys=True), mark_of(settings)
    rows = read(path)
    check(rows, mark, path)
    done = {tuple(row[name] for name in KEY) for row in rows}
    todo = [r for r in runs(settings) if tuple(str(r[name]) for name in KEY) not in done]
    print(f"settings {mark}: {text}\n{len(done)} runs done, {len(todo)} to make", flush=True)
    loaded: tuple[Any, Any, Any] = (None, None, None)
    for k, run in enumerate(todo):
        which = tuple(run[name] for name in KEY[:-1])
        if loaded[0] != which:
            loaded = which, *load(run, settings)
        row = measure(run, *loaded[1:], settings) | {"settings": mark}
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        shown = " ".join(str(run[name]) for name in KEY)
        result = row.get("skipped") or (
            f"predicted {row['predicted']:.3f}, measured {row['gd']:.3f} (SGD {row['sgd']:.3f}, "
            f"Adam {row['adam']:.3f}), drift {row['drift']:.2f}, {row['seconds']:.1f} s"
        )
        print(f"{k + 1}/{len(todo)} {shown}: {result}", flush=True)
    return read(path)


def stored(path: Path, settings: dict[str, Any]) -> list[dict[str, str]]:
    """Rows of a finished table, checked to be of these settings and of every run of theirs."""
    rows = read(path)
    if not rows:
        raise SystemExit(f"{path} holds no runs: make them with --csv {path}")
    check(rows, mark_of(settings), path)
    found = [tuple(row[name] for name in KEY) for row in rows]
    wanted = {tuple(str(run[name]) for name in KEY) for run in runs(settings)}
    if len(set(found)) != len(found) or set(found) != wanted:
        raise SystemExit(
            f"{path} holds {len(set(found) & wanted)} of the {len(wanted)} runs of these settings "
            f"in {len(found)} rows: make the missing ones with --csv {path}"
        )
    return rows


def main() -> None:
    """Runs the study, or what is left of it, or reads a stored one, and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--csv", type=Path, help="default: prediction.csv, with --quick a new one")
    parser.add_argument("--quick", action="store_true", help="four tiny runs, to test the script")
    parser.add_argument(
        "--report", type=Path, metavar="CSV", help="no runs: print the tables of a stored study"
    )
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw it as well: FILE.png, .svg or .html"
    )
    args = parser.parse_args()
    settings = QUICK if args.quick else SETTINGS
    if args.figure is not None:
        check_picture(args.figure)
    if args.report is not None:
        if args.csv is not None:
            parser.error("--report reads a finished table and --csv adds to one: choose one")
        rows = stored(args.report, settings)
    else:
        print(f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads")
        with tempfile.TemporaryDirectory() as folder:
            default = Path(folder) / "quick.csv" if args.quick else Path("prediction.csv")
            rows = study(settings, args.csv or default)
    print(json.dumps(report(rows, settings["n_test"])))
    if args.figure is not None:
        save(figure(rows), args.figure)
        print(f"drawn: {args.figure}")


if __name__ == "__main__":
    main()
