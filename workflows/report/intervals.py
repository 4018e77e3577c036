"""Mean over seeds, and how sure one can be of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` runs. `half_width` is that of the 95 % t interval; None for a single run."""

    mean: float
    half_width: float | None
    count: int


def t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t for any whole number of degrees of freedom, at least 1."""
    # t = sqrt(degrees) tan(angle), and P(|T| < t) grows with the angle: halve the quarter circle until it is found.
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < 0.95 else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """P(|T| < sqrt(degrees) tan(angle)): a finite sum of powers of the cosine (Abramowitz and Stegun, 26.7.3 and 4)."""
    odd = degrees % 2
    term = math.sin(angle) * (math.cos(angle) if odd else 1.0)
    total = term if degrees > 1 else 0.0
    for power in range(2 + odd, degrees - 1, 2):
        term *= math.cos(angle) ** 2 * (power - 1) / power
        total += term
    return 2 / math.pi * (angle + total) if odd else total


def estimate(values: Sequence[float]) -> Estimate | None:
    """None for no value."""
    if not values:
        return None
    count = len(values)
    if count == 1:
        return Estimate(values[0], None, 1)
    return Estimate(
        statistics.fmean(values), t_quantile(count - 1) * statistics.stdev(values) / math.sqrt(count), count
    )
