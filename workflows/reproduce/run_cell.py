"""One cell from start to outcome: start or find its job, watch its metrics, end it when it is time."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from srpo_verl.base.files import write_atomically
from workflows.metrics_log import Record
from workflows.reproduce.backends import Backend, BackendError
from workflows.reproduce.cell_files import (
    DONE,
    EXIT_CODE,
    FAILED,
    OUTCOME,
    REJECTED,
    Outcome,
    Start,
    read_exit_code,
    read_start,
    write_outcome,
    write_spec,
    write_start,
)
from workflows.reproduce.spec.cell import Cell
from workflows.run_errors import explain

LOG = "train.log"
# A run that has done its last step ends by itself; its processes may hang doing so.
SECONDS_TO_END = 300.0
SECONDS_FOR_JOB_TO_END = 60.0
# On network storage exit_code appears later than the job's end.
SECONDS_FOR_EXIT_CODE = 30.0

Tell = Callable[[Cell, list[Record]], None]


class Stopped(Exception):
    """This program was asked to stop; the cell has no outcome and goes on later."""


def run_cell(
    cell: Cell,
    backend: Backend,
    *,
    stopping: threading.Event,
    tell: Tell,
    poll: float = 1.0,
    may_write: Callable[[], object] = lambda: None,
) -> Outcome:
    """Run the cell to its outcome and write that down. The caller holds the cell's lease, and `may_write` looks at it.

    Raises Stopped if `stopping` is set meanwhile: a local job is then ended, one on a cluster is left to run.
    Raises BackendError if the cluster does not take or end the job; the cell has no outcome then.
    """
    may_write()
    (cell.folder / OUTCOME).unlink(missing_ok=True)
    records = cell.records()
    if not records:
        write_spec(cell, backend.site.data)
    state, reason = _verdict(cell, records)
    if state is None:
        start = _find_or_start(cell, backend)
        state, reason, records = _Watch(cell, backend, start, stopping, tell, poll).until_outcome()
    may_write()
    outcome = Outcome(
        state=state,
        reason=reason,
        spec_hash=cell.spec_hash,
        last_step=records[-1].step if records else 0,
        training_seconds=round(cell.seconds_trained(records), 3),
        gpus=backend.site.gpus,
    )
    write_outcome(cell, outcome)
    return outcome


def prepare(cell: Cell, backend: Backend, job: str) -> None:
    """Write the files of the next start into the cell's folder."""
    (cell.folder / EXIT_CODE).unlink(missing_ok=True)
    for name, text in backend.files(cell, job).items():
        write_atomically(cell.folder / name, text)


