"""Correlation of indicators with outcomes, with its error and the number of looks taken."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mrviz._words import counted
from mrviz.errors import InputError, MissingDataError
from mrviz.targets.options import as_choice, as_count

METHODS = ("spearman", "kendall")
LEVEL = 0.95
SMALLEST = 3
"""Fewer rows than this have no correlation."""

USUAL_SHARE = 0.95
"""An interval is given where at least this share of the resamples has a correlation."""

Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Correlation:
    """Rank correlation of one indicator with one outcome.

    Attributes:
        indicator: name of the column.
        outcome: name of the column.
        coefficient: Spearman's ρ or Kendall's τ_b; ``None`` where it is not defined.
        low: lower end of the 95 % bootstrap percentile interval; ``None`` without one.
        high: its upper end.
        p_value: two-sided, for independent rows without correlation.
        p_holm: the same, corrected for all pairs looked at in one call (Holm 1979).
        n: rows in which both are finite numbers.
        missing: rows left out.
        groups: groups that were resampled; ``None`` where rows were.
        note: why something is not defined.
        method: "spearman" or "kendall".
    """

    indicator: str
    outcome: str
    coefficient: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    n: int = 0
    missing: int = 0
    groups: int | None = None
    note: str = ""
    method: str = "spearman"

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    def __repr__(self) -> str:
        pair = f"{self.indicator} ~ {self.outcome}"
        return f"{pair}: {self.describe()}"

    def describe(self) -> str:
        """The coefficient with its error, in one line."""
        if self.coefficient is None:
            return f"undefined ({self.note})"
        text = f"{'ρ' if self.method == 'spearman' else 'τ'} = {self.coefficient:+.2f}"
        if self.low is not None and self.high is not None:
            text += f" [{self.low:+.2f}, {self.high:+.2f}]"
        return f"{text}, Holm p = {self.p_holm:.2g}, n = {self.n}"


@dataclass(frozen=True)
class Correlations:
    """Correlations of all indicators with all outcomes.

    Iterate over it, or index it by (indicator, outcome).

    Attributes:
        items: strongest first for each outcome, undefined ones last.
        method: "spearman" or "kendall".
        bootstrap: number of resamples.
        seed: of the resampling.
    """

    items: tuple[Correlation, ...]
    method: str
    bootstrap: int
    seed: int

    def __iter__(self) -> Iterator[Correlation]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, pair: tuple[str, str]) -> Correlation:
        for item in self.items:
            if (item.indicator, item.outcome) == pair:
                return item
        raise InputError(f"no pair {pair!r} here: index by (indicator, outcome)")

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "method": self.method,
            "bootstrap": self.bootstrap,
            "seed": self.seed,
            "items": [item.to_dict() for item in self.items],
        }

    def to_frame(self) -> Any:
        """A pandas DataFrame, one row a pair.

        Raises:
            MissingDataError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingDataError('to_frame needs pandas: pip install "mrviz[lab]"') from None
        return pandas.DataFrame([item.to_dict() for item in self.items])

    def __repr__(self) -> str:
        head = f"{self.method.capitalize()} correlations ({len(self)} looked at)"
        return "\n".join([head, *(f" {item!r}" for item in self.items)])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(i.indicator)}</th><td>{html.escape(i.outcome)}</td>"
            f"<td>{html.escape(i.describe())}</td><td>{html.escape(i.note)}</td></tr>"
            for i in self.items
        )
        titles = ("indicator", "outcome", "correlation, 95 % interval", "note")
        head = "".join(f"<th>{title}</th>" for title in titles)
        caption = f"{self.method.capitalize()} correlations, {len(self)} looked at"
        return f"<table><caption>{caption}</caption><tr>{head}</tr>{rows}</table>"


