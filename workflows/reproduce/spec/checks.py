"""Is a run what it should be? Judged from its metrics alone, so the answer is the same live and afterwards.

`acceptance` compares the start of a run with what is known of it; `collapse` ends a run that has broken down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, model_validator

from workflows.metrics_log import Record
from workflows.reproduce.spec.settings_file import Strict

ACCURACY = "accuracy"


class Scoped(Strict):
    """Applies to the named benchmarks, models and methods; an empty list means all.

    `metric` is a name of docs/metrics.md or of verl, or `accuracy`: held-out accuracy, avg@n.
    """

    metric: str
    benchmarks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()

    def applies(self, benchmark: str, model: str, method: str) -> bool:
        pairs = ((self.benchmarks, benchmark), (self.models, model), (self.methods, method))
        return all(not names or name in names for names, name in pairs)


class Check(Scoped):
    """The mean of `metric` over the steps `steps[0]` to `steps[1]` lies within `within`, both ends included."""

    steps: tuple[int, int] = (0, 0)
    within: tuple[float, float]

    @model_validator(mode="after")
    def _ordered(self) -> Check:
        if self.steps[0] > self.steps[1] or self.within[0] > self.within[1]:
            raise ValueError("`steps` and `within` are [from, to], the smaller first")
        return self

    def fails(self, records: Sequence[Record]) -> str | None:
        """Why it does not hold; None while it holds or cannot be judged yet."""
        first, last = self.steps
        values = [value for step, value in points(records, self.metric) if first <= step <= last]
        if not values or max(record.step for record in records) < last:
            return None
        mean, (low, high) = sum(values) / len(values), self.within
        if low <= mean <= high:
            return None
        where = f"step {first}" if first == last else f"steps {first}-{last}"
        return f"{self.metric} was {mean:.3g} at {where}, expected {low:g} to {high:g}"


class Collapse(Scoped):
    """`metric` was below `below`, above `above` or `drop` under its own best, `times` measurements in a row."""

    below: float | None = None
    above: float | None = None
    drop: float | None = None
    times: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _some_limit(self) -> Collapse:
        if self.below is None and self.above is None and self.drop is None:
            raise ValueError("give at least one of below, above, drop")
        return self

    def fails(self, records: Sequence[Record]) -> str | None:
        """Why the run has collapsed; None if it has not."""
        best, run = -math.inf, 0
        for step, value in points(records, self.metric):
            broken = self._broken(value, best)
            run = run + 1 if broken else 0
            if run >= self.times:
                return f"{self.metric} {broken} at step {step}" + (f", {run} times in a row" if run > 1 else "")
            best = max(best, value)
        return None

    def _broken(self, value: float, best: float) -> str | None:
        if self.below is not None and value < self.below:
            return f"was {value:.3g}, below {self.below:g}"
        if self.above is not None and value > self.above:
            return f"was {value:.3g}, above {self.above:g}"
        if self.drop is not None and value < best - self.drop:
            return f"fell from {best:.3g} to {value:.3g}"
        return None


def points(records: Sequence[Record], metric: str) -> list[tuple[int, float]]:
    """(step, value) where `metric` was logged."""
    values = ((record.step, record.accuracy() if metric == ACCURACY else record.get(metric)) for record in records)
    return [(step, value) for step, value in values if value is not None]


def rejection(checks: Sequence[Check], collapses: Sequence[Collapse], records: Sequence[Record]) -> str | None:
    """Why a run is rejected, or None."""
    for check in checks:
        if reason := check.fails(records):
            return f"not accepted: {reason}"
    for collapse in collapses:
        if reason := collapse.fails(records):
            return f"collapsed: {reason}"
    return None
