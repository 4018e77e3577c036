"""Mean over seeds, and how sure one can be of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# 97.5 % quantiles of Student's t for 1..30 degrees of freedom; the normal one beyond.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.960


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` runs. `half_width` is that of the 95 % t interval; None for a single run."""

    mean: float
    half_width: float | None
    count: int


def t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t."""
    return _T[degrees - 1] if degrees <= len(_T) else _NORMAL


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
