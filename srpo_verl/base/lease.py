"""A folder that belongs to one run: a lease in it with signs of life, on one machine and over network file systems.

Whoever wants the folder finds its last holder (`lease_files`) and

- takes it over if the holder has let go, or is a process of this place that is dead: at once;
- is refused if it is a process of this place that lives, or one of another place that gives signs of life;
- watches one of another place for `timeout` seconds of its own clock, and takes over if not one sign came: the clocks
  of two hosts are never compared.

Of several that do so at once exactly one gets the next number. A holder looks at the numbers before it writes, and
has lost the folder when a stranger's number is larger, or when it could not give a sign of life for `timeout` seconds;
if a file server that hung took these, it claims the next number itself.

filelock's SoftFileLease has such signs of life too; but its holders cannot find out before a write that they were
superseded ("it does not fence", its documentation says), cannot hand a claim on from process to process, as the
command, verl's main process and the trainer on a node of the cluster do here, and do not say what they are doing.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from srpo_verl.base import lease_files as files
from srpo_verl.base.held_lease import Lease, LeaseLostError, boot_clock, who
from srpo_verl.base.lease_files import FOLDER, Record
from srpo_verl.base.processes import Place, ProcessId, family_of, this_place

__all__ = ["FOLDER", "TOKEN", "FolderTakenError", "Lease", "LeaseLostError", "LeaseTimes", "describe", "take"]

# Environment variable of the processes of a run: the token of its lease.
TOKEN = "SRPO_LEASE"
# What a holder does that can be looked at and stopped.
STARTING, TRAINING = RUNS = ("starting", "training")
# Seconds that the processes of a dead holder have to end by themselves.
ENDING_BY_THEMSELVES = 5.0


class FolderTakenError(RuntimeError):
    """Another process has the folder; the message says who, since when, and what one can do."""


@dataclass(frozen=True)
class LeaseTimes:
    """Seconds. `timeout`: without a sign of life for so long a holder on another host counts as dead.

    `ending`: how long a start waits for a holder whose starter has died, and which is ending therefore.
    """

    interval: float = 5.0
    timeout: float = 180.0
    ending: float = 90.0


def take(
    folder: Path,
    *,
    what: str = TRAINING,
    token: str | None = None,
    times: LeaseTimes | None = None,
    tell: Callable[[str], object] = lambda sentence: None,
    here: ProcessId | None = None,
    clock: Callable[[], float] = boot_clock,
    sleep: Callable[[float], object] = time.sleep,
) -> Lease:
    """The lease of `folder`, which is made if it is missing.

    Args:
        what: what for, in words.
        token: of a holder that hands the folder on to this process; None draws one.
        tell: is given a sentence where a holder is waited for or taken over.
        here: this process; another one in tests.

    Raises:
        FolderTakenError: somebody else has it.
        OSError: the folder cannot be written.
    """
    times, here = times or LeaseTimes(), here or ProcessId.of()
    found = _Search(folder, here.place, clock)
    token = token or uuid.uuid4().hex[:16]
    while True:
        inode = files.inode(folder)
        numbers = files.generations(folder)
        last = files.read_record(folder, numbers[-1]) if numbers else None
        heir = last is not None and last.token == token
        if numbers and not heir and (said := found.wait(numbers[-1], last, times, tell)) is not None:
            sleep(said)
            continue
        before = last if heir else None
        record = Record(
            generation=(numbers[-1] if numbers else 0) + 1,
            token=token,
            chain=(*(before.chain if before else ()), here),
            what=what,
            since=before.since if before else time.time(),
            interval=times.interval,
            timeout=times.timeout,
            inode=inode,
        )
        if files.claim(folder, record):
            lease = Lease(folder, record, clock)
            lease.beat()
            if last is not None and not heir:
                _take_over(folder, last, here.place, tell)
            return lease


class _Search:
    """What is known of the holder by now, by signs of life and this process's clock."""

    def __init__(self, folder: Path, here: Place, clock: Callable[[], float]):
        self.folder, self.here, self.clock = folder, here, clock
        self.generation = 0
        self.since = self.seen = 0.0
        self.sign: object = None
        self.told = False

    def wait(
        self, generation: int, last: Record | None, times: LeaseTimes, tell: Callable[[str], object]
    ) -> float | None:
        """Seconds until the next look; None: the folder can be taken. Raises FolderTakenError."""
        if files.read_end(self.folder, generation) is not None:
            return None
        now, sign = self.clock(), files.sign_of_life(self.folder, generation)
        if generation != self.generation:
            self.generation, self.since, self.seen, self.sign, self.told = generation, now, now, sign, False
        lives = sign != self.sign
        timeout, interval = (last.timeout, last.interval) if last else (times.timeout, times.interval)
        copied = last is not None and last.inode != files.inode(self.folder)
        here = last.holder.alive(self.here) if last is not None and not copied else None
        if here is False:
            return None
        ending = last is not None and any(process.alive(self.here) is False for process in last.chain[:-1])
        if here or lives:
            if ending and now - self.since < times.ending:
                self._tell(tell, f"{who(last)} is ending, since what started it has died: waiting for it")
                self.sign, self.seen = sign, now
                return 0.2
            raise FolderTakenError(describe(self.folder, last))
        # Two intervals more than its own limit, at which it gives up by itself.
        if now - self.seen > timeout + 2 * interval:
            return None
        self._tell(
            tell,
            f"{self.folder} was taken by {who(last)}{', and may be a copy of its folder' if copied else ''}, which "
            f"cannot be asked from here: waiting up to {timeout + 2 * interval:.0f} s for a sign of life of it",
        )
        return min(1.0, interval / 4)

    def _tell(self, tell: Callable[[str], object], sentence: str) -> None:
        if not self.told:
            tell(sentence)
        self.told = True


