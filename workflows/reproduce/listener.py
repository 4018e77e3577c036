"""What a person sees while the grid runs: a bar per running cell in a terminal, a line per event in a log."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from workflows.metrics_log import Record
from workflows.reproduce.cell_files import DONE, Outcome
from workflows.reproduce.spec.cell import Cell

COLOURS = {DONE: "green", "failed": "red", "rejected": "yellow"}


class GridDisplay:
    """A `workflows.reproduce.run_grid.Listener`. Use as a context manager."""

    def __init__(self, console: Console):
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[now]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> GridDisplay:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def started(self, cell: Cell) -> None:
        before = cell.records()
        on = f", on from step {before[-1].step}" if before and before[-1].step else ""
        self._say(f"{cell.name}: started{on}")
        self._bars[cell.name] = self._progress.add_task(cell.name, total=1.0, now="starting")

    def progress(self, cell: Cell, records: list[Record]) -> None:
        last = records[-1]
        accuracy = next((value for record in reversed(records) if (value := record.accuracy()) is not None), None)
        now = f"step {last.step}" + (f", held out {accuracy:.1%}" if accuracy is not None else "")
        self._progress.update(self._bars[cell.name], completed=cell.share_done(records), now=now)

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        self._progress.remove_task(self._bars.pop(cell.name))
        done = f"{outcome.last_step} steps, {outcome.training_seconds:.0f} s of training"
        reason = f"\n  {outcome.reason}".replace("\n", "\n  ") if outcome.reason else ""
        self._say(f"{cell.name}: {outcome.state}, {done}{reason}", COLOURS[outcome.state])

    def skipped(self, cell: Cell, why: str) -> None:
        self._say(f"{cell.name}: left alone, {why}")

    def _say(self, text: str, style: str | None = None) -> None:
        clock = time.strftime("%H:%M:%S")
        self.console.print(f"{clock} {text}", style=style, markup=False, highlight=False, soft_wrap=True)
