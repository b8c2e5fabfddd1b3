"""Notebook 02: typical wrong answers are told what is wrong; right ones pass in any form."""

import math

import numpy as np
import pytest
import torch

import mrviz
from mrviz.classroom import check
from mrviz.theory import remaining, residual_energy, simulate, steps_to


def says(verdict, outcome, *words):
    assert verdict.outcome == outcome, verdict
    assert all(word in verdict.message for word in words), verdict


# --- 02.1 -----------------------------------------------------------------------------------


def two(answer):
    return check("02.1", answer, a=2.0, b=3.0)


@pytest.mark.parametrize("answer", [42, 42.0, torch.tensor([42.0]), np.float32(42)])
def test_the_kernel_of_two_points_is_right(answer):
    says(two(answer), "right", "same for every θ")


def test_the_kernel_of_two_points_is_that_of_automatic_differentiation():
    def f(theta, x):
        return theta[0] * x + theta[1] * x**2

    gradient = torch.func.grad(f)
    theta = torch.tensor([0.3, -1.2])
    says(two(gradient(theta, 2.0) @ gradient(theta, 3.0)), "right")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (6, "Only θ₁"),
        (36, "Only θ₂"),
        (20, "Θ(2, 2)"),
        (90, "Θ(3, 3)"),
        (72, "added first"),
        (math.sqrt(20 * 90), "the angle"),
        ([6, 36], "a single number"),
        (41, "too small"),
    ],
)
def test_a_wrong_kernel_of_two_points_is_told_its_mistake(answer, words):
    says(two(answer), "wrong", words)


# --- 02.2 -----------------------------------------------------------------------------------


def rows(answer):
    return check("02.2", answer, n=7, outputs=4)


@pytest.mark.parametrize(
    "answer",
    [
        lambda i, c, n, C: i * C + c,
        lambda i, c, n, C: float(c + C * i),
        lambda i, c, n, C: torch.arange(n * C).view(n, C)[i, c],
        lambda i, c, n, C: np.ravel_multi_index((i, c), (n, C)),
    ],
)
def test_a_right_row_passes(answer):
    says(rows(answer), "right", "the last is 27")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda i, c, n, C: c * n + i, "output-major"),
        (lambda i, c, n, C: i * n + c, "given n rows"),
        (lambda i, c, n, C: c * C + i, "It is the sample"),
        (lambda i, c, n, C: i * C + c + 1, "counted from zero"),
        (lambda i, c, n, C: (i - 1) * C + c, "counted from one"),
        (lambda i, c, n, C: i + c, "the same for many pairs"),
        (lambda i, c, n, C: i * C, "Go on to output c"),
        (lambda i, c, n, C: i * C + c + (i == 3), "4 entries of 28"),
        (lambda i, c, n, C: (i, c), "a single number"),
        (lambda i, c, n, C: i * C + c + 0.5, "whole number"),
        (lambda i, c: i, "TypeError"),
        (7, "function"),
    ],
)
def test_a_wrong_row_is_told_its_mistake(answer, words):
    says(rows(answer), "wrong", words)


def test_a_function_that_returns_nothing_is_open():
    says(rows(lambda i, c, n, C: None), "open", "returns nothing yet")


# --- 02.3 -----------------------------------------------------------------------------------

W = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
N = 4
ONES, EYE, BLOCK = torch.ones(N, N), torch.eye(N), W @ W.T


def prompt(answer):
    return check("02.3", answer, W=W, n=N)


@pytest.mark.parametrize(
    "answer",
    [
        torch.kron(ONES, BLOCK),
        BLOCK.repeat(N, N).numpy(),
        torch.cat([W] * N) @ torch.cat([W] * N).T,
    ],
)
def test_a_right_kernel_of_a_shared_prompt_passes(answer):
    says(prompt(answer), "right", "at most 3")


