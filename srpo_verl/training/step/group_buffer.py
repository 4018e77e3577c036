"""The replay buffer of the asynchronous modes: a group that lost some of its rollouts is trained on with the others.

verl's own throws such a group away and fetches another prompt. Where a grader or a tool always fails that never ends,
and where long answers fail more often it is a choice by length. The synchronous buffer keeps what is there; so does
this one, by the same rule (`trainer.v1.sampler.sync_refill_failed_groups` replaces groups of which nothing is left).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

# Steps since the oldest prompt that is still being sampled was given out. A rollout that hangs holds up nothing here,
# as long as others end: this is where it shows.
IN_FLIGHT = "srpo/staleness/in_flight_max"


class GroupBuffer(ReplayBufferAsync):
    """Groups stay whole: all rollouts of a prompt come in one batch, once the last of them has ended."""

    def _stale_terminal_keys(self, global_steps: int, partition_id: str) -> set[str]:
        finished = self.finished_keys[partition_id]
        self.finished_keys[partition_id] = finished | self.failure_keys[partition_id]
        try:
            return super()._stale_terminal_keys(global_steps, partition_id)
        finally:
            self.finished_keys[partition_id] = finished

    def _terminal_eviction_reasons(
        self, global_steps: int, partition_id: str
    ) -> tuple[set[str], set[str], set[str], Counter]:
        stale, filtered, _, counts = super()._terminal_eviction_reasons(global_steps, partition_id)
        _, _, failed, _ = ReplayBuffer._terminal_eviction_reasons(self, global_steps, partition_id)
        return stale, filtered, failed, counts

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict[str, Any]]:
        """`batch_size` groups, the oldest first, and metrics. Raises RuntimeError if all of their rollouts failed."""
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        if partition_id == "val":
            return batch, metrics
        if not batch.keys:
            raise RuntimeError(f"all rollouts of the {batch_size} prompts of this batch failed, so there is no batch")
        given_out = self.prompt_global_steps[partition_id]
        unfinished = self.pending_keys[partition_id] | self.running_keys[partition_id]
        oldest = max((global_steps - given_out[uid] for uid in unfinished), default=0)
        return batch, {**metrics, IN_FLIGHT: float(oldest)}
