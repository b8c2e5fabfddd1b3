"""Question 1: does λ_min[K_S] grow with the depth of the source?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mrviz.paper.answer import CORRELATION, Answer, kendall, of_mean
from mrviz.paper.settings import RULES, Settings
from mrviz.paper.tables import Row, Table, Tables, Task, column, groups, where
from mrviz.targets.raw import load_raw
from mrviz.theory.source_report import strength_over_depth

NAME = "kernels"
KINDS = ("infinite-width", "empirical")
UNITS = {"infinite-width": ("data", "draw"), "empirical": ("data", "weight_seed")}
"""What is independent: draws of images for the limit, networks for the empirical kernel."""


def tasks(settings: Settings) -> list[Task]:
    """One for each family, data set, kind of kernel, depth and network."""
    chosen = settings[NAME]
    found: list[Task] = []
    for data, sizes in chosen["input_sizes"].items():
        for family, options in chosen["families"].items():
            for kind in KINDS:
                for seed in [None] if kind == "infinite-width" else chosen["weight_seeds"]:
                    found += [
                        {
                            "data": data,
                            "family": family,
                            "kind": kind,
                            "weight_seed": seed,
                            "input_size": sizes[family],
                            "depth": depth,
                        }
                        for depth in options["depths"]
                    ]
    return found


def measure(task: Task, settings: Settings, device: str) -> list[dict[str, Any]]:
    """λ_min of each draw of source images, the same draws at every depth."""
    chosen = settings[NAME]
    x, y, _ = load_raw(task["data"])
    (point,) = strength_over_depth(
        task["family"],
        [task["depth"]],
        (x, y),
        width=chosen["families"][task["family"]]["width"],
        input_size=task["input_size"],
        weight_seeds=[task["weight_seed"] or 0],
        kinds=[task["kind"]],
        per_class=chosen["per_class"],
        draws=chosen["draws"],
        seed=chosen["seed"],
        device=device,
        progress=False,
    )
    found = point.strengths[0]
    values = zip(found.smallest, found.floors, found.largest, strict=True)
    return [
        {"draw": k, "smallest": low, "floor": floor, "largest": high, "samples": found.order}
        for k, (low, floor, high) in enumerate(values)
    ]


def resolved(row: Row) -> float:
    """λ_min of a row, zero where it is not told from zero."""
    return float(row["smallest"]) if row["smallest"] > row["floor"] else 0.0


def means(rows: Sequence[Row]) -> dict[int, float]:
    """Mean λ_min over the draws, by depth."""
    by_depth = groups(rows, "depth")
    return {
        int(depth): sum(map(resolved, members)) / len(members)
        for (depth,), members in sorted(by_depth.items())
    }


def answers(tables: Tables) -> tuple[Answer, ...]:
    """An answer for each family and kind of kernel."""
    found: list[Answer] = []
    for kind in KINDS:
        for family in ("dnn", "cnn"):
            rows = where(tables[NAME], family=family, kind=kind)
            trends = []
            for members in groups(rows, *UNITS[kind]).values():
                curve = means(members)
                trends.append(kendall(list(curve), list(curve.values())))
            depths = [int(d) for d in column(rows, "depth")]
            unit = "draw" if kind == "infinite-width" else "network"
            span = f"{min(depths)} to {max(depths)}" if depths else "none"
            unresolved = sum(resolved(row) == 0 for row in rows)
            text = f"Kendall's τ of λ_min[K_S] with depth ({span})"
            text += ", of the mean over the draws" if kind == "empirical" else ""
            text += f"; {unresolved} of {len(rows)} values not resolved, taken as 0."
            found.append(
                of_mean(
                    "1" + "abcd"[len(found)],
                    f"λ_min[K_S] of a {family} grows with depth ({kind} kernel)",
                    trends,
                    RULES["trend"],
                    above=True,
                    runs=len(rows),
                    unit=unit,
                    text=text,
                    limits=CORRELATION,
                )
            )
    return tuple(found)


TABLE = Table(NAME, tasks, measure)
