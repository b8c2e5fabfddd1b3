"""Question 3: does the target loss fall as λ_min[K_S] grows, for FC, VP and VP+FC?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from mrviz.paper.answer import CORRELATION, Answer, mean_interval, of_mean, spearman
from mrviz.paper.settings import PROGRAMS, RULES, Settings
from mrviz.paper.tables import Row, Table, Tables, Task, column, groups, where
from mrviz.programs import PROGRAMS as SPECS
from mrviz.programs import reprogram
from mrviz.programs.training import train
from mrviz.sources import SourceModel, TrainedSource, load_source
from mrviz.targets import Target, load_target
from mrviz.theory.strength import kernel_strength

NAME = "depth"
SHORT = {"linear": "FC (linear)", "border": "VP (border)", "linear_border": "VP+FC (linear_border)"}


def tasks(settings: Settings) -> list[Task]:
    """One for each source; all programs are trained on it."""
    chosen = settings[NAME]
    return [
        {
            "family": sweep["family"],
            "width": sweep["width"],
            "input_size": sweep["input_size"],
            "seed": seed,
            "depth": depth,
        }
        for sweep in chosen["sweeps"]
        for seed in sweep["seeds"]
        for depth in chosen["depths"]
    ]


def measure(task: Task, settings: Settings, device: str) -> list[dict[str, Any]]:
    """λ_min[K_S] and accuracy of a source, and what each program gets from it."""
    chosen = settings[NAME]
    options = {key: task[key] for key in ("depth", "width", "input_size", "seed")}
    if task["family"] == "dnn" and task["depth"] == 1:
        del options["width"]
    source = load_source(
        task["family"],
        trained_on=chosen["trained_on"],
        epochs=chosen["epochs"],
        progress=False,
        **options,
    ).to(device)
    assert isinstance(source, TrainedSource) and source.test_data is not None
    drawn = {"per_class": chosen["per_class"], "draws": chosen["draws"], "seed": 1}
    wide = wide_strength(task["family"], task["depth"], task["input_size"], chosen)
    own = kernel_strength(source, source.test_data, progress=False, **drawn)
    target = load_target(
        chosen["target"], n_train=chosen["n"], n_test=chosen["n_test"], seed=task["seed"]
    )
    shared = {
        "source_accuracy": source.training_report.test_accuracy,
        "wide_lambda_min": wide,
        "own_lambda_min": own.mean,
    }
    return [
        {**shared, **trained(source, target, program, chosen, task["seed"])}
        for program in chosen["programs"]
    ]


@lru_cache(maxsize=64)
def _wide(family: str, depth: int, size: int, data: str, per_class: int, draws: int) -> Any:
    source = load_source(
        family, depth=depth, input_size=size, trained_on=data, epochs=0, progress=False
    )
    assert source.test_data is not None
    options: dict[str, Any] = {"per_class": per_class, "draws": draws, "seed": 1}
    return kernel_strength(
        source, source.test_data, kind="infinite-width", progress=False, **options
    ).mean


def wide_strength(family: str, depth: int, size: int, chosen: Settings) -> float | None:
    """λ_min of the infinite-width K_S, which has no width and no seed; once for each depth."""
    found = _wide(family, depth, size, chosen["trained_on"], chosen["per_class"], chosen["draws"])
    return None if found is None else float(found)


def trained(
    source: SourceModel, target: Target, program: str, chosen: Settings, seed: int
) -> dict[str, Any]:
    """Trains one program as the paper does: Adam, b the identity, batches of 128."""
    framed = "image_size" in SPECS[program].options
    options = {"image_size": chosen["image_size"]} if framed and chosen["image_size"] else {}
    model = reprogram(source, target, program=program, mapping="identity", seed=seed, **options)
    steps = chosen["steps"]
    fit = train(
        model, target, optimizer="adam", steps=steps, seed=seed, record_every=steps, progress=False
    )
    first, last = fit.history[0], fit.history[-1]
    return {
        "program": program,
        "parameters": model.n_parameters,
        "start_loss": first.train_loss,
        "train_loss": None if fit.diverged else last.train_loss,
        "train_accuracy": None if fit.diverged else last.train_accuracy,
        "test_loss": None if fit.diverged else last.test_loss,
        "test_accuracy": None if fit.diverged else last.test_accuracy,
        "diverged": fit.diverged,
    }


def trends(rows: Sequence[Row], x: str, y: str) -> dict[tuple[Any, ...], float]:
    """Spearman's ρ over the depths of each sweep: one family, one seed."""
    return {
        unit: spearman(column(members, x), column(members, y))
        for unit, members in groups(rows, "family", "seed").items()
    }


def answers(tables: Tables) -> tuple[Answer, ...]:
    """An answer for each program and size of the source, and one on whether size mends VP."""
    rows, found = tables[NAME], []
    sizes = sorted({int(row["input_size"]) for row in rows})
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    for program in PROGRAMS:
        for size in sizes:
            members = where(rows, program=program, input_size=size)
            families = sorted({str(row["family"]) for row in members})
            values = list(trends(members, "wide_lambda_min", "train_loss").values())
            held_out, _ = mean_interval(
                list(trends(members, "wide_lambda_min", "test_loss").values())
            )
            own, _ = mean_interval(list(trends(members, "own_lambda_min", "train_loss").values()))
            text = (
                "Spearman's ρ of the loss on the training samples with the infinite-width "
                f"λ_min[K_S], over the depths of one sweep ({' and '.join(families)}); "
                f"held-out loss: {_short(held_out)}; λ_min of the trained source's own kernel: "
                f"{_short(own)}."
            )
            found.append(
                of_mean(
                    "3" + next(letters),
                    f"{SHORT[program]}, source {size}×{size}: the target loss falls as λ_min[K_S] "
                    "grows",
                    values,
                    RULES["trend"],
                    above=False,
                    runs=len(members),
                    unit="sweep",
                    text=text,
                    limits=CORRELATION,
                )
            )
    if len(sizes) > 1:
        found.append(_mended(rows, sizes, next(letters)))
    return tuple(found)


def _mended(rows: Sequence[Row], sizes: Sequence[int], letter: str) -> Answer:
    """VP at the largest size against VP at the smallest, seed by seed."""
    at = [
        trends(where(rows, program="border", input_size=size), "wide_lambda_min", "train_loss")
        for size in (sizes[0], sizes[-1])
    ]
    differences = [at[1][unit] - at[0][unit] for unit in at[0] if unit in at[1]]
    return of_mean(
        "3" + letter,
        f"VP: a larger source ({sizes[-1]} instead of {sizes[0]}) brings it closer to the claim",
        differences,
        RULES["trend"],
        above=False,
        runs=sum(row["program"] == "border" for row in rows),
        unit="sweep",
        text=f"ρ at {sizes[-1]} less ρ at {sizes[0]}, the same family and seed.",
    )


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


TABLE = Table(NAME, tasks, measure)