@dataclass
class _Watch:
    cell: Cell
    backend: Backend
    start: Start
    stopping: threading.Event
    tell: Tell
    poll: float
    _seen: tuple = ()
    _changed: float = field(default_factory=time.monotonic)
    _records: list[Record] = field(default_factory=list)
    _finished_at: float = 0.0
    _ended_at: float = 0.0

    def until_outcome(self) -> tuple[str, str, list[Record]]:
        """State, reason, records; the job is gone then."""
        while True:
            # In this order: what a job wrote before it ended is read after its end was seen.
            alive = self._alive()
            code = read_exit_code(self.cell)
            if self._read():
                self.tell(self.cell, self._records)
            state, reason = self._outcome(code, alive)
            if state is not None:
                if code is not None:
                    self._let_job_end()
                self.backend.stop(self.cell, self.start.job)
                return state, reason, self._records
            if self.stopping.wait(self.poll):
                if not self.backend.outlives_us:
                    self.backend.stop(self.cell, self.start.job)
                raise Stopped

    def _outcome(self, code: int | None, alive: bool) -> tuple[str | None, str]:
        """Outcome by now, or (None, "")."""
        now = time.monotonic()
        state, reason = _verdict(self.cell, self._records)
        if code is None and alive:
            if state == DONE and self.cell.budget.last_step is not None:
                # Its last step is done, it ends by itself.
                self._finished_at = self._finished_at or now
                return (DONE, "") if now - self._finished_at > SECONDS_TO_END else (None, "")
            if state is None and now - self._changed > 60 * self.backend.site.stall_minutes:
                return FAILED, self._stalled()
            return state, reason
        self._ended_at = self._ended_at or now
        patience = SECONDS_FOR_EXIT_CODE if self.backend.outlives_us else 0.0
        if state is not None or (code is None and now - self._ended_at <= patience):
            return state, reason
        return FAILED, self._why(code)

    def _let_job_end(self) -> None:
        """The run has ended; its job takes Ray down, and is a completed one for the cluster, not a cancelled one."""
        deadline = time.monotonic() + SECONDS_FOR_JOB_TO_END
        while self._alive() and time.monotonic() < deadline and not self.stopping.is_set():
            time.sleep(min(self.poll, 1.0))

    def _alive(self) -> bool:
        try:
            return self.backend.alive(self.cell, self.start.job)
        except BackendError:
            return True  # The cluster is not to be reached: exit_code and the stall limit decide.

    def _read(self) -> bool:
        """Read the metrics if they, or the log, have grown; whether there is something new to tell."""
        log = self.cell.folder / LOG
        files = [log, *sorted(self.cell.folder.glob("srpo_run/*/metrics.jsonl"))]
        seen = tuple((path, path.stat().st_size) for path in files if path.is_file())
        if seen == self._seen:
            return False
        self._seen, self._changed = seen, time.monotonic()
        before, self._records = self._records, self.cell.records()
        # A start that begins anew takes the lines of the earlier ones away: for a moment there are none.
        return bool(self._records) and len(before) != len(self._records)

    def _why(self, code: int | None) -> str:
        """Why the run failed: what the cluster says, then what the log says."""
        log = self._log()
        try:
            told = self.backend.epitaph(self.start.job, self.start.started, log)
        except (BackendError, ConnectionError, RuntimeError) as error:
            told = f"(the cluster could not be asked why: {error})"
        if code == 0:
            steps = self._records[-1].step if self._records else 0
            ended = f"the run ended by itself after {steps} steps, before its budget of {self.cell.budget.describe()}"
        elif code is None:
            ended = (
                f"its job {self.start.job} is gone without an exit code: cancelled, out of time, or its node was lost"
            )
        else:
            ended = f"exit code {code}"
        return "\n".join(part for part in (told, ended, explain(log) if log.strip() and code != 0 else "") if part)

    def _stalled(self) -> str:
        last = "\n".join(self._log().splitlines()[-5:])
        return (
            f"neither log nor metrics have grown for {self.backend.site.stall_minutes:g} minutes; the log ends:\n{last}"
        )

    def _log(self) -> str:
        path = self.cell.folder / LOG
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            file.seek(self.start.log_offset)
            return file.read().decode(errors="replace")


def _verdict(cell: Cell, records: list[Record]) -> tuple[str | None, str]:
    """Outcome that the metrics alone decide, or (None, "")."""
    if reason := cell.rejection(records):
        return REJECTED, reason
    return (DONE, "") if cell.share_done(records) >= 1 else (None, "")


def _find_or_start(cell: Cell, backend: Backend) -> Start:
    """The job that an earlier invocation left running on the cluster, or a new one."""
    last = read_start(cell)
    ours = last is not None and last.backend == backend.site.backend and backend.outlives_us
    if last and ours and read_exit_code(cell) is None and backend.alive(cell, last.job):
        return last
    job = next_job_name(cell)
    backend.stop(cell, last.job if last else job)
    log = cell.folder / LOG
    start = Start(
        job=job,
        backend=backend.site.backend,
        started=time.time(),
        log_offset=log.stat().st_size if log.is_file() else 0,
    )
    prepare(cell, backend, job)
    write_start(cell, start)
    backend.submit(cell, job)
    return start


def next_job_name(cell: Cell) -> str:
    """Of the next start: a DNS label of at most 45 characters, unlike that of any other folder or start."""
    last = read_start(cell)
    number = int(last.job.rpartition("-")[2]) + 1 if last else 1
    readable = re.sub(r"[^a-z0-9]+", "-", cell.name)[:24].strip("-")
    return f"srpo-{readable}-{hashlib.sha256(str(cell.folder).encode()).hexdigest()[:8]}-{number}"
