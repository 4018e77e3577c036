"""The training time of one run, and times as people write them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from workflows.metrics_log import Record
from workflows.training_clock import step_seconds, training_clock

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class RunClock:
    """When each step was done.

    Attributes:
        seconds: of each step that has a time.
        elapsed: seconds of training until the end of each step.
        estimated: steps without a time, which count as long as the median of the others.
    """

    seconds: dict[int, float] = field(default_factory=dict)
    elapsed: dict[int, float] = field(default_factory=dict)
    estimated: int = 0

    @property
    def total(self) -> float:
        return max(self.elapsed.values(), default=0.0)

    def covers(self, budget: float) -> bool:
        """Whether `budget` seconds were spent, up to less than a usual step."""
        usual = statistics.median(self.seconds.values()) if self.seconds else 0.0
        return self.total + usual > budget

    def seconds_per_step(self, budget: float) -> float | None:
        """Mean over the steps that were done within `budget` seconds."""
        inside = [seconds for step, seconds in self.seconds.items() if self.elapsed[step] <= budget]
        return statistics.fmean(inside) if inside else None


def run_clock(records: Sequence[Record]) -> RunClock:
    """The clock of a run; empty if no step has a time."""
    seconds = {record.step: time for record in records if (time := step_seconds(record)) is not None}
    if not seconds:
        return RunClock()
    last = max(record.step for record in records)
    return RunClock(seconds, training_clock(records), last - len(seconds))


def parse_budgets(text: str) -> tuple[float, ...]:
    """`1h,5h,10h` or `60s,2m` in seconds, ascending. Raises ValueError for anything else."""
    budgets = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", part.strip())
        if match is None or float(match[1]) <= 0:
            raise ValueError(f"{part.strip()!r} is not a time: write a number and s, m, h or d, as in 1h,5h,10h")
        budgets.append(float(match[1]) * _UNITS[match[2]])
    return tuple(sorted(set(budgets)))


def say_seconds(seconds: float) -> str:
    """`3600` as `1 h`, `90` as `1.5 min`, `12.3` as `12 s`."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
