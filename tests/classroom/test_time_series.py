"""Notebook 05: typical wrong answers are told what is wrong; right ones pass in any form."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import mrviz
from mrviz.classroom import check
from mrviz.programs import seasonal_naive
from mrviz.targets import forecast_target

RANDOM = torch.Generator().manual_seed(0)


def says(verdict, outcome, *words):
    assert verdict.outcome == outcome, verdict
    assert all(word in verdict.message for word in words), verdict


# --- 05.1 -----------------------------------------------------------------------------------


def positions(answer, replicas=3):
    return check("05.1", answer, length=128, series=24, replicas=replicas)


@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_what_no_copy_covers_is_the_count_of_the_program(replicas):
    program = mrviz.programs.SeriesPadding((1, 128), (1, 24), replicas=replicas)
    says(positions(program.n_parameters, replicas), "right")
    says(positions(np.int64(program.n_parameters), replicas), "right")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (128, "all positions"),
        (72, "what the copies cover"),
        (104, "One copy was taken off"),
        (312, "once for each copy"),
        (55, "too small"),
        (56.5, "whole number"),
    ],
)
def test_a_wrong_count_of_positions_is_told_its_mistake(answer, words):
    says(positions(answer), "wrong", words)


# --- 05.2 -----------------------------------------------------------------------------------


def rank(answer, parameters=3200, n=40, outputs=2):
    return check("05.2", answer, parameters=parameters, n=n, outputs=outputs)


def test_the_bound_on_the_rank_is_reached_by_a_linear_program():
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 6))
    source = mrviz.SourceModel(module, (1, 12))
    x, y = torch.rand(7, 1, 5, generator=RANDOM), [0, 1, 2, 0, 1, 2, 0]
    target = mrviz.Target(x, y, x, y)
    model = mrviz.reprogram(source, target, program="linear", mapping="probability_average", m=2)
    gram = mrviz.ntk_gram(model, x, dtype=torch.float64, progress=False)
    found = mrviz.spectrum(gram).rank
    says(rank(found, model.n_parameters, n=7, outputs=3), "right", "7 of 21")


def test_few_parameters_bound_the_rank_before_that():
    says(rank(8, parameters=8), "right", "72 of 80")
    says(rank(40, parameters=8), "wrong", "too large")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (80, "order nC"),
        (3200, "is p"),
        (79, "taken off in all"),
        (1, "one sample has left"),
        (39, "too small"),
    ],
)
def test_a_wrong_rank_is_told_its_mistake(answer, words):
    says(rank(answer), "wrong", words)


# --- 05.3 -----------------------------------------------------------------------------------

JACOBIAN = torch.randn(4, 3, 1, 10, generator=RANDOM)
FREE = torch.arange(10) % 4 > 1


def gram_of(answer):
    return check("05.3", answer, jacobian=JACOBIAN, free=FREE)


def rows(jacobian):
    return jacobian.flatten(2).flatten(0, 1)


RIGHT = [
    lambda a, m: rows(a[..., m]) @ rows(a[..., m]).T,
    lambda a, m: rows(a) @ torch.diag(m.double()) @ rows(a).T,
    lambda a, m: torch.einsum("icqt,jdqt,t->icjd", a, a, m.double()).reshape(12, 12),
    lambda a, m: (rows(a * m) @ rows(a * m).T).numpy(),
]


@pytest.mark.parametrize("answer", RIGHT)
def test_the_kernel_of_the_padding_is_right_in_any_form(answer):
    says(gram_of(answer), "right", "5 of 10 columns" if int(FREE.sum()) == 5 else "of 10 columns")


def test_the_kernel_asked_for_is_that_of_the_program():
    source = mrviz.load_source("fcn", depth=2, width=4, input_size=20, seed=1, progress=False)
    program = mrviz.programs.SeriesPadding((1, 20), (1, 6), replicas=2)
    model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity(3))
    x = torch.rand(5, 1, 6, generator=RANDOM)
    u = program(x).detach()
    jacobian = mrviz.ntk.source_jacobian(source, torch.eye(3, source.outputs), u)
    kernel = mrviz.ntk_gram(model, x, progress=False).matrix
    free = program.placement.frame()
    says(check("05.3", lambda a, m: kernel, jacobian=jacobian, free=free), "right")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda a, m: RIGHT[0](a, ~m), "under the copies were taken"),
        (lambda a, m: rows(a) @ rows(a).T, "All positions were taken"),
        (lambda a, m: RIGHT[0](a.transpose(0, 1), m), "Sample by sample"),
        (lambda a, m: RIGHT[0](a, m) / m.sum(), "mean over positions"),
        (lambda a, m: torch.einsum("icqt,jcqt,t->ij", a, a, m.double()), "outputs are summed"),
        (lambda a, m: torch.einsum("icqt,jdqt,t->icjd", a, a, m.double()), "reshape it"),
        (lambda a, m: a @ m, "raised"),
        (torch.zeros(12, 12), "function"),
    ],
)
def test_a_wrong_kernel_of_the_padding_is_told_its_mistake(answer, words):
    says(gram_of(answer), "wrong", words)


def test_a_kernel_not_written_is_open():
    says(gram_of(lambda a, m: ...), "open")


# --- 05.4 -----------------------------------------------------------------------------------


def bound(answer, risk=0.57, distance=11.5):
    return check("05.4", answer, risk=risk, distance=distance, source_classes=6, target_classes=2)


def test_the_bound_is_that_of_the_library():
    made = mrviz.theory.DistributionBound(0.57, 0.1, 11.5, 1.0, 7.0, 6, 24)
    says(bound(made.value), "right", "promises nothing")
    says(bound(torch.tensor(0.3 + 2 * 6**0.5 * 0.1), 0.3, 0.1), "right", "says something")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (0.57 + math.sqrt(6) * 11.5, "factor 2"),
        (0.57 + 2 * 6 * 11.5, "square root"),
        (0.57 + 2 * math.sqrt(2) * 11.5, "number of target classes was used"),
        (2 * math.sqrt(6) * 11.5, "source risk is missing"),
        (0.57 + 2 * math.sqrt(6 * 11.5), "not stand under the root"),
        (0.57 + 2 * 2 * 11.5, "without the root"),
        (100.0, "too large"),
        ("much", "number is asked for"),
    ],
)
def test_a_wrong_bound_is_told_its_mistake(answer, words):
    says(bound(answer), "wrong", words)


# --- 05.5 -----------------------------------------------------------------------------------


def rule(pick):
    """A forecast that takes one value of the context for each step, by a rule of its place."""
    return lambda c, s, h: torch.stack([c[:, 0, pick(k, c.shape[2], s, h)] for k in range(h)], 1)


def repeated(context, season, horizon):
    last = context[:, 0, -season:].numpy()
    return np.tile(last, (1, -(-horizon // season)))[:, :horizon]


@pytest.mark.parametrize("answer", [rule(lambda k, t, s, h: t - s + k % s), repeated])
def test_the_naive_rule_is_right_in_any_form(answer):
    says(check("05.5", answer), "right")


def test_the_rule_asked_for_is_that_of_the_library():
    series = torch.arange(80.0).square() % 17
    made = {
        (s, h): forecast_target(series, context=11, horizon=h, season=s)
        for s, h in ((4, 3), (4, 4), (4, 10), (1, 3))
    }
    says(check("05.5", lambda c, s, h: seasonal_naive(made[s, h], c)), "right")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (rule(lambda k, t, s, h: t - 1), "last value is repeated"),
        (rule(lambda k, t, s, h: k % s), "first season"),
        (rule(lambda k, t, s, h: t - 1 - k % s), "backwards"),
        (rule(lambda k, t, s, h: t - s - 1 + k % s), "one step late"),
        (rule(lambda k, t, s, h: t - h + k), "not one horizon"),
        (lambda c, s, h: c[:, 0, -s:].mean(1, keepdim=True).expand(-1, h), "mean of the last"),
        (lambda c, s, h: c[:, 0, -s:][:, :h], "stops after one season"),
        (lambda c, s, h: c[..., -s:][..., torch.arange(h) % s], "axis of the channel"),
        (
            lambda c, s, h: c[:, 0, -s + torch.arange(h)],
            "forecast (season 4, horizon 10) 12 entries",
        ),
        (lambda c, s, h: c[:, s], "raised"),
        (torch.zeros(2, 3), "function"),
    ],
)
def test_a_wrong_rule_is_told_its_mistake(answer, words):
    says(check("05.5", answer), "wrong", words)


def test_a_rule_not_written_is_open():
    says(check("05.5", lambda context, season, horizon: None), "open")


# --- 05.6 -----------------------------------------------------------------------------------

SERIES = torch.arange(100.0) + 5 * (torch.arange(100.0) % 4) + torch.rand(100, generator=RANDOM)
TARGET = forecast_target(SERIES, context=12, horizon=5, season=4)
HISTORY = (SERIES[:60] - TARGET.offset) / TARGET.span
NAIVE = seasonal_naive(TARGET, TARGET.x_test)
FORECASTS = TARGET.y_test + 0.1 * torch.randn(TARGET.y_test.shape, generator=RANDOM)
ERROR, RULE = (FORECASTS - TARGET.y_test).abs(), (NAIVE - TARGET.y_test).abs()
UNIT = float((HISTORY[4:] - HISTORY[:-4]).abs().mean())
STEP = float((HISTORY[1:] - HISTORY[:-1]).abs().mean())


def mase(answer):
    return check(
        "05.6",
        answer,
        forecasts=FORECASTS,
        came=TARGET.y_test,
        naive=NAIVE,
        history=HISTORY,
        season=4,
    )


def test_the_scaled_error_is_that_of_the_library():
    assert pytest.approx(TARGET.naive_error, rel=1e-5) == UNIT
    own = mrviz.SourceModel(Repeat(), (1, 12))
    model = mrviz.reprogram(own, TARGET, program="lag_affine", mapping="identity")
    found = mrviz.programs.compare_forecasts(model, TARGET)["seasonal naive"].mase
    given = {"came": TARGET.y_test, "naive": NAIVE, "history": HISTORY, "season": 4}
    says(check("05.6", found, forecasts=NAIVE, **given), "right", f"{found:.2f}, not 1")
    says(mase(ERROR.mean() / UNIT), "right")


class Repeat(nn.Module):
    """The last value, five times."""

    def forward(self, x):
        return x[:, 0, -1:].expand(-1, 5)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ERROR.mean(), "mean absolute error"),
        (ERROR.mean() / RULE.mean(), "on the test windows"),
        (ERROR.square().mean() / UNIT, "are squared"),
        (ERROR.square().mean().sqrt() / UNIT, "root of the mean"),
        (ERROR.mean() / STEP, "season 1"),
        (UNIT / ERROR.mean(), "upside down"),
        (UNIT, "unit alone"),
        (RULE.mean() / UNIT, "those of the naive rule"),
        (ERROR / UNIT, "single number"),
        (100.0, "too large"),
    ],
)
def test_a_wrong_scaled_error_is_told_its_mistake(answer, words):
    says(mase(answer), "wrong", words)


# --- 05.7 -----------------------------------------------------------------------------------

TRAIN, TEST = torch.tensor([10, 12, 30, 60]), torch.tensor([12, 15, 17, 36, 45, 66, 90])


def leak(answer):
    return check("05.7", answer, train=TRAIN, test=TEST, horizon=6, context=24)


def test_windows_that_share_a_value_are_counted():
    values = [set(range(int(b), int(b) + 6)) for b in TRAIN]
    shared = [any(set(range(int(b), int(b) + 6)) & v for v in values) for b in TEST]
    assert sum(shared) == 3
    says(leak(sum(shared)), "right", "3 of 7")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (1, "begin at the same step"),
        (5, "touch and share no value"),
        (6, "Contexts were counted"),
        (2, "Training windows"),
        (4, "share nothing"),
        (7, "too large"),
    ],
)
def test_a_wrong_count_of_windows_is_told_its_mistake(answer, words):
    says(leak(answer), "wrong", words)


def test_pairs_are_told_from_windows():
    given = {"horizon": 6, "context": 1, "train": torch.tensor([0, 1, 2])}
    says(check("05.7", 6, test=torch.tensor([3, 4, 50]), **given), "wrong", "Pairs")
    says(check("05.7", 2, test=torch.tensor([3, 4, 50]), **given), "right")
