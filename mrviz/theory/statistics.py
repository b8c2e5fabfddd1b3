"""Intervals for what is estimated from samples."""

from __future__ import annotations

import math

from mrviz.errors import InputError

Z = 1.959963984540054
"""Quantile of the standard normal distribution for two-sided intervals of 95 %."""


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, by Wilson (1927); it is never empty and lies in [0, 1].

    Args:
        successes: how many of the samples have the property.
        n: number of samples, at least 1.

    Example:
        >>> wilson_interval(8, 16)
        (0.279..., 0.720...)
    """
    if not 0 <= successes <= n or n < 1:
        raise InputError(f"a share needs 0 ≤ successes ≤ n and n ≥ 1, got {successes} of {n}")
    share, z2 = successes / n, Z**2 / n
    middle = share + z2 / 2
    half = Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n))
    low, high = (middle - half) / (1 + z2), (middle + half) / (1 + z2)
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)
