"""Question 4: what, known before training, goes with the accuracy that training gives?"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrviz.paper.answer import Answer, Interval, verdict
from mrviz.paper.settings import RULES, Settings
from mrviz.paper.tables import Row, Table, Tables, Task, column, where
from mrviz.study.correlation import USUAL_SHARE
from mrviz.study.grid import configurations
from mrviz.study.measure import run_one
from mrviz.targets import TARGETS

NAME = "indicators"

INDICATORS = {
    "T2_value": "λ_min(Θ_T)",
    "effective_rank": "effective rank of Θ_T",
    "T5_value": "kernel-target alignment",
    "predicted_accuracy": "matched prediction",
    "ridge_accuracy": "kernel ridge regression",
    "source_accuracy": "source accuracy",
    "logme": "LogME",
    "h_score": "H-score",
    "leep": "LEEP",
    "nce": "NCE",
}
"""Columns of ``mrviz.study``, and what people call them."""

SCOPES: dict[str, tuple[str, ...]] = {
    "within one source": ("source", "trained_on", "seed", "target"),
    "across sources": ("target", "program", "capacity"),
}
"""Runs that are compared with each other: they share these."""

SOURCE = ("source", "trained_on", "seed")
"""Runs that share these are not independent: they are resampled together."""

KEPT = (
    *("source", "trained_on", "target", "program", "capacity", "seed", "n", "steps"),
    *("test_accuracy", "train_accuracy", "train_loss", "lr_used", "parameters"),
    *("T2_status", *INDICATORS),
)
KINDS = ("image", "series")

CHANCE = 0.02
"""An accuracy this near to 1/C is called chance in a text; no verdict reads it."""

CHUNK = 50
"""Resamples that are ranked together."""

Values = np.ndarray[Any, np.dtype[np.float64]]


def tasks(settings: Settings) -> list[Task]:
    """One for each combination; a task is a configuration of ``mrviz.study``."""
    chosen, grids = settings[NAME], []
    for grid in chosen["grids"]:
        series = grid["source"] == "fcn"
        programs = chosen["series_programs" if series else "image_programs"]
        shared = chosen["series_shared" if series else "shared"]
        sources = [
            {**{k: v for k, v in grid.items() if k != "trained_on"}, "trained_on": trained}
            for trained in grid["trained_on"]
        ]
        grids += [{**source, **shared, **program} for source in sources for program in programs]
    names = ("source", "trained_on", "target", "seed", "program", "capacity")
    found = []
    for grid in grids:
        for configuration in configurations(grid):
            values = configuration.to_dict()
            task: Task = {name: values.get(name) for name in names}
            found.append({**task, "key": configuration.key[:12], "_config": configuration.text})
    return found


def measure(task: Task, settings: Settings, device: str) -> list[dict[str, Any]]:
    """One run of ``mrviz.study``: indicators before training, then training."""
    row = run_one({**json.loads(task["_config"]), "device": device})
    values = {**json.loads(row.config), **row.indicators, **row.outcomes, "lr_used": row.lr_used}
    classes = len(TARGETS[task["target"]].classes)
    return [
        {
            "kind": TARGETS[task["target"]].kind,
            "classes": classes,
            **{name: values.get(name) for name in KEPT if name not in task},
            "diverged": row.diverged,
            "error": row.error,
        }
    ]


def value_of(row: Row, name: str) -> float:
    """An indicator as a number; λ_min that is zero or not resolved is 0."""
    value = row.get(name)
    if value is None and name == "T2_value" and row.get("T2_status"):
        return 0.0
    return math.nan if value is None else float(value)


def stratified(
    rows: Sequence[Row], x: Values, y: Values, strata: Sequence[str]
) -> tuple[float | None, Interval | None, int]:
    """Mean of Spearman's ρ over strata, its bootstrap interval over sources, and their number.

    Args:
        rows: where the names of strata and sources are read.
        x: an indicator, NaN where there is none.
        y: an outcome.
        strata: columns whose values name a group of runs that are compared with each other.

    Returns:
        The mean, the percentile interval from resampled sources (each draw of a source counts as
        another one), and the number of sources.
    """
    kept = np.isfinite(x) & np.isfinite(y)
    rows = [row for row, k in zip(rows, kept, strict=True) if k]
    x, y = x[kept], y[kept]
    if not rows:
        return None, None, 0
    stratum, cluster = _numbers(rows, strata), _numbers(rows, SOURCE)
    inside = set(SOURCE) <= set(strata)
    each = _correlations(x, y, stratum)[1]
    value = float(each.mean()) if len(each) else None
    members = [np.flatnonzero(cluster == k) for k in range(int(cluster.max()) + 1)]
    if value is None or len(members) < RULES["fewest"]:
        return value, None, len(members)
    rng, draws, count = np.random.default_rng(RULES["seed"]), [], int(stratum.max()) + 1
    for _ in range(0, RULES["resamples"], CHUNK):
        index, labels = [], []
        for k in range(CHUNK):
            picked = rng.integers(0, len(members), len(members))
            parts = [members[j] for j in picked]
            index.append(np.concatenate(parts))
            # Inside sources, one drawn twice counts as two: another label for each draw.
            place = np.repeat(np.arange(len(parts)), [len(part) for part in parts]) * inside
            labels.append((k * len(parts) + place) * count + stratum[index[-1]])
        rows_, labels_ = np.concatenate(index), np.concatenate(labels)
        found = _correlations(x[rows_], y[rows_], labels_)
        of_resample = found[0] // (len(members) * count)
        known = np.bincount(of_resample, minlength=CHUNK)
        sums = np.bincount(of_resample, found[1], CHUNK)
        draws.append(sums[known > 0] / known[known > 0])
    values = np.concatenate(draws)
    if len(values) < USUAL_SHARE * RULES["resamples"]:
        return value, None, len(members)
    tail = (1 - RULES["level"]) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return value, (float(low), float(high)), len(members)


def _numbers(rows: Sequence[Row], names: Sequence[str]) -> Any:
    keys = [repr([row.get(name) for name in names]) for row in rows]
    return np.unique(keys, return_inverse=True)[1]


def _correlations(x: Values, y: Values, labels: Any) -> tuple[Any, Values]:
    """Labels among whose values Spearman's ρ is defined, and the ρ of each."""
    from scipy.stats import rankdata

    names, labels = np.unique(labels, return_inverse=True)
    count = np.bincount(labels)

    def ranks(values: Values) -> Values:
        """Ranks inside each label, all at once: less the mean, so where they begin is no matter."""
        place = np.unique(values, return_inverse=True)[1]
        found = rankdata(labels * float(len(values)) + place)
        return np.asarray(found - (np.bincount(labels, found) / count)[labels])

    a, b = ranks(x), ranks(y)
    products, first, second = (np.bincount(labels, v) for v in (a * b, a * a, b * b))
    known = (count >= 3) & (first > 1e-9) & (second > 1e-9)
    return names[known], products[known] / np.sqrt(first[known] * second[known])