def _take_over(folder: Path, last: Record, here: Place, tell: Callable[[str], object]) -> None:
    """In words; what a dead holder of this place has left running is ended."""
    if files.read_end(folder, last.generation) is not None:
        return
    tell(f"{who(last)} is dead, so its folder {folder} is taken over")
    if last.holder.place == here and (left := family_of(TOKEN, last.token)):
        psutil.wait_procs(left, timeout=ENDING_BY_THEMSELVES)
        if left := family_of(TOKEN, last.token):
            tell(f"{len(left)} processes of it are ended: pid {', '.join(str(process.pid) for process in left)}")
            for process in left:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(left, timeout=10)


def describe(folder: Path, record: Record | None) -> str:
    """Who has the folder, since when, at which step, and what one can do about it."""
    beat = files.read_beat(folder, record.generation) if record else None
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.since)) if record else "a moment ago"
    at = f", at step {beat.step}" if beat and beat.step is not None else f", {beat.doing}" if beat else ""
    asleep = record is not None and record.holder.place == this_place() and record.holder.suspended()
    stopped = f" (suspended: `kill -CONT {record.holder.pid}` wakes it)" if record and asleep else ""
    ways = f"look at it (srpo attach {folder}), stop it (srpo stop {folder})"
    if record is not None and record.what not in RUNS:
        ways = f"wait for it, end it (kill {record.holder.pid} on {record.holder.place.host})"
    return (
        f"{folder} belongs to {who(record)}{stopped}, {record.what if record else 'unknown'} since {since}{at}: "
        f"{ways}, or take another folder"
    )


def in_use(folder: Path) -> bool:
    """Whether a process has `folder`, as far as can be said without waiting; for one of another host by its clock."""
    record = files.newest_record(folder)
    if record is None or files.read_end(folder, record.generation) is not None:
        return False
    alive = record.holder.alive()
    if alive is None:
        return files.silent_for(folder, record) < record.timeout
    return alive


def refuse_if_alive(folder: Path) -> None:
    """Raises FolderTakenError if a process of this machine has `folder`; one of another is not waited for."""
    record = files.newest_record(folder)
    if record and record.holder.alive() and files.read_end(folder, record.generation) is None:
        raise FolderTakenError(describe(folder, record))
