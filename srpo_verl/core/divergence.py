"""Divergence between student and teacher on the student's top-K tokens plus one tail bucket (SDPO, arXiv 2601.20802).

    M = (1 - alpha) p_S + alpha p_T
    D = (1 - alpha) KL(p_S || M) + alpha KL(p_T || M),      alpha = 0: KL(p_T || p_S),   alpha = 1: KL(p_S || p_T)

alpha = 0.5 is the Jensen-Shannon divergence, which SRPO uses (arXiv 2604.02288, Table 3). Both sides are log-probs
normalised over the full vocabulary; the tail bucket log(1 - sum of the K probabilities) keeps the mass that is not
listed. Without it the student could lower a reverse KL by letting mass escape from the support.

`topk_divergence` is the mathematics, on small (..., K) tensors. `logit_divergence` is the same value as a function of
the logits, built so that its backward pass never looks at the logits again: with p = softmax(x) and s_k = dD/d log p_k,

    dD/dx = scatter(s) - (sum of s) p

so the forward pass leaves p in one (R, V) buffer, and the backward pass turns that buffer into the gradient in place.
"""

from __future__ import annotations

import math

import torch
from torch.autograd.function import once_differentiable

from .rows import check_selection, compute_dtype, pieces

__all__ = ["logit_divergence", "topk_divergence"]

# log-probs are raised to this: exp gives exactly 0 there, and 0 * (finite) is 0 where 0 * inf would be NaN. No trained
# model comes near it, so a finite divergence is not changed; an infinite KL becomes a large finite one.
_LOG_FLOOR = -1e4
# The listed mass is kept this far below 1, so that the tail stays positive when K tokens hold everything.
_MAX_LOG_MASS = -1e-7


def topk_divergence(
    student_log_probs: torch.Tensor,
    teacher_log_probs: torch.Tensor,
    *,
    alpha: float = 0.5,
    add_tail: bool = True,
) -> torch.Tensor:
    """Divergence per token. Differentiable with respect to the student; the teacher is detached.

    Args:
        student_log_probs: (..., K), float; normalised over the full vocabulary, at the K listed ids.
        teacher_log_probs: (..., K), float; the same for the teacher, at the SAME ids.
        alpha: in [0, 1]; 0 is KL(T || S), 1 is KL(S || T), 0.5 Jensen-Shannon.
        add_tail: append the tail bucket; otherwise both sides are renormalised over the K ids.

    Returns:
        (...), float64 if an input is float64, else float32; in nats. Minus infinity as a log-prob gives a finite
        value and a finite gradient.

    Raises:
        ValueError: alpha outside [0, 1], shapes that differ, or K = 0.
    """
    _check_alpha(alpha)
    if student_log_probs.shape != teacher_log_probs.shape or student_log_probs.dim() == 0:
        raise ValueError(
            f"student and teacher log-probs must have the same shape (..., K), but have "
            f"{tuple(student_log_probs.shape)} and {tuple(teacher_log_probs.shape)}; gather both at the same ids."
        )
    if student_log_probs.shape[-1] == 0:
        raise ValueError("K is 0: list at least one token id.")
    dtype = torch.promote_types(torch.promote_types(student_log_probs.dtype, teacher_log_probs.dtype), torch.float32)
    student = _buckets(student_log_probs.to(dtype), add_tail)
    teacher = _buckets(teacher_log_probs.detach().to(dtype), add_tail)
    if alpha == 0.0:
        return _kl(teacher, student)
    if alpha == 1.0:
        return _kl(student, teacher)
    mixture = torch.logaddexp(student + math.log1p(-alpha), teacher + math.log(alpha))
    return (1.0 - alpha) * _kl(student, mixture) + alpha * _kl(teacher, mixture)


