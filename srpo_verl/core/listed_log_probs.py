"""Log-probs of the sampled tokens and at the top-K ids, out of logits, with one gradient that may take their place.

With p = softmax(x), H its entropy, and g the derivatives by what is returned, at the token y and at the ids k,

    dL/dx = g_y e_y + sum_k g_k e_k - (g_y + sum_k g_k) p - g_H p (log p + H)

so policy loss, divergence and entropy bonus together need one (T, V) gradient, whatever functions they are of these
numbers, and no softmax is kept: the backward pass makes it again from the logits, a piece at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable

from .kernel_choice import kernels_for
from .rows import check_selection, compute_dtype, slices

__all__ = ["ListedLogProbs", "Selection", "listed_log_probs"]


@dataclass(frozen=True)
class Selection:
    """Which log-probs are wanted of T tokens.

    Attributes:
        labels: int64 (T,); one id per token.
        rows: int64 (R,), none twice; the tokens that are distilled.
        ids: int64 (R, K); distinct ids of each of these.
    """

    labels: torch.Tensor
    rows: torch.Tensor
    ids: torch.Tensor

    def check(self, tokens: int) -> None:
        """Raises ValueError if this is not a selection out of that many tokens."""
        if self.labels.shape != (tokens,) or self.labels.dtype != torch.int64:
            raise ValueError(f"labels must be int64 ({tokens},), not {self.labels.dtype} {tuple(self.labels.shape)}.")
        if self.ids.dim() != 2 or self.ids.shape[0] != self.rows.shape[0] or self.ids.dtype != torch.int64:
            raise ValueError(
                f"ids must be int64 (R, K) with R = {self.rows.shape[0]}, not {self.ids.dtype} {tuple(self.ids.shape)}."
            )


@dataclass(frozen=True)
class ListedLogProbs:
    """Of T tokens: float64 for float64 logits, else float32; in nats.

    Attributes:
        labels: (T,) log-probs of the labels.
        listed: (R, K) log-probs at the ids.
        entropy: (T,) of the whole distribution; empty if it was not asked for.
    """

    labels: torch.Tensor
    listed: torch.Tensor
    entropy: torch.Tensor


def listed_log_probs(
    logits: torch.Tensor,
    selection: Selection,
    *,
    with_entropy: bool = False,
    overwrite: bool = False,
    chunk_size: int = 256,
) -> ListedLogProbs:
    """What a loss needs of the logits, differentiable with respect to them.

    Args:
        logits: (T, V) or (1, T, V), any float dtype; already divided by the rollout temperature.
        selection: labels of all T tokens, and ids of the distilled ones.
        with_entropy: also the entropy.
        overwrite: the backward pass writes the gradient over the logits, if it may: the graph is not retained. For
            logits that no other backward pass reads; one that does then fails, since autograd counts the write.
        chunk_size: the most rows per piece; changes memory and speed only.

    Returns:
        `ListedLogProbs`. Beside the logits (and a gradient of their size, unless it takes their place) there are
        pieces of `chunk_size` rows and tensors of (T,) and (R, K). First derivatives only.

    Raises:
        ValueError: shapes that do not fit, chunk_size < 1.
    """
    flat = logits.squeeze(0) if logits.dim() == 3 else logits
    check_selection(flat, selection.rows, chunk_size)
    selection.check(flat.shape[0])
    arguments = (selection.labels, selection.rows, selection.ids, with_entropy, overwrite, chunk_size)
    return ListedLogProbs(*_ListedLogProbs.apply(logits, *arguments))


class _ListedLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, labels, rows, ids, with_entropy, overwrite, chunk_size):
        ctx.chunk_size, ctx.overwrite, ctx.with_entropy = chunk_size, overwrite, with_entropy
        flat = logits.view(logits.shape[-2:])
        sums = RunningSoftmax(flat.shape[0], compute_dtype(flat.dtype), flat.device)
        for part in _parts(flat, chunk_size):
            sums.add(flat[part], part, with_entropy=with_entropy)
        at_labels = sums.log_probs(flat.gather(-1, labels.unsqueeze(-1)).squeeze(-1))
        listed = sums.log_probs(flat[rows.unsqueeze(-1), ids], rows)
        entropy = sums.entropy() if with_entropy else at_labels.new_empty(0)
        ctx.save_for_backward(logits, labels, rows, ids, sums.log_z(), at_labels, listed, entropy)
        return at_labels, listed, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, by_label, by_listed, by_entropy):
        logits, labels, rows, ids, log_z, at_labels, listed, entropy = ctx.saved_tensors
        flat = logits.view(logits.shape[-2:])
        in_place = ctx.overwrite and not graph_is_retained()
        gradient = flat if in_place else torch.empty_like(flat)
        by_entropy = by_entropy if ctx.with_entropy else None
        total = by_label.clone().index_add_(0, rows, by_listed.sum(-1))
        for part in _parts(flat, ctx.chunk_size):
            of_entropy = None if by_entropy is None else (by_entropy[part], entropy[part])
            everywhere(flat[part], log_z[part], total[part], of_entropy, out=gradient[part])
        at_ids, at_label = entries(
            labels, rows, ids, (at_labels, listed, entropy), (by_label, by_listed, by_entropy), total
        )
        gradient.index_put_((rows.unsqueeze(-1), ids), at_ids.to(gradient.dtype))
        gradient.index_put_((torch.arange(len(labels), device=labels.device), labels), at_label.to(gradient.dtype))
        return gradient.view(logits.shape), None, None, None, None, None, None


def _parts(logits: torch.Tensor, chunk_size: int) -> list[slice]:
    """Pieces of rows; kernels, which copy nothing, take all at once."""
    return [slice(0, logits.shape[0])] if kernels_for(logits) else slices(logits, chunk_size)


class RunningSoftmax:
    """Normaliser and entropy of T distributions whose logits come in pieces, of rows or of columns.

    Of each row the maximum m, Z = sum exp(x - m) and U = sum exp(x - m) (x - m): log p = x - m - log Z, and
    H = log Z - U / Z.
    """

    def __init__(self, tokens: int, dtype: torch.dtype, device: torch.device):
        self.maximum = torch.full((tokens,), -torch.inf, dtype=dtype, device=device)
        self.z, self.u = (torch.zeros(tokens, dtype=dtype, device=device) for _ in range(2))

    def add(self, logits: torch.Tensor, rows: slice, *, with_entropy: bool = False) -> None:
        """More logits (c, v) of the rows `rows`."""
        if kernels := kernels_for(logits):
            kernels.add_to_softmax(logits, *self._of(rows), with_entropy=with_entropy)
            return
        old, z, u = self._of(rows)
        new = torch.maximum(old, logits.amax(-1).to(old.dtype))
        # Before the first finite logit of a row there is nothing to rescale: there its maximum is minus infinity.
        down = torch.where(old == new, 0.0, old - new).clamp_(min=_FAR)
        shifted = torch.sub(logits, torch.where(new == -torch.inf, 0.0, new).unsqueeze(-1))
        factor = down.exp()
        exponentials = shifted.exp() if with_entropy else shifted.exp_()
        if with_entropy:
            # A token of probability zero: 0 * -inf.
            u.copy_(factor * (u + z * down) + exponentials.mul(shifted.clamp_(min=_FAR)).sum(-1))
        z.copy_(factor * z + exponentials.sum(-1))
        old.copy_(new)

    def _of(self, rows: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.maximum[rows], self.z[rows], self.u[rows]

    def log_z(self) -> torch.Tensor:
        """(T, 2): m and log Z, whose sum would lose what x - m keeps."""
        return torch.stack([self.maximum, self.z.log()], dim=-1)

    def log_probs(self, logits: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Of some logits (c, ...) of the rows (by default all)."""
        log_z = self.log_z() if rows is None else self.log_z()[rows]
        return _log_probs(logits, log_z)

    def entropy(self) -> torch.Tensor:
        """(T,)"""
        return self.z.log() - self.u / self.z


