"""Rollouts that failed, with their cause: the agent-loop workers write them down, the driver reads them.

verl marks the whole prompt as failed and goes on with the rollouts that are there. Why one failed is then known only to
a worker's log. The notes travel as tags of a TransferQueue partition of their own.
"""

from __future__ import annotations

from collections import Counter

import transfer_queue as tq

from srpo_verl.training.watch.heartbeats import describe
from srpo_verl.training.watch.watchdog import PATIENCE, within

PARTITION = "srpo_rollout_failures"
# Characters of an exception that are kept.
LENGTH = 300


async def note_failure(uid: str, session: int, error: BaseException, *, validate: bool) -> None:
    """Called where it happened, before the prompt gets its final status."""
    text = describe(error)[:LENGTH]
    await tq.async_kv_put(
        key=f"{uid}_{session}_0", partition_id=PARTITION, tag={"error": text, "uid": uid, "validate": validate}
    )


def take_failures() -> list[dict]:
    """The notes since the last call: dicts with `error`, `uid`, `validate`."""
    notes = (tq.kv_list(PARTITION) or {}).get(PARTITION) or {}
    if notes:
        tq.kv_clear(keys=list(notes), partition_id=PARTITION)
    return list(notes.values())


def summary(notes: list[dict]) -> list[str]:
    """A sentence per cause, the most frequent first."""
    counts = Counter(note["error"] for note in notes)
    first = {note["error"]: note["uid"] for note in reversed(notes)}
    return [f"{number} rollouts failed (e.g. of uid {first[text]}): {text}" for text, number in counts.most_common(3)]


def waiting_failures() -> list[str]:
    """`summary` of the notes nobody has taken yet, [] if the queue cannot be asked."""
    return within(PATIENCE, lambda: summary(take_failures())) or []
