"""Checks of the exercises in notebooks/05-time-series."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mrviz.classroom.answers import Mistake, number, run, same, tensor, whole
from mrviz.classroom.exercises import exercise


@exercise("05.1")
def trainable_positions(answer: Any, *, length: int, series: int, replicas: int) -> str:
    """Positions of a source's input that no copy of a series covers.

    Args:
        answer: their number.
        length: of the source's input.
        series: length of the series.
        replicas: m, the number of copies.
    """
    covered = replicas * series
    same(
        whole(answer, "p"),
        length - covered,
        name="p",
        mistakes={
            f"{length} are all positions of the source's input. Those under a copy are not "
            "trainable.": length,
            f"{covered} is what the copies cover. Trainable is the rest.": covered,
            "One copy was taken off. Each of the copies covers positions of its own.": (
                length - series
            ),
            "What one copy leaves free was counted once for each copy. Each position has one "
            "number, and every copy takes some away.": replicas * (length - series),
        },
    )
    return (
        f"Replicas cost capacity: T1, p ≥ nC, then holds for no more than n = p / C samples, here "
        f"{length - covered} / C."
    )


@exercise("05.2")
def averaged_rank(answer: Any, *, parameters: int, n: int, outputs: int) -> str:
    """The largest rank of Θ where averaged probabilities use all source outputs: min(p, n(C−1)).

    Args:
        answer: the bound.
        parameters: p.
        n: number of samples.
        outputs: C.
    """
    rows, bound = n * outputs, min(parameters, n * (outputs - 1))
    mistakes: dict[str, float] = {
        f"{rows} is the order nC. The averaged probabilities of a sample sum to 1/m whatever the "
        "program does, so its C outputs cannot move freely.": rows,
        f"{parameters} is p. Θ = J Jᵀ has another limit, which is lower here.": parameters,
        "One dimension was taken off in all. Each sample has a sum of its own that does not "
        "move.": rows - 1,
        f"{outputs - 1} is what one sample has left. There are n of them.": outputs - 1,
    }
    mistakes = {text: wrong for text, wrong in mistakes.items() if wrong != bound}
    same(whole(answer, "The bound"), bound, name="The bound", mistakes=mistakes)
    return (
        f"At least {rows - bound} of {rows} eigenvalues are zero for every program. The "
        "cross-entropy does not see those directions: its softmax divides by the sum."
    )


@exercise("05.3")
def padding_gram(answer: Callable[[Tensor, Tensor], Any], *, jacobian: Tensor, free: Tensor) -> str:
    """The kernel of a padding: Θ_ij = A_i diag(M) A_jᵀ with M where no copy lies.

    Args:
        answer: a function of the source Jacobian and the mask.
        jacobian: A, (n, C, channels, T).
        free: M as booleans, (T,).
    """
    if not callable(answer):
        raise Mistake("A function `padding_gram(jacobian, free)` is asked for.")
    jacobian = jacobian.double()
    n, outputs = jacobian.shape[:2]
    found = run(answer, jacobian, free, name="`padding_gram`")
    expected = _gram(jacobian[..., free])
    blocks = expected.view(n, outputs, n, outputs)
    if isinstance(found, Tensor) and found.shape == (n, n):
        raise Mistake(
            "The outputs are summed: a row and a column for each sample and output are asked for, "
            f"the full kernel of order {n * outputs}."
        )
    same(
        tensor(found, expected.shape, "Θ", ("samples · outputs", "samples · outputs")),
        expected,
        name="Θ",
        mistakes={
            "The positions under the copies were taken. Trainable are the others.": (
                _gram(jacobian[..., ~free])
            ),
            "All positions were taken. Those under a copy do not move: their columns of A drop "
            "out.": _gram(jacobian),
            "Rows are ordered output by output. Sample by sample is asked for: row i·C + c.": (
                blocks.permute(1, 0, 3, 2).reshape(expected.shape)
            ),
            "The mean over positions was taken. The chain rule sums over them.": (
                expected / max(1, int(free.sum()))
            ),
        },
    )
    return (
        f"{int(free.sum())} of {len(free)} columns of A count. What tells two series apart in this "
        "kernel comes from the source alone: the program moves every input alike."
    )


@exercise("05.4")
def transport_bound(
    answer: Any, *, risk: float, distance: float, source_classes: int, target_classes: int
) -> str:
    """Source risk + 2√K W₁ (Yang et al. 2021, Theorem 1).

    Args:
        answer: the bound.
        risk: of the source on its own task.
        distance: W₁ of the logits.
        source_classes: K.
        target_classes: C.
    """
    root = math.sqrt(source_classes)
    bound = risk + 2 * root * distance
    same(
        number(answer, "The bound"),
        bound,
        name="The bound",
        mistakes={
            "The factor 2 is missing.": risk + root * distance,
            "K stands under a square root.": risk + 2 * source_classes * distance,
            "K is the number of source classes: W₁ is taken between logits of the source. The "
            "number of target classes was used.": risk + 2 * math.sqrt(target_classes) * distance,
            "The source risk is missing.": 2 * root * distance,
            "W₁ does not stand under the root.": risk + 2 * math.sqrt(source_classes * distance),
            "The number of target classes was used for K, and without the root.": (
                risk + 2 * target_classes * distance
            ),
        },
    )
    worst = math.sqrt(2)
    if bound > worst:
        return (
            f"No risk is larger than √2 = {worst:.2f}. A bound {bound / worst:.3g} times as large "
            "promises nothing."
        )
    return f"It is below √2 = {worst:.2f}, the largest risk there is: the bound says something."


@exercise("05.5")
def naive_rule(answer: Callable[[Tensor, int, int], Any]) -> str:
    """The seasonal naive rule: the last season of a context, again and again.

    Args:
        answer: a function of contexts (n, 1, t), season and horizon.
    """
    if not callable(answer):
        raise Mistake("A function `naive_rule(context, season, horizon)` is asked for.")
    context = torch.arange(2 * 11, dtype=torch.float64).view(2, 1, 11).square()
    for season, horizon in ((4, 3), (4, 4), (4, 10), (1, 3)):
        where = f"The forecast (season {season}, horizon {horizon})"
        steps = torch.arange(horizon)
        last, t = context[:, 0, -season:], context.shape[2]
        expected = last[:, steps % season]
        found = run(answer, context, season, horizon, name="`naive_rule`")
        if isinstance(found, Tensor) and found.shape == (2, 1, horizon):
            raise Mistake(
                "The axis of the channel is still there: a row for each context, (n, horizon), is "
                "asked for."
            )
        if horizon > season and getattr(found, "shape", ()) == (2, season):
            raise Mistake(
                f"{where} stops after one season. A longer horizon repeats it again and again."
            )
        before = (t - season - 1 + steps % season).clamp(min=0)
        mistakes: dict[str, Tensor] = {
            "The last value is repeated. That is the naive rule of season 1: with a season, take "
            "the value of the same phase.": context[:, 0, -1:].expand_as(expected),
            "The first season of the context was taken. The newest one is the last.": (
                context[:, 0, steps % season]
            ),
            "The season is read backwards: t+1 repeats the value one season before it.": (
                last.flip(1)[:, steps % season]
            ),
            "The forecast is one step late: that of t+1 is the value at t+1−season, not the one "
            "before it.": (context[:, 0, before]),
            "The mean of the last season was taken.": last.mean(1, keepdim=True).expand_as(
                expected
            ),
            "The last values of the context were taken, as many as the horizon. Go back one "
            "season, not one horizon.": context[:, 0, (t - horizon + steps).clamp(min=0)],
        }
        mistakes = {s: w for s, w in mistakes.items() if not torch.equal(w, expected)}
        same(
            tensor(found, expected.shape, where, ("contexts", "horizon")),
            expected,
            name=where,
            mistakes=mistakes,
        )
    return "It needs no model and no training: what a forecaster is worth shows beside it."


@exercise("05.6")
def scaled_error(
    answer: Any, *, forecasts: Tensor, came: Tensor, naive: Tensor, history: Tensor, season: int
) -> str:
    """MASE (Hyndman & Koehler 2006): the error in units of the naive rule's on the training part.

    Args:
        answer: the MASE.
        forecasts: of the test windows, (n, horizon).
        came: what came, (n, horizon).
        naive: forecasts of the seasonal naive rule for these windows, (n, horizon).
        history: training part of the series, (length,).
        season: steps after which the series nearly repeats.
    """
    error, rule = ((f.double() - came.double()).abs() for f in (forecasts, naive))
    mae, history = float(error.mean()), history.double()
    unit = float((history[season:] - history[:-season]).abs().mean())
    step = float((history[1:] - history[:-1]).abs().mean())
    mse = float(error.square().mean())
    same(
        number(answer, "The MASE"),
        mae / unit,
        name="The MASE",
        mistakes={
            "That is the mean absolute error. Divide it by that of the naive rule on the training "
            "part.": mae,
            "It is divided by the naive rule's error on the test windows. The unit of MASE is its "
            "error on the training part.": mae / float(rule.mean()),
            "The errors are squared. MASE takes absolute values.": mse / unit,
            "The root of the mean squared error was taken. MASE takes absolute values.": (
                math.sqrt(mse) / unit
            ),
            "The unit is the error of the naive rule of season 1. Compare each value with the one "
            "a season before.": mae / step,
            "It is upside down: the error of the forecasts belongs above the line.": unit / mae,
            "That is the unit alone, the naive rule's error on the training part.": unit,
            "Both errors are those of the naive rule. Take the forecasts above the line.": (
                float(rule.mean()) / unit
            ),
        },
    )
    return (
        f"The unit is the same for every forecast. The naive rule's own MASE on these windows is "
        f"{float(rule.mean()) / unit:.2f}, not 1, as the unit is from another part of the series."
    )


@exercise("05.7")
def leaking_windows(answer: Any, *, train: Tensor, test: Tensor, horizon: int, context: int) -> str:
    """Test windows that share a value to forecast with a training window.

    Args:
        answer: their number.
        train: step of the first value to forecast, of each training window.
        test: the same of each test window.
        horizon: values to forecast.
        context: values before them.
    """
    apart = (test[:, None] - train[None]).abs()
    shared = apart < horizon
    leaking = int(shared.any(1).sum())
    mistakes: dict[str, float] = {
        "Only windows that begin at the same step were counted. Windows one step apart share all "
        "but one of their values.": int((apart == 0).any(1).sum()),
        "Windows that begin one horizon apart were counted too: they touch and share no value.": (
            int((apart <= horizon).any(1).sum())
        ),
        "Contexts were counted as well. A context may be known; count the values to forecast.": (
            int((apart < context + horizon).any(1).sum())
        ),
        "Pairs of windows were counted. Count each test window once.": int(shared.sum()),
        "Training windows were counted. Count the test windows.": int(shared.any(0).sum()),
        "Those that share nothing were counted.": len(test) - leaking,
    }
    mistakes = {text: wrong for text, wrong in mistakes.items() if wrong != leaking}
    same(whole(answer, "The number"), leaking, name="The number", mistakes=mistakes)
    return (
        f"{leaking} of {len(test)} test windows ask for values that training was told. Their error "
        "says how well the values were remembered."
    )


def _gram(jacobian: Tensor) -> Tensor:
    """A Aᵀ over all sample and output pairs, sample-major."""
    rows = jacobian.flatten(2).flatten(0, 1)
    return rows @ rows.T
