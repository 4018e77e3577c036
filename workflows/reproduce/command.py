"""`srpo reproduce GRID --site SITE`: options to the functions of this folder, errors to sentences."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from workflows.compose_config import ConfigError
from workflows.reproduce.backends import Backend, BackendError, backend_of
from workflows.reproduce.cell_files import DONE
from workflows.reproduce.listener import COLOURS, GridDisplay
from workflows.reproduce.run_cell import next_job_name
from workflows.reproduce.run_grid import GridRefused, check_before, report_of, run_grid
from workflows.reproduce.spec.cell import Cell, cells, select
from workflows.reproduce.spec.grid import Grid
from workflows.reproduce.spec.settings_file import SettingsError, load
from workflows.reproduce.spec.site import Site
from workflows.reproduce.states import CellState, cost, state_of, summary

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    grid: Annotated[Path, typer.Argument(help="Grid file (YAML): benchmarks, models, methods, seeds, budget.")],
    site: Annotated[Path, typer.Option(help="Site file (YAML): backend, GPUs, where data and runs are.")],
    status: Annotated[
        bool, typer.Option("--status", help="Say how every cell is and what is to come; run none.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print exactly what would run; run nothing.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only cells with these parts in their name, e.g. 'chemistry srpo s1'. May be repeated."),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed cells again, too.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Cells at a time; the site file's `jobs` by default.")] = None,
    report: Annotated[bool, typer.Option(help="Build the report over all runs at the end.")] = True,
) -> None:
    """Run a grid of training runs to its end; started again, it goes on where it was.

    Each cell is one run folder below the site's `runs`. What is done is never repeated, what was interrupted goes on
    from its last checkpoint, and a grid file that no longer fits a finished run is refused.

    Exit code: 0 every selected cell is done, 1 otherwise, 2 the grid or site file cannot be used.
    """
    console = Console()
    try:
        grid_file, site_file = load(grid, Grid), load(site, Site)
        chosen = select(cells(grid_file, site_file.runs), only or [])
    except (SettingsError, FileNotFoundError, ValueError) as error:
        _complain(console, error)
        raise typer.Exit(2) from error
    backend = backend_of(site_file)
    if dry_run:
        try:
            _print_what_would_run(console, chosen, backend, retry_failed)
        except ConfigError as error:
            _complain(console, error)
            raise typer.Exit(2) from error
        return
    if status:
        _print_status(console, _states(chosen, backend), site_file)
        return
    try:
        _run(console, chosen, backend, jobs=jobs or site_file.jobs, retry_failed=retry_failed)
    except (GridRefused, BackendError) as error:
        _complain(console, error)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        on = "its jobs go on on the cluster" if backend.outlives_us else "no process of it is left"
        console.print(f"\nstopped; {on}. The same command goes on from here.", style="red")
        raise typer.Exit(130) from None
    states = _states(chosen, backend)
    _print_status(console, states, site_file)
    if report:
        _report(console, grid_file, site_file)
    if any(state.state != DONE for state in states):
        raise typer.Exit(1)


def _run(console: Console, chosen: Sequence[Cell], backend: Backend, *, jobs: int, retry_failed: bool) -> None:
    states = _states(chosen, backend)
    console.print(f"{summary(states)}; {cost(states, backend.site).describe()}", highlight=False, soft_wrap=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _like_ctrl_c)
    with GridDisplay(console) as display:
        run_grid(chosen, backend, listener=display, jobs=jobs, retry_failed=retry_failed)


def _states(chosen: Sequence[Cell], backend: Backend) -> list[CellState]:
    return [state_of(cell, backend.site, backend) for cell in chosen]


def _print_status(console: Console, states: Sequence[CellState], site: Site) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("cell", "state", "step", "of budget", "best held out"):
        table.add_column(column, overflow="fold")
    for state in states:
        best = "" if state.accuracy is None else f"{state.accuracy:.1%}"
        share = f"{state.share:.0%}" if state.last_step else ""
        text = f"[{COLOURS[state.state]}]{state.state}[/]" if state.state in COLOURS else state.state
        table.add_row(state.cell.name, text, str(state.last_step or ""), share, best)
    console.print(table, highlight=False)
    for state in states:
        if state.reason:
            first = state.reason.replace("\n", "\n    ")
            console.print(
                f"{state.cell.name}: {state.state}\n    {first}", markup=False, highlight=False, soft_wrap=True
            )
    console.print(f"{summary(states)}; {cost(states, site).describe()}", highlight=False, soft_wrap=True)


def _print_what_would_run(console: Console, chosen: Sequence[Cell], backend: Backend, retry_failed: bool) -> None:
    """To standard output, as it is: no wrapping, no colours."""
    states = _states(chosen, backend)
    to_run = ["running", "unwatched", "stopped", "pending", *(["failed"] if retry_failed else [])]
    for state in states:
        cell = state.cell
        typer.echo(f"### {cell.name}: {state.state}" + ("" if state.state in to_run else ", would not run"))
        if state.state not in to_run:
            continue
        job = next_job_name(cell)
        for name, text in backend.files(cell, job).items():
            typer.echo(f"--- {cell.folder / name}\n{text}")
        typer.echo(f"--- then\n{backend.submission(cell, job)}\n")
    typer.echo(f"{summary(states)}; {cost(states, backend.site).describe()}")
    try:
        check_before(states, backend.site)
    except GridRefused as error:
        _complain(console, error)
        raise typer.Exit(1) from error


def _report(console: Console, grid: Grid, site: Site) -> None:
    every = cells(grid, site.runs)
    with console.status("building the report"):
        page = report_of(every, grid, site.runs / "report")
    if page:
        console.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)


def _complain(console: Console, error: Exception) -> None:
    console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)


def _like_ctrl_c(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    app()
