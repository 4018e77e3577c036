"""Forward passes of the teacher, spread evenly over the ranks: over the routed rollouts, and over those shown to it.

Every rank must get the same number of rows, or the next collective hangs. The rows that even it out are others of the
batch with a prompt of a single token and no response: the batch is a multiple of the ranks, so there are always enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions

from srpo_verl.training.fields import (
    ROUTED,
    SHOWN,
    SHOWN_LOG_PROBS,
    TEACHER_ENTROPY,
    TEACHER_LOG_PROBS,
    TEACHER_PROMPTS,
    TOPK_IDS,
    flags,
    jagged,
    require,
)
from srpo_verl.training.step.queue import get_fields, put_fields
from srpo_verl.training.step.teacher_gain import shown_siblings, teacher_gain

if TYPE_CHECKING:
    from srpo_verl.training.step.trainer import SRPOTrainer


@dataclass(frozen=True)
class TeacherPass:
    """What the driver needs of the teacher's answers; routed rows only, in the order of `rows`."""

    rows: list[int]
    # Per row: (response length,) float32, nats.
    entropy: list[torch.Tensor]
    # Per row: (response length, K) float32; fetched for the advantage mix only, else None.
    log_probs: list[torch.Tensor] | None

    @property
    def flat_entropy(self) -> torch.Tensor:
        return torch.cat(self.entropy)


def run_teacher(
    trainer: SRPOTrainer, batch: KVBatchMeta, responses: Sequence[torch.Tensor], also: Sequence[str]
) -> tuple[TeacherPass, TensorDict]:
    """Write teacher prompts, run the teacher, and complete its fields for the rows that it did not see.

    Returns:
        The teacher's answers, and the fields `also` of the routed rows, which are read with them.
    """
    srpo, rows = trainer.srpo, trainer.plan.routed_rows()
    # Failed rollouts of a group share one prompt.
    distinct = {id(prompt): prompt for prompt in trainer.prompts.values()}
    tensors = {key: torch.tensor(prompt.input_ids) for key, prompt in distinct.items()}
    prompts = {row: tensors[id(trainer.prompts[row])] for row in rows}
    if not srpo.logit_loss:
        # The advantage mix needs the teacher at the sampled token only: the response itself is the support.
        put_fields(batch, {TOPK_IDS: jagged(_sampled_tokens(responses, set(rows)))})

    meta, _ = _laid_out(trainer, batch, prompts, responses)
    meta.fields = [ROUTED, TEACHER_PROMPTS, "responses"]
    if not (srpo.logit_loss and srpo.support == "teacher"):
        meta.fields.append(TOPK_IDS)
    trainer.actor_rollout_wg.compute_teacher_targets(meta)

    wanted = [TEACHER_ENTROPY, *([] if srpo.logit_loss else [TEACHER_LOG_PROBS]), *also]
    data = get_fields(batch.select_keys([batch.keys[row] for row in rows]), wanted)
    require(data, wanted)
    if srpo.logit_loss:
        _complete(batch, set(rows), srpo.topk, with_ids=srpo.support == "teacher")
    log_probs = None if srpo.logit_loss else list(data[TEACHER_LOG_PROBS].unbind())
    return TeacherPass(rows, list(data[TEACHER_ENTROPY].unbind()), log_probs), data.select(*also)


