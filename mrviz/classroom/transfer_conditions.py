"""Checks of the exercises in notebooks/03-transfer-conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mrviz.classroom.answers import (
    Mistake,
    Unanswered,
    choice,
    is_gap,
    number,
    run,
    same,
    whole,
)
from mrviz.classroom.exercises import exercise
from mrviz.ntk import Gram
from mrviz.programs import Border
from mrviz.programs.fit import Fit
from mrviz.spectrum import Spectrum, spectrum
from mrviz.theory import Conditions, Prediction, Thresholds, proposition_gap, remaining
from mrviz.theory.indicators import trainability
from mrviz.theory.statistics import wilson_interval

STATUSES = ("holds", "fails", "undecided")


@exercise("03.1")
def frame_width(answer: Any, *, channels: int, side: int, image: int, n: int, outputs: int) -> str:
    """The smallest trainable frame width at which a border prompt has p ≥ nC parameters.

    Args:
        answer: the width in pixels.
        channels: of the source's input.
        side: height and width of the source's input.
        image: height and width of the target's image in its middle.
        n: number of samples.
        outputs: C.
    """
    width, rows = whole(answer, "The width"), n * outputs
    prompt = Border((channels, side, side), (1, image, image))
    low, high = prompt.capacity_range or (1, 1)

    def smallest(count: Callable[[int], float], needed: int = rows) -> int:
        return next((w for w in range(low, high + 1) if count(w) >= needed), high + 1)

    right = smallest(prompt.parameters_at)
    if right > high:
        raise Unanswered(f"No frame here has nC = {rows:,} parameters: take fewer samples.")
    if not low <= width <= high:
        raise Mistake(
            f"The frame around an image of {image}×{image} on a canvas of {side}×{side} is "
            f"between {low} and {high} pixels wide."
        )
    mistakes = {
        f"{width} would be right if each pixel had one value. It has {channels}, one for each "
        "channel.": smallest(lambda w: prompt.parameters_at(w) / channels),
        f"At width {width} the frame has p = {prompt.parameters_at(width):,} parameters, enough "
        f"for n = {n} but not for the nC = {rows:,} residuals. (The canvas has more pixels, but "
        "only those of the frame are trainable.)": smallest(prompt.parameters_at, n),
        f"{width} would be right for side² − (side − w)² pixels. The frame is on both sides: what "
        "stays inside has side − 2w.": smallest(lambda w: channels * (side**2 - (side - w) ** 2)),
        f"{width} would be right for 4 · side · w pixels. That counts each corner twice.": smallest(
            lambda w: channels * 4 * side * w
        ),
    }
    same(
        width,
        right,
        name=f"At width {width} the frame has p = {prompt.parameters_at(width):,} parameters for "
        f"nC = {rows:,} residuals; the width",
        mistakes={text: wrong for text, wrong in mistakes.items() if wrong != right},
        tolerance=0.0,
    )
    return (
        f"p = {channels} · ({side}² − {side - 2 * right}²) = {prompt.parameters_at(right):,}, at "
        f"least nC = {rows:,}; one pixel less gives {prompt.parameters_at(right - 1):,}. That T1 "
        "holds does not say yet that T2 does."
    )


@exercise("03.2")
def trainability_statuses(answer: Any, *, grams: Mapping[str, Gram]) -> str:
    """The status of T2 for some kernels: "holds", "fails" or "undecided".

    Args:
        answer: a status for each name.
        grams: kernels by name.
    """
    given = _given(answer, tuple(grams))
    for name, status in given.items():
        gram = grams[name]
        spec = spectrum(gram, eigenvectors=False)
        right = trainability(gram, spec).status
        others = {s: _status_mistake(s, gram, spec) for s in STATUSES if s != right}
        choice(status, right, {s: f"{name}: {why}" for s, why in others.items()}, name)
    _complete(given, tuple(grams))
    return "No number below a noise floor was taken for an eigenvalue."


def _status_mistake(status: str, gram: Gram, spec: Spectrum) -> str:
    """What is wrong with a status of T2."""
    p, rows = gram.info.n_parameters, gram.n * gram.outputs
    if p < rows:
        return (
            f"with p = {p} < nC = {rows} the kernel is exactly singular, whatever the precision: "
            "T2 is decided."
        )
    if spec.full_rank and gram.reduce == "full":
        return (
            f"all {spec.order} eigenvalues of the full kernel are above the floor "
            f"{spec.floor:.2g}. That is what T2 asks for, however small λ_min is against λ_max."
        )
    if spec.full_rank:
        return (
            f"this is the {gram.reduce} kernel. Its λ_min bounds that of the full kernel from "
            "above: it can refute T2, never establish it."
        )
    if status == "holds":
        return (
            f"{spec.order - spec.rank} eigenvalues are below the noise floor {spec.floor:.2g}. "
            "What was computed there is no number above zero: it may be round-off."
        )
    if status == "fails":
        return (
            f"in float32 an eigenvalue below {spec.floor:.2g} may be zero or not. Float64 could "
            "still tell."
        )
    return (
        f"{spec.order - spec.rank} eigenvalues are not told from zero in float64: numerically the "
        "kernel is singular, and T2 fails."
    )


@exercise("03.3")
def schur_bound(
    answer: Callable[[Tensor, Tensor], Any], *, gamma: Tensor, phi: Tensor, kernel: Spectrum
) -> str:
    """λ_min(Γ) min_i (‖φ_i‖² + 1), the lower bound of T3.

    Args:
        answer: a function of Γ and φ.
        gamma: Γ, (nC, nC).
        phi: φ, flattened target inputs (n, d_T).
        kernel: spectrum of the linear program's kernel.
    """
    _asked_for_a_function(answer, "schur(gamma, phi)")
    gamma, phi = gamma.double(), phi.double()
    bound = number(run(answer, gamma.clone(), phi.clone(), name="`schur`"), "The bound")
    values, squares = torch.linalg.eigvalsh(gamma), phi.square().sum(1)
    low, high = values[0], values[-1]
    mistakes = {
        "The + 1 of the bias β is missing: the program's scalar kernel is φ_i·φ_j + 1.": (
            low * squares.min()
        ),
        "The largest ‖φ_i‖² + 1 was taken. A lower bound needs the smallest.": (
            low * (squares.max() + 1)
        ),
        "The mean of ‖φ_i‖² + 1 was taken. A lower bound needs the smallest.": (
            low * (squares.mean() + 1)
        ),
        "‖φ_i‖ was not squared.": low * (squares.sqrt().min() + 1),
        "λ_max(Γ) was taken. The bound has the smallest eigenvalue of Γ.": (
            high * (squares.min() + 1)
        ),
        "That is λ_min(Γ) alone: the program's factor min(‖φ_i‖² + 1) is missing.": low,
        "That is the program's factor alone: λ_min(Γ) is missing.": squares.min() + 1,
        "That is λ_min of Θ itself, which the bound is to be compared with.": kernel.smallest,
    }
    same(bound, low * (squares.min() + 1), name="The bound", mistakes=mistakes)
    return (
        f"{bound:.3g} ≤ λ_min(Θ) = {kernel.describe_smallest()}: the source's Jacobians and the "
        "size of the images guarantee it, without the kernel of the program."
    )


@exercise("03.4")
def share_left(
    answer: Callable[[Tensor, Tensor, int], Any],
    *,
    kernels: Mapping[str, tuple[Spectrum, Tensor]],
    steps: int,
) -> str:
    """Share of the squared residual that gradient descent leaves after S steps of n/λ_max.

    Args:
        answer: a function of eigenvalues, energies and steps.
        kernels: spectrum and residual energy of each kernel, by name.
        steps: S.
    """
    _asked_for_a_function(answer, "left(eigenvalues, energy, steps)")
    shares = {}
    for name, (spec, energy) in kernels.items():
        values, energy = spec.eigenvalues.clamp_min(0), energy.double()
        given = number(
            run(answer, values.clone(), energy.clone(), steps, name="`left`"), "The share"
        )
        ratio = values / spec.largest

        def of(rest: Tensor, power: int = 2 * steps, weights: Tensor = energy) -> Tensor:
            return (weights * rest**power).sum() / weights.sum()

        right = remaining(values, torch.tensor([steps]), n=1, lr=1 / spec.largest)[0]
        mistakes = {
            "That is the residual left, weighted by the energies. The loss has its square: the "
            "exponent is 2S.": of(1 - ratio, steps),
            "That is the share that was learned. Asked for is what is left.": 1 - of(1 - ratio),
            "The step was the largest stable one, 2n/λ_max. Here it is half of it, n/λ_max.": of(
                1 - 2 * ratio
            ),
            "That is gradient flow, exp(−2Sλ/λ_max). Gradient descent multiplies by "
            "(1 − λ/λ_max) in each step.": of(torch.exp(-ratio)),
            "Only λ_min was used. Each mode has its own speed, and its own share of the "
            "residual.": of(1 - ratio[-1:].expand_as(ratio)),
            "The energies are not used: that is the mean over the modes.": of(
                1 - ratio, weights=torch.ones_like(energy)
            ),
            "The shares were squared. They are energies, c_k², already.": of(
                1 - ratio, weights=energy.square()
            ),
        }
        expected = right.square() @ energy / energy.sum()
        same(given, expected, name=f"The share for {name!r}", mistakes=mistakes, tolerance=1e-6)
        shares[name] = given
    said = "; ".join(
        f"{name}: {shares[name]:.1%} left, λ_min {kernels[name][0].describe_smallest()}"
        for name in sorted(shares, key=lambda name: shares[name])
    )
    return (
        f"{said}. Within {steps} steps it counts where the residual lies, and how λ_k compares "
        "with λ_max."
    )


@exercise("03.5")
def proposition_1_gap(answer: Callable[[Tensor, int, int], Any], *, gram: Gram) -> str:
    """The Proposition-1 gap: distance of two spectra, relative to the norm of the first.

    Args:
        answer: a function of Θ, n and C.
        gram: the full kernel.
    """
    _asked_for_a_function(answer, "gap(theta, n, C)")
    theta, n, c = gram.matrix.double(), gram.n, gram.outputs
    given = number(run(answer, theta.clone(), n, c, name="`gap`"), "The gap")
    values = torch.linalg.eigvalsh(theta).flip(0)
    trace = gram.mean_over_outputs()
    single = torch.linalg.eigvalsh(trace).flip(0)
    swapped = torch.linalg.eigvalsh(theta.view(c, n, c, n).diagonal(dim1=0, dim2=2).mean(2)).flip(0)
    repeated = single.repeat_interleave(c)

    def relative(other: Tensor, scale: Tensor = values) -> Tensor:
        return (values - other).norm() / scale.norm()

    mistakes = {
        "That is the distance of the matrices, Θ and Θ̄ ⊗ I. Asked for is that of their sorted "
        "spectra, which is never larger.": (
            (theta - torch.kron(trace, torch.eye(c, dtype=theta.dtype))).norm() / theta.norm()
        ),
        "Θ̄ is the mean over outputs: divide the sum of the C blocks by C.": relative(c * repeated),
        "The distance was not divided by ‖λ(Θ)‖.": (values - repeated).norm(),
        "The distance was squared: take the root.": relative(repeated).square(),
        "The distance was divided by the norm of the other spectrum.": relative(repeated, repeated),
        "The spectra are not sorted alike: each eigenvalue of Θ̄ is repeated C times in a row.": (
            relative(single.repeat(c))
        ),
        "Rows are sample-major: row iC + c is output c of sample i. Θ was read as if outputs came "
        "first.": relative(swapped.repeat_interleave(c)),
        "The eigenvalues of Θ̄ must be repeated C times. Without that the smaller ones of Θ have no "
        "partner.": relative(torch.cat([single, single.new_zeros(len(values) - n)])),
    }
    expected = proposition_gap(gram, spectrum(gram))
    same(given, expected, name="The gap", mistakes=mistakes)
    return (
        f"{given:.3g}: in the wide limit of Proposition 1 it is zero. Here outputs have different "
        "kernels, or see each other."
    )


@exercise("03.6")
def green_lights(
    answer: Any,
    *,
    frame: Spectrum,
    slow: Fit,
    linear: Conditions,
    prediction: Prediction,
    fit: Fit,
) -> str:
    """Which green lights were earned: what they seem to promise was then measured.

    Args:
        answer: "earned" or "unearned" for "T1", "T2", "T3" and "T7".
        frame: T1: spectrum of a border prompt with p ≥ nC; the promise is λ_min > 0.
        slow: T2: training of a model for which it holds; the promise is that the training loss
            falls below the ε of T4.
        linear: T3: conditions of a linear program for which it holds; the promise is T2.
        prediction: T7: the prediction; the promise is an accuracy in its 95 % interval.
        fit: T7: the training that was predicted.
    """
    fraction = slow.train_loss[-1] / slow.train_loss[0]
    epsilon = Thresholds().loss_fraction
    settings = fit.settings
    measured = fit.test_accuracy[-1]
    if measured is None or prediction.accuracy is None:
        raise Unanswered("T7 needs a target with class labels.")
    n_test = int(settings["n_test"])
    low, high = wilson_interval(round(prediction.accuracy * n_test), n_test)
    found = {
        "T1": (
            frame.full_rank,
            f"{frame.rank} of {frame.order} eigenvalues are above the floor. p ≥ nC is "
            + (
                "borne out here." if frame.full_rank else "necessary for λ_min > 0, not sufficient."
            ),
        ),
        "T2": (
            fraction <= epsilon,
            f"the training loss is at {fraction:.0%} of its start after {slow.steps[-1]} steps. "
            "λ_min > 0 says that it will reach zero for the linearised model, not how soon.",
        ),
        "T3": (
            linear["T2"].status == "holds",
            f"T2 {linear['T2'].status} ({linear['T2'].why}). The bound is a theorem: where it is "
            "above the floor, λ_min is.",
        ),
        "T7": (
            low <= measured <= high,
            f"predicted {low:.0%} to {high:.0%}, measured {measured:.0%}.",
        ),
    }
    given = _given(answer, tuple(found))
    for name, word in given.items():
        earned, why = found[name]
        right, other = ("earned", "unearned") if earned else ("unearned", "earned")
        choice(word, right, {other: f"{name}: look at what was measured: {why}"}, name)
    _complete(given, tuple(found))
    return " ".join(f"{name}: {why}" for name, (_, why) in found.items())


def _given(answer: Any, names: Sequence[str]) -> dict[str, Any]:
    """The entries of a dictionary with known names that are no gaps."""
    if not isinstance(answer, Mapping):
        raise Mistake(f"A dictionary with the keys {', '.join(names)} is asked for.")
    if unknown := [str(key) for key in answer if key not in names]:
        raise Mistake(f"There is no {', '.join(unknown)}; the keys are {', '.join(names)}.")
    given = {name: answer[name] for name in names if not is_gap(answer.get(name))}
    if not given:
        raise Unanswered
    return given


def _complete(given: Mapping[str, Any], names: Sequence[str]) -> None:
    """Says which names have no entry yet."""
    if missing := [name for name in names if name not in given]:
        raise Unanswered(f"Right so far; {', '.join(missing)} still missing.")


def _asked_for_a_function(answer: Any, form: str) -> None:
    if not callable(answer):
        raise Mistake(f"A function `{form}` is asked for.")