def correlate(
    rows: Sequence[Mapping[str, Any]],
    indicators: Sequence[str],
    outcomes: Sequence[str] = ("test_accuracy",),
    *,
    method: str = "spearman",
    bootstrap: int = 2000,
    groups: str | Sequence[str] | None = None,
    seed: int = 0,
) -> Correlations:
    """Rank correlations of indicators with outcomes, over the rows of a study.

    A constant column has no correlation, and is reported as undefined. Rows in which a value is
    missing or not finite, such as those of runs that failed, are left out and counted.

    Args:
        rows: from :func:`~mrviz.study.load`.
        indicators: names of columns with numbers.
        outcomes: names of columns with numbers.
        method: "spearman" or "kendall" (τ_b).
        bootstrap: number of resamples behind the interval; 0 leaves it out.
        groups: column, or columns together, whose values name groups of rows that belong
            together, such as ``("source", "depth", "seed")``: whole groups are resampled then, as
            runs with one source are not independent. The p-values still take rows as
            independent, and are too small where they are not.
        seed: of the resampling.

    Raises:
        InputError: no rows, an unknown column or one without numbers, or an unknown method.

    Example:
        >>> rows = [{"a": k, "b": k**3, "c": 1.0} for k in range(8)]
        >>> correlate(rows, ["a", "c"], ["b"])
        Spearman correlations (2 looked at)
         a ~ b: ρ = +1.00 [+1.00, +1.00], Holm p = 0, n = 8
         c ~ b: undefined (c is constant)
    """
    as_choice(method, METHODS, "method")
    as_count(bootstrap, "bootstrap", 0)
    rows = list(rows)
    if not rows:
        raise InputError("there are no rows to correlate")
    names = [(indicator, outcome) for outcome in outcomes for indicator in indicators]
    if not names or isinstance(indicators, str) or isinstance(outcomes, str):
        raise InputError("indicators and outcomes must be lists with at least one column each")
    columns = {name: _column(rows, name) for name in {n for pair in names for n in pair}}
    chosen = (groups,) if isinstance(groups, str) else groups
    labels = None if chosen is None else _labels(rows, chosen)
    found = [
        _one(pair, columns, labels, method, bootstrap, np.random.default_rng(seed))
        for pair in names
    ]
    corrected = holm([item.p_value for item in found])
    items = [replace(i, p_holm=p) for i, p in zip(found, corrected, strict=True)]
    places = {outcome: place for place, outcome in enumerate(outcomes)}
    items.sort(key=lambda i: (places[i.outcome], -abs(i.coefficient or 0), i.coefficient is None))
    return Correlations(tuple(items), method, bootstrap, seed)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (Holm 1979); undefined p-values count as looks taken.

    Example:
        >>> holm([0.01, 0.04, 0.03, None])
        [0.04, 0.09, 0.09, None]
    """
    looks, largest = len(p_values), 0.0
    corrected: list[float | None] = [None] * looks
    known = sorted((p, k) for k, p in enumerate(p_values) if p is not None)
    for place, (p, k) in enumerate(known):
        largest = max(largest, min(1.0, (looks - place) * p))
        corrected[k] = largest
    return corrected


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> Values:
    """A column as numbers, NaN where there is none."""
    if not any(name in row for row in rows):
        known = ", ".join(dict.fromkeys(key for row in rows for key in row))
        raise InputError(f"no row has a column {name!r}; there are {known}")
    values = [row.get(name) for row in rows]
    wrong = next((v for v in values if not (v is None or hasattr(v, "__float__"))), None)
    if wrong is not None:
        raise InputError(f"column {name!r} must hold numbers, got {wrong!r}")
    numbers = np.array([math.nan if v is None else float(v) for v in values])
    return np.where(np.isfinite(numbers), numbers, math.nan)


def _labels(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Any:
    """Group number of each row."""
    for name in names:
        if not any(name in row for row in rows):
            raise InputError(f"no row has a column {name!r} to group by")
    keys = [repr([row.get(name) for name in names]) for row in rows]
    return np.unique(keys, return_inverse=True)[1]


def _one(
    pair: tuple[str, str],
    columns: Mapping[str, Values],
    labels: Any,
    method: str,
    bootstrap: int,
    rng: np.random.Generator,
) -> Correlation:
    from scipy import stats

    x, y = columns[pair[0]], columns[pair[1]]
    kept = ~(np.isnan(x) | np.isnan(y))
    x, y = x[kept], y[kept]
    members = None
    if labels is not None:
        numbers = labels[kept]
        members = [np.flatnonzero(numbers == g) for g in np.unique(numbers)]
    base = Correlation(
        *pair,
        n=len(x),
        missing=int((~kept).sum()),
        groups=None if members is None else len(members),
        method=method,
    )
    if len(x) < SMALLEST:
        return replace(base, note=f"{counted(len(x), 'row')} with both, {SMALLEST} are needed")
    constant = [name for name, v in zip(pair, (x, y), strict=True) if (v == v[0]).all()]
    if constant:
        return replace(base, note=f"{' and '.join(constant)} is constant")
    test = stats.spearmanr if method == "spearman" else stats.kendalltau
    result = test(x, y)
    base = replace(base, coefficient=float(result.statistic), p_value=float(result.pvalue))
    if bootstrap == 0:
        return base
    if members is not None and len(members) < SMALLEST:
        there = counted(len(members), "group")
        return replace(base, note=f"no interval: {there}, {SMALLEST} are needed")
    draws = _resampled(x, y, members, method, bootstrap, rng)
    if len(draws) < USUAL_SHARE * bootstrap:
        share = 1 - len(draws) / bootstrap
        return replace(base, note=f"no interval: {share:.0%} of the resamples are constant")
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return replace(base, low=float(low), high=float(high))


def _resampled(
    x: Values,
    y: Values,
    members: list[Any] | None,
    method: str,
    bootstrap: int,
    rng: np.random.Generator,
) -> Values:
    """Coefficients of resamples, those left out in which a column is constant."""
    from scipy import stats

    found = []
    for _ in range(bootstrap):
        if members is None:
            rows = rng.integers(0, len(x), len(x))
        else:
            rows = np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
        a, b = x[rows], y[rows]
        if (a == a[0]).all() or (b == b[0]).all():
            continue
        if method == "spearman":
            found.append(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])
        else:
            found.append(stats.kendalltau(a, b).statistic)
    return np.array(found, dtype=np.float64)
