"""The paper's Tables 1 and 2 and its seconds per step: best held-out accuracy within budgets of training time."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workflows.report.intervals import Estimate, estimate
from workflows.report.labels import order
from workflows.report.paper_results import METRIC, PAPER, published
from workflows.report.reported_run import ReportedRun
from workflows.report.run_clock import say_seconds
from workflows.report.table import Cell, Group, Table

NONE = "–"
BEFORE = "step 0"
# Marks: some run ended before the budget was spent; some run was not validated within it.
SHORT, FEWER = "†", "‡"


def models(runs: Sequence[ReportedRun]) -> list[str]:
    return sorted({run.model for run in runs})


def methods(runs: Sequence[ReportedRun]) -> list[str]:
    return sorted({run.method for run in runs}, key=order)


def benchmarks(runs: Sequence[ReportedRun]) -> list[str]:
    return sorted({name for run in runs for name in run.held_out})


def accuracy_table(runs: Sequence[ReportedRun], budgets: Sequence[float]) -> Table:
    """Table 1 of one model: by benchmark and method, best accuracy in each budget, mean over seeds with an interval."""
    groups = []
    for benchmark in benchmarks(runs):
        rows = []
        for method in methods(runs):
            own = [run for run in runs if run.method == method and benchmark in run.held_out]
            if own:
                estimates = [_best(own, benchmark, budget) for budget in budgets]
                before = estimate([v for run in own if (v := run.before_training(benchmark)) is not None])
                cells = [_percent(before), *(_percent(found, marks) for found, marks in estimates)]
                rows.append([Cell(method), _seeds(own), *cells])
        rows = _mark_best(rows, first=3)
        groups.append(Group(benchmark, rows + _paper_rows(runs, benchmark, budgets)))
    notes = [*_interval_notes(runs, budgets, groups), *_metric_notes(runs)]
    if any(row[0].muted for group in groups for row in group.rows):
        notes.append(f"Rows of the paper: {PAPER}.")
    return Table(
        f"Best {_metric(runs)} (%) within a budget of training time",
        ["method", "runs", BEFORE, *map(say_seconds, budgets)],
        groups,
        notes,
    )


def ablation_table(runs: Sequence[ReportedRun], budgets: Sequence[float]) -> Table:
    """Table 2 of one model: the average over the benchmarks that every method was validated on."""
    names = methods(runs)
    common = [
        benchmark
        for benchmark in benchmarks(runs)
        if all(any(run.method == method and benchmark in run.held_out for run in runs) for method in names)
    ]
    rows = []
    for method in names if common else []:
        own = [run for run in runs if run.method == method]
        cells = [_percent(*_average(own, common, budget)) for budget in budgets]
        rows.append([Cell(method), *cells])
    left_out = [benchmark for benchmark in benchmarks(runs) if benchmark not in common]
    notes = [
        f"Average over {', '.join(common)}." if common else "No benchmark was validated with every method: no average."
    ]
    if left_out:
        notes.append(f"Left out, because some method has no run on it: {', '.join(left_out)}.")
    notes.append(
        "Per seed averaged over the benchmarks, then over seeds; where seeds do not match, the average of the means, "
        "without an interval."
    )
    return Table(
        "Average over benchmarks (%)",
        ["method", *map(say_seconds, budgets)],
        [Group("", _mark_best(rows, first=1))],
        notes,
    )


def speed_table(runs: Sequence[ReportedRun], budgets: Sequence[float]) -> Table:
    """Seconds per step of one model: mean over the steps inside the window, then over runs."""
    groups = []
    for data in sorted({run.data for run in runs}):
        rows = []
        for method in methods(runs):
            own = [run for run in runs if run.method == method and run.data == data and run.clock.seconds]
            if own:
                cells = []
                for budget in budgets:
                    values = [s for run in own if (s := run.clock.seconds_per_step(budget)) is not None]
                    cells.append(_seconds(estimate(values), _short(own, budget)))
                rows.append([Cell(method), _seeds(own), *cells])
        if rows:
            groups.append(Group(data, rows))
    return Table(
        "Seconds per training step, mean over the window",
        ["method", "runs", *map(say_seconds, budgets)],
        groups,
        ["Without validation and checkpoints. The first step of a start is in it, and warms up."],
    )


def _paper_rows(runs: Sequence[ReportedRun], benchmark: str, budgets: Sequence[float]) -> list[list[Cell]]:
    """What the paper reports for the methods that are there, where it has the same measure and one of the budgets."""
    if any(not run.metric_names.get(benchmark, f"/{METRIC}").endswith(f"/{METRIC}") for run in runs):
        return []
    rows = []
    for method in methods([run for run in runs if benchmark in run.held_out]):
        known = published(runs[0].model, benchmark, method)
        if known and any(budget in known for budget in budgets):
            values = [f"{known[budget]:.1f}" if budget in known else NONE for budget in (0.0, *budgets)]
            rows.append([Cell(f"{method}, paper", hint=PAPER, muted=True), Cell("1"), *map(Cell, values)])
    return rows


def _best(runs: Sequence[ReportedRun], benchmark: str, budget: float) -> tuple[Estimate | None, str]:
    """The estimate, with SHORT and FEWER where they apply."""
    values = [value for run in runs if (value := run.best_within(benchmark, budget)) is not None]
    return estimate(values), _short(runs, budget) + FEWER * (len(values) < len(runs))


def _short(runs: Sequence[ReportedRun], budget: float) -> str:
    return SHORT if any(not run.clock.covers(budget) for run in runs) else ""


def _average(runs: Sequence[ReportedRun], names: Sequence[str], budget: float) -> tuple[Estimate | None, str]:
    cells = [_best([run for run in runs if name in run.held_out], name, budget) for name in names]
    marks = "".join(sorted({mark for _, found in cells for mark in found}))
    if any(found is None for found, _ in cells):
        return None, marks
    by_seed = []
    for seed in sorted({run.seed for run in runs}):
        own = [
            [v for run in runs if run.seed == seed and (v := run.best_within(name, budget)) is not None]
            for name in names
        ]
        if all(own):
            by_seed.append(sum(sum(values) / len(values) for values in own) / len(own))
    seeds_match = len(by_seed) == len({run.seed for run in runs})
    if by_seed and seeds_match:
        return estimate(by_seed), marks
    means = [found.mean for found, _ in cells if found is not None]
    return Estimate(sum(means) / len(means), None, 1), marks


def _percent(found: Estimate | None, marks: str = "") -> Cell:
    if found is None:
        return Cell(NONE, hint="not validated within the budget")
    return _cell(found, 100, 1, marks)


def _seconds(found: Estimate | None, marks: str) -> Cell:
    return Cell(NONE, hint="no step was done within the window") if found is None else _cell(found, 1, 2, marks)


def _cell(found: Estimate, scale: float, digits: int, marks: str) -> Cell:
    small = "" if found.half_width is None else f"± {scale * found.half_width:.{digits}f}"
    return Cell(f"{scale * found.mean:.{digits}f}{marks}", small, hint=f"{found.count} run{'s' * (found.count > 1)}")


def _seeds(runs: Sequence[ReportedRun]) -> Cell:
    return Cell(str(len(runs)), hint="seeds " + ", ".join(sorted(run.seed for run in runs)))


def _mark_best(rows: list[list[Cell]], *, first: int) -> list[list[Cell]]:
    """The highest mean of each column from `first` on, where there is more than one method."""
    if len(rows) < 2:
        return rows
    marked = [list(row) for row in rows]
    for column in range(first, len(rows[0])):
        values = [_value(row[column]) for row in rows]
        top = max((value for value in values if value is not None), default=None)
        for row, value in zip(marked, values, strict=True):
            if value is not None and value == top:
                cell = row[column]
                row[column] = Cell(cell.text, cell.small, best=True, hint=cell.hint)
    return marked


def _value(cell: Cell) -> float | None:
    match = re.match(r"-?\d+(\.\d+)?", cell.text)
    return float(match[0]) if match else None


def _metric(runs: Sequence[ReportedRun]) -> str:
    """`avg@16` where all runs have verl's `mean@16`, else the name of the metric."""
    names = {name for run in runs for name in run.metric_names.values()}
    kinds = {match[1] if (match := re.search(r"/mean@(\d+)$", name)) else name for name in names}
    if len(kinds) == 1:
        (kind,) = kinds
        return f"avg@{kind}" if kind.isdigit() else kind
    return "held-out accuracy"


