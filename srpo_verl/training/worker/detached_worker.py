"""Our worker with what verl's separate trainer asks of its own: to keep pi_old while several mini-batches update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from verl.experimental.separation.engine_workers import DetachActorWorker

from srpo_verl.training.worker import shards
from srpo_verl.training.worker.worker import SRPOWorker


class SRPODetachedWorker(SRPOWorker, DetachActorWorker):
    """`worker_class` of `srpo_separate_async`."""

    def _get_strategy_handlers(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        save, restore = super()._get_strategy_handlers()
        if self.config.actor.strategy != "fsdp2":  # without a teacher, all of them are allowed
            return save, restore

        def save_copies(module: nn.Module) -> Any:
            """verl keeps what `.cpu()` gives: of weights that rest on the host themselves, which then are updated."""
            shards.device()  # and may still be on their way there
            state, spec = save(module)
            return {name: (tensor.clone(), of) for name, (tensor, of) in state.items()}, spec

        return save_copies, restore
