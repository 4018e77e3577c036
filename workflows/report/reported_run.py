"""A run as the report sees it: what it is called, its training clock, its held-out accuracy, what is missing."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workflows.metrics_log import Record
from workflows.report.labels import Labels, given, labels_of, matches, told_apart
from workflows.report.run_clock import RunClock, run_clock
from workflows.run_folder import SUMMARY
from workflows.run_reader import Run, find_runs, read_run


@dataclass(frozen=True)
class ReportedRun:
    """One run with its labels.

    Attributes:
        name: its folder, as short as tells the runs apart.
        data: what it was validated on, or trained on where it was not validated.
        held_out: accuracy by benchmark, as [(step, value)]; step 0 is the validation before training.
        metric_names: the metrics these accuracies are.
    """

    run: Run
    name: str
    method: str
    model: str
    data: str
    seed: str
    clock: RunClock
    held_out: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    metric_names: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def last_step(self) -> int:
        return max((record.step for record in self.run.records), default=0)

    @property
    def state(self) -> str:
        """Finished or not, as far as the run's folder says."""
        planned, done = self.run.get("trainer.total_training_steps"), self.last_step
        if (self.run.folder / SUMMARY).is_file() or (planned is not None and done >= int(planned)):
            return "finished"
        if not self.run.records:
            return "nothing logged"
        if planned is None:
            return "length not fixed in steps"
        return f"unfinished: {done} of {planned} steps"

    def best_within(self, benchmark: str, budget: float) -> float | None:
        """Best held-out accuracy reached after 1 step or more and within `budget` seconds of training."""
        elapsed = self.clock.elapsed
        values = [
            value
            for step, value in self.held_out.get(benchmark, [])
            if step > 0 and elapsed.get(step, math.inf) <= budget
        ]
        return max(values, default=None)

    def before_training(self, benchmark: str) -> float | None:
        return next((value for step, value in self.held_out.get(benchmark, []) if step == 0), None)


def load_runs(
    places: Sequence[Path], *, labels: Mapping[str, Labels] | None = None, metric: str | None = None
) -> tuple[list[ReportedRun], list[str]]:
    """The runs at or below `places`, and what could not be read, in words.

    Args:
        labels: by pattern of the run's folder (its path or name), what the run is called.
        metric: name of the held-out metric with `*` for the data source; verl's `val-core/*/acc/mean@N` by default.

    Raises:
        FileNotFoundError: a place is not there, or holds no run.
    """
    labels = labels or {}
    runs, unreadable = [], []
    for folder in _folders(places):
        try:
            runs.append(read_run(folder))
        except (ValueError, OSError) as error:
            unreadable.append(f"{folder} is left out: {error}")
    if not runs:
        raise FileNotFoundError("no run could be read.\n" + "\n".join(unreadable))
    for pattern in labels:
        if not any(matches(run, pattern) for run in runs):
            unreadable.append(f"the label pattern {pattern!r} matches no run")
    found = [labels_of(run, labels) for run in runs]
    methods = told_apart(runs, found, labels)
    names = short_names([run.folder for run in runs])
    reported = [
        _reported(run, name, method, label, labels, metric)
        for run, name, method, label in zip(runs, names, methods, found, strict=True)
    ]
    return reported, unreadable


def short_names(folders: Sequence[Path]) -> list[str]:
    """The folders' paths below what they have in common."""
    if len(folders) == 1:
        return [folders[0].name]
    common = os.path.commonpath([str(folder.absolute().parent) for folder in folders])
    return [os.path.relpath(folder.absolute(), common) for folder in folders]


def said_once(remarks: Iterable[tuple[str, str]]) -> list[str]:
    """(run's name, remark) as sentences: a remark about several runs is made once."""
    about: dict[str, list[str]] = {}
    for name, remark in remarks:
        about.setdefault(remark, []).append(name)
    return [f"{', '.join(names)}: {remark}" for remark, names in about.items()]


def _folders(places: Sequence[Path]) -> list[Path]:
    found: dict[Path, Path] = {}  # a run that is named twice, by a link or as `a/../b`, is one
    for place in places:
        if not place.is_dir():
            raise FileNotFoundError(f"{place} is not a folder: name a run's folder, or one with runs below it")
        below = find_runs([place.absolute()])
        if not below:
            # read_run says what it looked for.
            read_run(place)
        for folder in below:
            found.setdefault(folder.resolve(), folder)
    return sorted(found.values())


def _reported(
    run: Run, name: str, method: str, label: Labels, overrides: Mapping[str, Labels], metric: str | None
) -> ReportedRun:
    held_out: dict[str, list[tuple[int, float]]] = {}
    names: dict[str, str] = {}
    for record in run.records:
        for source, key in _held_out_names(record, metric).items():
            held_out.setdefault(source, []).append((record.step, record.data[key]))
            names[source] = key
    if len(held_out) == 1 and given(run, overrides).benchmark:
        held_out = {str(label.benchmark): values for values in held_out.values()}
        names = {str(label.benchmark): key for key in names.values()}
    clock = run_clock(run.records)
    return ReportedRun(
        run=run,
        name=name,
        method=method,
        model=str(label.model),
        data=str(label.benchmark),
        seed=str(label.seed),
        clock=clock,
        held_out=held_out,
        metric_names=names,
        notes=[*run.problems, *_missing(run, clock, held_out, metric)],
    )


def _held_out_names(record: Record, metric: str | None) -> dict[str, str]:
    if metric is None:
        return record.held_out_names()
    before, _, after = metric.partition("*")
    return {
        key[len(before) : len(key) - len(after)]: key
        for key in record.data
        if key.startswith(before) and key.endswith(after) and len(key) > len(before) + len(after)
    }


def _missing(run: Run, clock: RunClock, held_out: Mapping[str, object], metric: str | None) -> list[str]:
    """What the report cannot show of this run."""
    if not run.records:
        return [] if run.problems else ["nothing is logged: the run ended before its first step"]
    found = []
    if not held_out:
        wanted = f"{metric} was never logged" if metric else "it was never validated (trainer.test_freq)"
        found.append(f"{wanted}: it is in no table of held-out accuracy")
    if not clock.seconds and any(record.step > 0 for record in run.records):
        found.append("no step has timing_s/step: it has no training time, and is in no budget")
    elif clock.estimated:
        found.append(f"{clock.estimated} steps are not logged or have no time: they count as long as the median step")
    return found
