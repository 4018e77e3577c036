"""What a run achieved, in numbers: `summary.json` for programs, a table for people."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from srpo_verl.training.durable.checkpoint_store import newest
from workflows.metrics_log import Record, series
from workflows.verl_run import STOPPING, TRAINING, VALIDATING, RunFiles, RunOutcome

FINAL_VALIDATION, CHECKPOINT = "validating again", "writing checkpoints"


@dataclass(frozen=True)
class Summary:
    """Everything here is read from the metrics file, except the seconds of the stages before and after training."""

    config_name: str
    seed: int
    steps: int
    held_out_before: float | None
    held_out_after: float | None
    held_out_by_source: dict[str, tuple[float | None, float | None]]
    routed_share_first: float | None
    routed_share_last: float | None
    seconds_per_step: float | None
    stage_seconds: dict[str, float]
    total_seconds: float
    peak_memory_gib: float

    @property
    def points_gained(self) -> float | None:
        """Held-out accuracy after minus before, in percentage points."""
        if self.held_out_before is None or self.held_out_after is None:
            return None
        return 100 * (self.held_out_after - self.held_out_before)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({**asdict(self), "points_gained": self.points_gained}, indent=2) + "\n")


def summarise(
    outcome: RunOutcome,
    *,
    config_name: str,
    seed: int,
    build_seconds: float = 0.0,
    records: Sequence[Record] | None = None,
) -> Summary:
    """The summary of a run that ended well.

    `records` are those of all its starts, where `outcome` is of the last one; seconds and memory are of `outcome`.
    """
    records = outcome.records if records is None else records
    before, after = _held_out_ends(records)
    routed = [value for _, value in series(records, "srpo/routed_share")]
    stages = {"building model and data": build_seconds} if build_seconds else {}
    stages |= _split_training(outcome.stage_seconds, outcome.records)
    return Summary(
        config_name=config_name,
        seed=seed,
        steps=max((record.step for record in records), default=0),
        held_out_before=before.accuracy() if before else None,
        held_out_after=after.accuracy() if after else None,
        held_out_by_source=_by_source(before, after),
        routed_share_first=routed[0] if routed else None,
        routed_share_last=routed[-1] if routed else None,
        seconds_per_step=_seconds_per_step(records),
        stage_seconds={name: round(seconds, 2) for name, seconds in stages.items()},
        total_seconds=round(build_seconds + outcome.total_seconds, 2),
        peak_memory_gib=round(outcome.peak_memory_bytes / 2**30, 2),
    )


def show(summary: Summary, files: RunFiles, console: Console, *, plot: Path | None = None) -> None:
    """Print the summary and where everything is."""
    gained = "" if summary.points_gained is None else f"  ({summary.points_gained:+.1f} points)"
    table = Table(title=f"{summary.config_name}, seed {summary.seed}, {summary.steps} steps", show_header=False)
    arrow = f"{_percent(summary.held_out_before)} -> {_percent(summary.held_out_after)}{gained}"
    table.add_row("held-out accuracy", arrow)
    if len(summary.held_out_by_source) > 1:
        for source, (first, last) in summary.held_out_by_source.items():
            table.add_row(f"  {source}", f"{_percent(first)} -> {_percent(last)}")
    table.add_row("routed share", f"{_percent(summary.routed_share_first)} -> {_percent(summary.routed_share_last)}")
    if summary.seconds_per_step is not None:
        which = "median without the first" if summary.steps > 1 else "of the only one"
        table.add_row("seconds per step", f"{summary.seconds_per_step:.1f} ({which})")
    table.add_row("peak memory", f"{summary.peak_memory_gib:.1f} GiB")
    table.add_row("total", f"{summary.total_seconds:.0f} s")
    for name, seconds in summary.stage_seconds.items():
        table.add_row(f"  {name}", f"{seconds:.0f} s")
    console.print(table, highlight=False)
    for name, path in places(files, plot).items():
        console.print(f"  {name:<22}{path}", highlight=False, markup=False, soft_wrap=True)


def places(files: RunFiles, plot: Path | None = None) -> dict[str, Path]:
    """What the run left behind, by name; only what is there."""
    found = {
        "checkpoints": files.checkpoints if newest(files.checkpoints) else None,
        "metrics (JSONL)": files.metrics,
        "metrics (TensorBoard)": files.tensorboard,
        "teacher prompts": files.teacher_prompts,
        "plot": plot,
        "log": files.log,
    }
    return {name: path for name, path in found.items() if path is not None and path.exists()}


def _held_out_ends(records: Sequence[Record]) -> tuple[Record | None, Record | None]:
    """First and last validated record; "after" is None if there is only one."""
    validated = [record for record in records if record.accuracy() is not None]
    before = validated[0] if validated and validated[0].step == 0 else None
    after = validated[-1] if validated and validated[-1].step > 0 else None
    return before, after


def _by_source(before: Record | None, after: Record | None) -> dict[str, tuple[float | None, float | None]]:
    first = before.held_out() if before else {}
    last = after.held_out() if after else {}
    return {source: (first.get(source), last.get(source)) for source in sorted({*first, *last})}


def _seconds_per_step(records: Sequence[Record]) -> float | None:
    """Median of a step's own time: without checkpoint and validation, and without the first, which warms up."""
    own = [
        seconds - (record.get("timing_s/save_checkpoint") or 0.0)
        for record in records
        if record.step > 0 and (seconds := record.get("timing_s/step")) is not None
    ]
    return statistics.median(own[1:] or own) if own else None


def _split_training(stages: Mapping[str, float], records: Sequence[Record]) -> dict[str, float]:
    """The stages, with validation and checkpoints taken out of the training stage that contains them."""
    result = dict(stages)
    stopping = result.pop(STOPPING, None)
    validation = FINAL_VALIDATION if VALIDATING in stages else VALIDATING
    for name, key in ((validation, "timing_s/testing"), (CHECKPOINT, "timing_s/save_checkpoint")):
        seconds = sum(value for _, value in series(records, key))
        if seconds and TRAINING in result:
            result[TRAINING] -= seconds
            result[name] = seconds
    if stopping is not None:
        result[STOPPING] = stopping
    return result


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1%}"
