"""A step's three passes over one full micro-batch each, and the most that torch's allocator gave out in each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_from_nested

from srpo_verl.training.fields import TEACHER_ENTROPY, TEACHER_LOG_PROBS, TOPK_IDS
from tests.training import rows as build

# Three of four rollouts are distilled.
SCORES = dict.fromkeys("abcd", (0, 0, 0, 1))


def batch_of(srpo: Any, payload: dict[str, Any]) -> build.Batch:
    return build.make_batch(vocabulary=payload["vocabulary"], srpo=srpo, scores=SCORES, longer=payload["longer"])


def tokens_of(batch: build.Batch) -> tuple[int, int]:
    """Tokens of all rollouts, and of the routed ones as the teacher sees them."""
    of_teacher = [batch.teacher_prompts[row].numel() + batch.responses[row].numel() for row in batch.plan.routed_rows()]
    return sum(p.numel() + r.numel() for p, r in zip(batch.prompts, batch.responses, strict=True)), sum(of_teacher)


def peaks(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, int]:
    """Bytes by pass; 0 where there is no CUDA. The second of two steps counts: the first makes AdamW's states."""
    found: dict[str, int] = {}
    batch = batch_of(worker.srpo, payload)
    everything, routed = list(range(len(batch))), batch.plan.routed_rows()
    k = worker.srpo.topk
    for _ in range(2):
        data = build.log_prob_batch(batch, everything, srpo_collect_topk=True, calculate_entropy=False)
        output = _peak_of(found, "old log-probs", lambda data=data: worker.compute_log_prob(data))
        old = list(response_from_nested(output["log_probs"], data["response_mask"]).unbind())
        ids = list(output[TOPK_IDS].unbind())
        asked = build.teacher_batch(batch, routed, ids, max_token_len_per_gpu=payload["teacher_tokens"])
        answer = _peak_of(found, "teacher", lambda asked=asked: worker.compute_teacher_targets(asked))
        listed, entropy = [torch.zeros(0, k) for _ in everything], [torch.zeros(0) for _ in everything]
        for place, row in enumerate(routed):
            listed[row] = answer[TEACHER_LOG_PROBS].unbind()[place]
            entropy[row] = answer[TEACHER_ENTROPY].unbind()[place]
        update = build.update_batch(
            batch,
            everything,
            topk_ids=[ids[row] if row in routed else ids[row][:0] for row in everything],
            teacher_log_probs=listed,
            weights=build.weights_of(batch, entropy, beta=worker.srpo.beta),
            old_log_probs=old,
            srpo_any_routed=True,
            srpo_step=1,
            srpo_measure_branches=False,
            mini_batch_size=len(batch),
            epochs=1,
            seed=1,
            dataloader_kwargs={"shuffle": False},
            calculate_entropy=False,
        )
        metrics = tu.get(_peak_of(found, "update", lambda update=update: worker.update_actor(update)), "metrics")
    found["divergence is finite"] = int(torch.as_tensor(metrics["srpo/divergence"]).isfinite().all())
    return found


def _peak_of(found: dict[str, int], name: str, call: Callable[[], Any]) -> Any:
    if not torch.cuda.is_available():
        found[name] = 0
        return call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    torch.cuda.synchronize()
    found[name] = torch.cuda.max_memory_allocated()
    return result
