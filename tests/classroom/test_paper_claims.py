"""Checks of notebooks/07-paper: right answers in several forms, and the usual slips."""

import numpy as np
import pytest

from mrviz import paper
from mrviz.classroom import check
from mrviz.paper.answer import Answer, kendall, spearman, verdict
from mrviz.paper.indicators import SCOPES, correlations, value_of


def says(found, outcome, *words):
    assert found.outcome == outcome, found
    assert all(word in found.message for word in words), found


@pytest.fixture(scope="module")
def tables():
    return paper.load()


@pytest.fixture(scope="module")
def answers(tables):
    return [a for a in paper.answers(tables) if a.question[0] in "23"]


# --- 07.1 -----------------------------------------------------------------------------------


def test_the_rule_of_the_study_is_right(answers):
    says(
        check(
            "07.1", lambda low, high, above: verdict((low, high), 0.0, above=above), answers=answers
        ),
        "right",
        f"{len(answers)} intervals",
    )


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            lambda low, high, above: (
                "agrees" if (low > 0 and above) or (high < 0 and not above) else "disagrees"
            ),
            "zero is inside",
        ),
        (
            lambda low, high, above: (
                "agrees" if low > 0 else "disagrees" if high < 0 else "cannot tell"
            ),
            "look at `above`",
        ),
        (
            lambda low, high, above: "agrees" if (low + high > 0) == above else "disagrees",
            "agree with either sign",
        ),
        (lambda low, high, above: "cannot tell", "zero is outside"),
        (lambda low, high, above: "yes", "none of agrees"),
        (lambda low, high: "agrees", "raised TypeError"),
        ("agrees", "function"),
    ],
)
def test_a_wrong_rule_is_told_its_mistake(answers, rule, words):
    says(check("07.1", rule, answers=answers), "wrong", words)


def test_a_rule_with_a_gap_is_open(answers):
    says(check("07.1", lambda low, high, above: ..., answers=answers), "open")


# --- 07.2 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [("a", "close to zero"), ("b", "how probable"), ("d", "fixed before"), ("e", "one of 'a'")],
)
def test_a_wrong_reading_of_cannot_tell_is_told_why(answer, words):
    says(check("07.2", answer), "wrong", words)


def test_cannot_tell_is_no_evidence():
    says(check("07.2", "C"), "right", "Absence of evidence")


# --- 07.3 -----------------------------------------------------------------------------------

X = [21.8, 27.7, 157.2, 130.3, 34.6, 90.7]  # ranks 1, 2, 6, 5, 3, 4
Y = [0.21, 0.23, 0.36, 0.42, 0.15, 0.24]  # ranks 2, 3, 5, 6, 1, 4


def test_spearman_by_hand_is_that_of_the_library():
    assert spearman(X, Y) == pytest.approx(1 - 6 * 8 / 210)
    for answer in (spearman(X, Y), 0.77):
        says(check("07.3", answer, x=X, y=Y), "right", "Σd² = 8", "0.771")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (float(np.corrcoef(X, Y)[0, 1]), "Pearson"),
        (kendall(X, Y), "Kendall"),
        (-spearman(X, Y), "largest to the smallest"),
        (8, "That is Σd²"),
        (1 - 8 / 210, "6 is missing"),
        (48 / 210, "1 − is missing"),
        (1 - 36 / 210, "not squared"),
        (1 - 48 / 35, "not n² − 1"),
        (0.1, "too small"),
        ("0.77", "a number is asked for"),
    ],
)
def test_a_wrong_rho_is_told_its_mistake(answer, words):
    says(check("07.3", answer, x=X, y=Y), "wrong", words)


# --- 07.4 -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(tables):
    images = [row for row in tables["indicators"] if row["kind"] == "image"]
    return [{**row, "lambda_min": value_of(row, "T2_value")} for row in images]


