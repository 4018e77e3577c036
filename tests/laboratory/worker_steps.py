"""What a real `SRPOWorker` does with the batches that the twin gets; run by `tests.training.worker_process`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from verl.workers.utils.padding import response_from_nested

from srpo_verl.config import SRPOConfig
from srpo_verl.training.fields import TEACHER_SAMPLED
from srpo_verl.training.worker.worker import SRPOWorker
from tests.training import rows as build
from tests.training.scenarios import VOCABULARY, gradient, step_fields, weights
from tests.training.worker_process import worker_config


def make_batch(srpo: SRPOConfig, step: int) -> build.Batch:
    """The batch of a step, its advantages before the mix included."""
    return build.make_batch(vocabulary=VOCABULARY, srpo=srpo, seed=step)


def every_method(_: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    """Per method of `payload["methods"]` (name -> overrides): losses, gradients and weights of two steps."""
    results = {}
    for name, overrides in payload["methods"].items():
        worker = SRPOWorker(config=worker_config(Path(payload["model"]), overrides), role="actor")
        worker.init_model()
        results[name] = [one_step(worker, make_batch(worker.srpo, step)) for step in range(2)]
    return results


def one_step(worker: SRPOWorker, batch: build.Batch) -> dict[str, Any]:
    """Loss and gradient of the batch, then the update."""
    fields = step_fields(worker, batch) if worker.srpo.logit_loss else mixed_fields(worker, batch)
    given = {key: fields[key] for key in ("topk_ids", "teacher_log_probs", "weights", "old_log_probs")}
    distils = worker.srpo.logit_loss and bool(batch.plan.routed.any())
    found = gradient(worker, batch, list(range(len(batch))), given)
    data = build.update_batch(
        batch,
        list(range(len(batch))),
        **given,
        srpo_any_routed=distils,
        mini_batch_size=len(batch),
        epochs=1,
        seed=1,
        dataloader_kwargs={"shuffle": False},
        calculate_entropy=False,
    )
    worker.update_actor(data)
    teacher = worker.teacher
    return {
        **found,
        "student": weights(worker.actor.engine.module),
        "teacher": weights(teacher.engine.module) if teacher is not None else None,
    }


def mixed_fields(worker: SRPOWorker, batch: build.Batch) -> dict[str, list[torch.Tensor]]:
    """Without a logit loss: old log-probs, and the batch's advantages mixed by hand with the teacher's log-probs."""
    everything = list(range(len(batch)))
    data = build.log_prob_batch(batch, everything)
    old = list(response_from_nested(worker.compute_log_prob(data)["log_probs"], data["response_mask"]).unbind())
    routed, mix = batch.plan.routed_rows(), worker.srpo.advantage_mix
    if routed:
        answer = worker.compute_teacher_targets(build.teacher_batch(batch, routed, None))
        batch.advantages = [(1 - mix) * row for row in batch.advantages]
        for place, row in enumerate(routed):
            log_q = answer[TEACHER_SAMPLED].unbind()[place]
            batch.advantages[row] = batch.advantages[row] + mix * (log_q - old[row]) * batch.masks[row]
    return {
        "old_log_probs": old,
        "topk_ids": [torch.zeros(0, 1, dtype=torch.int32) for _ in everything],
        "teacher_log_probs": [torch.zeros(0, 1) for _ in everything],
        "weights": [torch.zeros(0) for _ in everything],
    }