def test_the_kernel_of_a_shared_prompt_is_that_of_the_library():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    source = mrviz.SourceModel(module, (1, 4, 4))
    program = mrviz.programs.Overlay((1, 4, 4), (1, 2, 2))
    model = mrviz.ReprogrammedModel(source, program, mrviz.mappings.Identity())
    x = torch.rand(N, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    gram = mrviz.ntk_gram(model, x, dtype=torch.float64, progress=False)
    jacobian = mrviz.ntk.source_jacobian(source, model.b, model.programmed(x).detach())
    says(check("02.3", gram.matrix, W=jacobian[0].flatten(1), n=N), "right")


def test_a_shape_that_two_matrices_share_is_no_mistake():
    w = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))  # d = nC
    says(check("02.3", torch.kron(ONES, w @ w.T), W=w, n=N), "right")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (torch.kron(BLOCK, ONES), "output-major"),
        (torch.kron(EYE, BLOCK), "prompt of its own"),
        (torch.kron(ONES, torch.eye(3)), "do not interact"),
        (torch.kron(ONES, BLOCK.diag().diag()), "Only the diagonal"),
        (BLOCK, "one block"),
        (W.T @ W, "Wᵀ W"),
        (torch.kron(ONES, W.T @ W).numpy(), "Wᵀ W is in this answer"),
        (ONES, "a row for each sample"),
        (torch.cat([W] * N), "Jacobian J"),
        (torch.kron(ONES, BLOCK) / N, "0.25 times"),
        (torch.zeros(7, 7), "shape (7, 7)"),
    ],
)
def test_a_wrong_kernel_of_a_shared_prompt_is_told_its_mistake(answer, words):
    says(prompt(answer), "wrong", words)


# --- 02.4 -----------------------------------------------------------------------------------


def zeros(answer, parameters=256):
    return check("02.4", answer, n=40, outputs=10, parameters=parameters)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (256, "largest rank"),
        (400, "all eigenvalues"),
        (216, "number of samples"),
        (0, "for each output"),
        (390, "linear source"),
        (143, "too small"),
        (145, "too large"),
        (1.5, "whole number"),
    ],
)
def test_a_wrong_count_of_zeros_is_told_its_mistake(answer, words):
    says(zeros(answer), "wrong", words)


def test_the_count_of_zeros_follows_from_the_shorter_side():
    says(zeros(144), "right", "400 × 256")
    says(zeros(0, parameters=500), "right")
    says(zeros(100, parameters=500), "wrong")


# --- 02.5 to 02.7: a small model ------------------------------------------------------------


@pytest.fixture(scope="module")
def task():
    source = mrviz.load_source("dnn", depth=2, width=32, input_size=8, seed=0, progress=False)
    target = mrviz.load_target("digits", n_train=12, n_test=10, seed=0)
    model = mrviz.reprogram(source, target, program="overlay", mapping="identity")
    gram = mrviz.ntk_gram(model, target.x_train, progress=False)
    return gram, mrviz.spectrum(gram), target.targets_of(target.y_train)


def step(answer, spectrum):
    return check("02.5", answer, spectrum=spectrum, n=12, outputs=10)


def test_the_largest_stable_step_is_where_training_changes(task):
    gram, spectrum, labels = task
    edge = 24 / spectrum.largest
    for answer in (edge, np.float32(edge), torch.tensor([edge]), round(edge, 6)):
        says(step(answer, spectrum), "right")
    start = torch.zeros_like(labels)
    for factor, grows in ((0.95, False), (1.05, True)):
        path = simulate(
            gram.matrix,
            start,
            labels,
            loss="squared",
            lr=factor * edge,
            steps=200,
            progress=False,
        )
        left = (labels - path.outputs[-1]).norm() / labels.norm()
        assert bool(left > 1) is grows


def test_a_wrong_step_is_told_its_mistake(task):
    _, spectrum, _ = task
    top = spectrum.largest
    smallest = float(spectrum.eigenvalues[spectrum.rank - 1])
    for answer, words in (
        (2 / top, "n is missing"),
        (12 / top, "factor 2 is missing"),
        (1 / top, "both missing"),
        (24 / smallest, "is the largest."),
        (240 / top, "nC was used"),
        (48 / top, "cross-entropy"),
        (24 / spectrum.trace, "trace"),
        (top / 24, "upside down"),
        (30 / top, "too large"),
        (20 / top, "too small"),
        (float("inf"), "finite"),
    ):
        says(step(answer, spectrum), "wrong", words)


def test_an_eigenvalue_that_is_not_resolved_is_called_so():
    spectrum = mrviz.spectrum(torch.diag(torch.tensor([5.0, 1.0, 1e-9])), epsilon=2**-24)
    assert not spectrum.full_rank
    says(check("02.5", 2e9, spectrum=spectrum, n=1, outputs=3), "wrong", "is not resolved")
    says(check("02.5", 2.0, spectrum=spectrum, n=1, outputs=3), "wrong", "is the largest.")
    says(check("02.5", 0.4, spectrum=spectrum, n=1, outputs=3), "right")


X = 0.05  # ηλ/n of the mode in exercise 02.6


