"""What the conditions share: comparing a value that has an error, and saying so."""

from __future__ import annotations

import torch

from mrviz.theory.conditions import Status

DOUBLE = torch.finfo(torch.float64).eps / 2
"""Unit round-off of double precision."""

FULL_KERNEL = "choose the full kernel to decide"


def compared(value: float, threshold: float, error: float) -> Status:
    """Whether a value is above its threshold; undecided where the error could decide."""
    if abs(value - threshold) <= error:
        return "undecided"
    return "holds" if value > threshold else "fails"


def below(value: float, threshold: float, error: float) -> Status:
    """Whether a value is below its threshold; undecided where the error could decide."""
    return compared(-value, -threshold, error)


def placed(interval: tuple[float, float], threshold: float) -> Status:
    """Whether an interval lies above a threshold ("holds"), below it, or on both sides."""
    low, high = interval
    return "holds" if low > threshold else "fails" if high < threshold else "undecided"


def relation(status: Status, high: str = "above", low: str = "below") -> str:
    """The status as words between a value and its threshold."""
    return {"holds": high, "fails": low, "undecided": "not told apart from"}[status]


def ratio_error(value: float, error: float) -> float:
    """Error of ‖a − b‖/‖a‖, where a and b are each off by at most ``error`` · ‖a‖.

    (v + 2e)/(1 − e) − v; infinite where the error is as large as what it is about.
    """
    return (2 + value) * error / (1 - error) if error < 1 else float("inf")
