"""How a run is, from its lease: who has it, at which step, since when, and whether it lives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from srpo_verl.base import lease_files as files
from srpo_verl.base.lease_files import Beat, Record
from workflows.run_reader import STARTS

RUNS, SUSPENDED, DEAD, SILENT = "runs", "suspended", "dead", "silent"


class NoRunError(ValueError):
    """There is no run, or none that lives; the message says what is there."""


@dataclass(frozen=True)
class RunState:
    """A run.

    Attributes:
        place: where its lease is: its folder, or `checkpoints` in it (`srpo demo`).
        record: its last holder; None if it was started by a version without leases.
        beat: its last sign of life.
        how: "runs", "suspended", "dead" (a process of this machine that is gone), "silent" (of another one: no sign
            for longer than its time-out, by the clocks of both), or how it ended.
    """

    folder: Path
    place: Path
    record: Record | None
    beat: Beat | None
    how: str

    @property
    def lives(self) -> bool:
        return self.how in (RUNS, SUSPENDED)


def run_state(folder: Path) -> RunState:
    """Raises NoRunError if `folder` holds no run."""
    folder = folder.absolute()
    places = (folder, folder / "checkpoints")
    place = next((one for one in places if (one / files.FOLDER).is_dir()), None)
    if place is None:
        if any((one / STARTS).is_dir() for one in places):
            return RunState(folder, folder, None, None, "ended")
        raise NoRunError(f"{folder} holds no run (neither {files.FOLDER}/ nor {STARTS}/ in it)")
    record = files.newest_record(place)
    if record is None:
        return RunState(folder, place, None, None, "not begun")
    beat = files.read_beat(place, record.generation)
    if end := files.read_end(place, record.generation):
        return RunState(folder, place, record, beat, end["how"])
    # A copy of a run's folder is not the run.
    alive = record.holder.alive() if record.inode == files.inode(place) else None
    if alive is None:
        how = RUNS if files.silent_for(place, record) < record.timeout else SILENT
    else:
        how = DEAD if not alive else SUSPENDED if record.holder.suspended() else RUNS
    return RunState(folder, place, record, beat, how)


def live_run(folder: Path) -> tuple[RunState, Record]:
    """Of a run that is going on. Raises NoRunError if it is not."""
    state = run_state(folder)
    if not state.lives or state.record is None:
        at = f", at step {state.beat.step}" if state.beat and state.beat.step is not None else ""
        raise NoRunError(f"{state.folder} is not being trained: {state.how}{at}")
    return state, state.record


def find(folders: Iterable[Path]) -> list[Path]:
    """The folders of runs at or below the given ones, without looking into checkpoints."""
    found: set[Path] = set()

    def walk(folder: Path, depth: int) -> None:
        try:
            names = {path.name: path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()}
        except OSError:
            return
        if names.keys() & {files.FOLDER, STARTS}:
            found.add(folder.parent if folder.name == "checkpoints" else folder)
            return
        for name, path in names.items():
            if depth and not name.startswith("."):
                walk(path, depth - 1)

    for folder in folders:
        walk(folder.absolute(), 4)
    return sorted(found)