def measure_gain(
    trainer: SRPOTrainer, batch: KVBatchMeta, responses: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]
) -> dict[str, float]:
    """`srpo/teacher_gain`: one more pass of the teacher, over the siblings that are shown to it whole.

    After `run_teacher`, whose teacher prompts it overwrites.
    """
    whole = {row: prompt for row, prompt in trainer.prompts.items() if not prompt.truncated}
    shown = shown_siblings(trainer.plan, whole)
    if not shown:
        return {}
    prompts = {row: torch.tensor(prompt.input_ids) for row, prompt in shown.items()}
    meta, order = _laid_out(trainer, batch, prompts, responses)
    put_fields(meta, {SHOWN: flags(torch.tensor([row in shown for row in order]))})
    meta.fields = [SHOWN, TEACHER_PROMPTS, "responses"]
    trainer.actor_rollout_wg.compute_shown_log_probs(meta)
    names = [SHOWN_LOG_PROBS, "old_log_probs"]
    data = get_fields(batch.select_keys([batch.keys[row] for row in shown]), names)
    require(data, names)
    teacher = [row.squeeze(-1) for row in data[SHOWN_LOG_PROBS].unbind()]
    gain = teacher_gain(teacher, data["old_log_probs"].unbind(), [masks[row] for row in shown])
    return {} if gain is None else {"srpo/teacher_gain": gain}


def _laid_out(
    trainer: SRPOTrainer, batch: KVBatchMeta, prompts: Mapping[int, torch.Tensor], responses: Sequence[torch.Tensor]
) -> tuple[KVBatchMeta, list[int]]:
    """The rows that have a teacher prompt, and fillers, ready for a remote call; and their numbers in the batch."""
    lengths = {row: prompt.numel() + responses[row].numel() for row, prompt in prompts.items()}
    order = spread(lengths, batch_size=len(batch), ranks=_teacher_ranks(trainer))
    filler = responses[0].new_full((1,), trainer.tokenizer.eos_token_id)
    meta = batch.select_keys([batch.keys[row] for row in order])
    put_fields(meta, {TEACHER_PROMPTS: jagged([prompts.get(row, filler) for row in order])})
    rollout = trainer.config.actor_rollout_ref.rollout
    budget = trainer.srpo.teacher.max_token_len_per_gpu or rollout.log_prob_max_token_len_per_gpu
    meta.extra_info = {
        "temperature": rollout.temperature,
        "max_token_len_per_gpu": max(budget, *lengths.values()),
    }
    return meta, order


def _teacher_ranks(trainer: SRPOTrainer) -> int:
    group = trainer.actor_rollout_wg
    if "teacher" not in group._dispatch_info:
        group._dispatch_info["teacher"] = group._query_dispatch_info("teacher")
    return max(group._dispatch_info["teacher"]) + 1


def spread(lengths: Mapping[int, int], *, batch_size: int, ranks: int) -> list[int]:
    """Rows to ask about and fillers, rank after rank, with equal row counts and balanced work.

    Args:
        lengths: tokens of each row to ask about, teacher prompt and response.
        batch_size: rows of the batch, a multiple of `ranks`.
    """
    fillers = [row for row in range(batch_size) if row not in lengths][: -len(lengths) % ranks]
    everything = [*lengths, *fillers]
    workload = calculate_workload(torch.tensor([lengths.get(row, 1) for row in everything]))
    partitions = get_seqlen_balanced_partitions(workload, k_partitions=ranks, equal_size=True)
    return [everything[position] for partition in partitions for position in partition]


def _complete(batch: KVBatchMeta, routed: set[int], k: int, *, with_ids: bool) -> None:
    """Rows of length zero for the rollouts that the teacher did not see; see `fields`."""
    others = [key for row, key in enumerate(batch.keys) if row not in routed]
    if not others:
        return
    meta = batch.select_keys(others)
    empty = {TEACHER_LOG_PROBS: jagged([torch.zeros(0, k)] * len(others))}
    if with_ids:
        empty[TOPK_IDS] = jagged([torch.zeros(0, k, dtype=torch.int32)] * len(others))
    put_fields(meta, empty)


def _sampled_tokens(responses: Sequence[torch.Tensor], routed: set[int]) -> list[torch.Tensor]:
    """(j, 1) int32 per row of the batch: the response as its own top-1 support, of length zero where not routed."""
    columns = [response.to(torch.int32).unsqueeze(-1) for response in responses]
    return [column if row in routed else column[:0] for row, column in enumerate(columns)]
