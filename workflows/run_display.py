"""Showing a run to a person: one live line on a terminal, plain lines elsewhere (a file, a pipe, CI)."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from workflows.metrics_log import Record
from workflows.verl_run import TRAINING


def live_metrics(record: Record) -> str:
    """What is worth seeing of one step."""
    parts = []
    if (held_out := record.accuracy()) is not None:
        parts.append(f"held-out accuracy {held_out:.1%}")
    if (accuracy := record.get("srpo/accuracy", "critic/score/mean")) is not None:
        parts.append(f"rollouts correct {accuracy:.0%}")
    if (routed := record.get("srpo/routed_share")) is not None:
        parts.append(f"routed {routed:.0%}")
    if (seconds := record.get("timing_s/step")) is not None:
        parts.append(f"{seconds:.1f} s/step")
    return ", ".join(parts)


class TerminalDisplay(AbstractContextManager["TerminalDisplay"]):
    """A spinner that names the stage, a bar over the steps, and the metrics of the last step."""

    def __init__(self, console: Console, total_steps: int | None, ago: float = 0.0):
        self.total_steps, self._ago = total_steps, ago
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[metrics]}"),
            console=console,
        )
        self.task = self.progress.add_task("", total=None, metrics="")

    def __enter__(self) -> TerminalDisplay:
        self.progress.start()
        task = self.progress.tasks[0]
        task.start_time = (task.start_time or self.progress.get_time()) - self._ago
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is None:
            self.progress.update(self.task, description="done", total=1, completed=1)
        self.progress.stop()

    def stage(self, name: str) -> None:
        if name:
            self.progress.update(self.task, description=name)

    def record(self, record: Record) -> None:
        if record.step > 0:
            total = f"/{self.total_steps}" if self.total_steps else ""
            self.progress.update(
                self.task,
                description=f"{TRAINING}, step {record.step}{total}",
                total=self.total_steps,
                completed=record.step,
            )
        self.progress.update(self.task, metrics=live_metrics(record))
        if record.accuracy() is not None:
            self.progress.console.print(f"  step {record.step}: {live_metrics(record)}", highlight=False)


class PlainDisplay(AbstractContextManager["PlainDisplay"]):
    """One line per stage and per step, with the seconds since the start."""

    def __init__(self, console: Console, total_steps: int | None, ago: float = 0.0):
        self.console, self.total_steps, self.started = console, total_steps, time.monotonic() - ago

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        return None

    def stage(self, name: str) -> None:
        if name:
            self._line(name)

    def record(self, record: Record) -> None:
        total = f"/{self.total_steps}" if self.total_steps else ""
        self._line(f"step {record.step}{total}: {live_metrics(record)}")

    def _line(self, text: str) -> None:
        seconds = f"[{time.monotonic() - self.started:6.1f} s] "
        self.console.print(seconds + text, markup=False, highlight=False, soft_wrap=True)


def display(console: Console, total_steps: int | None, ago: float = 0.0) -> TerminalDisplay | PlainDisplay:
    """The display that suits where the output goes; of a run that began `ago` seconds ago."""
    return (TerminalDisplay if console.is_terminal else PlainDisplay)(console, total_steps, ago)
