"""Reads from TransferQueue, and asks the actor for, what the dump of a step shows besides its view."""

from __future__ import annotations

from typing import Any

import torch
from transfer_queue import KVBatchMeta

from srpo_verl.config import SRPOConfig
from srpo_verl.core import TeacherPrompt
from srpo_verl.training.step.loss_divergence import loss_divergence
from srpo_verl.training.step.queue import get_fields
from srpo_verl.training.step.step_dump import Looked, groups_to_dump
from srpo_verl.training.step.step_signals import StepView
from srpo_verl.training.step.teacher_prompts import LeftOut

# What is shown of any rollout, by verl's name of it.
_SIGNALS = {"entropy": "student_entropy", "old_log_probs": "student_log_prob"}


def look_at_step(
    batch: KVBatchMeta,
    view: StepView,
    *,
    srpo: SRPOConfig,
    scalar: torch.Tensor,
    prompts: dict[int, TeacherPrompt],
    left_out: LeftOut,
    workers: Any,
    rollout: Any,
) -> Looked:
    """What is dumped of the step's groups, before the batch's first update.

    Args:
        batch: the step's, once the teacher has answered.
        scalar: (n,) the baseline's advantages.
        prompts: the teacher's, by row that it was asked about.
        left_out: rows that no teacher prompt could be made for.
        workers: verl's worker group that holds the actor.
        rollout: the config node `actor_rollout_ref.rollout`.
    """
    rows = [row for group in groups_to_dump(view, srpo.inspect_groups).values() for row in group]
    data = get_fields(batch.select_keys([batch.keys[row] for row in rows]), ["prompts", *_SIGNALS])
    by_row = {name: dict(zip(rows, data[name].unbind(), strict=True)) for name in data.keys()}  # noqa: SIM118
    divergence = None
    if srpo.logit_loss:
        divergence = loss_divergence(
            batch,
            [row for row in rows if row in prompts],
            view.responses,
            workers=workers,
            temperature=rollout.temperature,
            max_token_len_per_gpu=rollout.log_prob_max_token_len_per_gpu,
        )
    return Looked(
        scalar=scalar,
        prompts=prompts,
        left_out=left_out,
        questions={row: ids.tolist() for row, ids in by_row.get("prompts", {}).items()},
        signals={name: by_row[key] for key, name in _SIGNALS.items() if key in by_row},
        divergence=divergence,
    )
