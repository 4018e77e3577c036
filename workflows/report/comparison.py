"""Runs side by side: what they are, in which settings they differ, and where they ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workflows.metrics_log import series
from workflows.report.config_differences import differences, is_incidental
from workflows.report.curves import HELD_OUT, METRICS, SECONDS
from workflows.report.reported_run import ReportedRun
from workflows.report.run_clock import say_seconds
from workflows.report.table import Cell, Group, Table

NONE = "–"


def overview_table(runs: Sequence[ReportedRun]) -> Table:
    """One row per run."""
    rows = []
    for run in runs:
        git = run.run.record.get("git") or {}
        commit = str(git.get("commit", NONE))[:9] + (" (changed)" if git.get("dirty") else "")
        starts = f"{run.run.starts} starts" if run.run.starts > 1 else ""
        rows.append(
            [
                Cell(run.name, hint=str(run.run.folder)),
                Cell(run.method, hint=f"experiment {run.run.get('trainer.experiment_name', 'unnamed')}"),
                Cell(run.model, hint=str(run.run.get("actor_rollout_ref.model.path", ""))),
                Cell(run.data),
                Cell(run.seed),
                Cell(str(run.last_step), starts),
                Cell(say_seconds(run.clock.total) if run.clock.seconds else NONE),
                Cell(run.state),
                Cell(commit),
            ]
        )
    columns = ["run", "method", "model", "data", "seed", "steps", "training time", "state", "git commit"]
    return Table("Runs", columns, [Group("", rows)], [_versions(runs)], numeric=False)


def _versions(runs: Sequence[ReportedRun]) -> str:
    """The software of the runs in a sentence; what differs between runs with every version."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for name, version in (run.run.record.get("versions") or {}).items():
            found.setdefault(str(name), set()).add(str(version))
    named = ", ".join(f"{name} {' or '.join(sorted(versions))}" for name, versions in found.items())
    return f"Versions: {named}." if named else "No run has recorded its versions."


def paper_table(runs: Sequence[ReportedRun]) -> Table:
    """Where runs differ from the paper's Table 3, as the runs recorded it; runs that differ alike share a row."""
    values: dict[tuple[str, str, str], list[str]] = {}
    for run in runs:
        for key, pair in (run.run.record.get("differs_from_table_3") or {}).items():
            paper, here = pair if isinstance(pair, list) and len(pair) == 2 else (NONE, pair)
            values.setdefault((key, _text(paper), _text(here)), []).append(run.name)
    rows = [
        [Cell(key), Cell(paper), Cell(here), Cell("all" if len(names) == len(runs) > 1 else ", ".join(names))]
        for (key, paper, here), names in sorted(values.items())
    ]
    return Table(
        "Differences from the paper's Table 3 (its SRPO column)",
        ["setting", "paper", "here", "runs"],
        [Group("", rows)],
        numeric=False,
        wide=True,
    )


def settings_table(runs: Sequence[ReportedRun]) -> Table:
    """Every setting in which the runs differ: first those that make them different experiments."""
    found = differences([run.run for run in runs]) if len(runs) > 1 else {}
    groups = []
    for heading, incidental in (("Settings", False), ("Seeds, places, names, lengths, machine", True)):
        rows = [
            [Cell(name), *map(Cell, values)]
            for name, values in found.items()
            if is_incidental(name, values) is incidental
        ]
        if rows:
            groups.append(Group(heading, rows))
    columns = ["setting", *(run.name for run in runs)]
    return Table("Settings in which the runs differ", columns, groups, numeric=False, wide=True)


def final_tables(runs: Sequence[ReportedRun]) -> list[Table]:
    """For each model and data: the last value of each metric, and how far it is from the first run's."""
    groups = sorted({(run.model, run.data) for run in runs})
    tables = []
    for model, data in groups:
        title = "Where the runs ended" + (f": {model}, {data}" if len(groups) > 1 else "")
        tables.append(_final_table(title, [run for run in runs if (run.model, run.data) == (model, data)]))
    return [table for table in tables if not table.empty]


def _final_table(title: str, runs: Sequence[ReportedRun]) -> Table:
    rows = []
    for label, values, digits in _final_values(runs):
        reference = values[0]
        cells = []
        for place, value in enumerate(values):
            if value is None:
                cells.append(Cell(NONE, hint="not logged"))
                continue
            delta = "" if place == 0 or reference is None else f"{value - reference:+.{digits}f}"
            cells.append(Cell(f"{value:.{digits}f}", delta))
        rows.append([Cell(label), *cells])
    return Table(
        title,
        ["last logged value", *(run.name for run in runs)],
        [Group("", rows)],
        [f"In small print: the difference from {runs[0].name}."] if len(runs) > 1 else [],
    )


def _final_values(runs: Sequence[ReportedRun]) -> list[tuple[str, list[float | None], int]]:
    found: list[tuple[str, list[float | None], int]] = []
    for benchmark in sorted({name for run in runs for name in run.held_out}):
        last = [100 * run.held_out[benchmark][-1][1] if benchmark in run.held_out else None for run in runs]
        best = [100 * max(v for _, v in run.held_out[benchmark]) if benchmark in run.held_out else None for run in runs]
        found += [
            (f"Held-out accuracy, {benchmark} (%)", last, 1),
            (f"Best of all validations, {benchmark} (%)", best, 1),
        ]
    for metric in METRICS:
        if metric.key in (HELD_OUT, SECONDS):
            continue
        ends = [series(run.run.records, *metric.names)[-1:] for run in runs]
        label = f"{metric.title} ({metric.unit})" if metric.unit else metric.title
        found.append(
            (
                label,
                [metric.scale * end[0][1] if end else None for end in ends],
                1 if metric.unit in ("%", "tokens") else 3,
            )
        )
    seconds = [run.clock.seconds_per_step(float("inf")) for run in runs]
    found.append(("Seconds per step, mean of the run", seconds, 2))
    return [row for row in found if any(value is not None for value in row[1])]


def _text(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
