"""A checkpoint that is whole and stays while it is read: the mark of a reader, which a run that goes on heeds.

Any number of programs may read one at once; `checkpoint_store.prune` leaves it alone meanwhile.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from srpo_verl.base.lease import Lease, take
from srpo_verl.training.durable.checkpoint_store import MARKER, READERS, IncompleteCheckpointError, inspect


class CheckpointError(ValueError):
    """A model or checkpoint that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Held:
    """A checkpoint that this process reads, beside others perhaps; a run that goes on does not remove it."""

    checkpoint: Path
    lease: Lease

    def release(self) -> None:
        self.lease.remove()
        for folder in (self.lease.folder, self.checkpoint / READERS):
            with suppress(OSError):  # not the last
                folder.rmdir()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def hold(checkpoint: Path, what: str) -> Held:
    """A reader's mark on `checkpoint`, in words for whoever looks.

    Raises:
        CheckpointError: it is gone, or not whole.
        OSError: the folder cannot be written.
    """
    check_marker(checkpoint)
    held = Held(checkpoint, take(checkpoint / READERS / uuid.uuid4().hex[:12], what=what).keep())
    try:
        if not (checkpoint / "actor").is_dir():  # the run may have removed it until a moment ago
            raise CheckpointError(f"{checkpoint} has just been removed by its run: take another checkpoint")
        check_marker(checkpoint)
    except BaseException:
        held.release()
        with suppress(OSError):
            checkpoint.rmdir()  # where it was made again by the mark
        raise
    return held


def check_marker(checkpoint: Path) -> None:
    """Raises CheckpointError if the folder says of itself that it is not whole: a run may be writing it now."""
    if not (checkpoint / MARKER).exists():
        return  # of verl's own trainers
    try:
        inspect(checkpoint)
    except IncompleteCheckpointError as error:
        raise CheckpointError(f"{checkpoint} is not whole ({error}): wait for the run, or take another one") from error
