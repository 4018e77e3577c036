"""SRPO, SDPO and GRPO in turns on the same rollouts, in one real worker (FSDP2, gloo, no Ray, no vLLM), stage by stage.

What SRPO does beyond GRPO is compared with the ideal: one forward pass of the teacher over the routed rows and nothing
else. The forward pass is measured too, with an engine that collects nothing.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from verl.workers.utils.padding import response_from_nested

from benchmarks.harness import Measure
from srpo_verl.config import SRPOConfig
from srpo_verl.training.fields import TEACHER_ENTROPY, TEACHER_LOG_PROBS, TOPK_IDS
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from srpo_verl.training.worker.collectors import Collector
from srpo_verl.training.worker.worker import _loss_function
from tests.training import rows, tiny_model
from tests.training.worker_process import run_ranks

METHODS = {
    "GRPO": SRPOConfig(route="none", policy_gradient="all"),
    "SRPO": SRPOConfig(),
    "SDPO": SRPOConfig(route="all", policy_gradient="none", beta=0.0),
}
LIMIT = 1.1


class Nothing(Collector):
    """A teacher that is run and not read."""

    def row_lengths(self, data: Any) -> torch.Tensor:
        return torch.zeros(data.batch_size[0], dtype=torch.int64)

    def collect(self, logits: torch.Tensor, data: Any) -> dict[str, torch.Tensor]:
        return {}


def make_batch(srpo: SRPOConfig, vocabulary: int, *, groups: int, size: int, prompt: int, response: int) -> rows.Batch:
    """Groups of `size` rollouts, a third correct; the teacher's prompt adds an answer and 30 tokens."""
    rng = torch.Generator().manual_seed(0)

    def tokens(count: int) -> torch.Tensor:
        return torch.randint(3, vocabulary, (count,), generator=rng)

    count = groups * size
    lengths = torch.randint(response // 2, response + 1, (count,), generator=rng).tolist()
    scores = [float(row % 3 == 0) for row in range(count)]
    rollouts = [Rollout(f"{row // size}_{row % size}_0", scores[row], lengths[row]) for row in range(count)]
    plan = build_plan(rollouts, srpo)
    scalar = plan.policy_gradient_advantages(torch.tensor(scores), srpo, normalize_by_std=False)
    masks = [torch.ones(length, dtype=torch.long) for length in lengths]
    return rows.Batch(
        plan=plan,
        prompts=[tokens(prompt) for _ in range(count)],
        responses=[tokens(length) for length in lengths],
        masks=masks,
        teacher_prompts=[tokens(prompt + response + 30) for _ in range(count)],
        importance=[mask.float() for mask in masks],
        advantages=[value * mask for value, mask in zip(scalar, masks, strict=True)],
    )


def one_step(worker: Any, batch: rows.Batch) -> dict[str, float]:
    """CPU seconds of the stages of one step as the trainer calls them; the last is the teacher's bare forward pass."""
    seconds: dict[str, float] = {}
    everything, routed = list(range(len(batch))), batch.plan.routed_rows()
    teacher = worker.teacher

    started = time.process_time()
    data = rows.log_prob_batch(batch, everything, srpo_collect_topk=bool(routed))
    output = worker.compute_log_prob(data)
    seconds["old_log_prob"] = time.process_time() - started
    fields = {
        "old_log_probs": list(response_from_nested(output["log_probs"], data["response_mask"]).unbind()),
        "topk_ids": [torch.zeros(0, worker.srpo.topk, dtype=torch.int32)] * len(batch),
        "teacher_log_probs": [torch.zeros(0, worker.srpo.topk)] * len(batch),
    }
    entropy = [torch.zeros(0)] * len(batch)
    if routed:
        fields["topk_ids"] = list(output[TOPK_IDS].unbind())
        started = time.process_time()
        answer = worker.compute_teacher_targets(rows.teacher_batch(batch, routed, fields["topk_ids"]))
        seconds["teacher"] = time.process_time() - started
        for place, row in enumerate(routed):
            fields["teacher_log_probs"][row] = answer[TEACHER_LOG_PROBS].unbind()[place]
            entropy[row] = answer[TEACHER_ENTROPY].unbind()[place]
        started = time.process_time()
        with _loss_function(teacher, Nothing()):
            teacher.infer_batch(worker._teacher_batch(rows.teacher_batch(batch, routed, fields["topk_ids"])))
        seconds["bare teacher forward"] = time.process_time() - started
    fields["weights"] = rows.weights_of(batch, entropy, beta=1.0)

    update = rows.update_batch(
        batch,
        everything,
        **fields,
        srpo_any_routed=bool(routed),
        mini_batch_size=len(batch),
        epochs=1,
        seed=1,
        dataloader_kwargs={"shuffle": False},
        calculate_entropy=False,
    )
    # GRPO keeps no teacher.
    worker.teacher = teacher if routed else None
    started = time.process_time()
    worker.update_actor(update)
    seconds["update_actor"] = time.process_time() - started
    worker.teacher = teacher
    return seconds


def scenario(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    vocabulary = worker.actor.model_config.hf_config.vocab_size
    batches = {name: make_batch(srpo, vocabulary, **payload["batch"]) for name, srpo in METHODS.items()}
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in METHODS}
    turns = [(turn, name) for turn in range(1 + payload["repeats"]) for name in METHODS]
    for turn, name in tqdm(turns, desc="steps"):
        for stage, value in one_step(worker, batches[name]).items():
            if turn:
                found[name][stage].append(value)
    return {name: dict(stages) for name, stages in found.items()}


def run(model: Path | None = None, *, groups: int = 4, repeats: int = 5, name: str = "tiny") -> list[Measure]:
    """`model`: a Hugging Face folder; by default the tests' random model of a few thousand weights."""
    if model is None:
        model = tiny_model.build(Path("/tmp/srpo_bench_tiny"))
    batch = {"groups": groups, "size": 8, "prompt": 48, "response": 64}
    overrides = ["actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048", "actor_rollout_ref.actor.optim.lr=1e-6"]
    overrides.append(f"srpo.topk={8 if name == 'tiny' else 100}")
    found = run_ranks(scenario, 1, model, {"batch": batch, "repeats": repeats}, overrides)
    results, totals = [], {}
    for method, stages in found.items():
        bare = stages.pop("bare teacher forward", [0.0] * repeats)
        for stage, values in stages.items():
            results.append(Measure(f"{name} {method}: {stage}", statistics.median(values), "s"))
        totals[method] = [sum(turn) for turn in zip(*stages.values(), strict=True)], bare
        results.append(Measure(f"{name} {method}: training stages", statistics.median(totals[method][0]), "s"))
    grpo = totals["GRPO"][0]
    for method in ("SRPO", "SDPO"):
        total, bare = totals[method]
        ideal = [g + b for g, b in zip(grpo, bare, strict=True)]
        share = statistics.median(t / i for t, i in zip(total, ideal, strict=True))
        results.append(Measure(f"{name} {method}: bare teacher forward", statistics.median(bare), "s"))
        # A model of a few thousand weights is all overhead: there the ratio says nothing about arithmetic.
        limit = LIMIT if name != "tiny" else None
        results.append(Measure(f"{name} {method}: time / (GRPO + bare teacher forward)", share, "x", limit))
    return results
