"""The checkpoint folders of a run: which are complete, which is the newest, which may go. No verl, no Ray.

    global_step_N/                        written by the workers: actor/, teacher/, data.pt
    global_step_N/srpo_checkpoint.json    first {"complete": false}; replaced, last of all, by {"complete": true, ...}
    latest_checkpointed_iteration.txt     verl's tracker, after that; for other tools, never believed here
    best_checkpoint.json                  step and validation accuracy of the checkpoint that is never pruned

Every one of these files is written beside its place, synced and renamed, so that a kill leaves the old one or the new.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srpo_verl.base.files import sync, write_atomically
from srpo_verl.base.lease import in_use

MARKER = "srpo_checkpoint.json"
TRACKER = "latest_checkpointed_iteration.txt"
BEST = "best_checkpoint.json"
READERS = "readers"  # in a checkpoint: a folder for each program that reads it, with a lease
_FOLDER = re.compile(r"global_step_(\d+)")
_DISCARDED = ".discarded_"  # on the way out, or not yet there: removed with the next pruning


def step_of(folder: Path) -> int | None:
    """The step of `global_step_N`; None for a folder of another name."""
    found = _FOLDER.fullmatch(folder.name)
    return int(found[1]) if found else None


class CheckpointError(RuntimeError):
    """No checkpoint could be written, or none can be resumed from; the run ends."""


class IncompleteCheckpointError(ValueError):
    """A checkpoint folder that cannot be read as a whole; the message says why."""


class UnfinishedSaveError(IncompleteCheckpointError):
    """The folder itself says that its save never ended."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint. `marker` is its `srpo_checkpoint.json`."""

    folder: Path
    marker: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.marker["step"])

    @property
    def serial(self) -> int:
        """Counts the saves into one root: the newest has the largest, also after going back to an earlier step."""
        return int(self.marker["serial"])

    @property
    def run(self) -> str:
        """The run it belongs to: drawn at a fresh start, kept when resuming."""
        return str(self.marker["run"])

    @property
    def bytes(self) -> int:
        return sum(self.marker["files"].values())


def step_folder(root: Path, step: int) -> Path:
    return root / f"global_step_{step}"


def begin(folder: Path, step: int) -> None:
    """An empty checkpoint folder that says of itself that it is not complete; what was there is removed."""
    discard(folder)
    unborn = folder.with_name(f"{_DISCARDED}{folder.name}_{time.time_ns()}")
    unborn.mkdir(parents=True)
    write_atomically(unborn / MARKER, json.dumps({"complete": False, "step": step}))
    os.rename(unborn, folder)


def finish(folder: Path, *, step: int, run: str, **contents: Any) -> Checkpoint:
    """Declare the folder complete: sync every file, write down their sizes, then the marker, then verl's tracker."""
    files = _files(folder)
    for name in files:
        sync(folder / name)
    for parent in {(folder / name).parent for name in files} | {folder}:
        sync(parent)
    serial = 1 + max((other.serial for other in complete(folder.parent)), default=0)
    marker = {
        "complete": True,
        "step": step,
        "serial": serial,
        "run": run,
        "saved": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "files": files,
        **contents,
    }
    write_atomically(folder / MARKER, json.dumps(marker))
    write_atomically(folder.parent / TRACKER, str(step))
    return Checkpoint(folder, marker)


def rewrite(checkpoint: Checkpoint, **contents: Any) -> Checkpoint:
    """The same checkpoint with other contents in its marker."""
    updated = Checkpoint(checkpoint.folder, {**checkpoint.marker, **contents})
    write_atomically(updated.folder / MARKER, json.dumps(updated.marker))
    return updated


