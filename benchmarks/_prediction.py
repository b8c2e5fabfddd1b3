"""Table of the prediction study: read, checked and reported. Its picture: _prediction_figure.py."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from mrviz.theory.statistics import wilson_interval

KEY = ("target", "family", "weights", "seed", "program")
SOURCE = KEY[:-1]
PREDICTORS = ("predicted", "start", "ridge", "leave_one_out")
MEASURED = ("gd", "sgd", "adam")
STRATA = {
    "within a program": ("program",),
    "within a program and target": ("program", "target"),
    "within a source, target and seed": SOURCE,
}
PAIRS = (("predicted", "gd"), ("predicted", "adam"), ("ridge", "gd"), ("leave_one_out", "gd"))
REASONS = ("drift", "alignment", "parameters", "lr", "source_accuracy", "gd")
WEAK = ("scale", "convolution")
"""Programs that hardly get away from chance; chosen after the runs, for a look without them."""
WORST = 12
RESAMPLES = 2000
DRAWS = 500

Row = Mapping[str, str]


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file; none where there is none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check(rows: Iterable[Row], mark: str, path: Path) -> None:
    """Refuses rows that were measured with other settings than those with this mark."""
    if others := sorted({row.get("settings") or "none" for row in rows} - {mark}):
        raise SystemExit(
            f"{path} holds runs with other settings ({', '.join(others)}, expected {mark}): name "
            "another file"
        )


def column(rows: Sequence[Row], name: str) -> np.ndarray:
    return np.array([float(row[name]) if row[name] else np.nan for row in rows])


def groups(rows: Sequence[Row], names: Sequence[str]) -> list[np.ndarray]:
    """Indices of the rows that share their values in these columns."""
    members: dict[tuple[str, ...], list[int]] = {}
    for k, row in enumerate(rows):
        members.setdefault(tuple(row[name] for name in names), []).append(k)
    return [np.array(index) for index in members.values()]


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation; NaN for fewer than three values or a constant."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def correlations(x: np.ndarray, y: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Spearman's correlation among the values of each label; NaN as in :func:`correlation`."""
    count = np.bincount(labels)

    def ranks(values: np.ndarray) -> np.ndarray:
        """Ranks inside each label, all at once: less the mean, so where they begin is no matter."""
        place = np.unique(values, return_inverse=True)[1]
        found = rankdata(labels * len(values) + place)
        return found - (np.bincount(labels, found) / np.maximum(count, 1))[labels]

    a, b = ranks(x), ranks(y)
    products, squares, squares2 = (np.bincount(labels, v) for v in (a * b, a * a, b * b))
    known = (count >= 3) & (squares > 1e-9) & (squares2 > 1e-9)
    scale = np.sqrt(np.where(known, squares * squares2, 1.0))
    return np.where(known, products / scale, np.nan)


def labels_of(rows: Sequence[Row], names: Sequence[str]) -> np.ndarray:
    """Number of the group of each row."""
    labels = np.zeros(len(rows), dtype=int)
    for k, index in enumerate(groups(rows, names)):
        labels[index] = k
    return labels


def within(rows: Sequence[Row], x: str, y: str, names: Sequence[str]) -> np.ndarray:
    """The correlation inside each group of rows that share their values in these columns."""
    return correlations(column(rows, x), column(rows, y), labels_of(rows, names))


