"""Conditions on kernel and task: alignment, complexity, prediction (T5, T6, T7, T13)."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from mrviz._words import counted, verb
from mrviz.ntk import Gram
from mrviz.spectrum import Spectrum
from mrviz.theory.conditions import BoundConstants, Condition, Status, Thresholds
from mrviz.theory.indicators.compare import FULL_KERNEL, below, compared, placed, relation
from mrviz.theory.prediction import Prediction
from mrviz.theory.residuals import kernel_target_alignment, residual_columns, residual_energy
from mrviz.theory.statistics import wilson_interval
from mrviz.theory.wide_limit import theorem_sum


def alignment(gram: Gram, spectrum: Spectrum, r: Tensor) -> Condition:
    """T5: the residual lies where the kernel is large, compared with a random direction."""
    found = kernel_target_alignment(gram, spectrum, r)
    energy = residual_energy(gram, spectrum, r)
    top = min(gram.outputs, spectrum.order)
    share = float(energy[:top].sum())
    norm = float(spectrum.eigenvalues.norm())
    error = 2 * found.deviation + (2 * spectrum.floor / norm if norm > 0 else 0.0)
    status = compared(found.value, found.chance, error)
    return Condition(
        id="T5",
        name="alignment",
        value=found.value,
        threshold=found.chance,
        error=error,
        status=status,
        formula=r"\frac{\langle\Theta_T, rr^\top\rangle}{\|\Theta_T\|_F\,\|r\|^2}"
        r" > \frac{\operatorname{tr}\Theta_T}{N\,\|\Theta_T\|_F}",
        source="lit: kernel-target alignment, Cristianini et al. 2001",
        sentence="Does the task live where the kernel is large? Modes with large eigenvalues are "
        "learned first.",
        why=f"alignment {found.value:.3g} is {relation(status)} the {found.chance:.3g} of a random "
        f"residual; the top {counted(top, 'mode')} {verb(top, 'holds', 'hold')} {share:.0%} of the "
        "residual energy",
        details={"top_energy": share, "top_modes": top},
    )


def complexity(gram: Gram, spectrum: Spectrum, r: Tensor, thresholds: Thresholds) -> Condition:
    """T6: the complexity of fitting the residual is small enough to say something.

    Arora et al. (2019) bound the population loss by √(2 rᵀΘ⁻¹r/n) for a kernel with Θ_ii = ½. That
    number is not free of scale, so Θ is scaled to a mean block trace of ½, which makes it
    (2/n)√(rᵀΘ⁻¹r · tr Θ), twice a Rademacher complexity; several outputs cost a factor √2
    (Maurer 2016). From Θ̂ − floor ≤ Θ ≤ Θ̂ + floor follow bounds of rᵀΘ⁻¹r from both sides
    (docs/theory.md, section 4).

    Args:
        gram: the target Gram.
        spectrum: its spectrum, with eigenvectors.
        r: residual (n, C).
        thresholds: the value at which a bound says nothing.
    """
    columns = residual_columns(gram, r)
    energy = residual_energy(gram, spectrum, r) * float(columns.square().sum())
    values, floor = spectrum.eigenvalues.clamp_min(0), spectrum.floor
    several = columns.numel() > gram.n
    trace = float(values.sum()) * columns.shape[1]
    scale = 2 * math.sqrt(2.0 if several else 1.0) / gram.n
    found: dict[str, Any] = {"value": None, "error": None}
    status: Status = "undecided"
    if not energy.any():
        found = {"value": 0.0, "error": 0.0}
        status, why = "holds", "the residual is zero: nothing has to be fitted"
    elif trace == 0:
        status, why = "fails", "the kernel is zero and cannot fit the residual"
    else:
        held = energy > 0
        energy, values = energy[held], values[held]
        low = scale * math.sqrt(float((energy / (values + floor)).sum()) * trace)
        stuck = float(energy[values <= floor].sum() / energy.sum())
        if spectrum.full_rank:
            norm = float((energy / values).sum())
            value = scale * math.sqrt(norm * trace)
            high = scale * math.sqrt(float((energy / (values - floor)).sum()) * trace)
            details = {"unscaled": math.sqrt(2 * norm / gram.n)}
            found = {"value": value, "error": max(high - value, value - low), "details": details}
            why = f"complexity {value:.3g}; unscaled √(2 rᵀΘ⁻¹r/n) = {details['unscaled']:.3g}"
        else:
            high = math.inf
            below = spectrum.order - spectrum.rank
            why = (
                f"{counted(below, 'mode')} below the noise floor {verb(below, 'holds', 'hold')} "
                f"{stuck:.1%} of the residual energy: the complexity is at least {low:.3g}, "
                "infinite if the eigenvalues are zero"
            )
        if gram.reduce != "full":
            why += f"; the {gram.reduce!r} kernel stands for every output: {FULL_KERNEL}"
        else:
            status = placed((-high, -low), -thresholds.complexity)
            where = relation(status, "below", "not below")
            why += f"; that is {where} {thresholds.complexity:.3g}, where bounds become empty"
    return Condition(
        id="T6",
        name="complexity",
        threshold=thresholds.complexity,
        status=status,
        formula=r"\sqrt{\frac{2\,r^\top \tilde\Theta^{-1} r}{n}} < 1,\; \tilde\Theta = "
        r"\frac{n\,\Theta_T}{2 \operatorname{tr}\Theta_T}\;(\times \sqrt{2} \text{ if } C > 1)",
        source="lit: Arora et al. 2019; scaling and factor: docs/theory.md, section 4",
        sentence="How large a step in function space do the labels ask for? A residual in slow "
        "modes makes a complicated predictor that generalizes badly.",
        why=why,
        **found,
    )


def predicted_accuracy(
    prediction: Prediction | None, outputs: int, thresholds: Thresholds
) -> Condition:
    """T7: linearised training under the user's own settings beats chance on held-out data.

    Args:
        prediction: from :func:`~mrviz.theory.predict_training`; ``None`` where not asked for.
        outputs: C.
        thresholds: the accuracy to exceed.
    """
    threshold = 1 / outputs if thresholds.accuracy is None else thresholds.accuracy
    found: dict[str, Any] = {"value": None, "error": None}
    status: Status = "undecided"
    if prediction is None:
        why = (
            "needs a prediction: pass predict=True, or predict={'loss': …, 'lr': …, 'steps': …} "
            "with the settings of the training to come"
        )
    elif prediction.trajectory.diverged is not None:
        why = "; ".join(prediction.notes)
    elif prediction.accuracy is None:
        why = "the target has real-valued outputs, so there is no accuracy to predict"
        if prediction.mse is not None:
            why += (
                f"; the predicted mean squared error is {prediction.mse:.3g} "
                f"({counted(int(prediction.settings['n_test']), 'held-out sample')}) after "
                f"{counted(prediction.settings['steps'], 'step')} of size {prediction.lr:.3g}"
            )
            found["details"] = {"mse": prediction.mse}
    else:
        accuracy, n = prediction.accuracy, int(prediction.settings["n_test"])
        low, high = interval = wilson_interval(round(accuracy * n), n)
        status = placed(interval, threshold)
        beside = {
            "kernel ridge regression": prediction.ridge_accuracy,
            "its leave-one-out": prediction.leave_one_out_accuracy,
        }
        found = {
            "value": accuracy,
            "error": (high - low) / 2,
            "details": {
                "interval": [low, high],
                "ridge_accuracy": prediction.ridge_accuracy,
                "leave_one_out_accuracy": prediction.leave_one_out_accuracy,
                "loss": prediction.settings["loss"],
                "lr": prediction.lr,
                "steps": prediction.settings["steps"],
            },
        }
        why = (
            f"predicted accuracy {accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}, "
            f"{counted(n, 'held-out sample')}) after "
            f"{counted(prediction.settings['steps'], 'step')} of size "
            f"{prediction.lr:.3g}; chance is {threshold:.1%}"
        )
        why += "".join(f"; {k} {v:.1%}" for k, v in beside.items() if v is not None)
        why += "".join(f"; {note}" for note in prediction.notes)
    return Condition(
        id="T7",
        name="predicted accuracy",
        threshold=threshold,
        status=status,
        formula=r"\operatorname{acc}(f_S) > 1/C,\;"
        r" f_{s+1} = f_s - \tfrac{\eta}{n}\,\Theta\,\nabla_f \ell(f_s, Y)",
        source="lit: linearised training, Lee et al. 2019; interval: Wilson 1927",
        sentence="What will training give, before training? The kernel is held fixed, so features "
        "that training would learn are left out (T12).",
        why=why,
        **found,
    )


def generalization(
    gram: Gram, spectrum: Spectrum, constants: BoundConstants | None, thresholds: Thresholds
) -> Condition:
    """T13: Theorem 2's bound; without its constants only the sum that the data determine.

    Args:
        gram: the target Gram, full or trace.
        spectrum: its spectrum; entries of the trace kernel are off by a matrix of norm at most
            its floor, so the sum by at most √n·floor.
        constants: the constants of the theorem.
        thresholds: the value at which the bound says nothing.
    """
    found: dict[str, Any] = {"value": None, "error": None, "threshold": None}
    status: Status = "undecided"
    n = gram.n
    if gram.reduce not in ("full", "trace"):
        why = f"the sum is over the trace kernel, not {gram.reduce!r}: use 'full' or 'trace'"
    else:
        total, error = theorem_sum(gram), math.sqrt(n) * spectrum.floor
        found |= {"value": total, "error": error, "details": {"data_dependent_sum": total}}
        why = f"Σ|Θ_T(x, x')|/N_T = {total:.4g}"
        if constants is None:
            why += (
                "; its factor and the second term need constants that no measurement gives: pass "
                "constants=mrviz.theory.BoundConstants(…)"
            )
        else:
            factor = 2 * constants.rho * constants.B * math.sqrt(constants.T)
            second = (
                3
                * constants.L
                * constants.Gamma
                * math.sqrt(math.log(2 / constants.delta) / (2 * n))
            )
            value, limit = factor * total + second, thresholds.generalization
            found |= {"value": value, "error": factor * error, "threshold": limit}
            status = below(value, limit, factor * error)
            why = (
                f"the bound is {value:.4g}: {factor:.3g} × {why} + {second:.3g}; that is "
                f"{relation(status, 'below', 'above')} {limit:.3g}, where it becomes empty"
            )
    return Condition(
        id="T13",
        name="generalization term",
        status=status,
        formula=r"\frac{2\rho B\sqrt{T}}{N_T}\sum_{t,t'} |\Theta_T(x_t,x_{t'})|"
        r" + 3 L \Gamma_0 \sqrt{\frac{\log(2/\delta)}{2 N_T}} < 1",
        source="paper: Theorem 2 (Eq. 13) of arXiv 2506.00620; threshold: a convention",
        sentence="How far can training and test loss lie apart? The sum grows with the size of the "
        "kernel; what it is multiplied with is not known from data.",
        why=why,
        **found,
    )
