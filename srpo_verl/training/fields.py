"""The fields SRPO adds to a rollout in TransferQueue, and where response tokens sit in a packed micro-batch.

TransferQueue silently drops a field that only some of the requested rollouts have, so every field of the loss is
written for EVERY rollout of the batch: rollouts that are not routed get a row of length zero. `n` rollouts, `j` ragged
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from srpo_verl.variants import ROLLOUT_TURNS

# (n, j = 1) int64: 1 if the rollout is distilled. TransferQueue makes nested tensors of all rows that have a shape.
ROUTED = "srpo_routed"
# (n, j, K) int32: ids the divergence is taken over; j = response length, 0 if not routed.
TOPK_IDS = "srpo_topk_ids"
# (n, j) int64: the teacher's prompt.
TEACHER_PROMPTS = "srpo_teacher_prompts"
# (n,) lists of tool schemas that the prompt of a rollout lists; only in a run with tools.
TOOLS = "srpo_tools"
# (n,) texts: the turns of a rollout's session, of all its outputs, as JSON (`core.turns`); "[]" where none were noted.
TURNS = ROLLOUT_TURNS
# In a rollout's extra fields: how many tool calls there were, failed, and had no answer in time.
TOOL_COUNTS = "srpo_tool_counts"
# (n, j) float32: the teacher's log-probs of the sampled tokens of a routed rollout, in nats.
TEACHER_SAMPLED = "srpo_teacher_sampled"
# (n, j = 1) int64: 1 if the teacher is asked about a rollout that is shown to it, 0 for a filler.
SHOWN = "srpo_shown"
# (n, j) float32: the teacher's log-probs of the sampled tokens of such a rollout, in nats.
SHOWN_LOG_PROBS = "srpo_shown_log_probs"
# (n, j, K) float32: teacher log-probs at TOPK_IDS, normalised over the full vocabulary. Not narrower: where teacher and
# student nearly agree, float16 changes the loss by more than it is worth (docs/performance.md).
TEACHER_LOG_PROBS = "srpo_teacher_log_probs"
# (n, j) float32: the teacher's entropy over the full vocabulary, in nats.
TEACHER_ENTROPY = "srpo_teacher_entropy"
# (n, j) float32: the loss's divergence of the tokens that the teacher was asked about, before the first update; of some
# rows of a step that is dumped (`srpo.inspect_dir`). j = response length, 0 if the teacher was not asked.
LOSS_DIVERGENCE = "srpo_loss_divergence"
# (n, j) float32: weight x truncated importance weight x share that is distilled; 0 on masked tokens.
TOKEN_WEIGHTS = "srpo_token_weights"

LOSS_FIELDS = (TOPK_IDS, TEACHER_LOG_PROBS, TOKEN_WEIGHTS)


def jagged(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Nested tensor (jagged) of rows that differ in length only; rows of length zero are welcome."""
    values = torch.cat(list(rows))
    lengths = torch.tensor([row.shape[0] for row in rows], device=values.device)
    return from_lengths(values, lengths)


def from_lengths(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Nested tensor of consecutive stretches of `values` ((sum of lengths), ...)."""
    offsets = torch.zeros(lengths.shape[0] + 1, dtype=torch.int64, device=values.device)
    torch.cumsum(lengths.to(values.device), dim=0, out=offsets[1:])
    return torch.nested.nested_tensor_from_jagged(values, offsets=offsets)


def flags(mask: torch.Tensor) -> torch.Tensor:
    """A field of one flag per row from a mask (n,)."""
    return from_lengths(mask.long(), torch.ones_like(mask, dtype=torch.int64))


def lengths_of(tensor: torch.Tensor) -> torch.Tensor:
    """(n,) row lengths of a nested tensor."""
    return tensor.offsets().diff()


def row_sums(tensor: torch.Tensor) -> torch.Tensor:
    """(n,) sum of each row of a nested tensor (n, j); 0 for a row of length zero."""
    rows = torch.repeat_interleave(lengths_of(tensor))
    return tensor.values().new_zeros(tensor.shape[0]).index_add_(0, rows, tensor.values())


def prediction_positions(sequences: torch.Tensor, response_lengths: torch.Tensor) -> torch.Tensor:
    """Positions in the packed logits that predict the last `response_lengths[i]` tokens of each sequence.

    Args:
        sequences: nested (n, j), prompt + response per row.
        response_lengths: (n,); 0 selects nothing of that row.

    Returns:
        (sum of response_lengths,) int64, in row order: the logits of position t predict token t + 1.
    """
    ends = sequences.offsets()[1:].to(response_lengths.device)
    starts = ends - response_lengths - 1
    before = response_lengths.cumsum(0) - response_lengths
    total = int(response_lengths.sum())
    # Told how many there are, it does not wait for the device to count them.
    shifts = torch.repeat_interleave(starts - before, response_lengths, output_size=total)
    return torch.arange(total, device=ends.device) + shifts


def with_lengths_on_host(data: TensorDict) -> TensorDict:
    """A micro-batch, shallow, whose `prompts` and `responses` have lengths only, and these in the host's memory.

    For verl's `no_padding_2_padding`, which cuts row by row at these lengths: on the device each row would wait for it
    four times. Here the device is waited for once. Without nested fields of these names it is `data` itself.
    """
    nested = {name: data[name] for name in ("prompts", "responses") if name in data and data[name].is_nested}
    if len(nested) < 2:
        return data
    lengths = torch.stack([lengths_of(tensor) for tensor in nested.values()]).cpu()
    found = data.clone(recurse=False).clear_device_()
    for name, of_rows in zip(nested, lengths, strict=True):
        found[name] = from_lengths(torch.zeros(int(of_rows.sum()), dtype=torch.int64), of_rows)
    return found


def require(data: TensorDict, names: Sequence[str]) -> None:
    """Raise KeyError if a field did not arrive; without it the loss would silently be another one."""
    missing = [name for name in names if name not in data]
    if missing:
        raise KeyError(f"the batch lacks {', '.join(missing)}; has {', '.join(sorted(map(str, data.keys())))}")
