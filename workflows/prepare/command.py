"""`srpo prepare NAME`: the command line of :func:`workflows.prepare.pipeline.prepare`."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class BadRows(StrEnum):
    refuse = "refuse"
    drop = "drop"
    keep = "keep"


@app.command()
def main(
    name: Annotated[
        str | None,
        typer.Argument(help="Which benchmark, as --list shows it, module:NAME, reasoning-gym:NAME, or verifiers:NAME."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; runs/data/NAME by default.")] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A file or folder (JSON, JSON lines, parquet) instead of the hub."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="What --from holds, if its name does not begin with it.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Keep the first so many rows of each split.")] = None,
    bad_rows: Annotated[
        BadRows, typer.Option(help="Rows whose gold answer the grader does not accept.")
    ] = BadRows.refuse,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where the rows are not the published ones.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a data set that is already prepared.")] = False,
    reward_kwargs: Annotated[
        str, typer.Option(help="Of the grader that checks the gold answers, as JSON (docs/rewards.md).")
    ] = "{}",
    dataset_kwargs: Annotated[
        str,
        typer.Option(help="Of a generated data set, as JSON: train_rows, test_rows, seed, and settings of its own."),
    ] = "{}",
    list_all: Annotated[bool, typer.Option("--list", help="Show the benchmarks and end.")] = False,
) -> None:
    """Turn a benchmark into verl's parquet files: train.parquet, test.parquet and manifest.json in one folder.

    Rows come from the Hugging Face hub, or from local files with --from. Their number and content are compared with
    what is published, and every gold answer is graded once, but for those of a grader of your own.
    """
    from workflows.json_option import json_object
    from workflows.prepare.adapters.benchmark import PrepareError
    from workflows.prepare.pipeline import prepare

    console, errors = Console(), Console(stderr=True)
    try:
        if list_all:
            console.print(_benchmarks())
            return
        if name is None:
            raise typer.BadParameter("name a benchmark; `srpo prepare --list` shows them")
        if split not in (None, "train", "test"):
            raise typer.BadParameter(f"--split {split}: it is train or test")
        folder = out or Path("runs/data") / name.replace(":", "-")
        with Progress(console=errors, transient=True) as bar:

            def progress(what: str, total: int) -> Callable[[], object]:
                task = bar.add_task(what, total=total)
                return lambda: bar.advance(task)

            reports = prepare(
                name, folder, source=source, split=split, rows=rows, bad_rows=bad_rows.value, strict=strict,
                force=force, reward_kwargs=json_object(reward_kwargs, "--reward-kwargs"),
                dataset_kwargs=json_object(dataset_kwargs, "--dataset-kwargs"), progress=progress,
            )  # fmt: skip
    except PrepareError as error:
        errors.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    for split_name, report in reports.items():
        style = "red" if report.agreement.startswith("DIFFERS") else None
        left_out = f", {report.dropped} bad rows left out" if report.dropped else ""
        console.print(
            f"{folder / split_name}.parquet: {report.rows} rows{left_out}; source: {report.source_rows} rows, "
            f"{report.agreement}",
            style=style, markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
        for problem in report.problems[:10]:
            console.print(
                f"  row {problem.row}: {problem.kind}: {' '.join(problem.detail.split())[:120]}", markup=False
            )
        if len(report.problems) > 10:
            console.print(f"  ... and {len(report.problems) - 10} more; the manifest counts them by kind")
    for said in dict.fromkeys(report.not_graded for report in reports.values() if report.not_graded):
        console.print(said, markup=False, highlight=False, soft_wrap=True)


def _benchmarks() -> Table:
    from workflows.prepare.adapters.benchmark import PrepareError
    from workflows.prepare.registry import known

    table = Table("name", "rows", "where from", box=None)
    for benchmark in known():
        if isinstance(benchmark, PrepareError):
            table.add_row("(broken)", "", str(benchmark))
            continue
        counts = ", ".join(f"{split} {one.rows}" for split, one in benchmark.published.items())
        places = sorted({place.data_files or place.path for place in benchmark.hub.values()})
        table.add_row(benchmark.name, counts, ", ".join(places) or benchmark.elsewhere)
    return table