def interval(rows: Sequence[Row], x: str, y: str, names: Sequence[str] = ()) -> tuple[float, float]:
    """95 % percentile interval of the correlation, sources resampled with all their runs.

    Runs of one source, target and seed share weights and samples, so they are not independent.
    With ``names`` it is that of the mean of the correlations inside the groups.
    """
    members = groups(rows, SOURCE)
    generator = np.random.default_rng(0)
    draws = generator.integers(len(members), size=(RESAMPLES, len(members)))
    if tuple(names) == SOURCE:  # a source drawn twice counts twice, and is not merged with itself
        found = mean(within(rows, x, y, names)[draws])
    else:
        xs, ys, labels = column(rows, x), column(rows, y), labels_of(rows, names)
        drawn = (np.concatenate([members[k] for k in draw]) for draw in draws)
        found = np.array([mean(correlations(xs[i], ys[i], labels[i])) for i in drawn])
    if np.isnan(found).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def mean(values: np.ndarray) -> np.ndarray:
    """Mean along the last axis over what is defined; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(-1)
    total = np.where(known, values, 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def chance(x: np.ndarray, y: np.ndarray, n: int) -> np.ndarray:
    """Whether the 95 % interval of the difference of two shares of n samples each holds zero.

    Newcombe's interval (1998, method 10), from Wilson's of each share, for independent samples.
    Here both shares are of the same samples, and their difference varies less than that.
    """
    held = []
    for p, q in zip(x, y, strict=True):
        (low, high), (low2, high2) = (wilson_interval(round(v * n), n) for v in (p, q))
        below, above = np.hypot(p - low, high2 - q), np.hypot(high - p, q - low2)
        held.append(p - q - below <= 0 <= p - q + above)
    return np.array(held)


def redrawn(y: np.ndarray, n: int, labels: np.ndarray | None = None) -> float:
    """Mean correlation between two draws of n samples each from models with these accuracies.

    How well such accuracies repeat on fresh samples. Measured ones spread more than the true ones
    do, by their own error, so this is rather too high. A prediction for the same samples can
    exceed it.
    """
    labels = np.zeros(len(y), dtype=int) if labels is None else labels
    draws = np.random.default_rng(0).binomial(n, y, size=(DRAWS, 2, len(y)))
    return float(mean(np.array([mean(correlations(*pair, labels)) for pair in draws])))


def between(rows: Sequence[Row], y: str, names: Sequence[str]) -> float:
    """Share of the variance of the ranks of y that lies between groups."""
    ranks = rankdata(column(rows, y))
    inside = sum(((ranks[i] - ranks[i].mean()) ** 2).sum() for i in groups(rows, names))
    return float(1 - inside / ((ranks - ranks.mean()) ** 2).sum())


def program_mean(rows: Sequence[Row], y: str = "gd") -> np.ndarray:
    """For each run the mean of y over runs of other sources with its program and target."""
    ys, found = column(rows, y), np.full(len(rows), np.nan)
    source = [tuple(row[name] for name in SOURCE) for row in rows]
    for index in groups(rows, ("program", "target")):
        for k in index:
            others = [i for i in index if source[i] != source[k]]
            found[k] = ys[others].mean() if others else np.nan
    return found


def report(rows: Sequence[Row], n_test: int) -> dict[str, Any]:
    """Prints every table of the study; the main numbers again as plain values."""
    left = sum(1 for row in rows if row["skipped"])
    rows = [row for row in rows if not row["skipped"]]
    diverged = sum(1 for row in rows if row["diverged"])
    print(
        f"{len(rows)} runs, {left} left out, {diverged} diverged; "
        f"{len(groups(rows, SOURCE))} combinations of source, target and seed"
    )
    summary: dict[str, Any] = {"runs": len(rows)}
    summary |= _correlations(rows)
    _levels(rows)
    _by_group(rows, n_test)
    summary |= _errors(rows, n_test)
    summary |= _strata(rows, n_test)
    _reasons(rows, n_test)
    _adam(rows, n_test)
    return summary


def _correlations(rows: Sequence[Row]) -> dict[str, Any]:
    print(f"\nSpearman correlation with measured held-out accuracy, {len(rows)} runs")
    print(f"{'':15}" + "".join(f"{name:>24}" for name in MEASURED))
    summary = {}
    for x in PREDICTORS:
        cells = []
        for y in MEASURED:
            rho, ends = correlation(column(rows, x), column(rows, y)), interval(rows, x, y)
            summary[f"{x}/{y}"] = [rho, *ends]
            cells.append(f"{with_interval(rho, ends):>24}")
        print(f"{x:15}" + "".join(cells))
    return summary


def with_interval(value: float, ends: tuple[float, float]) -> str:
    return f"{value:.2f} ({ends[0]:.2f} to {ends[1]:.2f})"


def _levels(rows: Sequence[Row]) -> None:
    print("\nMean |difference| from measured held-out accuracy; mean difference")
    print(f"{'':24}" + "".join(f"{name:>20}" for name in MEASURED))
    parts = {x: (x, rows) for x in PREDICTORS}
    for weights in dict.fromkeys(row["weights"] for row in rows):
        kept = [row for row in rows if row["weights"] == weights]
        parts |= {f"{x}, {weights}": (x, kept) for x in ("predicted", "ridge")}
    for label, (x, kept) in parts.items():
        gaps = [column(kept, x) - column(kept, y) for y in MEASURED]
        cells = (f"{np.abs(gap).mean():.3f}; {gap.mean():+.3f}" for gap in gaps)
        print(f"{label:24}" + "".join(f"{cell:>20}" for cell in cells))


def _by_group(rows: Sequence[Row], n_test: int) -> None:
    print(
        "\nPredicted against gradient descent, by group; difference = predicted − measured; "
        f"by chance:\nshare of runs whose difference two samples of {n_test} explain; redrawn: "
        "correlation of two such\nsamples; ridge: Spearman of kernel ridge regression"
    )
    head = ("runs", "Spearman", "|difference|", "difference", "by chance", "redrawn", "ridge")
    print(f"{'':24}" + "".join(f"{name:>13}" for name in (*head, "median drift", "measured")))
    for name in ("all", *KEY):
        for value in dict.fromkeys("all" if name == "all" else row[name] for row in rows):
            group = [row for row in rows if name == "all" or row[name] == value]
            x, y = column(group, "predicted"), column(group, "gd")
            numbers = (
                *(correlation(x, y), np.abs(x - y).mean(), (x - y).mean()),
                *(chance(x, y, n_test).mean(), redrawn(y, n_test)),
                *(correlation(column(group, "ridge"), y), np.median(column(group, "drift"))),
                y.mean(),
            )
            label = value if name == "all" else f"{name} {value}"
            print(f"{label:24}{len(group):13}" + "".join(f"{number:13.3f}" for number in numbers))


def _errors(rows: Sequence[Row], n_test: int) -> dict[str, Any]:
    x, y = column(rows, "predicted"), column(rows, "gd")
    size, inside = np.abs(x - y), chance(x, y, n_test)
    print("\nDistribution of |predicted − gradient descent|")
    for share in (0.25, 0.5, 0.75, 0.9, 0.95, 1.0):
        print(f"{f'{share:.0%} of runs at most':30}{np.quantile(size, share):10.3f}")
    for limit in (0.02, 0.05, 0.1):
        hits = int((size <= limit + 1e-9).sum())  # 0.05 itself, despite rounding
        print(f"{f'at most {limit}':30}{hits:10} of {len(rows)} runs ({hits / len(rows):.0%})")
    below, above = (int((~inside & (side > 0)).sum()) for side in (y - x, x - y))
    print(f"{'beyond chance':30}{below + above:10} of {len(rows)} runs", end="")
    print(f" ({below} predicted too low, {above} too high)")
    sizes = [(column(rows, c) - y) for c in ("sgd", "predicted")]
    for name, gap in zip(("SGD − gradient descent", "predicted − it"), sizes, strict=True):
        print(f"{f'root mean square, {name}':44}{np.sqrt((gap**2).mean()):10.3f}")
    print(f"\nThe {WORST} largest misses")
    head = ("predicted", *MEASURED, "drift", "alignment")
    print(f"{'':58}" + "".join(f"{name:>11}" for name in head))
    for k in np.argsort(-size, kind="stable")[:WORST]:
        label = " ".join(rows[k][name] for name in KEY)
        print(f"{label:58}" + "".join(f"{float(rows[k][name]):11.3f}" for name in head))
    return {"by_chance": float(inside.mean()), "mean_difference": float(size.mean())}


def _strata(rows: Sequence[Row], n_test: int) -> dict[str, Any]:
    y = column(rows, "gd")
    print("\nHow much of it is between programs: share of the variance of the ranks of gd")
    for names in (("program",), ("target",), ("program", "target")):
        print(f"{'between ' + ' and '.join(names):34}{between(rows, 'gd', names):8.3f}")
    rho = correlation(program_mean(rows), y)
    print(f"{'Spearman of the program’s mean over other sources of the target':64}{rho:8.3f}")
    print("\nMean of the Spearman correlations inside groups; redrawn as above")
    print(f"{'':36}{'groups':>8}{'redrawn':>9}" + "".join(f"{f'{x}/{y}':>24}" for x, y in PAIRS))
    summary: dict[str, Any] = {"program_mean/gd": rho}
    subsets: dict[str, tuple[Sequence[Row], Sequence[str]]] = {
        label: (rows, names) for label, names in STRATA.items()
    }
    good = [row for row in rows if row["program"] not in WEAK]
    subsets[f"the same, without {', '.join(WEAK)}"] = good, SOURCE
    for label, (kept, names) in subsets.items():
        cells = []
        for x, y_name in PAIRS:
            rho = float(mean(within(kept, x, y_name, names)))
            ends = interval(kept, x, y_name, names)
            summary[f"{x}/{y_name} {label}"] = [rho, *ends]
            cells.append(f"{with_interval(rho, ends):>24}")
        limit = redrawn(column(kept, "gd"), n_test, labels_of(kept, names))
        print(f"{label:37}{len(groups(kept, names)):7}{limit:9.2f}" + "".join(cells))
    return summary


def _reasons(rows: Sequence[Row], n_test: int) -> None:
    print("\nSpearman of |predicted − gradient descent| with what the run was; inside a program")
    gaps = np.abs(column(rows, "predicted") - column(rows, "gd"))
    with_gap = [dict(row) | {"gap": str(gap)} for row, gap in zip(rows, gaps, strict=True)]
    for name in REASONS:
        known = [row for row in with_gap if row[name]]
        if not known:
            continue
        rho = correlation(column(known, "gap"), column(known, name))
        cell = with_interval(rho, interval(known, "gap", name))
        inside = float(mean(within(known, "gap", name, ("program",))))
        ends = interval(known, "gap", name, ("program",))
        print(f"{name:18}{cell:>24}{with_interval(inside, ends):>24}")
    print(f"\nBy thirds of the drift, {' and '.join(WEAK)} left out")
    head = ("runs", "drift up to", "|difference|", "difference", "by chance")
    print(f"{'':10}" + "".join(f"{name:>14}" for name in head))
    kept = [row for row in rows if row["program"] not in WEAK]
    order = sorted(kept, key=lambda row: float(row["drift"]))
    for k, label in enumerate(("least", "middle", "most")):
        part = order[k * len(order) // 3 : (k + 1) * len(order) // 3]
        if not part:
            continue
        x, y = column(part, "predicted"), column(part, "gd")
        numbers = (np.abs(x - y).mean(), (x - y).mean(), chance(x, y, n_test).mean())
        edge = float(part[-1]["drift"])
        cells = "".join(f"{number:14.3f}" for number in (edge, *numbers))
        print(f"{label:10}{len(part):14}{cells}")


def _adam(rows: Sequence[Row], n_test: int) -> None:
    print(f"\nAdam against gradient descent; more, less: runs beyond chance of {n_test} samples")
    head = ("runs", "gd", "adam", "adam − gd", "more", "less", "|pred. − adam|")
    print(f"{'':24}" + "".join(f"{name:>15}" for name in head))
    for name in ("all", "program", "weights", "family", "target"):
        for value in dict.fromkeys("all" if name == "all" else row[name] for row in rows):
            group = [row for row in rows if name == "all" or row[name] == value]
            x, y, z = (column(group, c) for c in ("predicted", "gd", "adam"))
            beyond = ~chance(z, y, n_test)
            counts = (int((beyond & (z > y)).sum()), int((beyond & (z < y)).sum()))
            cells = "".join(f"{v:15.3f}" for v in (y.mean(), z.mean(), (z - y).mean()))
            cells += "".join(f"{v:15}" for v in counts) + f"{np.abs(x - z).mean():15.3f}"
            print(f"{value if name == 'all' else f'{name} {value}':24}{len(group):15}{cells}")
