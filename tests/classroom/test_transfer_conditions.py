"""Notebook 03: typical wrong answers are told what is wrong; right ones pass in any form."""

from dataclasses import replace

import pytest
import torch

import mrviz
from mrviz.classroom import check
from mrviz.theory import remaining, residual_energy, training_residual

DOUBLE = torch.float64


def says(verdict, outcome, *words):
    assert verdict.outcome == outcome, verdict
    assert all(word in verdict.message for word in words), verdict


# --- 03.1 -----------------------------------------------------------------------------------


def width(answer, channels=3, side=64, image=28, n=300, outputs=10):
    given = {"channels": channels, "side": side, "image": image, "n": n, "outputs": outputs}
    return check("03.1", answer, **given)


@pytest.mark.parametrize("answer", [5, 5.0, torch.tensor(5)])
def test_the_smallest_sufficient_frame_is_right(answer):
    says(width(answer), "right", "3,540", "2,880")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (16, "one for each channel"),
        (1, "enough for n = 300 but not for the nC = 3,000"),
        (9, "on both sides"),
        (4, "counts each corner twice"),
        (7, "too large"),
        (3, "too small"),
        (0, "between 1 and 18"),
        (19, "between 1 and 18"),
        (4.5, "whole number"),
    ],
)
def test_a_wrong_width_is_told_its_mistake(answer, words):
    says(width(answer), "wrong", words)


@pytest.mark.parametrize(("channels", "side", "image", "n"), [(1, 20, 10, 20), (3, 32, 8, 90)])
def test_the_width_is_that_of_the_program(channels, side, image, n):
    smallest = next(
        w
        for w in range(1, side)
        if mrviz.programs.Border((channels, side, side), (1, image, image), width=w).n_parameters
        >= 10 * n
    )
    says(width(smallest, channels, side, image, n), "right")
    says(width(smallest + 1, channels, side, image, n), "wrong")


def test_a_frame_that_is_never_enough_is_no_mistake():
    says(width(3, channels=1, side=20, image=10, n=40), "open", "take fewer samples")


# --- 03.2 -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def target():
    return mrviz.load_target("digits", n_train=10, n_test=20, seed=0)


@pytest.fixture(scope="module")
def source():
    return mrviz.load_source("cnn", depth=2, width=8, input_size=20, seed=0, progress=False)


def model(source, target, program, **options):
    options |= {"image_size": 10} if program == "border" else {}
    return mrviz.reprogram(source, target, program=program, mapping="identity", **options)


@pytest.fixture(scope="module")
def grams(source, target):
    def gram(program, width=None, **options):
        chosen = {} if width is None else {"width": width}
        made = model(source, target, program, **chosen)
        return mrviz.ntk_gram(made, target.x_train, progress=False, **options)

    return {
        "few": gram("border", 1, dtype=DOUBLE),
        "blind": gram("border", 2, dtype=DOUBLE),
        "single": gram("border", 2, dtype=torch.float32),
        "trace": gram("border", 5, dtype=DOUBLE, reduce="trace"),
        "linear": gram("linear", dtype=DOUBLE),
    }


STATUSES = {
    "few": "fails",
    "blind": "fails",
    "single": "undecided",
    "trace": "undecided",
    "linear": "holds",
}


def test_the_kernels_are_the_cases_they_stand_for(grams):
    spectra = {name: mrviz.spectrum(gram) for name, gram in grams.items()}
    assert grams["few"].info.n_parameters < 100 <= grams["blind"].info.n_parameters
    assert spectra["blind"].rank < 100 and spectra["single"].rank < 100
    assert spectra["trace"].full_rank and spectra["linear"].full_rank


def test_the_statuses_of_the_conditions_are_right(source, target, grams):
    says(check("03.2", STATUSES, grams=grams), "right")
    loud = {name: f" {status.upper()} " for name, status in STATUSES.items()}
    says(check("03.2", loud, grams=grams), "right")
    conditions = mrviz.transfer_conditions(
        model(source, target, "linear"), target, gram=grams["linear"], progress=False
    )
    assert conditions["T2"].status == STATUSES["linear"]


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("few", "holds", "exactly singular"),
        ("few", "undecided", "whatever the precision"),
        ("blind", "holds", "no number above zero"),
        ("blind", "undecided", "in float64"),
        ("single", "holds", "below the noise floor"),
        ("single", "fails", "Float64 could still tell"),
        ("trace", "holds", "never establish it"),
        ("trace", "fails", "bounds that of the full kernel from above"),
        ("linear", "undecided", "That is what T2 asks for"),
        ("linear", "fails", "above the floor"),
        ("linear", "maybe", "one of 'fails', 'holds', 'undecided'"),
        ("linear", True, "one of 'fails', 'holds', 'undecided'"),
    ],
)
def test_a_wrong_status_is_told_its_mistake(grams, name, status, words):
    says(check("03.2", {**STATUSES, name: status}, grams=grams), "wrong", f"{name}", words)


