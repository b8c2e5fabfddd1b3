"""Checks of the exercises in notebooks/02-ntk-in-class."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mrviz.classroom.answers import Mistake, number, run, same, tensor, whole
from mrviz.classroom.exercises import exercise
from mrviz.spectrum import Spectrum
from mrviz.theory import stable_step


@exercise("02.1")
def two_points(answer: Any, *, a: float, b: float) -> str:
    """Θ(a, b) of f_θ(x) = θ₁x + θ₂x²: the inner product of (a, a²) and (b, b²).

    Args:
        answer: the number.
        a: the first point.
        b: the second point.
    """
    first = torch.tensor([a, a**2], dtype=torch.float64)
    second = torch.tensor([b, b**2], dtype=torch.float64)
    same(
        number(answer, "Θ"),
        first @ second,
        name="Θ",
        mistakes={
            "Only θ₁ counts in this answer: the gradient by θ₂ is x², and its product adds to "
            "it.": a * b,
            "Only θ₂ counts in this answer: the gradient by θ₁ is x, and its product adds to it.": a
            ** 2
            * b**2,
            f"This is Θ({a:g}, {a:g}): one of the two gradients belongs to x = {b:g}.": (
                first @ first
            ),
            f"This is Θ({b:g}, {b:g}): one of the two gradients belongs to x = {a:g}.": (
                second @ second
            ),
            "The entries of each gradient were added first. Multiply entry by entry, then add.": (
                first.sum() * second.sum()
            ),
            "This is the product of the lengths of the gradients. The inner product also knows "
            "the angle between them.": first.norm() * second.norm(),
        },
    )
    return "f is linear in θ, so its gradients (x, x²) are the same for every θ."


@exercise("02.2")
def row_index(answer: Callable[..., Any], *, n: int, outputs: int) -> str:
    """The row of output c of sample i, sample-major: iC + c.

    Args:
        answer: a function (i, c, n, C).
        n: number of samples.
        outputs: C.
    """
    if not callable(answer):
        raise Mistake("A function `row(i, c, n, C)` is asked for.")
    pairs = [(i, c) for i in range(n) for c in range(outputs)]
    found = torch.tensor(
        [whole(run(answer, i, c, n, outputs, name="`row`"), "The row") for i, c in pairs]
    )
    sample, output = torch.tensor(pairs).T
    same(
        found,
        sample * outputs + output,
        name="The rows",
        mistakes={
            "The rows are output-major: all samples of output 0 come first. Here all outputs of "
            "sample 0 come first.": output * n + sample,
            "Sample i was given n rows. It has one for each output, C of them.": (
                sample * n + output
            ),
            "The output was given C rows for each number. It is the sample that skips C rows.": (
                output * outputs + sample
            ),
            "One too many: samples and outputs are counted from zero, and so are rows.": (
                sample * outputs + output + 1
            ),
            "Sample i was counted from one: the rows before it are those of i samples.": (
                (sample - 1) * outputs + output
            ),
            "i + c is the same for many pairs. Each sample needs C rows of its own.": (
                sample + output
            ),
            "i·C is where the rows of sample i begin. Go on to output c.": sample * outputs,
        },
    )
    return f"Sample-major: the rows of a sample stand together, and the last is {n * outputs - 1}."


@exercise("02.3")
def shared_prompt(answer: Any, *, W: Tensor, n: int) -> str:
    """Θ = 11ᵀ ⊗ WWᵀ of a linear source with a shared additive prompt.

    Args:
        answer: the matrix.
        W: Jacobian of the source (C, d).
        n: number of samples.
    """
    w = W.double()
    outputs, inputs = w.shape
    block, ones = w @ w.T, torch.ones(n, n, dtype=torch.float64)
    shapes: dict[tuple[int, ...], str] = {
        (outputs, outputs): "This is one block, W Wᵀ. Θ has one for each pair of samples, n × n of "
        "them.",
        (inputs, inputs): "This is Wᵀ W, the inner products of the columns of W. Rows of the "
        "Jacobian are wanted: W Wᵀ.",
        (n * inputs, n * inputs): "Wᵀ W is in this answer. Rows of the Jacobian are wanted: W Wᵀ.",
        (n, n): "This matrix has a row for each sample. Θ has one for each output of each sample.",
        (n * outputs, inputs): "This is the Jacobian J. The kernel is J Jᵀ.",
    }
    wanted, shape = (n * outputs, n * outputs), tuple(getattr(answer, "shape", ()))
    if shape in shapes and shape != wanted:
        raise Mistake(shapes[shape])
    theta = tensor(answer, wanted, "Θ", ("rows", "rows"))
    eye = torch.eye(n, dtype=torch.float64)
    same(
        theta,
        torch.kron(ones, block),
        name="Θ",
        mistakes={
            "The rows are output-major: the factors of the Kronecker product are swapped. Sample "
            "i comes first, output c second.": torch.kron(block, ones),
            "The blocks of different samples are zero here, as if each sample had a prompt of its "
            "own. All share one δ.": torch.kron(eye, block),
            "Different outputs do not interact here. W has rows that are not orthogonal: the block "
            "is W Wᵀ.": torch.kron(ones, torch.eye(outputs, dtype=torch.float64)),
            "Only the diagonal of W Wᵀ is in this answer: outputs share δ as well.": (
                torch.kron(ones, block.diag().diag())
            ),
        },
    )
    return (
        "Every block is the same: δ moves all images alike. The non-zero eigenvalues are n times "
        f"the squared singular values of W, at most {min(outputs, inputs)} of them."
    )


@exercise("02.4")
def zero_eigenvalues(answer: Any, *, n: int, outputs: int, parameters: int) -> str:
    """At least nC − p eigenvalues are zero, as the rank is at most p.

    Args:
        answer: the number.
        n: number of samples.
        outputs: C.
        parameters: p.
    """
    rows = n * outputs
    rank = min(rows, parameters)
    mistakes: dict[str, float] = {
        f"{rank} is the largest rank, the number of eigenvalues that need not be zero. The "
        "others are asked for.": rank,
        f"{rows} is the number of all eigenvalues.": rows,
        "The number of samples was compared with p. The matrix has a row for each output of each "
        "sample.": abs(n - parameters),
        "p was counted for each output. All outputs share the same parameters.": max(
            0, rows - parameters * outputs
        ),
        f"{rows - outputs} zeros would mean that the rank is the number of outputs. That is so "
        "for a linear source, not for any source.": rows - outputs,
    }
    mistakes = {text: wrong for text, wrong in mistakes.items() if wrong != rows - rank}
    same(whole(answer, "The number"), rows - rank, name="The number", mistakes=mistakes)
    return (
        f"J is {rows} × {parameters}, so the rank is at most {rank}. There may be more zeros: "
        "parameters can be of no effect, or do the same."
    )


@exercise("02.5")
def largest_stable_step(answer: Any, *, spectrum: Spectrum, n: int, outputs: int) -> str:
    """The edge of stability for squared loss, 2n/λ_max.

    Args:
        answer: the step size.
        spectrum: of the Gram.
        n: number of samples.
        outputs: C.
    """
    top, edge = spectrum.largest, stable_step(spectrum.largest, n)
    mistakes = {
        "n is missing: the loss is a mean over samples, and its gradient has 1/n in it.": 2 / top,
        "The factor 2 is missing. At n/λ_max the first mode is learned in one step; a larger step "
        "overshoots, and is still stable up to twice that.": n / top,
        "n and the factor 2 are both missing.": 1 / top,
        "nC was used for n. The mean of this loss is over samples.": 2 * n * outputs / top,
        "This is 4n/λ_max, the bound for cross-entropy. The loss here is squared.": 4 * n / top,
        "The trace was used, the sum of all eigenvalues. One mode decides.": 2 * n / spectrum.trace,
        "This is the quotient upside down: large eigenvalues ask for small steps.": top / (2 * n),
    }
    wrong_end = "The smallest eigenvalue was used. The first to become unstable is the largest"
    mistakes[f"{wrong_end}."] = 2 * n / float(spectrum.eigenvalues[spectrum.rank - 1])
    if spectrum.smallest:
        mistakes[f"{wrong_end}; besides, this one is not resolved."] = 2 * n / spectrum.smallest
    same(number(answer, "The step"), edge, name="The step", tolerance=2e-3, mistakes=mistakes)
    return "Above it the first mode changes its sign at every step and grows."


@exercise("02.6")
def steps_of_a_mode(answer: Any, *, eigenvalue: float, n: int, lr: float) -> str:
    """Steps of gradient descent after which a mode's residual is at most 1 %.

    Args:
        answer: the number of steps.
        eigenvalue: λ of the mode.
        n: number of samples.
        lr: step size.
    """
    x, without_n = lr * eigenvalue / n, lr * eigenvalue
    left = abs(1 - x)
    right = _steps(0.01, left)
    mistakes: dict[str, float] = {
        "One too few: after so many steps a little more than 1 % is left. Round up.": right - 1,
        "Here the loss of the mode is at 1 %, the square of the residual. The residual is still at "
        "10 %.": _steps(0.1, left),
        "This is gradient flow, exp(−ηλs/n). Gradient descent leaves (1 − ηλ/n)^s.": (
            _steps(0.01, math.exp(-x))
        ),
        "Two kinds of logarithm are mixed: use the same for 0.01 and for 1 − ηλ/n.": (
            math.ceil(math.log10(0.01) / math.log(left))
        ),
        "The division by n is missing in 1 − ηλ/n.": _steps(0.01, abs(1 - without_n)),
        "The division by n is missing, and this is gradient flow, exp(−ηλs/n).": (
            _steps(0.01, math.exp(-without_n))
        ),
        "This is n/(ηλ), the time in which a mode shrinks to about a third.": math.ceil(1 / x),
    }
    mistakes = {text: wrong for text, wrong in mistakes.items() if wrong != right}
    same(whole(answer, "The number of steps"), right, name="The number of steps", mistakes=mistakes)
    return f"|1 − ηλ/n| is {left:.4f}, and {left:.4f}^{right:.0f} = {left**right:.4f}."


@exercise("02.7")
def mean_eigenvalue(
    answer: Callable[..., Any], *, kernel: Tensor, true: Tensor, shuffled: Tensor
) -> str:
    """rᵀΘr / ‖r‖² of two residuals.

    Args:
        answer: a function (theta, r).
        kernel: Θ (nC, nC).
        true: a residual (n, C).
        shuffled: another.
    """
    if not callable(answer):
        raise Mistake("A function `speed(theta, r)` is asked for.")
    theta = kernel.double()
    speeds = []
    for r in (true.double(), shuffled.double()):
        v = r.flatten()
        product, size = theta @ v, v @ v
        swapped = r.T.flatten()
        found = number(run(answer, theta, r, name="`speed`"), "The speed")
        right = v @ product / size
        same(
            found,
            right,
            name="The speed",
            mistakes={
                "The division by Σ c_k² is missing: twice the residual would be learned faster.": (
                    v @ product
                ),
                "Divide by ‖r‖², the sum of c_k², not by ‖r‖.": v @ product / size.sqrt(),
                "This is the mean of all eigenvalues. The residual weighs them.": theta.trace()
                / len(v),
                "Θ was applied twice: rᵀΘr has one of it.": product @ product / size,
                "This is ‖Θr‖/‖r‖, the length of Θr. Take its inner product with r.": (
                    product.norm() / size.sqrt()
                ),
                "The residual was flattened output by output. Rows are sample-major: "
                "`r.flatten()`.": swapped @ theta @ swapped / size,
                "This is the quotient upside down.": size / (v @ product),
                "Σ c_k² is ‖r‖² and not the number of entries.": v @ product / len(v),
            },
        )
        speeds.append(float(right))
    fast, slow = speeds
    return (
        f"The true labels see a mean eigenvalue of {fast:.3g}, the shuffled ones of {slow:.3g}: "
        f"the loss of the {'true' if fast > slow else 'shuffled'} labels falls faster at the start."
    )


def _steps(share: float, left: float) -> float:
    """Steps until a share is left, where each leaves so much of it; NaN where there are none."""
    return math.ceil(math.log(share) / math.log(left)) if 0 < left < 1 else math.nan
