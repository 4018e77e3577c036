"""A folder that this process has: signs of life on a thread of its own, and whether it may still write there."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from srpo_verl.base import lease_files as files
from srpo_verl.base.lease_files import FOLDER, Beat, Record, StopRequest


class LeaseLostError(Exception):
    """The folder is not this process's any more: it must not write there. (No OSError: those are survived.)"""


def boot_clock() -> float:
    """Goes on while the machine sleeps, and is not set by anybody."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """A folder that this process has. `take` makes one."""

    def __init__(self, folder: Path, record: Record, clock: Callable[[], float] = boot_clock):
        self.folder, self.record = folder, record
        self._clock = clock
        self._writing, self._checking = threading.Lock(), threading.Lock()
        self._beats = 0
        self._alive_at = clock()
        self._asked: float | None = None  # since when the file server is being waited for
        self._step: int | None = None
        self._doing = "starting"
        self._lost: str | None = None
        self._closed = threading.Event()
        self.error: OSError | None = None  # of the last heartbeat

    @property
    def token(self) -> str:
        return self.record.token

    @property
    def handed_on(self) -> bool:
        """Whether a process that was given the token has it now."""
        newest = files.newest_record(self.folder)
        if newest is None or newest.chain == self.record.chain:  # the same: this one, renewed
            return False
        return newest.generation > self.record.generation and newest.token == self.token

    def note(self, *, step: int | None = None, doing: str | None = None) -> None:
        """What the next sign of life says."""
        self._step = self._step if step is None else step
        self._doing = doing or self._doing

    def beat(self) -> None:
        """A sign of life, if the folder is still ours. Raises LeaseLostError."""
        begun = self._clock()  # before the look: a suspension in between must not be forgotten
        self.check()
        with self._writing:
            self._beats += 1
            self._asked = begun
            try:
                files.write_beat(
                    self.folder, self.record.generation, Beat(self._beats, time.time(), self._step, self._doing)
                )
            except OSError as error:
                self.error = error  # `check` decides for how long
                return
            finally:
                self._asked = None
            self._alive_at, self.error = max(begun, self._alive_at), self._hung(begun)

    def check(self) -> None:
        """Before every write. Raises LeaseLostError if the folder is another's now, or could be."""
        with self._checking:
            if self._lost is None:
                self._lost = self._loss()
        if self._lost is not None:
            raise LeaseLostError(self._lost)

    def _loss(self) -> str | None:
        begun = self._clock()
        try:
            newest = max(files.generations(self.folder), default=0)
        except OSError as error:
            self.error, newest = error, self.record.generation  # a file server that does not answer: `silent` grows
        if newest < self.record.generation:
            return f"{self.folder} was moved or removed while this run was writing there"
        if newest > self.record.generation:
            other = files.read_record(self.folder, newest)
            for _ in range(20 if other is None else 0):  # without `link`: made, and written a moment later
                time.sleep(0.1)
                other = other or files.read_record(self.folder, newest)
            if other is None or other.token != self.token:
                return f"{self.folder} was taken over by {who(other)}: this run must not write there any more"
            return None
        own = files.read_record(self.folder, newest)
        if own is not None and own.token != self.token:
            return f"{self.folder} was removed, and is now of {who(own)}: this run must not write there any more"
        self.error = self._hung(min(begun, self._asked or begun)) or self.error
        silent = self._clock() - self._alive_at
        if silent > self.record.timeout and not (self.error and self._renewed()):
            why = str(self.error) if self.error else "was it suspended?"
            return (
                f"this process has given no sign of life in {self.folder} for {silent:.0f} s, more than "
                f"{self.record.timeout:g} ({why}): another run could have taken the folder, so this one must not write"
            )
        return None

    def _hung(self, begun: float) -> OSError | None:
        """Whether it was the file server that took the time since `begun`, as one that is started again does."""
        took = self._clock() - begun
        return OSError(f"the file server took {took:.0f} s") if took > self.record.timeout / 2 else None

    def _renewed(self) -> bool:
        """Whether this process got the next number: nobody else has the folder then, nor can get it unseen."""
        begun, record = self._clock(), replace(self.record, generation=self.record.generation + 1)
        try:
            if not files.claim(self.folder, record):
                return False
        except OSError:
            return False
        self.record, self._alive_at, self.error = record, begun, None
        return True

    def keep(self, on_lost: Callable[[str], object] = lambda why: None, *, every: float = 1.0) -> Lease:
        """Give signs of life on a thread of its own, until released, handed on or lost; then `on_lost` is called."""
        threading.Thread(target=self._keep, args=(on_lost, every), name="srpo lease", daemon=True).start()
        return self

    def _keep(self, on_lost: Callable[[str], object], every: float) -> None:
        due = 0.0
        while not self._closed.wait(min(every, self.record.interval)):
            try:
                self.check()
                if self._clock() >= due:
                    self._asked = self._clock()
                    try:
                        if self.handed_on:
                            return
                        self.error = self._hung(self._asked) or self.error
                    except OSError as error:  # a file server that fails for a moment: `check` decides for how long
                        self.error = error
                        continue
                    finally:
                        self._asked = None
                    due = self._clock() + self.record.interval
                    self.beat()
            except LeaseLostError as error:
                if not self._closed.is_set():
                    on_lost(str(error))
                return

    def stop_request(self) -> StopRequest | None:
        try:
            return files.stop_request(self.folder, self.token)
        except (OSError, ValueError, TypeError):
            return None  # asked again in a moment

    def release(self, how: str, *, heirs: bool = False, last: bool = False) -> None:
        """Let go, saying how it ended. Nothing if it was lost, or handed on; with `heirs` those it went to let go too,
        because they have ended. With `last` other threads that go on must not write any more."""
        self._closed.set()
        try:
            self.check()
            newest = files.newest_record(self.folder)
            if newest is None or newest.token != self.token:
                return
            ours = heirs or newest.generation == self.record.generation
            if newest.generation == self.record.generation:
                self.beat()  # the last step, which may be younger than the last sign of life
            if last:
                self._lost = f"this run has given {self.folder} away: {how}"
            if ours and files.read_end(self.folder, newest.generation) is None:
                files.write_end(self.folder, newest.generation, how)
        except (LeaseLostError, OSError):
            return  # a dead holder's lease is taken over all the same

    def remove(self) -> None:
        """Let go and leave no trace: for what is done once. Nothing if it was lost."""
        self._closed.set()
        try:
            self.check()
            gone = self.folder / f".{FOLDER}.{self.token}"
            (self.folder / FOLDER).rename(gone)  # whoever claims it in this moment finds that it is gone
            shutil.rmtree(gone)
        except (LeaseLostError, OSError):
            return

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: Any) -> None:
        self.release("ended" if error is None else f"failed: {type(error).__name__}")


def who(record: Record | None) -> str:
    """A holder in words."""
    return f"run {record.token} ({record.holder})" if record else "a process that has not said who it is"