def logit_divergence(
    logits: torch.Tensor,
    rows: torch.Tensor,
    topk_ids: torch.Tensor,
    teacher_log_probs: torch.Tensor,
    *,
    alpha: float = 0.5,
    add_tail: bool = True,
    chunk_size: int = 256,
    sparse_gradient: bool = False,
) -> torch.Tensor:
    """`topk_divergence` of selected rows of the student's logits, safe when the logits are overwritten afterwards.

    Other losses on the same logits may reuse their memory (flash-attn's cross-entropy writes its gradient over them),
    after which a backward pass that re-reads the logits is silently wrong. Here the forward pass keeps the softmax of
    the selected rows in one (R, V) buffer of the dtype of the logits, and the backward pass makes the gradient of it,
    in place unless the graph is retained. Beside it there are pieces of `chunk_size` rows and tensors of (R, K);
    unselected rows cost nothing in the forward pass. First derivatives only.

    Args:
        logits: (T, V) or (1, T, V), any float dtype; already divided by the rollout temperature.
        rows: (R,), int64; the rows that are distilled. A row must not be listed twice.
        topk_ids: (R, K), int64; distinct ids of each selected row.
        teacher_log_probs: (R, K), float; full-vocabulary log-probs of the teacher at these ids.
        alpha, add_tail: as for `topk_divergence`.
        chunk_size: the most rows per piece; changes memory and speed only. On a CPU pieces are smaller (`rows.py`).
        sparse_gradient: hand the (R, V) buffer over as a sparse gradient instead of a dense (T, V) one. Autograd adds
            it in place to the dense gradient of another loss on the same logits. Without such a loss the gradient
            stays sparse, which few operations take; not even a view between the logits and this function does.

    Returns:
        (R,), float64 for float64 logits, else float32. With R = 0 an empty tensor that is still connected to the
        graph, so that a micro-batch without routed rows runs the same backward hooks as every other one.

    Raises:
        ValueError: alpha outside [0, 1], shapes that do not fit, chunk_size < 1.
    """
    _check_alpha(alpha)
    check_selection(logits.squeeze(0) if logits.dim() == 3 else logits, rows, chunk_size)
    if topk_ids.dim() != 2 or topk_ids.shape[0] != rows.shape[0] or topk_ids.shape[1] == 0:
        raise ValueError(f"topk_ids must be (R, K) with R = {rows.shape[0]} and K > 0, not {tuple(topk_ids.shape)}.")
    if teacher_log_probs.shape != topk_ids.shape:
        raise ValueError(
            f"teacher_log_probs {tuple(teacher_log_probs.shape)} must have the shape of topk_ids "
            f"{tuple(topk_ids.shape)}: gather the teacher at the student's ids."
        )
    return _LogitDivergence.apply(
        logits,
        rows,
        topk_ids,
        teacher_log_probs.detach(),
        alpha,
        add_tail,
        chunk_size,
        sparse_gradient,
        torch.is_grad_enabled() and logits.requires_grad,
    )


class _LogitDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, logits, rows, topk_ids, teacher_log_probs, alpha, add_tail, chunk_size, sparse_gradient, with_gradient
    ):
        ctx.shape = logits.shape
        logits, dtype = logits.view(ctx.shape[-2:]), compute_dtype(logits.dtype)
        listed = logits.new_empty(topk_ids.shape, dtype=dtype)
        softmax = logits.new_empty((rows.shape[0] if with_gradient else 0, logits.shape[1]))
        for part, piece in pieces(logits, rows, chunk_size):
            target = softmax[part] if with_gradient and piece.dtype == dtype else None
            probabilities = torch.softmax(piece, dim=-1, dtype=dtype, out=target)
            torch.gather(probabilities, -1, topk_ids[part], out=listed[part])
            if with_gradient and target is None:
                softmax[part] = probabilities
        student = _log_probs(logits, rows, topk_ids, listed, chunk_size)
        teacher = teacher_log_probs.to(dtype)
        if not with_gradient:
            return topk_divergence(student, teacher, alpha=alpha, add_tail=add_tail)
        with torch.enable_grad():
            student.requires_grad_(True)
            values = topk_divergence(student, teacher, alpha=alpha, add_tail=add_tail)
            (slope,) = torch.autograd.grad(values.sum(), student)
        total = slope.sum(-1, keepdim=True)
        # The entries of the K ids, where two terms nearly cancel: a softmax in a narrow dtype could not give them.
        listed = slope - total * student.detach().exp()
        ctx.save_for_backward(rows, topk_ids, softmax, listed, total)
        ctx.sparse_gradient = sparse_gradient
        return values.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        rows, topk_ids, gradient, listed, total = ctx.saved_tensors
        if _graph_is_retained():
            gradient = gradient.clone()
        scale = grad_output.unsqueeze(-1)
        _scale_rows(gradient, -total * scale)
        # Not scatter_, which on a CPU goes through a float32 copy of narrower matrices.
        places = torch.arange(rows.shape[0], device=rows.device).unsqueeze(-1), topk_ids
        gradient.index_put_(places, (listed * scale).to(gradient.dtype))
        if ctx.sparse_gradient:
            places = torch.stack([torch.zeros_like(rows), rows])[-(len(ctx.shape) - 1) :]
            whole = torch.sparse_coo_tensor(places, gradient, ctx.shape, check_invariants=False)
        else:
            whole = _over_all_rows(gradient, rows, ctx.shape[-2]).view(ctx.shape)
        return whole, *[None] * 8


