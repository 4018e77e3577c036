"""What stands in a folder's `srpo_lease`: who has the folder, its signs of life, how it ended, and requests to stop.

    00000007.json        the seventh holder: process, run, since when; made by `link`, hence by one, and never changed
    00000007.heartbeat   its signs of life, written over in place by it alone (a full disk has room for that)
    00000007.end         it has let go, and how
    stop-TOKEN.json      somebody asks the run with this token to end

The holder is the one with the largest number. No file is ever written by two processes, so one that was suspended and
wakes up cannot overwrite what its successor wrote.
"""

from __future__ import annotations

import errno
import json
import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srpo_verl.base.files import sync, write_atomically
from srpo_verl.base.processes import ProcessId

FOLDER = "srpo_lease"
# A heartbeat is as long as a block on most disks at most, so that it is written at once.
_BEAT = 512
_KEPT = 4  # records of earlier holders, of which one may still be awake and has to find its number


@dataclass(frozen=True)
class Record:
    """A holder of a folder, as it described itself.

    Attributes:
        token: of the run: processes that hand the folder on to each other have the same.
        chain: those processes, first to last; the last is the holder, which ends when an earlier one has ended.
        what: what it does here, in a word or two: "training".
        since: when the first of them took the folder; seconds of the epoch, by its clock.
        interval, timeout: seconds between signs of life; without one for so long it counts as dead elsewhere.
        inode: of the folder `srpo_lease` when it was written: a copy has another.
    """

    generation: int
    token: str
    chain: tuple[ProcessId, ...]
    what: str
    since: float
    interval: float
    timeout: float
    inode: int

    @property
    def holder(self) -> ProcessId:
        return self.chain[-1]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "chain": [process.to_json() for process in self.chain]}


@dataclass(frozen=True)
class Beat:
    """A sign of life: its number, when (seconds of the epoch), the step and what is being done."""

    number: int
    time: float
    step: int | None
    doing: str


@dataclass(frozen=True)
class StopRequest:
    """`within` seconds of being read, None for no limit."""

    why: str
    within: float | None


def generations(folder: Path) -> list[int]:
    """The numbers of the holders that are remembered, ascending; as the file server has them now."""
    place = folder / FOLDER
    if not place.is_dir():
        return []
    # A change of the folder, even this one, makes a network file system ask its server, not its memory.
    with suppress(OSError):  # readers of somebody else's run or of a read-only mount; a full disk
        os.utime(place)
    return sorted(int(name[:8]) for name in os.listdir(place) if name.endswith(".json") and name[:8].isdecimal())


def read_record(folder: Path, generation: int) -> Record | None:
    """None if there is none, or half of one (where `link` does not work)."""
    try:
        read = json.loads(_path(folder, generation, "json").read_text())
        chain = tuple(ProcessId.from_json(process) for process in read.pop("chain"))
        return Record(**read, chain=chain)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def newest_record(folder: Path) -> Record | None:
    """Of the last holder that said who it is."""
    found = (read_record(folder, generation) for generation in reversed(generations(folder)))
    return next((record for record in found if record is not None), None)


def claim(folder: Path, record: Record) -> bool:
    """Make `record` the newest, if no other process does; exactly one of several succeeds.

    Raises OSError if the folder cannot be written.
    """
    path = _path(folder, record.generation, "json")
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    content = json.dumps(record.to_json())
    try:
        with open(partial, "x") as file:
            file.write(content)
        sync(partial)
        won = _link(partial, path, content)
    finally:
        partial.unlink(missing_ok=True)
    if won and generations(folder)[-1] > record.generation:  # late: that number was used, and forgotten, long ago
        path.unlink(missing_ok=True)
        return False
    if won:
        sync(path.parent)
        _forget(folder, before=record.generation - _KEPT)
    return won


def inode(folder: Path) -> int:
    """Of `srpo_lease`, which is made where it is missing."""
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    return place.stat().st_ino


def write_beat(folder: Path, generation: int, beat: Beat) -> None:
    """In place. Raises OSError."""
    path = _path(folder, generation, "heartbeat")
    content = json.dumps(vars(beat)).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, content[:_BEAT].ljust(_BEAT), 0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        os.utime(descriptor)  # file systems that copy on write have no room even for this: the time is a sign too
    finally:
        os.close(descriptor)


def sign_of_life(folder: Path, generation: int) -> tuple[bytes, int] | None:
    """What changes with every heartbeat; None while there was none."""
    try:
        with open(_path(folder, generation, "heartbeat"), "rb") as file:
            return file.read(_BEAT), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def silent_for(folder: Path, record: Record) -> float:
    """Seconds since the last sign of life: by the clock that dates the files, where this process can ask it."""
    sign, place = sign_of_life(folder, record.generation), folder / FOLDER
    if sign is None:
        return time.time() - record.since
    try:
        os.utime(place)
        now = place.stat().st_mtime
    except OSError:
        now = time.time()
    return now - sign[1] / 1e9


def read_beat(folder: Path, generation: int) -> Beat | None:
    found = sign_of_life(folder, generation)
    try:
        return Beat(**json.loads(found[0])) if found else None
    except (ValueError, TypeError):  # read while it was written
        return None


def write_end(folder: Path, generation: int, how: str) -> None:
    write_atomically(_path(folder, generation, "end"), json.dumps({"how": how, "time": time.time()}))


def read_end(folder: Path, generation: int) -> dict[str, Any] | None:
    """`{"how", "time"}` if the holder has let go."""
    try:
        return json.loads(_path(folder, generation, "end").read_text())
    except FileNotFoundError:
        return None


def ask_to_stop(folder: Path, token: str, request: StopRequest) -> None:
    """Raises OSError."""
    write_atomically(folder / FOLDER / f"stop-{token}.json", json.dumps(vars(request)))


def stop_request(folder: Path, token: str) -> StopRequest | None:
    try:
        return StopRequest(**json.loads((folder / FOLDER / f"stop-{token}.json").read_text()))
    except FileNotFoundError:
        return None


def _link(partial: Path, path: Path, content: str) -> bool:
    try:
        os.link(partial, path)
    except FileExistsError:
        # NFS sends a call again whose answer was lost: the second finds what the first has made.
        return os.stat(partial).st_nlink == 2
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        try:
            with open(path, "x") as file:  # no links here: who creates the file has it
                file.write(content)
        except FileExistsError:
            return False
    return True


def _forget(folder: Path, before: int) -> None:
    """Traces of holders of long ago. What cannot be removed stays."""
    for generation in generations(folder):
        if generation < before:
            record = read_record(folder, generation)
            names = [_path(folder, generation, kind) for kind in ("heartbeat", "end", "json")]
            stop = [folder / FOLDER / f"stop-{record.token}.json"] if record else []
            for path in (*stop, *names):
                with suppress(OSError):
                    path.unlink(missing_ok=True)


def _path(folder: Path, generation: int, kind: str) -> Path:
    return folder / FOLDER / f"{generation:08}.{kind}"
