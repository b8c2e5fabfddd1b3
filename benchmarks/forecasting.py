"""How well do forecasters forecast once they are reprogrammed? A table from one command.

A linear program that starts at the identity, so at the source alone, is trained on the squared
error by Adam at a few step sizes; step size and step are those with the lowest loss on validation
windows, and the scores are those on test windows, beside those of the source alone and of the
seasonal naive rule.
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
import torch
from _measure import markdown, spread

import mrviz
from mrviz.programs import Linear, compare_forecasts
from mrviz.targets import Target, load_forecast

HORIZON = 12
CONTEXTS = {"airline": 36, "solar": 96, "blood-pressure": 183}
"""Contexts of the forecasting targets."""
FORECASTERS = {"fracast": None, "conv-forecaster": "blood-pressure"}
"""What the forecasters are trained on; fracast has its pretrained weights."""
RATES, STEPS, BATCH, EVERY = (1e-4, 1e-3), 30, 16, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="seeds of everything")
    parser.add_argument("--output", type=Path, help="write the table to this file")
    parser.add_argument("--quick", action="store_true", help="one seed, one series, few steps")
    args = parser.parse_args()
    seeds = range(1 if args.quick else args.seeds)
    names = ["airline"] if args.quick else list(CONTEXTS)
    rows = forecasting(names, seeds, STEPS // 10 if args.quick else STEPS)
    text = "\n".join([HEAD, rows, provenance(seeds)])
    print(text) if args.output is None else args.output.write_text(text, encoding="utf-8")


def forecasting(names: Sequence[str], seeds: Iterable[int], steps: int) -> str:
    """Rows source × series: MASE and MSE reprogrammed, of the source alone and of the rule."""
    head = ["source", "series", "reprogrammed", "source alone", "seasonal naive"]
    head += ["MSE reprogrammed", "MSE source alone", "MSE naive", "CPU minutes"]
    lines = [head]
    for label, trained_on in FORECASTERS.items():
        for name in names:
            if name == trained_on:
                continue
            started, found = time.process_time(), []
            target = load_forecast(
                name, context=CONTEXTS[name], horizon=HORIZON, n_train=32, n_val=16, n_test=32
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
            lines.append([label, name, *texts, f"{spent:.2f}"])
    return "\n".join([*markdown(lines), ""])


def reprogrammed_forecaster(
    label: str, target: Target, seed: int, steps: int
) -> mrviz.ReprogrammedModel:
    """A forecaster behind a linear program, as it was when it did best on validation windows."""
    options: dict[str, Any] = {"input_size": target.shape[-1], "horizon": HORIZON}
    source = mrviz.load_source(
        label, **options, trained_on=FORECASTERS[label], seed=seed, progress=False
    )
    found = []
    for rate in RATES:
        program = Linear(source.input_shape, target.shape)
        with torch.no_grad():
            program.weight.copy_(torch.eye(len(program.weight)))
            assert program.bias is not None
            program.bias.zero_()
        model = mrviz.reprogram(source, target, program=program, mapping="identity")
        fit = mrviz.train(
            model,
            target,
            loss="squared",
            lr=rate,
            steps=steps,
            batch_size=BATCH,
            seed=seed,
            keep="val_loss",
            record_every=EVERY,
            progress=False,
        )
        assert fit.outcome is not None and fit.outcome.val_loss is not None
        found.append((fit.outcome.val_loss, model))
    return min(found, key=lambda pair: pair[0])[1]


# Output


def provenance(seeds: Sequence[int]) -> str:
    """Command, versions, seeds and machine."""
    versions = _measure.versions("torch", "numpy", "aeon", "fracast")
    command = " ".join(["python", "benchmarks/forecasting.py", *sys.argv[1:]])
    return f"""## How it was made

`{command}` with mrviz {mrviz.__version__}, {versions}, Python {sys.version.split()[0]}; seeds
{", ".join(map(str, seeds))}; {os.cpu_count()} CPU cores, shared with other work:
{_measure.machine("cpu")}.
{time.process_time() / 60:.1f} CPU minutes in all. Each row's CPU minutes are those of all its runs.
"""


HEAD = f"""# Reprogrammed forecasters

Mean over {HORIZON} steps of each test window, by time after all training and validation windows;
MASE (below 1: better than the seasonal naive rule was on the training part) and mean squared
error of the series scaled to [0, 1]; mean ± standard deviation over seeds. A linear program that
starts at the identity, so at the source alone; Adam on squared loss, batches of {BATCH}, {STEPS}
steps at {" and ".join(map(str, RATES))}, chosen on validation windows, step 0 among the choices.
fracast has its pretrained weights; conv-forecaster was trained on blood-pressure.
"""


if __name__ == "__main__":
    main()
