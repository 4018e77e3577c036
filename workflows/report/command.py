"""`srpo report`: options to `build_report`, errors to sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or folders with runs below them.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
    budgets: Annotated[str, typer.Option(help="Training times, with s, m, h or d.")] = "1h,5h,10h",
    title: Annotated[str, typer.Option(help="Of the page.")] = "Training runs",
    metric: Annotated[
        str | None,
        typer.Option(
            help="Held-out metric, * for the data source; val-core/*/acc/mean@N with the largest N by default."
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="PATTERN:KEY=VALUE,... names runs whose folder matches; KEY is method, model, benchmark or seed. "
            "Example: --label '*lr2*:method=SRPO lr 2e-6'. May be repeated."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Rollouts to show in all.")] = 120,
    seed: Annotated[int, typer.Option(help="Of the sample of rollouts.")] = 0,
) -> None:
    """Tables, curves, comparisons and rollouts of runs, as one HTML page that works offline; also Markdown and PNG."""
    from workflows.report.build import build_report
    from workflows.report.labels import Labels
    from workflows.report.run_clock import parse_budgets

    console = Console()

    def progress(items: Sequence[Any], text: str) -> Iterable[Any]:
        return track(items, description=text, console=console, transient=True)

    try:
        seconds, named = parse_budgets(budgets), dict(map(Labels.parse, label or ()))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if metric is not None and metric.count("*") != 1:
        raise typer.BadParameter(f"--metric {metric!r} needs one * where the data source stands")
    try:
        report = build_report(
            runs,
            out,
            title=title,
            budgets=seconds,
            labels=named,
            metric=metric,
            samples=samples,
            seed=seed,
            track=progress,
        )
    except (OSError, ValueError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    for note in report.notes:
        console.print(f"note: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    for path in (report.html, report.markdown):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(report.plots)} plots in {out / 'plots'}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    app()
