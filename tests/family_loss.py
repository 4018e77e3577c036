"""The loss of a method by its settings alone, of the functions that trainer and worker call, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from srpo_verl.config import SRPOConfig
from srpo_verl.core import logit_divergence, student_topk, target_statistics, topk_targets
from srpo_verl.training.step.routed_tokens import RoutedTokens, mean_log_prob
from srpo_verl.training.step.routing_plan import Rollout, RoutingPlan, build_plan
from srpo_verl.training.step.step_signals import StepSignals, step_signals
from tests.naive_family import FamilyRollout


def plan_of(
    rollouts: Sequence[FamilyRollout], srpo: SRPOConfig, *, step: int = 1, states: Mapping[str, Any] | None = None
) -> RoutingPlan:
    """Routed as the trainer does; the order within a group is that of the list."""
    numbers: dict[Any, int] = {}
    rows = []
    for rollout in rollouts:
        session = numbers[rollout.group] = numbers.get(rollout.group, -1) + 1
        rows.append(
            Rollout(
                key=f"{rollout.group}_{session}_0",
                score=rollout.reward,
                response_length=len(rollout.tokens),
                without_text=rollout.empty,
                columns={"extra_info": {"solution": rollout.reference}},
                response=f"answer {rollout.group} {session}",
                question=rollout.question,
            )
        )
    return build_plan(rows, srpo, step=step, states=states)


def signals_of(rollouts: Sequence[FamilyRollout], srpo: SRPOConfig, plan: RoutingPlan) -> StepSignals:
    """Advantages and weights of the batch."""
    asked = plan.asked_rows()

    def statistics(logits: torch.Tensor, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.tensor(rollouts[row].tokens)[:, None]
        found, entropy = target_statistics(logits.detach(), torch.arange(len(ids)), ids)
        return found[:, 0], entropy

    teacher = [statistics(rollouts[row].teacher_logits, row) for row in asked]
    contrast = []
    for row in asked:
        shown = [other for other in plan.routing.contrast[row].tolist() if other >= 0]
        passes = [statistics(rollouts[row].contrast[other], row)[0] for other in shown]
        contrast.append(mean_log_prob(passes, like=torch.zeros(len(rollouts[row].tokens))))
    tokens = RoutedTokens(
        asked,
        teacher_entropy=[entropy for _, entropy in teacher],
        student_entropy=[statistics(rollouts[row].logits, row)[1] for row in asked],
        teacher_log_probs=[log_probs for log_probs, _ in teacher],
        student_log_probs=[torch.tensor(rollouts[row].old_log_probs, dtype=torch.float64) for row in asked],
        importance=[importance_of(rollouts[row]) for row in asked],
        contrast_log_probs=contrast if srpo.contrast else None,
    )
    return step_signals(
        plan,
        srpo,
        rewards=torch.tensor([rollout.reward for rollout in rollouts], dtype=torch.float64),
        masks=[mask_of(rollout) for rollout in rollouts],
        normalize_by_std=False,
        tokens=tokens if asked else None,
    )


def loss_of(
    rollouts: Sequence[FamilyRollout], srpo: SRPOConfig, *, step: int = 1, states: Mapping[str, Any] | None = None
) -> torch.Tensor:
    """Policy gradient and divergence of the whole batch, over one denominator."""
    plan = plan_of(rollouts, srpo, step=step, states=states)
    signals = signals_of(rollouts, srpo, plan)
    variant = srpo.variant("divergence")
    total = torch.zeros((), dtype=torch.float64)
    distillation = torch.zeros((), dtype=torch.float64)
    for row, rollout in enumerate(rollouts):
        mask, tokens = mask_of(rollout), torch.tensor(rollout.tokens)
        log_probs = rollout.logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
        ratio = (log_probs - torch.tensor(rollout.old_log_probs, dtype=torch.float64)).exp()
        advantage = signals.advantages[row]
        surrogate = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.28))
        surrogate = torch.where(advantage < 0, torch.minimum(surrogate, -3.0 * advantage), surrogate)
        total = total + (surrogate * importance_of(rollout) * mask).sum()
        if srpo.logit_loss and plan.routed[row]:
            rows = torch.arange(len(tokens))
            if srpo.support == "teacher":
                ids, teacher, _ = topk_targets(rollout.teacher_logits, rows, srpo.topk)
            else:
                ids = student_topk(rollout.logits.detach(), rows, srpo.topk)
                teacher, _ = target_statistics(rollout.teacher_logits, rows, ids)
            values = logit_divergence(
                rollout.logits, rows, ids, teacher, divergence=lambda s, t: variant(s, t, srpo), add_tail=srpo.add_tail
            )
            distillation = distillation + (signals.weights[row] * ratio.detach().clamp(max=2.0) * values).sum()
    count = sum(int(mask_of(rollout).sum()) for rollout in rollouts)
    return (total + distillation * signals.denominator_scale) / count


def mask_of(rollout: FamilyRollout) -> torch.Tensor:
    return torch.tensor([float(rollout.counts(t)) for t in range(len(rollout.tokens))], dtype=torch.float64)


def importance_of(rollout: FamilyRollout) -> torch.Tensor:
    return torch.tensor(rollout.tis, dtype=torch.float64).clamp(max=2.0)
