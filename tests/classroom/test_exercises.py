"""The machinery of the exercises: verdicts, gaps, and messages that name the mistake."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mrviz import InputError
from mrviz.classroom import EXERCISES, Verdict, check, exercise
from mrviz.classroom.answers import Mistake, Unanswered, number, run, same, tensor, whole


@pytest.fixture
def gram_exercise(monkeypatch):
    """An exercise "99.1" that asks for x xᵀ."""
    monkeypatch.setattr("mrviz.classroom.exercises.EXERCISES", {})

    @exercise("99.1")
    def linear_gram(answer, *, x):
        expected = x @ x.T
        same(
            tensor(answer, expected.shape, "The Gram matrix", ("n", "n")),
            expected,
            name="The Gram matrix",
            mistakes={"The inputs were centred first.": (x - x.mean(0)) @ (x - x.mean(0)).T},
        )
        return "It is the kernel of a linear model."

    return linear_gram


X = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]], dtype=torch.float64)


def test_a_right_answer_is_right_in_whatever_form(gram_exercise):
    for answer in (X @ X.T, (X @ X.T).numpy(), (X @ X.T).tolist(), (X @ X.T).float()):
        verdict = check("99.1", answer, x=X)
        assert verdict.right
        assert verdict.message == "It is the kernel of a linear model."


@pytest.mark.parametrize("answer", [..., None])
def test_a_gap_is_open_not_wrong(gram_exercise, answer):
    verdict = check("99.1", answer, x=X)
    assert verdict.outcome == "open" and not verdict.right
    assert repr(verdict) == "99.1 … Not answered yet."


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (2 * X @ X.T, "2 times"),
        (-X @ X.T, "sign"),
        (X @ X.T + 3, "shifted by the same number, 3"),
        (torch.zeros(3, 3), "zero everywhere"),
        ((X - X.mean(0)) @ (X - X.mean(0)).T, "centred"),
        (X.T @ X, r"shape \(2, 2\); \(3, 3\) \(n, n\)"),
        (X @ X.T + torch.eye(3, dtype=torch.float64), r"3 entries of 9 are .* \(0, 0\)"),
        (X @ X.T * float("nan"), "NaN"),
        ("the Gram matrix", "str"),
        ([[1.0, 2.0], [3.0]], "nested lists of numbers of equal length"),
        (lambda: X @ X.T, "function"),
    ],
)
def test_a_wrong_answer_is_told_its_mistake(gram_exercise, answer, message):
    verdict = check("99.1", answer, x=X)
    assert verdict.outcome == "wrong"
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(verdict.message)


def test_nothing_is_raised_for_an_answer(gram_exercise):
    class Hostile:
        def __array__(self, *args, **kwargs):
            raise KeyError("no array here")

    verdict = check("99.1", Hostile(), x=X)
    assert verdict.outcome == "wrong"
    assert "KeyError" in verdict.message


def test_a_cell_that_was_changed_by_accident_is_told_what_the_check_needs(gram_exercise):
    with pytest.raises(InputError, match=r"99\.1 needs x"):
        check("99.1", X @ X.T)
    with pytest.raises(InputError, match=r"no exercise '99\.7'; there are 99\.1"):
        check("99.7", 1)


def test_a_number_belongs_to_one_check(gram_exercise):
    with pytest.raises(InputError, match=r"99\.1 is checked by .*linear_gram already"):

        @exercise("99.1")
        def another(answer):
            return ""


def test_a_verdict_says_the_same_as_text_and_as_html():
    verdict = Verdict("04.1", "wrong", "`forward` returns <nothing>.")
    assert repr(verdict) == "04.1 ✗ Not right yet. `forward` returns <nothing>."
    html = verdict._repr_html_()
    assert "<code>forward</code> returns &lt;nothing&gt;." in html
    assert "Not right yet" in html
    assert verdict.to_dict()["outcome"] == "wrong"


@pytest.mark.parametrize("answer", [3, 3.0, np.int64(3), torch.tensor(3), torch.tensor([3.0])])
def test_numbers_come_in_many_types(answer):
    assert number(answer) == whole(answer) == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("3", "'3'; a number"),
        (True, "True"),
        ([1, 2], r"shape \(2,\)"),
        (float("inf"), "finite"),
        (len, "function"),
        ({}, "dict"),
    ],
)
def test_what_is_no_number_is_named(answer, message):
    with pytest.raises(Mistake, match=message):
        number(answer)


def test_a_fraction_is_no_whole_number():
    with pytest.raises(Mistake, match=r"2\.5; a whole number"):
        whole(2.5)


@pytest.mark.parametrize(
    ("found", "wanted", "hint"),
    [
        ((3, 2), (2, 3), "transposed"),
        ((2, 3, 4), (4, 3, 2), "another order"),
        ((3, 4), (2, 3, 4), "first axis is missing"),
        ((2, 3), (2, 3, 4), "last axis is missing"),
        ((2, 1, 3), (2, 3), "axis of length 1"),
        ((6, 2), (3, 4), "reshape"),
    ],
)
def test_a_wrong_shape_gets_a_hint(found, wanted, hint):
    with pytest.raises(Mistake, match=hint):
        tensor(torch.ones(found), wanted)


def test_a_number_is_not_given_away():
    with pytest.raises(Mistake, match=r"^The answer is too large\.$"):
        same(5.0, 4.0)
    with pytest.raises(Mistake, match=r"^The answer is too small\.$"):
        same(3.0, 4.0)


@given(
    st.floats(-1e3, 1e3).filter(lambda c: abs(c) > 1e-2 and abs(c - 1) > 1e-2),
    st.integers(1, 5),
    st.integers(0, 1000),
)
def test_a_constant_factor_is_found(factor, n, seed):
    expected = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    same(expected * (1 + 1e-6), expected)
    with pytest.raises(Mistake, match=r"times what it should be|wrong sign"):
        same(factor * expected, expected)


def test_functions_of_students_are_run_with_care():
    assert run(lambda a: a + 1, 1) == 2
    with pytest.raises(Mistake, match="Your function raised ZeroDivisionError: division by zero"):
        run(lambda: 1 / 0)
    with pytest.raises(Unanswered, match="returns nothing yet"):
        run(lambda: ...)


def test_exercises_are_numbered_by_notebook():
    assert EXERCISES
    assert all(len(number) == 4 and number[2] == "." for number in EXERCISES)
