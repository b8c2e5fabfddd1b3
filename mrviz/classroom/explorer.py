"""Checks of the exercises in notebooks/01-explorer: each computes what the Explorer shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mrviz._words import counted
from mrviz.classroom.answers import (
    Mistake,
    Unanswered,
    choice,
    is_gap,
    number,
    same,
    whole,
)
from mrviz.classroom.exercises import exercise
from mrviz.experiment import Experiment
from mrviz.programs import Program, ReprogrammedModel
from mrviz.workbench import Learning, Result, Schedule, Workbench

READING = 0.02
"""Numbers read from a figure or a table may be off by this share."""

NO_CAPACITY = "The program of the Explorer has no capacity: choose the border prompt."


@exercise("01.1")
def smallest_eigenvalue(answer: Any, *, results: Result | None) -> str:
    """What a spectrum says of λ_min: a number, that it is zero, or nothing.

    Args:
        answer: a number, "zero" or "not resolved".
        results: those of the Explorer.
    """
    if results is None:
        raise Unanswered("The Explorer has no result yet: wait until it is ready.")
    spec, p = results.spectrum, results.info.n_parameters
    hidden = spec.order - spec.rank
    words = answer.strip().casefold() if isinstance(answer, str) else None
    if words not in (None, "zero", "not resolved"):
        raise Mistake(f"{answer!r} is none of a number, 'zero' and 'not resolved'.")
    if p < spec.order:
        if words == "not resolved":
            raise Mistake(
                f"More is known: p = {p:,} parameters give at most {p:,} eigenvalues that are not "
                f"zero, and there are {spec.order:,}."
            )
        if words != "zero" and number(answer) != 0:
            raise Mistake(f"p = {p:,} is less than the order {spec.order:,}: T1 fails.")
        return f"At least {spec.order - p:,} of {spec.order:,} eigenvalues are exactly zero."
    if spec.full_rank:
        if words is not None:
            raise Mistake(f"All {spec.order:,} eigenvalues lie above the noise floor: read λ_min.")
        same(number(answer), spec.smallest, name="λ_min", tolerance=READING)
        return f"It lies above the noise floor {spec.floor:.2g}, so it can be believed."
    if words == "zero" or (words is None and number(answer) == 0):
        raise Mistake(
            f"That it is zero is not known. p = {p:,} is no less than the order {spec.order:,}, so "
            "nothing forces an eigenvalue to be zero; below the floor a small one and zero look "
            "alike."
        )
    if words is None:
        value, lowest = number(answer), float(spec.eigenvalues[max(spec.rank, 1) - 1])
        mistakes = {
            f"The computer returned it, but it lies below the noise floor {spec.floor:.2g}: "
            "round-off of this size is in every eigenvalue.": spec.smallest,
            "That is the noise floor. λ_min lies somewhere below it.": spec.floor,
            f"That is the smallest of the {spec.rank:,} *resolved* eigenvalues; "
            f"{hidden:,} more lie below the floor.": lowest,
        }
        for text, wrong in mistakes.items():
            if abs(value - wrong) <= READING * abs(wrong):
                raise Mistake(text)
        raise Mistake(f"{hidden:,} eigenvalues lie below the noise floor {spec.floor:.2g}.")
    return f"{hidden:,} of {spec.order:,} eigenvalues lie below the noise floor {spec.floor:.2g}."


@exercise("01.2")
def two_programs(answer: Any, *, experiment: Experiment, programs: tuple[str, str]) -> str:
    """Which of two programs has the larger rank, effective rank, λ_max and first energy.

    Args:
        answer: the name of a program for each quantity.
        experiment: the choices of the Explorer; only the program is changed.
        programs: two names of programs.
    """
    names = ("rank", "effective rank", "largest eigenvalue", "first energy")
    if not isinstance(answer, Mapping):
        raise Mistake(f"A dictionary with the keys {', '.join(map(repr, names))} is asked for.")
    if missing := [name for name in names if is_gap(answer.get(name))]:
        raise Unanswered(f"{missing[0].capitalize()} is still missing.")
    bench = Workbench()
    found = [_read(bench.run(experiment.changed(program=p), progress=False)) for p in programs]
    hints = {
        "rank": "count the eigenvalues that lie above each floor",
        "effective rank": "it is the tile above the figure, and says over how many eigenvalues "
        "the trace is spread",
        "largest eigenvalue": "look at the left end of both curves",
        "first energy": "look at the first bar of the lower panel: the share of the residual in "
        "the first eigenspace",
    }
    for name in names:
        first, second = (values[name] for values in found)
        larger, smaller = programs if first > second else programs[::-1]
        wrong = f"{smaller} has the smaller {name}: {hints[name]}{_about(experiment)}."
        choice(answer[name], larger, {smaller: wrong}, name=f"The program with the larger {name}")
    one, two = found
    return (
        f"{programs[0]}: effective rank {one['effective rank']:.3g}, {one['first energy']:.0%} of "
        f"the residual in the first mode; {programs[1]}: {two['effective rank']:.3g} and "
        f"{two['first energy']:.0%}. A large rank fits every residual in the end; a first mode "
        "that points at the residual fits much of it soon."
    )


@exercise("01.3")
def widest_frame_that_fails(answer: Any, *, experiment: Experiment) -> str:
    """The largest capacity at which T1 fails, p < nC.

    Args:
        answer: the capacity.
        experiment: the choices of the Explorer.
    """
    capacity = whole(answer, "The capacity")
    model = Workbench().model(experiment, progress=False)
    rows, parameters = experiment.n * model.outputs, _parameters(model)
    if capacity not in parameters:
        raise Mistake(
            f"{capacity} is not among the capacities, {min(parameters)} to {max(parameters)}."
        )
    failing = [c for c, p in parameters.items() if p < rows]
    if not failing:
        raise Unanswered(
            f"T1 holds at every capacity{_about(experiment)}: take more samples into the Gram."
        )
    p = parameters[capacity]
    said = f"At capacity {capacity} p = {p:,} and nC = {rows:,}{_about(experiment)}"
    if capacity > failing[-1]:
        raise Mistake(f"{said}: T1 holds there.")
    if capacity < failing[-1]:
        raise Mistake(f"{said}: T1 fails, but it fails at a larger capacity too.")
    return f"{said}: {counted(rows - p, 'eigenvalue')} or more are exactly zero."


@exercise("01.4")
def resolved_in_double(answer: Any, *, experiment: Experiment) -> str:
    """How many eigenvalues are resolved in float64.

    Args:
        answer: the number.
        experiment: the choices of the Explorer; only the precision is changed.
    """
    count, bench = whole(answer, "The number of eigenvalues"), Workbench()
    single, double = (
        bench.run(replace(experiment, dtype=dtype), progress=False)
        for dtype in ("float32", "float64")
    )
    spec, p = double.spectrum, double.info.n_parameters
    mistakes: dict[str, float] = {
        f"That many are resolved in float32{_about(experiment)}. Set *Precision* to float64.": (
            single.spectrum.rank
        ),
        "That is the number of all eigenvalues, the order of the matrix.": spec.order,
        "That is p, the number of parameters. The rank is no larger, and can be smaller.": p,
        "That is the number of eigenvalues that are not resolved.": spec.order - spec.rank,
    }
    mistakes = {text: wrong for text, wrong in mistakes.items() if wrong != spec.rank}
    same(count, spec.rank, name="The number", mistakes=mistakes, tolerance=0)
    return (
        f"The floor sinks from {single.spectrum.floor:.2g} to {spec.floor:.2g}, and "
        f"{spec.rank:,} of {spec.order:,} eigenvalues lie above it instead of "
        f"{single.spectrum.rank:,}."
    )


@exercise("01.5")
def best_capacity(answer: Any, *, experiment: Experiment) -> str:
    """The capacity with the best predicted accuracy, as the Capacity view predicts it.

    Args:
        answer: the capacity; any of the best ones.
        experiment: the choices of the Explorer.
    """
    capacity, schedule = whole(answer, "The capacity"), Schedule()
    bench = Workbench()
    learning, result = Learning(bench), bench.run(experiment, progress=False)
    if result.capacity_range is None:
        raise Unanswered(NO_CAPACITY)
    for _ in bench.sweep(result.experiment, progress=False):
        pass
    found: dict[int, float] = {}
    for at in learning.predict_capacities(result, schedule, progress=False):
        accuracy = learning.accuracy(replace(result.experiment, capacity=at), schedule)
        if accuracy is not None:
            found[at] = accuracy
    if capacity not in found:
        raise Mistake(f"{capacity} is not among the capacities, {min(found)} to {max(found)}.")
    best = max(found.values())
    if found[capacity] < best:
        largest = max(found)
        more = " More trainable parameters do not always predict better." * (capacity == largest)
        raise Mistake(
            f"At capacity {capacity} the predicted accuracy is {found[capacity]:.1%}"
            f"{_about(experiment)}; elsewhere it is larger.{more}"
        )
    ties = [str(c) for c, value in found.items() if value == best]
    return (
        f"{best:.1%} is predicted at capacity {' and '.join(ties)}, {found[max(found)]:.1%} at the "
        f"largest. With {schedule.n_test} held-out samples a difference of one sample is "
        f"{1 / schedule.n_test:.1%}: read the curve, not the single point."
    )


@exercise("01.6")
def what_the_trace_kernel_shows(answer: Any, *, experiment: Experiment) -> str:
    """What λ_min of the trace kernel says of λ_min of the full one: an upper bound.

    Args:
        answer: "a", "b" or "c".
        experiment: the choices of the Explorer; only the reduction is changed.
    """
    wrong = {
        "a": "A reduction averages, and an average of blocks can be positive definite where the "
        "whole matrix is singular. Look at what T2 says.",
        "c": "Something is known: averages of principal blocks lie between the smallest and the "
        "largest eigenvalue of the whole matrix.",
    }
    choice(answer, "b", wrong)
    bench = Workbench()
    trace, full = (
        bench.run(replace(experiment, reduce=reduce), progress=False)
        for reduce in ("trace", "full")
    )
    return (
        f"The trace kernel has order {trace.spectrum.order} and λ_min "
        f"{trace.spectrum.describe_smallest()}; the full one has order {full.spectrum.order} and "
        f"λ_min {full.spectrum.describe_smallest()}."
    )


def _read(result: Result) -> dict[str, float]:
    spec = result.spectrum
    return {
        "rank": spec.rank,
        "effective rank": spec.effective_rank,
        "largest eigenvalue": spec.largest,
        "first energy": float(result.energy[0]),
    }


def _parameters(model: ReprogrammedModel) -> dict[int, int]:
    """Number of parameters at each capacity.

    Raises:
        Unanswered: the program has no capacity.
    """
    program = model.program
    if not isinstance(program, Program) or program.capacity_range is None:
        raise Unanswered(NO_CAPACITY)
    low, high = program.capacity_range
    head = model.n_parameters - program.parameters_at(model.capacity)
    return {c: head + program.parameters_at(c) for c in range(low, high + 1)}


def _about(experiment: Experiment) -> str:
    """Which choices a message is about, to be put at the end of a sentence."""
    return f" ({replace(experiment, capacity=None).label()}, {experiment.n} samples)"
