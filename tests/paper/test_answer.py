"""Verdicts, intervals and rank correlations: against scipy, by hand, and in all directions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mrviz.errors import InputError
from mrviz.paper.answer import Answer, kendall, mean_interval, of_mean, of_share, spearman, verdict
from mrviz.theory.statistics import wilson_interval

VALUES = st.lists(st.floats(-1, 1), min_size=3, max_size=20)


@given(st.floats(-2, 2), st.floats(0, 2), st.floats(-2, 2))
def test_the_opposite_claim_gets_the_opposite_verdict(low, width, threshold):
    interval = low, low + width
    opposite = {"agrees": "disagrees", "disagrees": "agrees", "cannot tell": "cannot tell"}
    found = verdict(interval, threshold, above=True)
    assert verdict(interval, threshold, above=False) == opposite[found]
    assert (found == "cannot tell") == (interval[0] <= threshold <= interval[1])


def test_no_interval_means_no_verdict():
    assert verdict(None, 0.0, above=True) == "cannot tell"
    assert verdict((math.nan, 1.0), 0.0, above=True) == "cannot tell"


@given(VALUES)
def test_the_interval_of_a_mean_is_that_of_scipy(values):
    mean, interval = mean_interval(values)
    assert mean == pytest.approx(sum(values) / len(values), abs=1e-12)
    if max(values) - min(values) > 1e-6:
        known = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert interval == pytest.approx((known.low, known.high), rel=1e-6, abs=1e-9)


def test_too_few_values_have_no_interval_and_missing_ones_do_not_count():
    assert mean_interval([0.5, 0.7]) == (pytest.approx(0.6), None)
    assert mean_interval([math.nan]) == (None, None)
    assert mean_interval([1.0, math.nan, 1.0, 1.0]) == (1.0, (1.0, 1.0))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.9, 0.8, 1.0], "agrees"),
        ([-0.9, -0.8, -1.0], "disagrees"),
        ([0.9, -0.8, 0.1], "cannot tell"),
        ([0.9, 0.8], "cannot tell"),
        ([], "cannot tell"),
    ],
)
def test_an_answer_about_a_mean(values, expected):
    found = of_mean(
        "1a", "rises", values, 0.0, above=True, runs=9, unit="draw", text="τ.", limits=(-1, 1)
    )
    assert found.verdict == expected and found.runs == 9
    if found.interval:
        assert -1 <= found.interval[0] <= found.statistic <= found.interval[1] <= 1


@pytest.mark.parametrize(
    ("yes", "undecided", "expected"),
    [(0, 0, "agrees"), (12, 0, "disagrees"), (5, 0, "cannot tell"), (0, 10, "cannot tell")],
)
def test_an_answer_about_a_share_counts_the_undecided_either_way(yes, undecided, expected):
    found = of_share("5a", "few", yes, undecided, 20, 0.25, above=False, text="Violated:")
    assert found.verdict == expected
    assert found.interval[0] == wilson_interval(yes, 20)[0]
    assert found.interval[1] == wilson_interval(yes + undecided, 20)[1]


def test_a_share_of_too_few_is_no_answer():
    found = of_share("5a", "few", 0, 0, 2, 0.25, above=False, text="Violated:")
    assert (found.verdict, found.interval) == ("cannot tell", None)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=12))
def test_rank_correlations_are_those_of_scipy(pairs):
    x, y = zip(*pairs, strict=True)
    for own, known in ((spearman, stats.spearmanr), (kendall, stats.kendalltau)):
        if len(set(x)) == 1 or len(set(y)) == 1:
            assert math.isnan(own(x, y))
        else:
            assert own(x, y) == pytest.approx(known(x, y).statistic, abs=1e-12)


def test_pairs_with_a_missing_value_are_left_out():
    assert spearman([1, 2, math.nan, 3], [1, 2, 0, 3]) == pytest.approx(1.0)
    assert math.isnan(spearman([1, 2, math.nan], [1, 2, 3]))


def test_a_verdict_is_one_of_three():
    with pytest.raises(InputError, match="agrees, disagrees, cannot tell"):
        Answer("1a", "rises", "maybe", 0.0, None, 1, "")
