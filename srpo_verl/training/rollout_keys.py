"""The names of rollouts in TransferQueue, and one order however the rollouts came in. No verl, no Ray.

verl names a row `{uid}_{session}_{index}`: the prompt of the batch, the sample of it, and the output of that sample's
agent loop. The uid is drawn at random by verl; here it says the step and the place in the batch instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class RolloutKey(NamedTuple):
    """A key of a rollout taken apart; keys sort by uid, session and output."""

    uid: str
    session: int
    output: int

    @classmethod
    def parse(cls, key: str) -> RolloutKey:
        """Raises ValueError if `key` is not `{uid}_{session}_{index}`."""
        parts = key.rsplit("_", 2)
        if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
            raise ValueError(f"the key {key!r} of a rollout is not {{uid}}_{{session}}_{{index}}.")
        return cls(parts[0], int(parts[1]), int(parts[2]))


def prompt_uid(step: int, position: int) -> str:
    """The uid of a training prompt: its step and its place in the batch. verl splits keys at "_", so none is in it."""
    return f"{step:07d}-{position:05d}"


def batch_order(keys: Sequence[str]) -> list[int]:
    """Positions of the keys in sorted order: no matter which rollout ended first."""
    parsed = [RolloutKey.parse(key) for key in keys]
    return sorted(range(len(keys)), key=parsed.__getitem__)
