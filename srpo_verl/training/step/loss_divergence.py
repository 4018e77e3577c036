"""Asks the actor for the loss's divergence of a few rows, before their first update: for a step that is dumped.

The very function of the loss computes it, in a forward pass of its own over these rows. What a step that is not dumped
computes and sends stays as it is, and the teacher's top K, which nobody knows in the pass of the old log-probs, is had
like the student's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transfer_queue import KVBatchMeta

from srpo_verl.training.fields import LOSS_DIVERGENCE, require
from srpo_verl.training.step.queue import get_fields
from srpo_verl.training.step.teacher_client import spread
from srpo_verl.verl_names.driver import ranks, workers_per_part


def loss_divergence(
    batch: KVBatchMeta,
    rows: Sequence[int],
    responses: Sequence[torch.Tensor],
    *,
    workers: Any,
    temperature: float,
    max_token_len_per_gpu: int,
) -> dict[int, torch.Tensor]:
    """The divergence of the rows' tokens, in nats: (j,) float32 by row, 0 where a token is not valid.

    Args:
        batch: the step's, once the teacher has answered.
        rows: some of those that the teacher was asked about.
        responses: (j,) ids of every row.
        workers: verl's worker group that holds the actor.
        temperature: of the rollouts.
        max_token_len_per_gpu: tokens of a micro-batch, unless a single row has more.
    """
    if not rows:
        return {}
    lengths = {row: responses[row].numel() for row in rows}
    order = spread(lengths, batch_size=len(batch), ranks=ranks(workers, "actor"))
    meta = batch.select_keys([batch.keys[row] for row in order])
    prompts = get_fields(meta, ["prompts"])
    require(prompts, ["prompts"])
    whole = [ids.numel() + responses[row].numel() for ids, row in zip(prompts["prompts"].unbind(), order, strict=True)]
    # verl multiplies the budget by the workers that share a micro-batch.
    budget = max(max_token_len_per_gpu, -(-max(whole) // workers_per_part(workers, "actor")))
    # A fixed number of rows per micro-batch would have to divide theirs.
    meta.extra_info = {"temperature": temperature, "use_dynamic_bsz": True, "max_token_len_per_gpu": budget}
    workers.compute_loss_divergence(meta)
    data = get_fields(batch.select_keys([batch.keys[row] for row in rows]), [LOSS_DIVERGENCE])
    require(data, [LOSS_DIVERGENCE])
    return dict(zip(rows, list(data[LOSS_DIVERGENCE].unbind()), strict=True))
