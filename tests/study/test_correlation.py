"""Correlations against SciPy and known cases: ties, constants, gaps, groups, many looks."""

import json

import numpy as np
import pytest
from scipy import stats

import mrviz
from mrviz.study import correlate
from mrviz.study.correlation import holm


def rows(**columns):
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def noisy(n=40, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return x, x + rng.normal(size=n), np.round(rng.normal(size=n))


@pytest.mark.parametrize("method", ["spearman", "kendall"])
def test_coefficients_and_p_values_are_those_of_scipy(method):
    x, y, ties = noisy()
    found = correlate(rows(x=x, ties=ties, y=y), ["x", "ties"], ["y"], method=method, bootstrap=50)
    test = stats.spearmanr if method == "spearman" else stats.kendalltau
    for name, values in (("x", x), ("ties", ties)):
        expected, item = test(values, y), found[name, "y"]
        assert item.coefficient == pytest.approx(expected.statistic)
        assert item.p_value == pytest.approx(expected.pvalue)
    assert found["x", "y"].p_holm == pytest.approx(2 * found["x", "y"].p_value)
    assert [item.indicator for item in found] == ["x", "ties"]  # strongest first


@pytest.mark.parametrize("method", ["spearman", "kendall"])
def test_interval_against_scipys_own_bootstrap(method):
    x, y, _ = noisy()
    item = correlate(rows(x=x, y=y), ["x"], ["y"], method=method, bootstrap=1500)["x", "y"]
    test = stats.spearmanr if method == "spearman" else stats.kendalltau
    expected = stats.bootstrap(
        (x, y),
        lambda a, b: test(a, b).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=1500,
        rng=1,
    ).confidence_interval
    assert (item.low, item.high) == pytest.approx(tuple(expected), abs=0.04)
    assert item.low < item.coefficient < item.high


def test_perfect_and_reversed():
    k = np.arange(10.0)
    found = correlate(rows(k=k, cube=k**3, down=-k), ["cube", "down"], ["k"], bootstrap=100)
    up, down = found["cube", "k"], found["down", "k"]
    assert (up.coefficient, up.low, up.high) == pytest.approx((1, 1, 1))
    assert (down.coefficient, down.low, down.high) == pytest.approx((-1, -1, -1))


def test_constant_columns_are_undefined_and_count_as_looks():
    x, y, _ = noisy(12)
    found = correlate(rows(x=x, same=np.ones(12), y=y), ["same", "x"], ["y"], bootstrap=20)
    same = found["same", "y"]
    assert same.coefficient is same.p_value is same.p_holm is same.low is None
    assert same.note == "same is constant" and "undefined" in repr(found)
    assert found["x", "y"].p_holm == pytest.approx(2 * found["x", "y"].p_value)
    assert list(found)[-1] is same


def test_gaps_are_left_out_and_counted():
    table = rows(x=[1, 2, None, 4, 5, float("inf")], y=[1.0, 3.0, 2.0, 4.0, float("nan"), 1.0])
    table.append({"y": 3.0})
    item = correlate(table, ["x"], ["y"], bootstrap=0)["x", "y"]
    assert (item.n, item.missing, item.coefficient) == (3, 4, pytest.approx(1.0))
    few = correlate(table[:3], ["x"], ["y"])["x", "y"]
    assert few.coefficient is None and "2 rows" in few.note


def test_whole_groups_are_resampled():
    """Copies of a row add no information: by groups, the interval is that of the originals."""
    x, y, _ = noisy(15, seed=3)
    once = rows(x=x, y=y, g=range(15))
    options = {"bootstrap": 800, "groups": "g"}
    single = correlate(once, ["x"], ["y"], **options)["x", "y"]
    many = correlate(once * 6, ["x"], ["y"], **options)["x", "y"]
    naive = correlate(once * 6, ["x"], ["y"], bootstrap=800)["x", "y"]
    assert many.groups == single.groups == 15 and naive.groups is None
    assert many.high - many.low == pytest.approx(single.high - single.low, rel=0.1)
    assert naive.high - naive.low < 0.7 * (many.high - many.low)
    two = correlate(rows(x=x, y=y, g=[0, 1, 0] * 5), ["x"], ["y"], groups=["g"])["x", "y"]
    assert two.low is None and two.coefficient is not None and "2 groups" in two.note


def test_no_interval_where_most_resamples_are_constant():
    item = correlate(rows(x=[0, 0, 0, 1], y=[1, 2, 3, 4]), ["x"], ["y"])["x", "y"]
    assert item.coefficient is not None and item.low is None and "resamples" in item.note


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([None, 0.02, 0.5]) == [None, pytest.approx(0.06), 1.0]
    assert holm([]) == []


def test_the_seed_decides():
    x, y, _ = noisy()
    one, same, other = (
        correlate(rows(x=x, y=y), ["x"], ["y"], bootstrap=60, seed=s)["x", "y"] for s in (1, 1, 2)
    )
    assert one == same and one.low != other.low


def test_tables_and_plain_values():
    found = correlate(rows(a=[1, 2, 3, 4], b=[1, 2, 4, 3]), ["a"], ["b"], bootstrap=10)
    assert json.loads(json.dumps(found.to_dict()))["items"][0]["n"] == 4
    assert list(found.to_frame()["indicator"]) == ["a"]
    assert "a" in found._repr_html_() and len(found) == 1
    with pytest.raises(mrviz.InputError, match="no pair"):
        found["a", "c"]


@pytest.mark.parametrize(
    ("arguments", "options", "match"),
    [
        (([], ["a"], ["b"]), {}, "no rows"),
        (([{"a": 1, "b": 2}], ["c"], ["b"]), {}, "no row has a column 'c'; there are a, b"),
        (([{"a": "x", "b": 2}], ["a"], ["b"]), {}, "must hold numbers, got 'x'"),
        (([{"a": 1, "b": 2}], "a", ["b"]), {}, "must be lists"),
        (([{"a": 1, "b": 2}], [], ["b"]), {}, "at least one"),
        (([{"a": 1, "b": 2}], ["a"], ["b"]), {"method": "pearson"}, "method"),
        (([{"a": 1, "b": 2}], ["a"], ["b"]), {"bootstrap": -1}, "bootstrap"),
        (([{"a": 1, "b": 2}], ["a"], ["b"]), {"groups": "z"}, "'z' to group by"),
    ],
)
def test_mistakes(arguments, options, match):
    with pytest.raises(mrviz.InputError, match=match):
        correlate(*arguments, **options)
