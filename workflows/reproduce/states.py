"""The state of every cell, derived from its folder, and what is left to pay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from workflows.reproduce.backends import Backend, BackendError
from workflows.reproduce.cell_files import (
    DONE,
    FAILED,
    REJECTED,
    SPEC,
    changes,
    is_watched,
    read_outcome,
    read_start,
)
from workflows.reproduce.spec.cell import Cell
from workflows.reproduce.spec.site import Site

RUNNING, UNWATCHED, STOPPED, PENDING, CHANGED = "running", "unwatched", "stopped", "pending", "changed"
# In the order of a summary.
STATES = (DONE, RUNNING, UNWATCHED, STOPPED, PENDING, FAILED, REJECTED, CHANGED)
MEANING = {
    DONE: "its budget is used up",
    RUNNING: "a program runs it now",
    UNWATCHED: "its job runs on the cluster, nobody watches it: start again to",
    STOPPED: "interrupted; goes on from its last checkpoint",
    PENDING: "not started",
    FAILED: "ended with an error; --retry-failed runs it again",
    REJECTED: "stopped by a check of the grid file",
    CHANGED: "the grid file says something else than the run in its folder",
}


@dataclass(frozen=True)
class CellState:
    """`share` of the budget that is trained, 0 to 1; `accuracy` is the best held-out one so far."""

    cell: Cell
    state: str
    reason: str = ""
    share: float = 0.0
    last_step: int = 0
    training_seconds: float = 0.0
    accuracy: float | None = None


@dataclass(frozen=True)
class Cost:
    """GPU-hours on the training clock. Start-up and validation come on top."""

    spent: float
    to_come: float
    unknown: int  # cells whose cost is not known before one like them has run

    def describe(self) -> str:
        text = f"{_hours(self.spent)} GPU-hours of training spent, {_hours(self.to_come)} to come"
        return text + (f" and {self.unknown} cells of unknown cost (none like them has run)" if self.unknown else "")


def state_of(cell: Cell, site: Site, backend: Backend, *, lease_is_ours: bool = False) -> CellState:
    """Look at the cell's folder, and at the cluster if a job of the cell may still be there.

    `lease_is_ours` is for the program that holds the cell's lease: to it no cell is `running`.
    """
    watched = not lease_is_ours and is_watched(cell)
    if not (cell.folder / SPEC).is_file():
        return CellState(cell, RUNNING if watched else PENDING)
    records = cell.records()
    outcome = read_outcome(cell)
    # A run that never trained a step may change: there is nothing that could be mixed.
    if records and (differences := changes(cell, site.data)):
        state, reason = CHANGED, "\n".join(differences)
    elif outcome is not None and not (outcome.state == REJECTED and not cell.rejection(records)):
        state, reason = outcome.state, outcome.reason
    elif watched:
        state, reason = RUNNING, ""
    elif _job_runs(cell, backend):
        state, reason = UNWATCHED, ""
    else:
        state, reason = STOPPED, ""
    accuracies = [value for record in records if (value := record.accuracy()) is not None]
    return CellState(
        cell,
        state,
        reason,
        share=cell.share_done(records),
        last_step=records[-1].step if records else 0,
        training_seconds=cell.seconds_trained(records),
        accuracy=max(accuracies, default=None),
    )


def cost(states: Sequence[CellState], site: Site) -> Cost:
    """Spent and to come. A budget in hours is its own price; steps are priced by the seconds per step measured so far.

    Measured on cells of the same benchmark, model and method; else of the same model and method; else of the model.
    """
    spent = sum(state.training_seconds for state in states)
    to_come, unknown = 0.0, 0
    for state in states:
        if state.state in (DONE, FAILED, REJECTED, CHANGED):
            continue
        total = state.cell.budget.seconds
        if total is None:
            per_step = _seconds_per_step(state.cell, states)
            if per_step is None:
                unknown += 1
                continue
            assert state.cell.budget.last_step is not None
            total = per_step * state.cell.budget.last_step
        to_come += total * (1 - state.share)
    return Cost(spent * site.gpus / 3600, to_come * site.gpus / 3600, unknown)


def summary(states: Sequence[CellState]) -> str:
    """E.g. "12 cells: 5 done, 1 running, 6 pending"."""
    counts = Counter(state.state for state in states)
    return f"{len(states)} cells: " + ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])


def _seconds_per_step(cell: Cell, states: Sequence[CellState]) -> float | None:
    for axes in (("benchmark", "model", "method"), ("model", "method"), ("model",)):
        alike = [
            state
            for state in states
            if state.last_step and all(getattr(state.cell, axis) == getattr(cell, axis) for axis in axes)
        ]
        if alike:
            return sum(state.training_seconds for state in alike) / sum(state.last_step for state in alike)
    return None


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _job_runs(cell: Cell, backend: Backend) -> bool:
    start = read_start(cell)
    if start is None or not backend.outlives_us or start.backend != backend.site.backend:
        return False
    try:
        return backend.alive(cell, start.job)
    except BackendError:
        return False
