"""Notebook 04: typical wrong answers are told what is wrong; right ones pass in any form."""

import pytest
import torch
from torch import nn

import mrviz
from mrviz.classroom import check

X = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))


def paint(x):
    """Table rows (n, 3) as pictures (n, 1, 2, 2) with a black last pixel."""
    return nn.functional.pad(x, (0, 1)).view(-1, 1, 2, 2)


def says(verdict, outcome, *words):
    assert verdict.outcome == outcome, verdict
    assert all(word in verdict.message for word in words), verdict


# --- 04.1 -----------------------------------------------------------------------------------


def two_numbers(forward, start=(1.0, 0.0), kind=nn.Parameter):
    """A class of programs with two numbers a and c and a given forward."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.c = (kind(torch.tensor(value)) for value in start)

        def forward(self, x):
            return forward(self, x)

    return Own


def programme(answer):
    return check("04.1", answer, paint=paint, x=X)


@pytest.mark.parametrize(
    "forward",
    [lambda s, x: s.a * paint(x) + s.c, lambda s, x: s.c + paint(x) * s.a],
)
def test_a_two_parameter_program_is_right(forward):
    says(programme(two_numbers(forward)), "right")
    says(programme(two_numbers(forward)()), "right")


def test_both_numbers_in_one_parameter_are_right():
    class Together(nn.Module):
        def __init__(self):
            super().__init__()
            self.both = nn.Parameter(torch.tensor([0.0, 1.0]))

        def forward(self, x):
            return self.both[1] * paint(x) + self.both[0]

    program = Together()
    says(programme(program), "right")
    assert program.both.tolist() == [0.0, 1.0]  # what the check moved is back


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (two_numbers(lambda s, x: s.a * (paint(x) + s.c)), "added before the contrast"),
        (two_numbers(lambda s, x: s.a * paint(x)), "brightness has no effect"),
        (two_numbers(lambda s, x: paint(x) + s.c), "contrast has no effect"),
        (two_numbers(lambda s, x: s.a * x + s.c), "(5, 1, 2, 2) is asked for"),
        (two_numbers(lambda s, x: s.a * paint(x) + s.c, (0.0, 0.0)), "contrast starts at 0"),
        (two_numbers(lambda s, x: s.a * paint(x) + s.c, (1.0, 1.0)), "brightness starts at 1"),
        (
            two_numbers(lambda s, x: s.a * paint(x) + s.c, kind=lambda v: v),
            "must be `nn.Parameter",
        ),
        (two_numbers(lambda s, x: s.a * paint(x) / s.c), "NaN"),
        (two_numbers(lambda s, x: s.missing * paint(x)), "AttributeError"),
        (two_numbers(lambda s, x: paint(x) + s.a - 1 + s.c**2), "does not give"),
        (lambda x: paint(x), "no `nn.Module`"),
    ],
)
def test_a_wrong_program_is_told_its_mistake(answer, words):
    says(programme(answer), "wrong", words)


def test_a_program_with_numbers_for_each_pixel_is_told_so():
    class Pixels(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.c = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.zeros(2, 2))

        def forward(self, x):
            return self.a * paint(x) + self.c

    says(programme(Pixels), "wrong", "8 numbers are trainable")


def test_a_program_with_gaps_is_open():
    class Gap(nn.Module):
        def __init__(self):
            super().__init__()

        def forward(self, x): ...

    says(programme(Gap), "open", "returns nothing yet")


# --- 04.2 -----------------------------------------------------------------------------------


def bound(answer, parameters=2, n=40, outputs=3):
    return check("04.2", answer, parameters=parameters, n=n, outputs=outputs)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (120, "order nC"),
        (40, "number of samples"),
        (6, "for each output"),
        (80, "for each sample"),
        (3, "number of outputs"),
        (7, "too large"),
        (1, "too small"),
        (2.5, "whole number"),
    ],
)
def test_a_wrong_bound_is_told_its_mistake(answer, words):
    says(bound(answer), "wrong", words)


def test_the_bound_is_the_smaller_of_both_sides():
    says(bound(2), "right", "118 of 120")
    says(bound(120, parameters=500), "right")
    says(bound(500, parameters=500), "wrong")


# --- 04.3 -----------------------------------------------------------------------------------

JACOBIAN = torch.randn(5, 3, 1, 2, 2, generator=torch.Generator().manual_seed(1))
A, B = (JACOBIAN * paint(X)[:, None]).flatten(2), JACOBIAN.flatten(2)


def both(first, second):
    return lambda painted, jacobian: torch.stack([first, second], 2)


def factor(answer):
    return check("04.3", answer, painted=paint(X), jacobian=JACOBIAN)


def test_the_factor_is_that_of_automatic_differentiation():
    weights = JACOBIAN.flatten(1)

    def outputs(a, c):
        u = a * paint(X) + c
        return (weights.view(5, 3, 4) * u.flatten(1)[:, None]).sum(2)  # a source linear in u

    at = (torch.tensor(1.0), torch.tensor(0.0))
    says(factor(both(*torch.autograd.functional.jacobian(outputs, at))), "right")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (both(A.mean(2), B.mean(2)), "mean over pixels"),
        (both(B.sum(2), B.sum(2)), "lacks the picture"),
        (both(A.sum(2), A.sum(2)), "has the picture in it"),
        (both(A, B), "has shape"),
        (lambda painted, jacobian: A.sum(2), "column of the brightness is missing"),
        (lambda painted, jacobian: B.sum(2), "column of the contrast is missing"),
        (
            lambda p, j: torch.stack([j * p[:, None], j], 2),
            "pixels are still apart",
        ),
        (lambda p, j: j @ p, "raised"),
        (torch.zeros(5, 3, 2), "function"),
    ],
)
def test_a_wrong_factor_is_told_its_mistake(answer, words):
    says(factor(answer), "wrong", words)


def test_the_order_of_the_columns_does_not_matter():
    says(factor(both(B.sum(2), A.sum(2))), "right")


# --- 04.4 -----------------------------------------------------------------------------------

GROUPS = [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
MEMBERS = torch.zeros(3, 10)
for row, group in enumerate(GROUPS):
    MEMBERS[row, list(group)] = 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (MEMBERS, "add the outputs"),
        (MEMBERS.T / 3, "transposed"),
        (MEMBERS[:, [0, 3, 6]], "shape (3, 3)"),
        (torch.eye(10)[[0, 3, 6]], "one output only"),
        (MEMBERS / 10, "number of source outputs"),
        (MEMBERS[[1, 0, 2]] / 3, "12 entries of 30"),
        (torch.zeros(3, 10), "zero everywhere"),
        (-MEMBERS / 3, "wrong sign"),
    ],
)
def test_a_wrong_mapping_is_told_its_mistake(answer, words):
    says(check("04.4", answer, groups=GROUPS, source_outputs=10), "wrong", words)


def test_the_mean_of_each_group_is_right():
    says(check("04.4", MEMBERS / 3, groups=GROUPS, source_outputs=10), "right", "1 source output ")
    library = mrviz.mappings.LogitAverage(GROUPS).matrix(10)
    says(check("04.4", library.numpy(), groups=GROUPS, source_outputs=10), "right")


# --- 04.5 -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep():
    """A border prompt whose count of parameters is enough before its kernel is resolved."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 2, bias=False), nn.Tanh())
    with torch.no_grad():
        weight = torch.zeros(2, 6, 6)
        weight[0, 0, 0], weight[1, 1, 1] = 1.0, 1.0  # each output sees one ring alone
        module[1].weight.copy_(weight.flatten(1))
    source = mrviz.SourceModel(module, (1, 6, 6))
    program = mrviz.programs.Border((1, 6, 6), (1, 2, 2))
    model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
    return mrviz.capacity_sweep(model, torch.rand(1, 1, 2, 2), dtype=torch.float64)