def means(rows, within=0.68, across=-0.52):
    answer = {"within one source": within, "across sources": across}
    given = {"rows": rows, "x": "lambda_min", "y": "test_accuracy", "scopes": SCOPES}
    return check("07.4", answer, **given)


def test_the_means_are_those_of_the_study(tables, rows):
    table = correlations(tables["indicators"])
    found = {
        row["scope"]: row["value"]
        for row in table
        if row["indicator"] == "T2_value" and row["kind"] == "image"
    }
    exact = found["within one source"], found["across sources"]
    says(means(rows, *exact), "right", "+0.68 within", "-0.52 across", "+0.52 with all runs")
    says(means(rows), "right")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"within": 0.52}, "All runs are taken together"),
        ({"within": -0.52}, "“across sources”"),
        ({"across": -0.26}, "no correlation"),
        ({"across": 0.68}, "“within one source”"),
        ({"within": 0.1}, "too small"),
    ],
)
def test_a_wrong_mean_is_told_its_mistake(rows, answer, words):
    says(means(rows, **answer), "wrong", words)


def test_other_statistics_are_told_apart(rows):
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[n] for n in SCOPES["within one source"]), []).append(row)
    taus = [
        kendall([r["lambda_min"] for r in g], [r["test_accuracy"] for r in g])
        for g in groups.values()
    ]
    says(means(rows, within=sum(taus) / len(taus)), "wrong", "Kendall")


def test_gaps_in_the_means(rows):
    says(means(rows, across=...), "open", "Across sources")
    given = {"rows": rows, "x": "lambda_min", "y": "test_accuracy", "scopes": SCOPES}
    says(check("07.4", 0.68, **given), "wrong", "dictionary")


# --- 07.5 -----------------------------------------------------------------------------------


def missed(*answer):
    return check("07.5", answer, intervals=19, level=0.95)


def test_both_numbers_are_right():
    says(missed(0.95, 1 - 0.95**19), "right", "62%", "share their runs")
    says(missed(1, 0.62), "right")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((18.05, 0.62), "hold their value"),
        ((0.05, 0.62), "a single interval"),
        ((0.62, 0.62), "second number"),
        ((95, 0.62), "percent"),
        ((0.95, 0.377), "none misses"),
        ((0.95, 0.95), "Two or more"),
        ((0.95, 0.05), "single interval"),
        ((0.95, 62.3), "percent"),
        ((0.95, 0.5), "too small"),
        ((0.95,), "pair"),
    ],
)
def test_wrong_numbers_are_told_their_mistake(answer, words):
    says(missed(*answer), "wrong", words)


def test_a_gap_in_the_pair_is_open():
    says(missed(..., ...), "open", "expected number")


# --- 07.6 -----------------------------------------------------------------------------------


def claim(question, statistic, low, high):
    found = verdict((low, high), 0.0, above=True)
    return Answer(question, "", found, statistic, (low, high), 10, "")


CLAIMS = [
    claim("2a", 0.3, 0.1, 0.5),
    claim("2b", 0.02, -0.05, 0.09),  # the narrowest
    claim("2c", 0.8, -0.4, 1.0),  # the largest statistic
    claim("3a", -0.3, -0.61, 0.01),  # (0.31 / 0.3)²
    claim("3b", 0.2, -0.2, 0.6),
]


def test_the_cheapest_claim_is_that_with_the_smallest_factor(answers):
    for answer in ("3a", " 3A "):
        says(check("07.6", answer, answers=CLAIMS), "right", "1.07 times", "before you look")
    says(check("07.6", "2g", answers=answers), "right", "1.11 times")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("2a", "decided already: agrees"),
        ("2b", "narrowest"),
        ("2c", "its interval is wide"),
        ("3b", "4 times as many runs; another"),
        ("9z", "no claim"),
        (3, "label"),
    ],
)
def test_another_claim_is_told_why_not(answer, words):
    says(check("07.6", answer, answers=CLAIMS), "wrong", words)