def test_statuses_may_be_given_one_after_another(grams):
    gaps = dict.fromkeys(STATUSES, ...)
    says(check("03.2", gaps, grams=grams), "open")
    assert check("03.2", gaps, grams=grams).message == ""
    some = {**gaps, "few": "fails"}
    says(check("03.2", some, grams=grams), "open", "blind, single, trace, linear still missing")
    says(check("03.2", {**some, "trace": "holds"}, grams=grams), "wrong", "trace")
    says(check("03.2", {"few": "fails"}, grams=grams), "open", "still missing")


def test_statuses_are_a_dictionary_with_the_names(grams):
    says(check("03.2", ["fails"] * 5, grams=grams), "wrong", "A dictionary with the keys few")
    says(check("03.2", {"Z": "fails"}, grams=grams), "wrong", "There is no Z")


# --- 03.3 -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def linear(source, target):
    """Γ, φ and the spectrum of Θ of a linear program."""
    made = model(source, target, "linear")
    gamma = mrviz.ntk.jacobian_gram(made, target.x_train, dtype=DOUBLE, progress=False)
    gram = mrviz.ntk_gram(made, target.x_train, dtype=DOUBLE, progress=False)
    return gamma.matrix, target.x_train.flatten(1), mrviz.spectrum(gram)


def schur(answer, linear):
    gamma, phi, kernel = linear
    return check("03.3", answer, gamma=gamma, phi=phi, kernel=kernel)


def low(gamma):
    return torch.linalg.eigvalsh(gamma)[0]


@pytest.mark.parametrize(
    "answer",
    [
        lambda gamma, phi: low(gamma) * (phi.square().sum(1) + 1).min(),
        lambda gamma, phi: float(low(gamma)) * min(float(row @ row) + 1 for row in phi),
        lambda gamma, phi: torch.linalg.eigh(gamma)[0].min() * (phi.norm(dim=1) ** 2 + 1).min(),
    ],
)
def test_the_schur_bound_is_right_in_any_form(linear, answer):
    says(schur(answer, linear), "right", "≤ λ_min(Θ)")


def test_the_schur_bound_is_the_value_of_the_condition(source, target, linear):
    conditions = mrviz.transfer_conditions(
        model(source, target, "linear"), target, dtype=DOUBLE, progress=False
    )
    assert conditions["T3"].value <= conditions["T2"].value
    says(schur(lambda gamma, phi: conditions["T3"].value, linear), "right")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda g, p: low(g) * p.square().sum(1).min(), "+ 1 of the bias"),
        (lambda g, p: low(g) * (p.square().sum(1) + 1).max(), "largest"),
        (lambda g, p: low(g) * (p.square().sum(1) + 1).mean(), "mean"),
        (lambda g, p: low(g) * (p.norm(dim=1) + 1).min(), "not squared"),
        (
            lambda g, p: torch.linalg.eigvalsh(g)[-1] * (p.square().sum(1) + 1).min(),
            "λ_max(Γ) was taken",
        ),
        (lambda g, p: low(g), "λ_min(Γ) alone"),
        (lambda g, p: (p.square().sum(1) + 1).min(), "program's factor alone"),
        (lambda g, p: low(g) * 0.5, "too small"),
        (lambda g, p: torch.linalg.eigvalsh(g), "single number"),
        (lambda g, p: g @ p, "raised"),
        (0.17, "A function `schur(gamma, phi)`"),
    ],
)
def test_a_wrong_bound_is_told_its_mistake(linear, answer, words):
    says(schur(answer, linear), "wrong", words)


def test_the_kernels_own_eigenvalue_is_not_the_bound(linear):
    says(schur(lambda gamma, phi: linear[2].smallest, linear), "wrong", "λ_min of Θ itself")


