"""`srpo status [FOLDER...]`: runs, who has them, how far they are, and their last signs of life."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from workflows.live.run_state import NoRunError, RunState, find, run_state

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    folders: Annotated[list[Path] | None, typer.Argument(help="Runs, or folders of runs; runs/ by default.")] = None,
) -> None:
    """List runs: how each is, who has it, step, since when, last sign of life (by the clock of its machine).

    Exit code 1 if there is none.
    """
    wanted = folders or [Path("runs")]
    states = []
    for folder in find(wanted):
        try:
            states.append(run_state(folder))
        except (OSError, NoRunError) as error:  # somebody else's, or removed meanwhile
            Console(stderr=True).print(f"{folder}: {error}", style="yellow", markup=False, soft_wrap=True)
    if not states:
        Console(stderr=True).print(f"no run at or below {', '.join(map(str, wanted))}", style="red", markup=False)
        raise typer.Exit(1)
    Console().print(table(states))


def table(states: Sequence[RunState]) -> Table:
    whole = Column("run", overflow="fold")  # what the other commands take
    shown = Table(whole, "state", "owner", "step", "since", "last sign of life", box=None)
    for state in states:
        record, beat = state.record, state.beat
        doing = f", {beat.doing}" if beat and state.lives else ""
        shown.add_row(
            _short(state.folder),
            state.how,
            f"{record.holder}, run {record.token}" if record else "",
            "" if beat is None or beat.step is None else str(beat.step),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(record.since)) if record else "",
            f"{_ago(time.time() - beat.time)} ago{doing}" if beat else "",
        )
    return shown


def _short(folder: Path) -> str:
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
