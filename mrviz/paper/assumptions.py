"""Question 5: Assumption 3, Eq. 16, Proposition 1 and lazy training on real sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mrviz.ntk import ntk_gram, source_ntk
from mrviz.paper.answer import CORRELATION, Answer, kendall, of_mean, of_share
from mrviz.paper.settings import RULES, Settings
from mrviz.paper.tables import Row, Table, Tables, Task, column, groups, where
from mrviz.programs import reprogram
from mrviz.programs.training import train
from mrviz.sources import SourceModel, load_source
from mrviz.sources.training import SourceData
from mrviz.spectrum import spectrum
from mrviz.targets import load_target
from mrviz.theory.decomposition import decompose
from mrviz.theory.drift import kernel_drift
from mrviz.theory.kernel_regime import KernelRegimeSource, WideKernel
from mrviz.theory.prediction import predict_training
from mrviz.theory.wide_limit import proposition_gap

NAME, WIDTH = "assumptions", "width"
REGIME = "kernel regime"
REGIME_SAMPLES = 100


def tasks(settings: Settings) -> list[Task]:
    """One for each source and seed, and one source in the kernel regime as a control."""
    chosen = settings[NAME]
    control = {"family": REGIME, "depth": 3, "width": None, "trained_on": chosen["data"]}
    return [
        {**source, "seed": seed}
        for source in [*chosen["sources"], control]
        for seed in chosen["seeds"]
    ]


def measure(task: Task, settings: Settings, device: str) -> list[dict[str, Any]]:
    """Factors, Eq. 16 and the drift of one source's target kernel."""
    chosen = settings[NAME]
    data = SourceData.load(chosen["data"], chosen["input_size"]).test
    source, ridge = _source(task, chosen, data, device)
    target = load_target(chosen["target"], n_train=chosen["n"], n_test=50, seed=task["seed"])
    model = reprogram(
        source, target, program=chosen["program"], mapping="identity", seed=task["seed"]
    )
    found = decompose(
        model,
        target.x_train,
        data,
        reassemble=True,
        ridge=ridge,
        samples=chosen["samples"],
        seed=task["seed"],
        progress=False,
    )
    assumption, kernel = found.source.assumption, found.source.kernels[0]
    before = ntk_gram(model, target.x_train, dtype=torch.float64, progress=False)
    shared: dict[str, Any] = {"steps": chosen["steps"], "progress": False}
    shared |= {"record_every": chosen["steps"]}
    lr = predict_training(model, target, **shared).lr
    fit = train(model, target, optimizer="gd", lr=lr, **shared)
    after = ntk_gram(model, target.x_train, dtype=torch.float64, progress=False)
    drift = None if fit.diverged else kernel_drift(before, after)
    report = getattr(source, "training_report", None)
    return [
        {
            "source_accuracy": report.test_accuracy if report else None,
            "inputs": len(assumption.motions) if assumption else 0,
            "holding": assumption.holding if assumption else 0,
            "failing": assumption.failing if assumption else 0,
            "undecided": assumption.undecided if assumption else 0,
            "motion_lambda_min": assumption.smallest if assumption else None,
            "motion_converged": assumption.converged if assumption else None,
            "source_lambda_min": kernel.mean,
            "ridge": ridge,
            "distance": found.distance,
            "gap": found.proposition_gap,
            "lr": lr,
            "drift": drift.relative if drift else None,
            "alignment": drift.alignment if drift else None,
        }
    ]


def _source(
    task: Task, chosen: Settings, data: tuple[Any, Any], device: str
) -> tuple[SourceModel, float]:
    """A network, or kernel ridge regression itself, and the ridge σ_S."""
    size = chosen["input_size"]
    if task["family"] == REGIME:
        generator = torch.Generator().manual_seed(task["seed"])
        pick = torch.randperm(len(data[0]), generator=generator)[:REGIME_SAMPLES]
        kernel = WideKernel(task["depth"])
        x = data[0][pick].double()
        ridge = chosen["ridge"] * float(kernel(x, x).diagonal().mean())
        module = KernelRegimeSource(kernel, x, data[1][pick], ridge=ridge, n_classes=10)
        return SourceModel(module, tuple(x.shape[1:]), name=REGIME).to(device), ridge
    options: dict[str, Any] = {"trained_on": task["trained_on"], "epochs": chosen["epochs"]}
    source = load_source(
        task["family"],
        depth=task["depth"],
        width=task["width"],
        input_size=size,
        seed=task["seed"],
        progress=False,
        **(options if task["trained_on"] else {}),
    ).to(device)
    gram = source_ntk(
        source, data[0][:REGIME_SAMPLES], reduce="trace", dtype=torch.float64, progress=False
    )
    return source, chosen["ridge"] * float(gram.matrix.diagonal().mean())


