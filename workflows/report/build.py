"""Builds the report: reads the runs, makes tables and curves, writes the page, the Markdown file and the plots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from srpo_verl.base.files import write_atomically
from workflows.report.budget_tables import ablation_table, accuracy_table, benchmarks, methods, models, speed_table
from workflows.report.comparison import final_tables, overview_table, paper_table, settings_table
from workflows.report.curves import panels
from workflows.report.drawing import png, style_of, svg
from workflows.report.labels import Labels
from workflows.report.page import Content, html_page, markdown_page, slug
from workflows.report.reported_run import ReportedRun, load_runs, said_once
from workflows.report.rollouts import sample_rollouts
from workflows.report.table import Table

PAPER_BUDGETS = (3600.0, 5 * 3600.0, 10 * 3600.0)

_Item = TypeVar("_Item")
Track = Callable[[Sequence[_Item], str], Iterable[_Item]]


@dataclass(frozen=True)
class Report:
    """What was written, and the tables in it by model."""

    html: Path
    markdown: Path
    plots: list[Path]
    results: dict[str, list[Table]]
    notes: list[str]


def build_report(
    runs: Sequence[Path],
    out: Path,
    *,
    title: str = "Training runs",
    budgets: Sequence[float] = PAPER_BUDGETS,
    labels: Mapping[str, Labels] | None = None,
    metric: str | None = None,
    samples: int = 120,
    seed: int = 0,
    track: Track = lambda items, _: items,
) -> Report:
    """Write `out/report.html`, `out/report.md` and `out/plots/*.png` about all runs at or below `runs`.

    Args:
        budgets: seconds of training.
        labels: by pattern of a run's folder (path or name), what it is called instead of what its config says.
        metric: the held-out metric, `*` for the data source; verl's `val-core/*/acc/mean@N` by default.
        samples: how many rollouts are shown.
        seed: they are drawn with it.
        track: wraps the sequences whose handling takes time (a progress bar).

    Raises:
        FileNotFoundError: a folder is missing, or there is no run in it.
        OSError: something cannot be written; the message names it.
    """
    if not budgets or min(budgets) <= 0:
        raise ValueError("budgets: name at least one time, longer than 0 s")
    _writable(out)
    reported, notes = load_runs(runs, labels=labels, metric=metric)
    notes += said_once((run.name, note) for run in reported for note in run.notes)
    rollouts, rollout_notes = sample_rollouts(reported, count=samples, seed=seed)
    content = Content(
        title=title,
        lead=_lead(reported),
        notes=notes,
        overview=overview_table(reported),
        paper=paper_table(reported),
        results=[(model, tables) for model in models(reported) if (tables := _results(reported, model, budgets))],
        speeds=[(model, table) for model in models(reported) if not (table := _speed(reported, model, budgets)).empty],
        panels=panels(reported),
        styles=style_of(methods(reported)),
        final=final_tables(reported),
        settings=settings_table(reported),
        rollouts=rollouts,
        rollout_notes=rollout_notes,
        sample_seed=seed,
    )
    plots, drawings = _draw(out / "plots", content, track)
    html, markdown = out / "report.html", out / "report.md"
    _write(markdown, markdown_page(content, {f"plots/{path.name}": alt for path, alt in plots.items()}).encode())
    _write(html, html_page(content, drawings).encode())
    return Report(html, markdown, list(plots), dict(content.results), notes + rollout_notes)


def _results(runs: Sequence[ReportedRun], model: str, budgets: Sequence[float]) -> list[Table]:
    own = [run for run in runs if run.model == model and run.held_out]
    if not own:
        return []
    # With one benchmark the average is that benchmark, and says nothing new.
    return [accuracy_table(own, budgets), *([ablation_table(own, budgets)] if len(benchmarks(own)) > 1 else [])]


def _speed(runs: Sequence[ReportedRun], model: str, budgets: Sequence[float]) -> Table:
    return speed_table([run for run in runs if run.model == model], budgets)


def _lead(runs: Sequence[ReportedRun]) -> str:
    return (
        ", ".join(
            f"{len(things)} {name}{'s' * (len(things) != 1)}"
            + (f" ({', '.join(things)})" if len(things) <= 4 and shown else "")
            for name, things, shown in (
                ("run", [run.name for run in runs], False),
                ("method", methods(runs), True),
                ("model", models(runs), True),
                ("benchmark", benchmarks(runs), True),
                ("seed", sorted({run.seed for run in runs}), True),
            )
        )
        + "."
    )


def _draw(folder: Path, content: Content, track: Track) -> tuple[dict[Path, str], list[tuple[str, str]]]:
    """Write the PNG files, {file: what it shows}; and the SVGs of each pair of panels."""
    written: dict[Path, str] = {}
    drawings = []
    if content.panels:
        folder.mkdir(parents=True, exist_ok=True)
    for number, (step, over_time) in enumerate(track(content.panels, "drawing")):
        stem = slug(f"{step.model} {step.benchmark} {step.metric.key}")
        path = folder / f"{stem}.png"
        if path in written:
            path = folder / f"{stem}-{number}.png"
        _write(path, png((step, over_time), content.styles))
        written[path] = step.alt()
        drawings.append(
            (svg(step, content.styles, name=f"p{number}s"), svg(over_time, content.styles, name=f"p{number}t"))
        )
    return written, drawings


def _writable(out: Path) -> None:
    """Fail before the work, not after it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write into {out}: {error.strerror}. Name another folder with --out.") from error


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: an earlier report stays as it was until the new file is complete."""
    try:
        write_atomically(path, data)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}. Free some space, or name another --out.") from error
