"""Question 6: how loose is the bound of Voice2Series?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from mrviz.paper.answer import CORRELATION, Answer, of_mean, of_share, spearman
from mrviz.paper.settings import RULES, Settings
from mrviz.paper.tables import Row, Table, Tables, Task, column, groups
from mrviz.programs import PROGRAMS, ReprogrammedModel, reprogram
from mrviz.programs.training import train
from mrviz.sources import TrainedSource, load_source
from mrviz.targets import TARGETS, Target, load_target
from mrviz.theory.distribution import distribution_bound

NAME = "bound"
PAIR = ("family", "trained_on", "target")


def tasks(settings: Settings) -> list[Task]:
    """One for each pair of source and target and each seed; all programs are trained."""
    chosen = settings[NAME]
    return [
        {
            "pair": k,
            "family": pair["family"],
            "trained_on": pair["trained_on"],
            "target": pair["target"],
            "seed": seed,
        }
        for k, pair in enumerate(chosen["pairs"])
        for seed in chosen["seeds"]
    ]


def measure(task: Task, settings: Settings, device: str) -> list[dict[str, Any]]:
    """Source risk, W₁, bound and target risk of each program after training."""
    chosen = settings[NAME]
    pair, seed = chosen["pairs"][task["pair"]], task["seed"]
    source = load_source(
        pair["family"],
        trained_on=pair["trained_on"],
        seed=seed,
        progress=False,
        **pair["options"],
    ).to(device)
    assert isinstance(source, TrainedSource) and source.test_data is not None
    series = TARGETS[pair["target"]].kind == "series"
    n_test = chosen["series_n_test" if series else "n_test"]
    target = load_target(pair["target"], n_train=chosen["n"], n_test=n_test, seed=seed)
    rows = []
    for program in pair["programs"]:
        framed = "image_size" in PROGRAMS[program].options
        options = {"image_size": pair["image_size"]} if framed and pair["image_size"] else {}
        model = reprogram(source, target, program=program, mapping="identity", seed=seed, **options)
        steps = chosen["steps"]
        before = distribution_bound(model, target.x_test, source.test_data, seed=seed)
        fit = train(
            model, target, optimizer="adam", steps=steps, record_every=steps, seed=seed,
            progress=False,
        )  # fmt: skip
        found = distribution_bound(model, target.x_test, source.test_data, seed=seed)
        risk, error = target_risk(model, target)
        rows.append(
            {
                "program": program,
                "source_accuracy": source.training_report.test_accuracy,
                "source_risk": found.risk,
                "distance_before": before.distance,
                "distance": found.distance,
                "split": found.split,
                "bound": found.value,
                "bound_low": found.low,
                "bound_high": found.high,
                "target_risk": risk,
                "target_risk_error": error,
                "target_accuracy": fit.test_accuracy[-1] if fit.test_accuracy else None,
                "classes": found.classes,
                "n": found.n,
            }
        )
    return rows


def target_risk(model: ReprogrammedModel, target: Target) -> tuple[float, float]:
    """Mean of ‖softmax(f(x)) − one-hot(y)‖₂ on held-out samples, and two standard errors."""
    with torch.no_grad():
        inputs = model.inputs(target.x_test)
        logits = torch.cat([model(part).double().cpu() for part in inputs.split(256)])
    one_hot = functional.one_hot(target.y_test, target.n_classes).double()
    risks = (logits.softmax(1) - one_hot).norm(dim=1)
    return float(risks.mean()), 2 * float(risks.std()) / math.sqrt(len(risks))


def _holds(row: Row) -> bool | None:
    """Whether the bound holds beyond sampling error; ``None`` where that could decide."""
    if row["target_risk"] + row["target_risk_error"] <= row["bound_low"]:
        return True
    return False if row["target_risk"] - row["target_risk_error"] > row["bound_high"] else None


def answers(tables: Tables) -> tuple[Answer, ...]:
    """Whether it holds, whether it says anything, and whether it orders the runs."""
    rows = tables[NAME]
    units = [list(members) for members in groups(rows, *PAIR, "seed").values()]
    held = [[_holds(row) for row in members] for members in units]
    informative = [all(row["bound"] < RULES["risk"] for row in members) for members in units]
    # A unit is undecided where one of its programs might go over to the other side of √2.
    open_ = [
        not yes and all(row["bound_low"] < RULES["risk"] for row in members)
        for yes, members in zip(informative, units, strict=True)
    ]
    order = [
        spearman(column(members, "bound"), column(members, "target_risk"))
        for members in groups(rows, *PAIR).values()
    ]
    return (
        of_share(
            "6a",
            "the bound holds",
            sum(all(h is True for h in member) for member in held),
            sum(False not in member and None in member for member in held),
            len(units),
            RULES["bound_holds"],
            above=True,
            text="Sources with all of their programs under the bound beyond sampling error:",
            runs=len(rows),
        ),
        of_share(
            "6b",
            "the bound says something: it is below √2, the largest risk there is",
            sum(informative),
            sum(open_),
            len(units),
            RULES["bound_share"],
            above=True,
            text=f"{looseness(rows)} Sources with all of their programs below √2:",
            runs=len(rows),
        ),
        of_mean(
            "6c",
            "a smaller bound goes with a smaller target risk",
            order,
            RULES["trend"],
            above=True,
            runs=len(rows),
            unit="pair of source and target",
            text="Spearman's ρ of bound and measured target risk over programs and seeds.",
            limits=CORRELATION,
        ),
    )


def looseness(rows: Sequence[Row]) -> str:
    """How many times the measured risk the bound is, in one sentence."""
    ratio = np.array(column(rows, "bound")) / np.array(column(rows, "target_risk"))
    if not len(ratio):
        return "No runs."
    low, middle, high = np.quantile(ratio, [0.05, 0.5, 0.95])
    return (
        f"The bound is {middle:.3g} times the measured target risk (median; 5 % to 95 %: "
        f"{low:.3g} to {high:.3g})."
    )


TABLE = Table(NAME, tasks, measure)