def width_tasks(settings: Settings) -> list[Task]:
    """One for each width, seed and kind of weights; all programs are looked at."""
    chosen = settings[WIDTH]
    return [
        {"family": family, "trained_on": trained, "seed": seed, "width": width}
        for family, widths in chosen["families"].items()
        for trained in chosen["trained_on"]
        for seed in chosen["seeds"]
        for width in widths
    ]


def width_measure(task: Task, settings: Settings, device: str) -> list[dict[str, Any]]:
    """The gap of Proposition 1 for each program."""
    chosen = settings[WIDTH]
    trained = {"trained_on": task["trained_on"], "epochs": chosen["epochs"]}
    source = load_source(
        task["family"],
        depth=chosen["depth"],
        width=task["width"],
        input_size=chosen["input_size"],
        seed=task["seed"],
        progress=False,
        **(trained if task["trained_on"] else {}),
    ).to(device)
    target = load_target(chosen["target"], n_train=chosen["n"], n_test=50, seed=task["seed"])
    rows = []
    for program in chosen["programs"]:
        options = {} if program == "linear" else {"image_size": chosen["image_size"]}
        model = reprogram(
            source, target, program=program, mapping="identity", seed=task["seed"], **options
        )
        gram = ntk_gram(model, target.x_train, dtype=torch.float64, progress=False)
        spec = spectrum(gram, eigenvectors=False)
        rows.append({"program": program, "gap": proposition_gap(gram, spec), "rank": spec.rank})
    return rows


def answers(tables: Tables) -> tuple[Answer, ...]:
    """Assumption 3; Eq. 16 on networks and on the control; Proposition 1; drift."""
    networks = [row for row in tables[NAME] if row["family"] != REGIME]
    control = where(tables[NAME], family=REGIME)
    trained = [row for row in networks if row.get("trained_on")]
    looked = [row for row in networks if row["inputs"]]
    violated = sum(row["failing"] > 0 for row in looked)
    undecided = sum(row["failing"] == 0 and row["undecided"] > 0 for row in looked)
    held = sum(int(row["holding"]) for row in looked)
    inputs = sum(int(row["inputs"]) for row in looked)
    found = [
        of_share(
            "5a",
            "Assumption 3 holds at all target inputs (few sources violate it)",
            violated,
            undecided,
            len(looked),
            RULES["violated_share"],
            above=False,
            text=f"Share of sources that violate it at an input or more; it holds at {held} of "
            f"{inputs} inputs; λ_min taken as docs/theory.md, section 4, says. Violated:",
            runs=len(networks),
        ),
        of_mean(
            "5b",
            "Eq. 16 gives the target kernel of trained networks",
            column(trained, "distance"),
            RULES["reassembly"],
            above=False,
            runs=len(trained),
            unit="source",
            text="Relative distance of Eq. 16, put together from its factors, from Θ_T.",
        ),
        of_mean(
            "5c",
            "Eq. 16 gives the target kernel of a source that is kernel ridge regression",
            column(control, "distance"),
            RULES["reassembly"],
            above=False,
            runs=len(control),
            unit="source",
            text="The same distance for the control, where it is an identity.",
        ),
    ]
    gaps = tables[WIDTH]
    for letter, weights in (("d", None), ("e", "trained")):
        rows = [row for row in gaps if bool(row.get("trained_on")) == bool(weights)]
        label = "trained" if weights else "random"
        trends, widest = _widths(rows)
        found += [
            of_mean(
                f"5{letter}1",
                f"Proposition 1: the gap between the spectra falls with width ({label} sources)",
                trends,
                RULES["trend"],
                above=False,
                runs=len(rows),
                unit="network family and seed",
                text="Kendall's τ of the gap (T11) with width, mean over the programs.",
                limits=CORRELATION,
            ),
            of_mean(
                f"5{letter}2",
                f"Proposition 1 is valid at the largest width ({label} sources)",
                widest,
                RULES["spectrum_gap"],
                above=False,
                runs=len(rows),
                unit="network family and seed",
                text="Gap (T11) at the largest width of each family, mean over the programs.",
            ),
        ]
    found.append(
        of_mean(
            "5f",
            "Training the program on trained networks is lazy: the target kernel stays",
            column(trained, "drift"),
            RULES["drift"],
            above=False,
            runs=len(trained),
            unit="source",
            text="Relative change of Θ_T by gradient descent at half the largest stable step.",
        )
    )
    return tuple(found)


def _widths(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Trend of the gap with width, and the gap at the largest, for each family and seed."""
    trends, widest = [], []
    for members in groups(rows, "family", "seed").values():
        by_program = list(groups(members, "program").values())
        found = [kendall(column(part, "width"), column(part, "gap")) for part in by_program]
        trends.append(sum(found) / len(found))
        last = [max(part, key=lambda row: row["width"]) for part in by_program]
        widest.append(sum(column(last, "gap")) / len(last))
    return trends, widest


TABLE = Table(NAME, tasks, measure)
WIDTH_TABLE = Table(WIDTH, width_tasks, width_measure)