# exp gives exactly 0 there, in float64 too.
_FAR = -1e4


def everywhere(
    logits: torch.Tensor,
    log_z: torch.Tensor,
    total: torch.Tensor,
    of_entropy: tuple[torch.Tensor, torch.Tensor] | None,
    *,
    out: torch.Tensor,
) -> None:
    """The gradient's part that is of all ids: -total p - g_H p (log p + H), of a piece (c, v), into `out`.

    `out` may be `logits`. `of_entropy` is (g_H, H).
    """
    if kernels := kernels_for(logits):
        kernels.softmax_gradient(logits, log_z, total, of_entropy, out=out)
        return
    here = out if out.dtype == log_z.dtype else None
    log_p = torch.sub(logits, log_z[:, :1], out=here).sub_(log_z[:, 1:])
    if of_entropy is None:
        piece = log_p.exp_().mul_(-total.unsqueeze(-1))
    else:
        by_entropy, entropy = (value.unsqueeze(-1) for value in of_entropy)
        slope = log_p.clamp(min=_FAR).add_(entropy).mul_(by_entropy).add_(total.unsqueeze(-1)).neg_()
        piece = log_p.exp_().mul_(slope)
    if here is None:
        out.copy_(piece)


def entries(
    labels: torch.Tensor,
    rows: torch.Tensor,
    ids: torch.Tensor,
    values: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    slopes: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
    total: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient at the ids (R, K) and at the labels (T,), where terms cancel that a narrow dtype would lose.

    A label among the ids of its row has both terms, in both results.
    """
    (at_labels, listed, entropy), (by_label, by_listed, by_entropy) = values, slopes

    def all_terms(log_probs: torch.Tensor, of: torch.Tensor | slice) -> torch.Tensor:
        dims = (..., *[None] * (log_probs.dim() - 1))
        slope = total[of][dims]
        if by_entropy is not None:
            slope = slope + by_entropy[of][dims] * (log_probs.clamp(min=_FAR) + entropy[of][dims])
        return log_probs.exp() * slope

    same = ids == labels[rows].unsqueeze(-1)
    at_ids = by_listed + same * by_label[rows].unsqueeze(-1) - all_terms(listed, rows)
    at_label = by_label - all_terms(at_labels, slice(None))
    return at_ids, at_label.index_add_(0, rows, (same * by_listed).sum(-1))


def graph_is_retained() -> bool:
    """Whether the running backward pass may be followed by another one through the same graph."""
    ask = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if ask is None else ask()


def _log_probs(logits: torch.Tensor, log_z: torch.Tensor) -> torch.Tensor:
    """(c, ...) logits and (c, 2) -> log-probs."""
    dims = (slice(None), *[None] * (logits.dim() - 1))
    return logits.to(log_z.dtype) - log_z[:, 0][dims] - log_z[:, 1][dims]
