"""Two mini-batches of a batch, as verl's separate trainer has them updated: both under the weights before the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from srpo_verl.training.worker.detached_worker import SRPODetachedWorker
from srpo_verl.training.worker.worker import MOVE_TEACHER
from tests.training import rows as build
from tests.training.scenarios import VOCABULARY, step_fields, train, weights
from tests.training.worker_process import worker_config


def two_mini_batches(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """Weights of actor and teacher around each update, and the passes before the second one."""
    own = SRPODetachedWorker(config=worker_config(Path(payload["model"])).copy(), role="actor")
    own.init_model()
    batch = build.make_batch(vocabulary=VOCABULARY, srpo=own.srpo, seed=1)
    start, before = weights(own.actor.engine.module), step_fields(own, batch)
    own.save_model_to_cpu(0)
    (first,) = train(own, rank, world, {"steps": 1, "options": {MOVE_TEACHER: False}})["history"]
    own.save_model_to_cpu(1)
    own.restore_model_from_cpu(0)
    kept, restored = step_fields(own, batch), weights(own.actor.engine.module)
    own.restore_model_from_cpu(1)
    own.clear_cpu_model(1)
    returned = weights(own.actor.engine.module)
    (second,) = train(own, rank, world, {"steps": 1, "first": 1})["history"]
    return {
        "start": start,
        "before": before,
        "first": first,
        "kept": kept,
        "restored": restored,
        "returned": returned,
        "second": second,
    }