def steps(answer):
    return check("02.6", answer, eigenvalue=10.0, n=40, lr=0.2)


def test_the_number_of_steps_is_the_first_that_is_enough():
    eigenvalues, energy = torch.tensor([10.0]), torch.ones(1)
    right = steps_to(eigenvalues, energy, 0.01**2, n=40, lr=0.2)
    left = remaining(eigenvalues, torch.tensor([right - 1, right]), n=40, lr=0.2)
    assert left[0] > 0.01 >= left[1]
    for answer in (right, float(right), torch.tensor(right), np.array([right])):
        says(steps(answer), "right", "0.9500")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (math.floor(math.log(0.01) / math.log(1 - X)), "Round up"),
        (math.log(0.01) / math.log(1 - X), "whole number"),
        (math.ceil(math.log(0.1) / math.log(1 - X)), "square of the residual"),
        (math.ceil(math.log(100) / X), "gradient flow"),
        (math.ceil(math.log10(0.01) / math.log(1 - X)), "logarithm"),
        (math.ceil(math.log(100) / 2), "by n is missing"),
        (20, "about a third"),
        (500, "too large"),
        (2, "too small"),
    ],
)
def test_a_wrong_number_of_steps_is_told_its_mistake(answer, words):
    says(steps(answer), "wrong", words)


def test_steps_without_the_division_by_n_are_told_so():
    answer = math.ceil(abs(math.log(0.01) / math.log(abs(1 - 1.5))))
    verdict = check("02.6", answer, eigenvalue=5.0, n=40, lr=0.3)
    says(verdict, "wrong", "by n is missing in 1 − ηλ/n")


def test_the_mean_eigenvalue_is_that_of_the_modes(task):
    gram, spectrum, labels = task
    energy = residual_energy(gram, spectrum, labels)
    expected = float(spectrum.eigenvalues @ energy)
    assert expected == pytest.approx(float(by_product(gram.matrix, labels)))


def by_product(theta, r):
    return r.flatten() @ theta @ r.flatten() / r.square().sum()


def by_modes(theta, r):
    values, vectors = torch.linalg.eigh(theta)
    c = vectors.T @ r.flatten()
    return (values * c**2).sum() / (c**2).sum()


def speed(answer, task):
    gram, _, labels = task
    true = labels - labels.mean(0)
    shuffled = true[torch.randperm(len(true), generator=torch.Generator().manual_seed(0))]
    return check("02.7", answer, kernel=gram.matrix, true=true, shuffled=shuffled)


@pytest.mark.parametrize(
    "answer", [by_product, by_modes, lambda t, r: by_product(t, r).numpy().reshape(1, 1)]
)
def test_a_right_mean_eigenvalue_passes(answer, task):
    says(speed(answer, task), "right", "falls faster")


def test_the_faster_residual_is_named():
    theta = torch.diag(torch.tensor([3.0, 3.0, 1.0, 1.0]))
    first, second = torch.tensor([[1.0, 1.0], [0, 0]]), torch.tensor([[0, 0], [1.0, 1.0]])
    given = {"kernel": theta, "true": first, "shuffled": second}
    says(check("02.7", by_product, **given), "right", "of 3,", "of 1:", "of the true")
    given |= {"true": second, "shuffled": first}
    says(check("02.7", by_product, **given), "right", "of the shuffled")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda t, r: r.flatten() @ t @ r.flatten(), "division by Σ c_k²"),
        (lambda t, r: r.flatten() @ t @ r.flatten() / r.norm(), "not by ‖r‖"),
        (lambda t, r: t.trace() / len(t), "mean of all eigenvalues"),
        (lambda t, r: (t @ r.flatten()).square().sum() / r.square().sum(), "applied twice"),
        (lambda t, r: (t @ r.flatten()).norm() / r.norm(), "length of Θr"),
        (lambda t, r: by_product(t, r.T), "output by output"),
        (lambda t, r: r.square().sum() / (r.flatten() @ t @ r.flatten()), "upside down"),
        (lambda t, r: r.flatten() @ t @ r.flatten() / r.numel(), "number of entries"),
        (lambda t, r: by_product(t, r) + 1, "too large"),
        (lambda t, r: r @ t @ r, "raised RuntimeError"),
        (lambda t, r: t @ r.flatten(), "a single number"),
        (3.0, "function"),
    ],
)
def test_a_wrong_mean_eigenvalue_is_told_its_mistake(answer, words, task):
    says(speed(answer, task), "wrong", words)