def inspect(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`. Raises IncompleteCheckpointError with the reason if it is not whole."""
    try:
        marker = json.loads((folder / MARKER).read_text())
    except FileNotFoundError:
        raise IncompleteCheckpointError(f"has no {MARKER}, so nothing says that it is whole") from None
    except (OSError, ValueError) as error:
        raise IncompleteCheckpointError(f"{MARKER} cannot be read ({error})") from error
    if not isinstance(marker, dict):
        raise IncompleteCheckpointError(f"{MARKER} is no JSON object")
    if not marker.get("complete"):
        raise UnfinishedSaveError("the save was interrupted")
    for name, size in marker["files"].items():
        try:
            found = (folder / name).stat().st_size
        except FileNotFoundError:
            raise IncompleteCheckpointError(f"{name} is missing") from None
        if found != size:
            raise IncompleteCheckpointError(f"{name} has {found} bytes instead of {size}")
    return Checkpoint(folder, marker)


def complete(root: Path) -> list[Checkpoint]:
    """Whole checkpoints below `root`, oldest save first."""
    return sorted(
        (found for _, found in _inspected(root) if isinstance(found, Checkpoint)), key=lambda found: found.serial
    )


def newest(root: Path) -> Checkpoint | None:
    """The last whole checkpoint that was saved below `root`: what a resumed run goes on from."""
    return max(complete(root), key=lambda found: found.serial, default=None)


def broken(root: Path) -> dict[str, IncompleteCheckpointError]:
    """Folders that are no whole checkpoint, with the reason."""
    return {name: found for name, found in _inspected(root) if isinstance(found, IncompleteCheckpointError)}


def discard(folder: Path) -> None:
    """Remove a checkpoint: renamed first, so that a half-removed one is never taken for one."""
    if not folder.exists():
        return
    doomed = folder.with_name(f"{_DISCARDED}{folder.name}_{time.time_ns()}")
    os.rename(folder, doomed)
    shutil.rmtree(doomed)


def prune(root: Path, *, run: str, keep: int | None) -> list[Path]:
    """Remove what interrupted saves left, and this run's oldest checkpoints beyond `keep`; never its best.

    `keep` None or 0 keeps all. Checkpoints of another run, folders without a marker, and those that somebody reads
    (`is_read`) are left alone.
    """
    for leftover in root.glob(f"{_DISCARDED}*"):
        shutil.rmtree(leftover)
    removed = [root / name for name, reason in broken(root).items() if isinstance(reason, UnfinishedSaveError)]
    if keep:
        best = read_best(root)
        mine = [checkpoint for checkpoint in complete(root) if checkpoint.run == run]
        removed += [
            checkpoint.folder
            for checkpoint in mine[:-keep]
            if best is None or (checkpoint.run, checkpoint.step) != (best["run"], best["step"])
        ]
    removed = [folder for folder in removed if not is_read(folder)]
    for folder in removed:
        discard(folder)
    return removed


def is_read(checkpoint: Path) -> bool:
    """Whether a program has a lease of the folder, or of one of its own in `READERS`: any number may read at once."""
    return any(map(in_use, [checkpoint, *(checkpoint / READERS).glob("*")]))


def read_best(root: Path) -> dict[str, Any] | None:
    """`{"run", "step", "accuracy"}` of the best checkpoint that is still there, or None."""
    try:
        best = json.loads((root / BEST).read_text())
        checkpoint = inspect(step_folder(root, int(best["step"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return best if checkpoint.run == best.get("run") else None


def note_validation(checkpoint: Checkpoint, accuracy: float) -> bool:
    """Keep `checkpoint` as its run's best if no better one is there; returns whether it is the best now."""
    root = checkpoint.folder.parent
    best = read_best(root)
    same_run = best is not None and best["run"] == checkpoint.run
    if best is not None and same_run and best["step"] != checkpoint.step and best["accuracy"] >= accuracy:
        return False
    record = {"run": checkpoint.run, "step": checkpoint.step, "accuracy": accuracy}
    write_atomically(root / BEST, json.dumps(record))
    return True


def _inspected(root: Path) -> Iterator[tuple[str, Checkpoint | IncompleteCheckpointError]]:
    if not root.is_dir():
        return
    for folder in sorted(root.iterdir()):
        if _FOLDER.fullmatch(folder.name) and folder.is_dir():
            try:
                yield folder.name, inspect(folder)
            except IncompleteCheckpointError as error:
                yield folder.name, error


def _files(folder: Path) -> dict[str, int]:
    """Size in bytes of every file below `folder` except the marker, by relative name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
    return {str(path.relative_to(folder)): path.stat().st_size for path in paths}
