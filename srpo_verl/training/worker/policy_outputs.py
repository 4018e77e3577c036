"""What verl's engine computes of the logits by itself, where it leaves that to the loss function (`leave_all_to_hook`).

Log-probs of the sampled tokens, the entropy if the batch asks for it, and log-probs at the ids of selected tokens: of
logits one function with one gradient, of an output layer the same without logits.
"""

from __future__ import annotations

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from srpo_verl.core import LinearLogProbs, Selection, linear_log_probs, listed_log_probs
from srpo_verl.training.worker.logits_hook import ENTROPY, OutputLayer
from srpo_verl.training.worker.sequence_parallel import local_labels
from srpo_verl.verl_names.worker import ENTROPIES, LOG_PROBS, WANTS_ENTROPY, WANTS_SUM_PI_SQUARED


def of_logits(
    logits: torch.Tensor,
    data: TensorDict,
    rows: torch.Tensor | None = None,
    ids: torch.Tensor | None = None,
    *,
    chunk_size: int,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The engine's outputs (nnz,) by name, and (R, K) log-probs at the ids of the rows, by default of none.

    `logits` (nnz, V) are this rank's. The backward pass writes over them unless the engine reads them as well.
    """
    labels = local_labels(logits, data["input_ids"])
    if rows is None or ids is None:
        rows, ids = labels[:0], labels[:0].unsqueeze(-1)
    also_read = any(tu.get_non_tensor_data(data, name, False) for name in (WANTS_ENTROPY, WANTS_SUM_PI_SQUARED))
    found = listed_log_probs(
        logits,
        Selection(labels, rows, ids),
        with_entropy=tu.get_non_tensor_data(data, ENTROPY, False),
        overwrite=not also_read,
        chunk_size=chunk_size,
    )
    return _by_name(found.labels, found.entropy), found.listed


def of_output_layer(
    layer: OutputLayer,
    data: TensorDict,
    rows: torch.Tensor | None = None,
    ids: torch.Tensor | None = None,
    *,
    topk: int = 0,
) -> tuple[dict[str, torch.Tensor], torch.Tensor, LinearLogProbs]:
    """The same of an output layer; and all that was found, with the top K of all tokens."""
    labels = local_labels(layer.hidden, data["input_ids"]).unsqueeze(-1)
    if rows is None or ids is None:
        rows, ids = labels[:0, 0], labels[:0]
    # Off the rows any ids: what is found there is not looked at.
    wanted = labels.repeat(1, 1 + ids.shape[1])
    wanted[rows, 1:] = ids
    found = linear_log_probs(
        layer.hidden,
        layer.weight,
        wanted,
        topk=topk,
        with_entropy=layer.with_entropy,
        temperature=layer.temperature,
    )
    return _by_name(found.log_probs[:, 0], found.entropy), found.log_probs[rows, 1:], found


def _by_name(log_probs: torch.Tensor, entropy: torch.Tensor) -> dict[str, torch.Tensor]:
    return {LOG_PROBS: log_probs, **({ENTROPIES: entropy} if entropy.shape == log_probs.shape else {})}
