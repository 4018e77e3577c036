"""Log-probs out of hidden states and the output layer's weights, without the logits ever being there as a whole.

The logits come in blocks of rows and columns, x = h W^T / temperature, and go: a forward pass takes the normaliser,
the entropy, the wanted ids and the top K out of each block, the backward pass makes it once more and turns it into the
gradient of its logits (see `listed_log_probs`). Four matrix products in all, where logits that are kept need three.
Divergence, teacher's targets, policy loss and entropy bonus are functions of what is returned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable

from .listed_log_probs import RunningSoftmax, everywhere
from .rows import compute_dtype, without_autocast

__all__ = ["LinearLogProbs", "linear_log_probs"]

# A block of logits: large enough for a matrix product at full speed, 0.2 % of 8,192 rows of Qwen3's vocabulary.
_ROWS, _COLUMNS = 1024, 2048


@dataclass(frozen=True)
class LinearLogProbs:
    """Of T tokens; float64 for float64 hidden states, else float32; in nats.

    Attributes:
        log_probs: (T, M) at the ids that were asked for.
        entropy: (T,) over the full vocabulary; empty if it was not asked for.
        topk_ids: int64 (T, K), largest first.
        topk_log_probs: (T, K) of these; without gradient.
    """

    log_probs: torch.Tensor
    entropy: torch.Tensor
    topk_ids: torch.Tensor
    topk_log_probs: torch.Tensor


def linear_log_probs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    ids: torch.Tensor,
    *,
    topk: int = 0,
    with_entropy: bool = False,
    temperature: float | torch.Tensor = 1.0,
) -> LinearLogProbs:
    """Log-probs at M ids per token, and what else is asked for, of softmax(hidden @ weight.T / temperature).

    Differentiable with respect to `hidden` and `weight`, through `log_probs` and `entropy`; first derivatives only.
    Products are in the dtype that is given, everything else in float32, as with logits that were kept; but the
    gradient of `weight` is summed in its own dtype, one rounding per 1,024 tokens: in bfloat16 its error, at first that
    of kept logits, grows slowly with the number of tokens.

    Args:
        hidden: (T, H), any float dtype.
        weight: (V, H), the same dtype.
        ids: int64 (T, M); an id may be listed twice.
        topk: K; 0 to V.
        with_entropy: also the entropy over the full vocabulary.
        temperature: one number, or one per token, (T,).

    Returns:
        `LinearLogProbs`. Beside it and the gradients there are blocks of 1,024 x 2,048 logits and one row block of the
        gradient of `hidden` in float32.

    Raises:
        ValueError: shapes or dtypes that do not fit, K > V.
    """
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1] or hidden.dtype != weight.dtype:
        raise ValueError(
            f"hidden states (T, H) and weights (V, H) of one dtype are needed, not {hidden.dtype} "
            f"{tuple(hidden.shape)} and {weight.dtype} {tuple(weight.shape)}."
        )
    if ids.dim() != 2 or ids.shape[0] != hidden.shape[0] or ids.dtype != torch.int64:
        raise ValueError(f"ids must be int64 ({hidden.shape[0]}, M), not {ids.dtype} {tuple(ids.shape)}.")
    if not 0 <= topk <= weight.shape[0]:
        raise ValueError(f"K = {topk} must lie in [0, {weight.shape[0]}], the size of the vocabulary.")
    scale = (
        torch.as_tensor(temperature, dtype=torch.float64, device=hidden.device)
        .to(hidden.dtype)
        .expand(hidden.shape[0])
        .unsqueeze(-1)
    )
    with without_autocast(hidden):
        return LinearLogProbs(*_LinearLogProbs.apply(hidden, weight, ids, scale, topk, with_entropy))


class _LinearLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, ids, temperature, topk, with_entropy):
        ctx.with_entropy = with_entropy
        count, dtype = hidden.shape[0], compute_dtype(hidden.dtype)
        sums = RunningSoftmax(count, dtype, hidden.device)
        found = hidden.new_empty(ids.shape)
        best = hidden.new_full((count, topk), -torch.inf)
        best_ids = ids.new_zeros((count, topk))
        for rows, columns, block in _blocks(hidden, weight, temperature):
            sums.add(block, rows, with_entropy=with_entropy)
            places, inside = _places(ids[rows], columns)
            found[rows] = torch.where(inside, block.gather(-1, places), found[rows])
            if topk:
                _keep_best(best[rows], best_ids[rows], block, columns.start)
        log_probs, entropy = sums.log_probs(found), sums.entropy() if with_entropy else sums.z.new_empty(0)
        ctx.save_for_backward(hidden, weight, ids, temperature, sums.log_z(), entropy)
        best_log_probs = sums.log_probs(best)
        ctx.mark_non_differentiable(best_ids, best_log_probs)
        return log_probs, entropy, best_ids, best_log_probs

    @staticmethod
    @once_differentiable
    def backward(ctx, by_log_prob, by_entropy, _, __):
        hidden, weight, ids, temperature, log_z, entropy = ctx.saved_tensors
        for_hidden, for_weight, *_rest = ctx.needs_input_grad
        of_hidden = torch.empty_like(hidden) if for_hidden else None
        of_weight = torch.zeros_like(weight) if for_weight else None
        total = by_log_prob.sum(-1)
        with without_autocast(hidden):
            for rows, columns, block in _blocks(hidden, weight, temperature):
                if columns.start == 0:
                    row_sum = total.new_zeros((block.shape[0], hidden.shape[1]))
                slope = torch.empty(block.shape, dtype=log_z.dtype, device=block.device)
                of_entropy = (by_entropy[rows], entropy[rows]) if ctx.with_entropy else None
                everywhere(block, log_z[rows], total[rows], of_entropy, out=slope)
                places, inside = _places(ids[rows], columns)
                slope.scatter_add_(-1, places, torch.where(inside, by_log_prob[rows], 0.0))
                narrow = slope.div_(temperature[rows]).to(hidden.dtype)
                if of_hidden is not None:
                    row_sum += narrow @ weight[columns]
                    if columns.stop == weight.shape[0]:
                        of_hidden[rows] = row_sum.to(hidden.dtype)
                if of_weight is not None:
                    of_weight[columns].addmm_(narrow.T, hidden[rows])
        return of_hidden, of_weight, None, None, None, None


def _blocks(
    hidden: torch.Tensor, weight: torch.Tensor, temperature: torch.Tensor
) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """`(rows, columns, logits of that block)`, the columns of one block of rows after another."""
    tokens, vocabulary = hidden.shape[0], weight.shape[0]
    for start in range(0, tokens, _ROWS):
        rows = slice(start, min(start + _ROWS, tokens))
        for first in range(0, vocabulary, _COLUMNS):
            columns = slice(first, min(first + _COLUMNS, vocabulary))
            # As verl divides: in the dtype of the logits.
            yield rows, columns, (hidden[rows] @ weight[columns].T).div_(temperature[rows])


def _places(ids: torch.Tensor, columns: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """(c, M) ids -> their columns in a block, and whether they are in it; the column of those that are not is any."""
    places = ids - columns.start
    inside = (places >= 0) & (places < columns.stop - columns.start)
    return places.clamp_(0, columns.stop - columns.start - 1), inside


def _keep_best(best: torch.Tensor, best_ids: torch.Tensor, block: torch.Tensor, first: int) -> None:
    """The K largest so far (c, K) and of a block (c, v), in place."""
    k = best.shape[1]
    here = block.topk(min(k, block.shape[1]), dim=-1)
    values, ids = torch.cat([best, here.values], dim=-1), torch.cat([best_ids, here.indices + first], dim=-1)
    kept = values.topk(k, dim=-1)
    best.copy_(kept.values)
    best_ids.copy_(ids.gather(-1, kept.indices))
