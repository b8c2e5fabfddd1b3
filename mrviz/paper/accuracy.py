"""Question 2: do source accuracy and target accuracy rise with depth?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from mrviz._progress import Progress
from mrviz.paper import loss
from mrviz.paper.answer import CORRELATION, Answer, of_mean, spearman
from mrviz.paper.settings import RULES, Settings
from mrviz.paper.tables import Row, Table, Tables, Task, column, groups, where
from mrviz.sources import SourceModel
from mrviz.sources.families import build_family
from mrviz.sources.pretrained import MEAN, STD, efficientnet
from mrviz.sources.training import SourceData, TrainingReport, fit_network
from mrviz.targets import TARGETS, load_target

NAME = "extractor"
BATCH = 128


class Trunk(nn.Module):
    """An EfficientNet-Lite from its stem to one of its blocks: (n, 3, H, W) to features.

    Args:
        network: the module of :func:`~mrviz.sources.pretrained.efficientnet`.
        blocks: how many of its blocks are kept.
    """

    def __init__(self, network: Any, blocks: int) -> None:
        super().__init__()
        self.stem, self.activation = network._conv_stem, network._swish
        self.blocks = nn.ModuleList(list(network._blocks)[:blocks])

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, channels, h, w)."""
        x = self.activation(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return x


class OnFeatures(nn.Module):
    """A network of a family behind a frozen trunk, its features standardised by channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: nn.Module, head: nn.Module, mean: Sequence[float], std: Any) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes)."""
        return self.head((self.trunk(x) - self.mean) / self.std)


def tasks(settings: Settings) -> list[Task]:
    """One for each head; all programs are trained on it."""
    chosen = settings[NAME]
    return [
        {"head": head, "width": width, "seed": seed, "depth": depth}
        for head, width in chosen["heads"].items()
        for seed in chosen["seeds"]
        for depth in chosen["depths"]
    ]


def measure(task: Task, settings: Settings, device: str) -> list[dict[str, Any]]:
    """Trains a head on the source task, then each program on the target."""
    chosen = settings[NAME]
    source, report = extractor_source(task, chosen, device)
    target = load_target(
        chosen["target"], n_train=chosen["n"], n_test=chosen["n_test"], seed=task["seed"]
    )
    return [
        {
            "source_accuracy": report.test_accuracy,
            **loss.trained(source, target, program, chosen, task["seed"]),
        }
        for program in chosen["programs"]
    ]


def extractor_source(
    task: Task, chosen: Settings, device: str
) -> tuple[SourceModel, TrainingReport]:
    """The frozen trunk with a head of one depth, trained on the source's data set."""
    names = ("extractor", "blocks", "input_size", "trained_on")
    trunk, features = _features(*(chosen[name] for name in names), device)
    shape = tuple(features.train[0].shape[1:])
    data, width = chosen["trained_on"], task["width"]
    linear = task["head"] == "dnn" and task["depth"] == 1
    head = build_family(
        task["head"],
        shape,
        depth=task["depth"],
        width=None if linear else width,
        groups=None,
        n_classes=len(TARGETS[data].classes),
        seed=task["seed"],
    )
    mean, std = features.statistics()
    std = [max(value, 1e-6) for value in std]
    steps = chosen["epochs"] * math.ceil(len(features.train[0]) / BATCH)
    with Progress(steps, "head", False, None) as bar:
        report = fit_network(head, features, (mean, std), data, chosen["epochs"], task["seed"], bar)
    source = SourceModel(
        OnFeatures(trunk, head, mean, std).to(device),
        (3, chosen["input_size"], chosen["input_size"]),
        name=f"{chosen['extractor']}, {task['head']} of depth {task['depth']}",
        normalize=((MEAN,) * 3, (STD,) * 3),
    )
    return source, report


@lru_cache(maxsize=1)
def _features(
    name: str, blocks: int, size: int, data: str, device: str
) -> tuple[nn.Module, SourceData]:
    """The trunk, and the source data behind it, on the CPU; once for all heads."""
    source = efficientnet(name, input_size=size, pretrained=True, seed=0)
    trunk = Trunk(source.module, blocks).eval().requires_grad_(False).to(device)

    def through(x: Tensor) -> Tensor:
        x = ((x.expand(-1, 3, -1, -1) - MEAN) / STD).to(device)
        with torch.no_grad():
            return torch.cat([trunk(part).cpu() for part in x.split(BATCH)])

    raw = SourceData.load(data, size)
    splits = ((through(x), y) for x, y in (raw.train, raw.val, raw.test))
    return trunk, SourceData(*splits)


def answers(tables: Tables) -> tuple[Answer, ...]:
    """Trends over depth behind the extractor and without one; VP against FC."""
    behind = tables[NAME]
    plain = tables[loss.NAME]
    smallest = min((int(row["input_size"]) for row in plain), default=0)
    plain = where(plain, input_size=smallest)
    places = {
        "behind EfficientNet features": (behind, ("head", "seed")),
        f"plain families, {smallest}×{smallest}": (plain, ("family", "seed")),
    }
    letters, found = iter("abcdefghijkl"), []
    for place, (rows, unit) in places.items():
        programs = list(dict.fromkeys(str(row["program"]) for row in rows))
        for name, members, column_name in [
            ("source", where(rows, program=programs[0]) if programs else [], "source_accuracy"),
            *(
                (f"target ({program})", where(rows, program=program), "test_accuracy")
                for program in programs
            ),
        ]:
            values = _trends(members, unit, column_name)
            found.append(
                of_mean(
                    "2" + next(letters),
                    f"{place}: {name} accuracy rises with depth",
                    values,
                    RULES["trend"],
                    above=True,
                    runs=len(members),
                    unit="sweep",
                    text=f"Spearman's ρ of accuracy with depth, {_span(members, column_name)}.",
                    limits=CORRELATION,
                )
            )
    found.append(_prompt_against_linear(behind, next(letters)))
    return tuple(found)


def _trends(rows: Sequence[Row], unit: tuple[str, ...], name: str) -> list[float]:
    return [
        spearman(column(members, "depth"), column(members, name))
        for members in groups(rows, *unit).values()
    ]


def _span(rows: Sequence[Row], name: str) -> str:
    """Mean accuracies of the shallowest and the deepest sources."""
    by_depth: Mapping[Any, Sequence[Row]] = groups(rows, "depth")
    if not by_depth:
        return "no runs"
    ends = [min(by_depth), max(by_depth)]
    means = [torch.tensor(column(by_depth[end], name)).nanmean().item() for end in ends]
    shown = (f"{m:.1%} at depth {e[0]}" for m, e in zip(means, ends, strict=True))
    return " and ".join(shown)


def _prompt_against_linear(rows: Sequence[Row], letter: str) -> Answer:
    """Held-out accuracy of VP less that of FC, on the same sources."""
    differences = []
    for members in groups(rows, "head", "seed").values():
        of = {
            program: torch.tensor(column(where(members, program=program), "test_accuracy"))
            for program in ("border", "linear")
        }
        differences.append(float(of["border"].nanmean() - of["linear"].nanmean()))
    return of_mean(
        "2" + letter,
        "behind a pretrained feature extractor VP (border) beats FC (linear)",
        differences,
        RULES["trend"],
        above=True,
        runs=len(rows),
        unit="sweep",
        text="Held-out accuracy of border less that of linear, mean over the depths of a sweep.",
    )


TABLE = Table(NAME, tasks, measure)
