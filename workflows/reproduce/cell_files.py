"""What a cell's folder says about the cell. There is no other record: the folders are the state of the grid.

spec.json     what the run computes, written before its first start
job.json      the last start: which job, when
watched/      the lease of the program that runs the cell; the cell's run has one of its own in the cell's folder
exit_code     left by cell.sh as its last act
outcome.json  done, failed or rejected, with the hash of the spec; written last
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from srpo_verl.base.files import write_atomically
from srpo_verl.base.lease import FolderTakenError, Lease, in_use, take
from workflows.reproduce.spec.cell import Cell

SPEC, JOB, OUTCOME, EXIT_CODE, WATCHED = "spec.json", "job.json", "outcome.json", "exit_code", "watched"
DONE, FAILED, REJECTED = "done", "failed", "rejected"


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `reason` is in words; empty for a run that is done."""

    state: str
    reason: str
    spec_hash: str
    last_step: int
    training_seconds: float
    gpus: int
    ended: str = ""


@dataclass(frozen=True)
class Start:
    """A start of a run: the job's name, when (seconds of the epoch), where its part of train.log begins (bytes)."""

    job: str
    backend: str
    started: float
    log_offset: int


def write_outcome(cell: Cell, outcome: Outcome) -> None:
    ended = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_atomically(cell.folder / OUTCOME, json.dumps({**asdict(outcome), "ended": ended}, indent=2) + "\n")


def read_outcome(cell: Cell) -> Outcome | None:
    found = _read_json(cell.folder / OUTCOME)
    return Outcome(**found) if found is not None else None


def write_start(cell: Cell, start: Start) -> None:
    write_atomically(cell.folder / JOB, json.dumps(asdict(start), indent=2) + "\n")


def read_start(cell: Cell) -> Start | None:
    found = _read_json(cell.folder / JOB)
    return Start(**found) if found is not None else None


def read_exit_code(cell: Cell) -> int | None:
    path = cell.folder / EXIT_CODE
    return int(path.read_text()) if path.is_file() else None


def write_spec(cell: Cell, data: Path) -> None:
    """`data` is the site's data folder: the files' digests go along, where the files can be read from here."""
    spec = {"hash": cell.spec_hash, "spec": cell.spec, "data_sha256": data_digests(cell, data)}
    write_atomically(cell.folder / SPEC, json.dumps(spec, indent=2) + "\n")


def changes(cell: Cell, data: Path) -> list[str]:
    """What differs between the run in the folder and the cell as the grid file has it now, one line each."""
    found = _read_json(cell.folder / SPEC)
    if found is None:
        return []
    before, now = found["spec"], cell.spec
    lines = [
        f"{key}: the run has {before.get(key)!r}, the grid {now.get(key)!r}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    digests = data_digests(cell, data)
    for name, digest in found["data_sha256"].items():
        if digest and digests[name] and digest != digests[name]:
            lines.append(f"{name}: the contents of the data file have changed")
    return lines


def data_digests(cell: Cell, data: Path) -> dict[str, str | None]:
    return {name: _digest(data / getattr(cell.benchmark, name)) for name in ("train", "val")}


@contextmanager
def cell_lease(
    cell: Cell,
    *,
    on_lost: Callable[[str], object] = lambda why: None,
    tell: Callable[[str], object] = lambda sentence: None,
) -> Iterator[Lease | None]:
    """Of the cell, to run it; None if another program does. `on_lost` is called when it is not ours any more."""
    try:
        lease = take(cell.folder / WATCHED, what="running a grid's cell", tell=tell)
    except FolderTakenError:
        yield None
        return
    with lease.keep(on_lost):
        yield lease


def is_watched(cell: Cell) -> bool:
    """Whether some program runs the cell."""
    return in_use(cell.folder / WATCHED)


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None