def _metric_notes(runs: Sequence[ReportedRun]) -> list[str]:
    names = sorted({name for run in runs for name in run.metric_names.values()})
    if not names:
        return []
    tails = {name.rsplit("/", 1)[-1] for name in names}
    notes = [f"Metric: {', '.join(names)}."]
    if len(tails) > 1:
        notes.append("These are not one measure: runs differ in answers per question. Compare with care.")
    return notes


def _interval_notes(runs: Sequence[ReportedRun], budgets: Sequence[float], groups: Sequence[Group]) -> list[str]:
    """What the numbers are, and how far they go."""
    counts = [
        sum(run.method == method and benchmark in run.held_out for run in runs)
        for method in methods(runs)
        for benchmark in benchmarks(runs)
    ]
    counts = [count for count in counts if count]
    notes = ["Budget: seconds of training steps; validation, checkpoints and start-up are not counted."]
    if counts and max(counts) > 1:
        two = " (of two runs: 12.7 standard errors)" if 2 in counts else ""
        notes.append(f"± is the half-width of the 95 % t interval over runs{two}.")
    if counts and min(counts) == 1:
        notes.append(
            "A number without ± is a single run: it says nothing about the spread over seeds."
            if max(counts) > 1
            else "Every number is a single run (one seed): it says nothing about the spread over seeds."
        )
    notes.append(
        "The best of a run's validations, on the split that is reported, is optimistic: it is the paper's measure, and "
        "higher than what a checkpoint chosen on other data would give."
    )
    if any(_short(runs, budget) for budget in budgets):
        notes.append(f"{SHORT} some run ended before this budget was spent; its best so far is taken.")
    if FEWER in "".join(cell.text for group in groups for row in group.rows for cell in row):
        notes.append(f"{FEWER} some run was not validated within this budget; the mean is over the others.")
    repeated = [
        f"{method} on {data}"
        for method in methods(runs)
        for data in sorted({run.data for run in runs})
        if _repeats([run.seed for run in runs if run.method == method and run.data == data])
    ]
    if repeated:
        notes.append(f"Some runs have the same seed and are not independent: {', '.join(repeated)}.")
    return notes


def _repeats(seeds: Sequence[str]) -> bool:
    return len(set(seeds)) < len(seeds)