def test_the_smallest_capacity_with_every_eigenvalue_is_right(sweep):
    assert sweep.capacities == (1, 2) and [s.rank for s in sweep.spectra] == [1, 2]
    says(check("04.5", 2, sweep=sweep), "right")
    says(check("04.5", 1, sweep=sweep), "wrong", "count is enough", "1 of 2 eigenvalues")
    says(check("04.5", 3, sweep=sweep), "wrong", "not among the capacities")


def test_a_capacity_with_too_few_parameters_and_one_too_large_are_told_apart():
    source = mrviz.load_source("dnn", depth=2, width=32, input_size=8, seed=0, progress=False)
    target = mrviz.load_target("digits", n_train=10, n_test=10)
    program = mrviz.programs.Convolution((1, 8, 8), (1, 8, 8), size=5)
    model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity(1))
    sweep = mrviz.capacity_sweep(model, target.x_train, dtype=torch.float64, progress=False)
    full = [c for c, s in zip(sweep.capacities, sweep.spectra, strict=True) if s.rank == s.order]
    says(check("04.5", full[0], sweep=sweep), "right")
    says(check("04.5", 1, sweep=sweep), "wrong", "T1 fails")
    says(check("04.5", full[1], sweep=sweep), "wrong", "a smaller capacity")
