"""The clock of the paper's Table 1: training wall-clock, in which start-up and validation do not count.

The time of a step is verl's `timing_s/step`: generation, rewards, teacher, update and weight sync. verl measures
validation (`timing_s/testing`) outside it and checkpoints (`timing_s/save_checkpoint`) inside it; checkpoints are taken
out, because how often one saves is no property of the method. A step that was done again after a crash counts once: its
records are those of `workflows.run_reader`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from workflows.metrics_log import Record


def step_seconds(record: Record) -> float | None:
    """Seconds of training in one step; None for a record without a training step (validation before training)."""
    seconds = record.get("timing_s/step")
    return None if seconds is None else seconds - (record.get("timing_s/save_checkpoint") or 0.0)


def training_clock(records: Sequence[Record]) -> dict[int, float]:
    """Seconds of training up to and including each step. `records` ascend in step; step 0 is at 0 seconds.

    A step without a time (the metrics of some start are lost) counts as long as the median of the others.
    """
    known = {record.step: seconds for record in records if (seconds := step_seconds(record)) is not None}
    usual = statistics.median(known.values()) if known else 0.0
    total, done, clock = 0.0, 0, {}
    for record in records:
        total += sum(known.get(step, usual) for step in range(done + 1, record.step + 1))
        done = record.step
        clock[record.step] = total
    return clock


def within(records: Sequence[Record], seconds: float) -> list[Record]:
    """The records whose step had ended when the clock showed `seconds`."""
    clock = training_clock(records)
    return [record for record in records if clock[record.step] <= seconds]