def correlations(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each indicator in each scope: of all runs, of images, of series."""
    done = [row for row in rows if row.get("test_accuracy") is not None]
    found = []
    for name, label in INDICATORS.items():
        for scope, strata in SCOPES.items():
            for kind in (None, *KINDS):
                members = done if kind is None else where(done, kind=kind)
                x = np.array([value_of(row, name) for row in members])
                y = np.array(column(members, "test_accuracy"))
                value, interval, sources = stratified(members, x, y, strata)
                runs = int(np.isfinite(x).sum())
                found.append(
                    {
                        "indicator": name,
                        "label": label,
                        "scope": scope,
                        "kind": kind or "all",
                        "value": value,
                        "interval": interval,
                        "sources": sources,
                        "runs": runs,
                    }
                )
    return found


def answers(tables: Tables) -> tuple[Answer, ...]:
    """An answer for each indicator and scope, over images and series together."""
    found: list[Answer] = []
    table = correlations(tables[NAME])
    index: Mapping[Any, Any] = {(r["indicator"], r["scope"], r["kind"]): r for r in table}
    for k, scope in enumerate(SCOPES):
        for j, (name, label) in enumerate(INDICATORS.items()):
            if name == "source_accuracy" and set(SOURCE) <= set(SCOPES[scope]):
                continue  # the same in all runs of a source
            row = index[name, scope, "all"]
            parts = "; ".join(f"{kind} alone: {_shown(index[name, scope, kind])}" for kind in KINDS)
            text = (
                "Mean Spearman's ρ with held-out accuracy among runs that share "
                f"{', '.join(SCOPES[scope])}; intervals by bootstrap over {row['sources']} "
                f"sources; {parts}."
            )
            text += f" {misses(tables[NAME])}" if name == "predicted_accuracy" else ""
            found.append(
                Answer(
                    f"4{'ab'[k]}{j + 1}",
                    f"{scope}, {label} goes with accuracy",
                    verdict(row["interval"], RULES["trend"], above=True),
                    row["value"],
                    row["interval"],
                    row["runs"],
                    text,
                )
            )
    return tuple(found)


def misses(rows: Sequence[Row]) -> str:
    """How far the matched prediction is off, and how many runs stay at chance, in a sentence."""
    parts = []
    for kind in KINDS:
        done = [r for r in where(rows, kind=kind) if r.get("test_accuracy") is not None]
        known = [r for r in done if r.get("predicted_accuracy") is not None]
        if not known:
            continue
        off = np.subtract(column(known, "predicted_accuracy"), column(known, "test_accuracy"))
        chance = sum(abs(r["test_accuracy"] - 1 / r["classes"]) < CHANCE for r in done)
        parts.append(
            f"{kind}: off by {np.abs(off).mean():.1%} on average, {off.mean():+.1%} with its sign, "
            f"and {chance} of {len(done)} runs end within {CHANCE:.0%} of chance"
        )
    return "; ".join(parts) + "." if parts else ""


def _shown(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "–"
    if row["interval"] is None:
        return f"{row['value']:+.2f}"
    return f"{row['value']:+.2f} [{row['interval'][0]:+.2f}, {row['interval'][1]:+.2f}]"


TABLE = Table(NAME, tasks, measure)
