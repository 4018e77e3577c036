"""The SRPO step over verl's asynchronous trainers; docs/async.md says what each part of it means there.

srpo_colocate_async    one set of GPUs: sampling is interrupted once enough groups have ended, and goes on after
                       the update with the new weights
srpo_separate_async    engines on GPUs of their own, which get new weights after several updates
"""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync

from srpo_verl.training.step.group_buffer import GroupBuffer
from srpo_verl.training.step.staleness import staleness_metrics
from srpo_verl.training.step.step_metrics import is_count
from srpo_verl.training.step.trainer import SRPOMixin
from srpo_verl.training.trainer_mode import COLOCATE_ASYNC, SEPARATE_ASYNC
from srpo_verl.training.watch.driver_watch import watched
from srpo_verl.training.worker.detached_worker import SRPODetachedWorker


class SRPOAsyncMixin(SRPOMixin):
    """What the asynchronous modes share: whole groups from the buffer, and how stale they are."""

    def _build_replay_buffer(self):
        with patch.object(trainer_base, "ReplayBufferAsync", GroupBuffer):
            return super()._build_replay_buffer()

    def _route(self, batch: KVBatchMeta, metrics: dict) -> None:
        super()._route(batch, metrics)
        # The weights that are updated in step n are those of step n - 1.
        metrics.update(staleness_metrics(self.this_step.plan, batch.tags, version=self.global_steps - 1))


@register_trainer("srpo_colocate_async")
@watched
class SRPOColocateAsyncTrainer(SRPOAsyncMixin, PPOTrainerColocateAsync):
    """Sampling and training take turns on the same GPUs; what has not ended is interrupted and goes on later."""

    verl_mode = COLOCATE_ASYNC


@register_trainer("srpo_separate_async")
@watched
class SRPOSeparateAsyncTrainer(SRPOAsyncMixin, PPOTrainerSeparateAsync):
    """Sampling never waits; a batch is `parameter_sync_step` mini-batches, sampled and routed one after the other."""

    verl_mode = SEPARATE_ASYNC
    worker_class = SRPODetachedWorker

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        self.counts: Counter[str] = Counter()
        batch = super().step(metrics, timing_raw)
        # verl gives the mean over the mini-batches.
        metrics.update(self.counts)
        return batch

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        batch = super()._step_once(metrics, timing_raw, sample_batch_size)
        self.counts.update({name: value for name, value in metrics.items() if is_count(name)})
        return batch
