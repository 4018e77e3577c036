"""Batches as the trainer would send them, built by hand: rollouts with all kinds of groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from verl.utils import tensordict_utils as tu

from srpo_verl.config import SRPOConfig
from srpo_verl.core import entropy_weights
from srpo_verl.training.fields import ROUTED, TEACHER_LOG_PROBS, TEACHER_PROMPTS, TOKEN_WEIGHTS, TOPK_IDS, flags, jagged
from srpo_verl.training.step.routing_plan import Rollout, RoutingPlan, build_plan

# Group by group: mixed, all wrong, all correct, mixed.
SCORES = {"a": (0, 1, 0, 1), "b": (0, 0, 0, 0), "c": (1, 1, 1, 1), "d": (0, 0, 0, 1)}


@dataclass
class Batch:
    """Rows in batch order and what is known about them."""

    plan: RoutingPlan
    prompts: list[torch.Tensor]
    responses: list[torch.Tensor]
    masks: list[torch.Tensor]
    teacher_prompts: list[torch.Tensor]
    importance: list[torch.Tensor]
    advantages: list[torch.Tensor]

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: list[int]) -> dict[str, list[torch.Tensor]]:
        names = ("prompts", "responses", "masks", "teacher_prompts", "importance", "advantages")
        return {name: [getattr(self, name)[row] for row in rows] for name in names}


def make_batch(
    *,
    vocabulary: int,
    srpo: SRPOConfig,
    scores: dict[str, tuple[int, ...]] = SCORES,
    seed: int = 0,
    padding: int = 0,
    longer: int = 1,
) -> Batch:
    """Random tokens, random lengths, some masked response tokens, importance weights in [0.5, 2].

    Prompts and responses are `longer` times as long as the few tokens that most tests want.
    `padding` rows at the end are what verl appends to even out a batch: a long prompt and one masked response token.
    """
    rng = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> torch.Tensor:
        length = longer * int(torch.randint(low, high, (1,), generator=rng))
        return torch.randint(3, vocabulary, (length,), generator=rng)

    keys = [(f"{uid}_{session}_0", score) for uid, group in scores.items() for session, score in enumerate(group)]
    order = torch.randperm(len(keys), generator=rng).tolist()
    keys = [keys[i] for i in order]
    responses = [tokens(2, 12) for _ in keys]
    rollouts = [
        Rollout(key=key, score=float(score), response_length=response.numel())
        for (key, score), response in zip(keys, responses, strict=True)
    ]
    masks = [(torch.rand(r.numel(), generator=rng) > 0.15).long() for r in responses]
    prompts = [tokens(3, 9) for _ in keys]
    teacher_prompts = [tokens(4, 20) for _ in keys]
    importance = [0.5 + 1.5 * torch.rand(r.numel(), generator=rng) for r in responses]
    for row in range(padding):
        rollouts.append(Rollout(key=f"pad_{row}_0", score=1.0, response_length=1, padding=True))
        responses.append(torch.tensor([2]))
        masks.append(torch.zeros(1, dtype=torch.long))
        prompts.append(torch.full((127,), 2))
        teacher_prompts.append(torch.tensor([2]))
        importance.append(torch.ones(1))

    plan = build_plan(rollouts, srpo)
    rewards = torch.tensor([r.score for r in rollouts])
    scalar = plan.policy_gradient_advantages(rewards, srpo, normalize_by_std=False)
    advantages = [value * mask for value, mask in zip(scalar, masks, strict=True)]
    return Batch(plan, prompts, responses, masks, teacher_prompts, importance, advantages)


def base_fields(batch: Batch, rows: list[int]) -> dict[str, torch.Tensor]:
    """What verl puts into every row, and ROUTED."""
    part = batch.select(rows)
    inputs = [torch.cat(pair) for pair in zip(part["prompts"], part["responses"], strict=True)]
    return {
        "prompts": jagged(part["prompts"]),
        "responses": jagged(part["responses"]),
        "response_mask": jagged(part["masks"]),
        "loss_mask": jagged(part["masks"]),
        "input_ids": jagged(inputs),
        "position_ids": jagged([torch.arange(row.numel()) for row in inputs]),
        ROUTED: flags(batch.plan.routed[rows]),
    }


def log_prob_batch(batch: Batch, rows: list[int], **options: Any):
    fields = base_fields(batch, rows)
    defaults = {"temperature": 1.0, "calculate_entropy": True, "compute_loss": False}
    return tu.get_tensordict(fields, {**defaults, **options})


def teacher_batch(batch: Batch, rows: list[int], topk_ids: list[torch.Tensor] | None, **options: Any):
    """Routed rows, and fillers (unrouted rows) with a prompt of one token."""
    fields = base_fields(batch, rows)
    filler = torch.tensor([0])
    routed = batch.plan.routed.tolist()
    prompts = [batch.teacher_prompts[row] if routed[row] else filler for row in rows]
    chosen = {name: fields[name] for name in (ROUTED, "responses")} | {TEACHER_PROMPTS: jagged(prompts)}
    if topk_ids is not None:
        chosen[TOPK_IDS] = jagged([topk_ids[row] for row in rows])
    return tu.get_tensordict(chosen, {"temperature": 1.0, "max_token_len_per_gpu": 2048, **options})


def weights_of(batch: Batch, entropy: list[torch.Tensor], *, beta: float) -> list[torch.Tensor]:
    """Entropy weight x importance weight per row of the batch; `entropy` has length 0 on unrouted rows."""
    rows = [row for row in range(len(batch)) if entropy[row].numel()]
    result = [torch.zeros(0) for _ in range(len(batch))]
    if rows:
        mask = torch.cat([batch.masks[row] for row in rows]).bool()
        weights = entropy_weights(torch.cat([entropy[row] for row in rows]), mask, beta=beta)
        for row, piece in zip(rows, weights.split([entropy[row].numel() for row in rows]), strict=True):
            result[row] = piece * batch.importance[row]
    return result


def update_batch(
    batch: Batch,
    rows: list[int],
    *,
    topk_ids: list[torch.Tensor],
    teacher_log_probs: list[torch.Tensor],
    weights: list[torch.Tensor],
    old_log_probs: list[torch.Tensor],
    **options: Any,
):
    part = batch.select(rows)
    fields = base_fields(batch, rows) | {
        TOPK_IDS: jagged([topk_ids[row] for row in rows]),
        TEACHER_LOG_PROBS: jagged([teacher_log_probs[row] for row in rows]),
        TOKEN_WEIGHTS: jagged([weights[row] for row in rows]),
        "old_log_probs": jagged([old_log_probs[row] for row in rows]),
        "advantages": jagged(part["advantages"]),
        "rollout_is_weights": jagged(part["importance"]),
    }
    defaults = {"temperature": 1.0, "global_batch_size": len(batch), "srpo_metric_scale": 1.0}
    return tu.get_tensordict(fields, {**defaults, **options})