def test_a_function_with_a_gap_is_open(linear):
    says(schur(lambda gamma, phi: ..., linear), "open", "returns nothing yet")


# --- 03.4 -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernels(source, target):
    found = {}
    for name in ("border", "linear"):
        made = model(source, target, name)
        gram = mrviz.ntk_gram(made, target.x_train, dtype=DOUBLE, progress=False)
        spectrum = mrviz.spectrum(gram)
        energy = residual_energy(gram, spectrum, training_residual(made, target))
        found[name] = spectrum, energy
    return found


def share(answer, kernels, steps=20):
    return check("03.4", answer, kernels=kernels, steps=steps)


def modes(power, factor=1.0):
    return lambda v, e, s: (e * (1 - factor * v / v.max()) ** power(s)).sum()


@pytest.mark.parametrize(
    "answer",
    [
        modes(lambda s: 2 * s),
        lambda v, e, s: sum(
            float(b) * (1 - float(a) / float(v[0])) ** (2 * s) for a, b in zip(v, e, strict=True)
        ),
        lambda v, e, s: (
            remaining(v, torch.tensor([s]), n=5, lr=5 / float(v[0]))[0].square() @ e / e.sum()
        ),
    ],
)
def test_the_share_left_is_right_in_any_form(kernels, answer):
    says(share(answer, kernels), "right", "border: ", "linear: ", "% left")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (modes(lambda s: s), "the exponent is 2S"),
        (lambda v, e, s: 1 - modes(lambda s: 2 * s)(v, e, s), "what is left"),
        (modes(lambda s: 2 * s, 2.0), "largest stable one"),
        (lambda v, e, s: (e * torch.exp(-2 * s * v / v.max())).sum(), "gradient flow"),
        (lambda v, e, s: (1 - v.min() / v.max()) ** (2 * s), "Only λ_min was used"),
        (lambda v, e, s: ((1 - v / v.max()) ** (2 * s)).mean(), "energies are not used"),
        (
            lambda v, e, s: (e**2 * (1 - v / v.max()) ** (2 * s)).sum() / (e**2).sum(),
            "energies, c_k², already",
        ),
        (lambda v, e, s: 0.5, "too large"),
        (lambda v, e, s: e * v, "single number"),
        (0.03, "A function `left(eigenvalues, energy, steps)`"),
    ],
)
def test_a_wrong_share_is_told_its_mistake(kernels, answer, words):
    says(share(answer, kernels), "wrong", words)


def test_the_share_is_that_of_real_training_of_a_linear_model(target):
    source = mrviz.load_source("dnn", depth=1, input_size=8, seed=0, progress=False)
    made = mrviz.reprogram(source, target, program="linear", mapping="identity")
    gram = mrviz.ntk_gram(made, target.x_train, dtype=DOUBLE, progress=False)
    spectrum = mrviz.spectrum(gram)
    energy = residual_energy(gram, spectrum, training_residual(made, target))
    run = {"loss": "squared", "optimizer": "gd", "steps": 20, "progress": False}
    fit = mrviz.train(made, target, lr=gram.n / spectrum.largest, **run)
    measured = fit.train_loss[-1] / fit.train_loss[0]
    expected = float(modes(lambda s: 2 * s)(spectrum.eigenvalues.clamp_min(0), energy, 20))
    assert measured == pytest.approx(expected, rel=1e-3)


# --- 03.5 -----------------------------------------------------------------------------------


def spectra(theta, n, c):
    mean = theta.view(n, c, n, c).diagonal(dim1=1, dim2=3).mean(2)
    return torch.linalg.eigvalsh(theta), torch.linalg.eigvalsh(mean)


def right_gap(theta, n, c):
    values, single = spectra(theta, n, c)
    return (values - single.repeat_interleave(c)).norm() / values.norm()


def with_loops(theta, n, c):
    mean = sum(theta[k::c, k::c] for k in range(c)) / c
    repeated = sorted([float(v) for v in torch.linalg.eigvalsh(mean)] * c, reverse=True)
    values = torch.linalg.eigvalsh(theta).flip(0)
    return float((values - torch.tensor(repeated, dtype=DOUBLE)).norm() / values.norm())


def of_spectra(function):
    return lambda theta, n, c: function(*spectra(theta, n, c), n, c)