def _log_probs(
    logits: torch.Tensor, rows: torch.Tensor, ids: torch.Tensor, probabilities: torch.Tensor, chunk_size: int
) -> torch.Tensor:
    """(R, K) log softmax at the ids, from the logits and the softmax there: no further pass over the vocabulary."""
    at_ids = logits[rows.unsqueeze(-1), ids].to(probabilities.dtype)
    best, place = at_ids.max(-1, keepdim=True)
    log_best = probabilities.gather(-1, place).log()
    log_probs = at_ids - best + log_best
    # The best listed id may be so unlikely that its probability is not a normal number, or its logit minus infinity.
    lost = (~(log_best.squeeze(-1) > math.log(torch.finfo(probabilities.dtype).tiny))).nonzero().squeeze(-1)
    for part, piece in pieces(logits, rows[lost], chunk_size):
        whole = torch.log_softmax(piece, dim=-1, dtype=probabilities.dtype)
        log_probs[lost[part]] = whole.gather(-1, ids[lost[part]])
    return log_probs


def _scale_rows(matrix: torch.Tensor, factors: torch.Tensor) -> None:
    """Multiply (R, V) in place by (R, 1) of a wider dtype or the same; rounded once."""
    if matrix.dtype != factors.dtype and matrix.device.type == "cpu":
        # There promotion would go through a copy in the wider dtype; the number of a row is not a tensor to promote to.
        for row, factor in zip(matrix.unbind(0), factors.squeeze(-1).tolist(), strict=True):
            row.mul_(factor)
    else:
        matrix.mul_(factors)


def _over_all_rows(gradient: torch.Tensor, rows: torch.Tensor, length: int) -> torch.Tensor:
    """The gradient (R, V) of the selected rows as one of all rows (T, V)."""
    if rows.shape[0] == length and torch.equal(rows, torch.arange(length, device=rows.device)):
        return gradient
    return gradient.new_zeros((length, gradient.shape[1])).index_copy_(0, rows, gradient)


def _graph_is_retained() -> bool:
    """Whether the running backward pass may be followed by another one through the same graph."""
    ask = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if ask is None else ask()


def _buckets(log_probs: torch.Tensor, add_tail: bool) -> torch.Tensor:
    """(..., K) -> (..., K + 1) with the tail bucket, or (..., K) renormalised."""
    log_probs = log_probs.clamp(min=_LOG_FLOOR)
    log_mass = torch.logsumexp(log_probs, dim=-1, keepdim=True)
    if not add_tail:
        return log_probs - log_mass
    tail = torch.log(-torch.expm1(log_mass.clamp(max=_MAX_LOG_MASS)))
    return torch.cat([log_probs, tail], dim=-1)


def _kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _check_alpha(alpha: float) -> None:
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must lie in [0, 1] (0.5 is Jensen-Shannon), not {alpha}.")
