"""Asks the teacher, spread evenly over the ranks: about the routed rollouts, and about those shown to it.

Every rank must get the same number of rows, or the next collective hangs. The rows that even it out are others of the
batch with a prompt of a single token and no response: the batch is a multiple of the ranks, so there are always enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transfer_queue import KVBatchMeta
from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions

from srpo_verl.config import SRPOConfig
from srpo_verl.core import TeacherPrompt
from srpo_verl.training.fields import (
    ROUTED,
    SHOWN,
    SHOWN_LOG_PROBS,
    TEACHER_ENTROPY,
    TEACHER_LOG_PROBS,
    TEACHER_PROMPTS,
    TEACHER_SAMPLED,
    TOPK_IDS,
    flags,
    jagged,
    require,
)
from srpo_verl.training.step.queue import get_fields, put_fields
from srpo_verl.training.step.routed_tokens import RoutedTokens, mean_log_prob
from srpo_verl.verl_names.driver import ranks, workers_per_part


@dataclass(frozen=True)
class TeacherClient:
    """The remote calls of the teacher.

    Attributes:
        workers: verl's worker group that holds it.
        temperature: of the rollouts; the teacher's logits are divided by it too.
        max_token_len_per_gpu: tokens of a micro-batch, unless a single row has more.
        filler_id: the token of a filler's prompt.
    """

    srpo: SRPOConfig
    workers: Any
    temperature: float
    max_token_len_per_gpu: int
    filler_id: int

    def ask(
        self,
        batch: KVBatchMeta,
        prompts: Mapping[int, TeacherPrompt],
        responses: Sequence[torch.Tensor],
        *,
        importance: bool,
    ) -> RoutedTokens:
        """Run the teacher on the rows that have a prompt, and complete its fields for the rows that it does not see.

        Args:
            prompts: by routed row of the batch.
            responses: (j,) ids of every row.
            importance: read the rows' `rollout_is_weights` too.
        """
        srpo, rows = self.srpo, list(prompts)
        # Failed rollouts of a group share one prompt.
        tensors = {id(prompt): torch.tensor(prompt.input_ids) for prompt in prompts.values()}
        meta, _ = self._laid_out(batch, {row: tensors[id(prompts[row])] for row in rows}, responses)
        meta.fields = [ROUTED, TEACHER_PROMPTS, "responses"]
        if srpo.logit_loss and srpo.support == "student":
            meta.fields.append(TOPK_IDS)
        self.workers.compute_teacher_targets(meta)

        wanted = [TEACHER_ENTROPY, TEACHER_SAMPLED, "entropy", "old_log_probs"]
        wanted += ["rollout_is_weights"] if importance else []
        data = get_fields(batch.select_keys([batch.keys[row] for row in rows]), wanted)
        require(data, wanted)
        if srpo.logit_loss:
            _complete(batch, set(rows), srpo.topk, with_ids=srpo.support == "teacher")
        return RoutedTokens(
            rows,
            teacher_entropy=list(data[TEACHER_ENTROPY].unbind()),
            student_entropy=list(data["entropy"].unbind()),
            teacher_log_probs=list(data[TEACHER_SAMPLED].unbind()),
            student_log_probs=list(data["old_log_probs"].unbind()),
            importance=list(data["rollout_is_weights"].unbind()) if importance else None,
        )

    def log_probs_of_shown(
        self, batch: KVBatchMeta, shown: Mapping[int, TeacherPrompt], responses: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Log-probs that the teacher and the student give the responses of rows that are shown to the teacher.

        After `ask`, whose teacher prompts it overwrites.

        Args:
            shown: by row, the teacher's prompt that holds the row's response.

        Returns:
            (j,) per row of `shown`, twice; the student's are the old ones.
        """
        prompts = {row: torch.tensor(prompt.input_ids) for row, prompt in shown.items()}
        meta, order = self._laid_out(batch, prompts, responses)
        put_fields(meta, {SHOWN: flags(torch.tensor([row in shown for row in order]))})
        meta.fields = [SHOWN, TEACHER_PROMPTS, "responses"]
        self.workers.compute_shown_log_probs(meta)
        names = [SHOWN_LOG_PROBS, "old_log_probs"]
        data = get_fields(batch.select_keys([batch.keys[row] for row in shown]), names)
        require(data, names)
        return list(data[SHOWN_LOG_PROBS].unbind()), list(data["old_log_probs"].unbind())

    def contrast(
        self,
        batch: KVBatchMeta,
        passes: Sequence[Mapping[int, TeacherPrompt]],
        rows: Sequence[int],
        responses: Sequence[torch.Tensor],
    ) -> list[torch.Tensor]:
        """Log of the mean probability of the responses' tokens over passes that show the teacher something else.

        After `ask`, whose teacher prompts it overwrites.

        Args:
            passes: per pass the prompt of each row that it shows something to.

        Returns:
            (j,) per row of `rows`, NaN where no pass shows anything.
        """
        found: dict[int, list[torch.Tensor]] = {row: [] for row in rows}
        for prompts in passes:
            if prompts:
                answers, _ = self.log_probs_of_shown(batch, prompts, responses)
                for row, answer in zip(prompts, answers, strict=True):
                    found[row].append(answer)
        return [mean_log_prob(of_row, like=responses[row]) for row, of_row in found.items()]

    def _laid_out(
        self, batch: KVBatchMeta, prompts: Mapping[int, torch.Tensor], responses: Sequence[torch.Tensor]
    ) -> tuple[KVBatchMeta, list[int]]:
        """The rows that have a teacher prompt, and fillers, ready for a remote call; and their numbers in the batch."""
        lengths = {row: prompt.numel() + responses[row].numel() for row, prompt in prompts.items()}
        order = spread(lengths, batch_size=len(batch), ranks=ranks(self.workers, "teacher"))
        filler = responses[0].new_full((1,), self.filler_id)
        meta = batch.select_keys([batch.keys[row] for row in order])
        put_fields(meta, {TEACHER_PROMPTS: jagged([prompts.get(row, filler) for row in order])})
        # verl multiplies the budget by the workers that share a micro-batch.
        longest = -(-max(lengths.values()) // workers_per_part(self.workers, "teacher"))
        budget = max(self.max_token_len_per_gpu, longest)
        meta.extra_info = {"temperature": self.temperature, "max_token_len_per_gpu": budget}
        return meta, order


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