def outputs_first(theta, n, c):
    mean = theta.view(c, n, c, n).diagonal(dim1=0, dim2=2).mean(2)
    values = torch.linalg.eigvalsh(theta)
    return (values - torch.linalg.eigvalsh(mean).repeat_interleave(c)).norm() / values.norm()


def of_matrices(theta, n, c):
    mean = theta.view(n, c, n, c).diagonal(dim1=1, dim2=3).mean(2)
    return (theta - torch.kron(mean, torch.eye(c, dtype=DOUBLE))).norm() / theta.norm()


def padded(values, single, n, c):
    both = torch.cat([values.new_zeros(len(values) - n), single])
    return (values - both).norm() / values.norm()


@pytest.mark.parametrize("answer", [right_gap, with_loops])
def test_the_gap_is_right_in_any_form(grams, answer):
    says(check("03.5", answer, gram=grams["linear"]), "right", "wide limit")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (of_matrices, "distance of the matrices"),
        (
            of_spectra(lambda v, s, n, c: (v - c * s.repeat_interleave(c)).norm() / v.norm()),
            "divide the sum of the C blocks by C",
        ),
        (of_spectra(lambda v, s, n, c: (v - s.repeat_interleave(c)).norm()), "not divided"),
        (lambda theta, n, c: right_gap(theta, n, c) ** 2, "take the root"),
        (
            of_spectra(
                lambda v, s, n, c: (
                    (v - s.repeat_interleave(c)).norm() / s.repeat_interleave(c).norm()
                )
            ),
            "norm of the other spectrum",
        ),
        (of_spectra(lambda v, s, n, c: (v - s.repeat(c)).norm() / v.norm()), "not sorted alike"),
        (outputs_first, "as if outputs came first"),
        (of_spectra(padded), "must be repeated C times"),
        (lambda theta, n, c: 0.0, "too small"),
        (lambda theta, n, c: theta @ torch.ones(3), "raised"),
        (0.4, "A function `gap(theta, n, C)`"),
    ],
)
def test_a_wrong_gap_is_told_its_mistake(grams, answer, words):
    says(check("03.5", answer, gram=grams["linear"]), "wrong", words)


# --- 03.6 -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evidence(source, target, grams):
    """A frame without full rank, a slow training, a linear program, a run that was foreseen."""
    made = model(source, target, "border")
    prediction = mrviz.predict_training(made, target, steps=5, progress=False)
    fit = mrviz.train(made, target, **prediction.train_options, progress=False)
    conditions = mrviz.transfer_conditions(
        model(source, target, "linear"), target, gram=grams["linear"], progress=False
    )
    return {
        "frame": mrviz.spectrum(grams["blind"]),
        "slow": fit,
        "linear": conditions,
        "prediction": prediction,
        "fit": fit,
    }


LIGHTS = {"T1": "unearned", "T2": "unearned", "T3": "earned", "T7": "earned"}


def test_lights_are_judged_by_what_was_measured(evidence):
    says(check("03.6", LIGHTS, **evidence), "right", "T1: ", "T2: ", "T3: ", "T7: ")
    for name, word in LIGHTS.items():
        other = "earned" if word == "unearned" else "unearned"
        verdict = check("03.6", {**LIGHTS, name: other}, **evidence)
        says(verdict, "wrong", f"{name}: look at what was measured")
    says(check("03.6", dict.fromkeys(LIGHTS, ...), **evidence), "open")
    says(check("03.6", {**LIGHTS, "T3": ...}, **evidence), "open", "T3 still missing")
    says(check("03.6", {**LIGHTS, "T1": "red"}, **evidence), "wrong", "'earned', 'unearned'")


def test_other_measurements_turn_the_lights(evidence, grams):
    full = {**evidence, "frame": mrviz.spectrum(grams["linear"])}
    says(check("03.6", {**LIGHTS, "T1": "earned"}, **full), "right", "borne out")
    first, *rest = evidence["slow"].history
    done = [*rest[:-1], replace(rest[-1], train_loss=0.01 * first.train_loss)]
    fast = {**evidence, "slow": replace(evidence["slow"], history=(first, *done))}
    says(check("03.6", {**LIGHTS, "T2": "earned"}, **fast), "right")
    last = replace(evidence["fit"].history[-1], test_accuracy=1.0)
    missed = replace(evidence["fit"], history=(*evidence["fit"].history[:-1], last))
    says(check("03.6", {**LIGHTS, "T7": "unearned"}, **{**evidence, "fit": missed}), "right")
