"""The grid from where it stands to its end: which cells are run, by how many hands, and what is refused beforehand."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from srpo_verl.base.lease import LeaseLostError
from workflows.compose_config import ConfigError, compose_config
from workflows.metrics_log import Record
from workflows.reproduce.backends import Backend
from workflows.reproduce.cell_files import DONE, FAILED, REJECTED, Outcome, cell_lease
from workflows.reproduce.run_cell import Stopped, run_cell
from workflows.reproduce.spec.cell import Cell
from workflows.reproduce.spec.grid import Grid
from workflows.reproduce.spec.site import Site
from workflows.reproduce.states import CHANGED, CellState, state_of


class GridRefused(ValueError):
    """The grid cannot be run as it is; the message says why and what to do."""


class Listener(Protocol):
    """Is told what happens to the cells, from several threads."""

    def started(self, cell: Cell) -> None: ...

    def progress(self, cell: Cell, records: list[Record]) -> None: ...

    def ended(self, cell: Cell, outcome: Outcome) -> None: ...

    def skipped(self, cell: Cell, why: str) -> None: ...


@dataclass
class _Work:
    backend: Backend
    retry_failed: bool
    listener: Listener
    poll: float
    cells: queue.SimpleQueue[Cell]
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """One hand: takes cell after cell."""
        try:
            while not self.stopping.is_set():
                self._one(self.cells.get_nowait())
        except (queue.Empty, Stopped):
            return
        except BaseException:
            self.stopping.set()
            raise

    def _one(self, cell: Cell) -> None:
        def lost(why: str) -> None:
            self.listener.skipped(cell, why)
            self.stopping.set()

        with cell_lease(cell, on_lost=lost, tell=lambda text: self.listener.skipped(cell, text)) as lease:
            if lease is None:
                self.listener.skipped(cell, "another program runs it")
                return
            # Looked at again: another program may have run it since the start of this one.
            if not _to_run(state_of(cell, self.backend.site, self.backend, lease_is_ours=True), self.retry_failed):
                return
            self.listener.started(cell)
            try:
                outcome = run_cell(
                    cell, self.backend, stopping=self.stopping, tell=self.listener.progress, poll=self.poll,
                    may_write=lease.check,
                )  # fmt: skip
            except LeaseLostError as error:
                raise Stopped from error
            self.listener.ended(cell, outcome)


def run_grid(
    cells: Sequence[Cell],
    backend: Backend,
    *,
    listener: Listener,
    jobs: int = 1,
    retry_failed: bool = False,
    poll: float = 1.0,
) -> None:
    """Run what is not done, in the order given, `jobs` cells at a time.

    Raises GridRefused before anything starts if a cell's folder holds a run of another spec or data files are missing,
    BackendError if the cluster refuses. On KeyboardInterrupt local runs are ended; runs on a cluster go on.
    """
    states = [state_of(cell, backend.site, backend) for cell in cells]
    check_before(states, backend.site)
    work = _Work(backend, retry_failed, listener, poll, queue.SimpleQueue())
    for state in states:
        if _to_run(state, retry_failed):
            work.cells.put(state.cell)
    # Waited for through futures: a KeyboardInterrupt inside Thread.join would take a live thread for an ended one.
    with ThreadPoolExecutor(jobs, thread_name_prefix="cell") as hands:
        futures = [hands.submit(work.run) for _ in range(jobs)]
        try:
            while wait(futures, timeout=0.2).not_done:
                pass
        finally:
            work.stopping.set()
    for future in futures:
        future.result()


def check_before(states: Sequence[CellState], site: Site) -> None:
    """Raises GridRefused for what would be wrong with every hour spent."""
    if changed := [state for state in states if state.state == CHANGED]:
        lines = []
        for state in changed[:5]:
            lines += [f"{state.cell.folder}:", *(f"  {line}" for line in state.reason.splitlines())]
        more = f"\nand {len(changed) - 5} more" if len(changed) > 5 else ""
        raise GridRefused(
            "The grid file asks for something else than the runs that are there:\n"
            + "\n".join(lines)
            + more
            + "\nTake the change back, name another `runs` folder in the site file, or move these run folders away."
        )
    _check_configs([state.cell for state in states], site)
    if site.data.is_dir() or site.backend == "local":
        files = {
            site.data / name for state in states for name in (state.cell.benchmark.train, state.cell.benchmark.val)
        }
        if missing := sorted(str(file) for file in files if not file.is_file()):
            raise GridRefused(
                f"Data files that are not there: {', '.join(missing)}. `srpo prepare` makes them; the site file's "
                f"`data` says where they are."
            )


def report_of(cells: Sequence[Cell], grid: Grid, folder: Path) -> Path | None:
    """The page of `srpo report` over the grid's runs; None if no cell has trained a step."""
    from workflows.report.build import PAPER_BUDGETS, build_report
    from workflows.report.labels import Labels

    runs = {cell.folder: cell for cell in cells if cell.records()}
    if not runs:
        return None
    labels = {
        str(path): Labels(benchmark=cell.benchmark.name, model=cell.model.name, seed=str(cell.seed))
        for path, cell in runs.items()
    }
    budgets = [3600 * hours for hours in sorted(grid.budget.hours)] or PAPER_BUDGETS
    return build_report(list(runs), folder, title=grid.name, budgets=budgets, labels=labels).html


def _to_run(state: CellState, retry_failed: bool) -> bool:
    finished = (DONE, REJECTED, CHANGED) if retry_failed else (DONE, REJECTED, CHANGED, FAILED)
    return state.state not in finished


def _check_configs(cells: Sequence[Cell], site: Site) -> None:
    """Compose every combination of config and overrides once: a misspelt key is found now, not cell by cell."""
    seen: set[tuple[str, ...]] = set()
    for cell in cells:
        arguments = cell.config_arguments(site)
        if tuple(arguments) in seen:
            continue
        seen.add(tuple(arguments))
        try:
            compose_config(cell.method.config_name, arguments, resolve=False)
        except ConfigError as error:
            raise GridRefused(f"{cell.name}: {error}") from error
