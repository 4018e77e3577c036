"""Divergence between student and teacher on the student's top-K tokens plus one tail bucket (SDPO, arXiv 2601.20802).

    M = (1 - alpha) p_S + alpha p_T
    D = (1 - alpha) KL(p_S || M) + alpha KL(p_T || M),      alpha = 0: KL(p_T || p_S),   alpha = 1: KL(p_S || p_T)

alpha = 0.5 is the Jensen-Shannon divergence, which SRPO uses (arXiv 2604.02288, Table 3). Both sides are log-probs
normalised over the full vocabulary; the tail bucket log(1 - sum of the K probabilities) keeps the mass that is not
listed. Without it the student could lower a reverse KL by letting mass escape from the support.

`topk_divergence` is the mathematics, on small (..., K) tensors. `logit_divergence` is the same value as a function of
the logits, built so that its backward pass never looks at the logits again.
"""

from __future__ import annotations

import math

import torch
from torch.autograd.function import once_differentiable

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
) -> torch.Tensor:
    """`topk_divergence` of selected rows of the student's logits, safe when the logits are overwritten afterwards.

    Other losses on the same logits may reuse their memory (flash-attn's cross-entropy writes its gradient over them),
    after which a backward pass that re-reads the logits is silently wrong. Here the forward pass also computes the
    Jacobian of each selected row, in one (R, V) buffer of the dtype of the logits; the backward pass only scales it.
    No more than one (chunk_size, V) piece exists in float32 at a time, and unselected rows cost nothing. First
    derivatives only.

    Args:
        logits: (T, V), any float dtype; already divided by the rollout temperature.
        rows: (R,), int64; the rows that are distilled. A row must not be listed twice (its gradients would add up in
            the order of the hardware, and the cost would double).
        topk_ids: (R, K), int64; distinct ids of each selected row.
        teacher_log_probs: (R, K), float; full-vocabulary log-probs of the teacher at these ids.
        alpha, add_tail: as for `topk_divergence`.
        chunk_size: rows per piece; changes memory only.

    Returns:
        (R,), float64 for float64 logits, else float32. With R = 0 an empty tensor that is still connected to the
        graph, so that a micro-batch without routed rows runs the same backward hooks as every other one.

    Raises:
        ValueError: alpha outside [0, 1], shapes that do not fit, chunk_size < 1.
    """
    _check_alpha(alpha)
    check_selection(logits, rows, chunk_size)
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
        torch.is_grad_enabled() and logits.requires_grad,
    )


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype the maths on logits of `dtype` runs in: float64 stays, everything else becomes float32."""
    return torch.promote_types(dtype, torch.float32)


def check_selection(logits: torch.Tensor, rows: torch.Tensor, chunk_size: int) -> None:
    """Refuse anything but float logits (T, V), integer rows (R,) and a positive chunk size."""
    if logits.dim() != 2 or not logits.is_floating_point():
        raise ValueError(f"logits must be a float tensor (T, V), not {logits.dtype} {tuple(logits.shape)}; flatten it.")
    if rows.dim() != 1 or rows.dtype != torch.int64:
        raise ValueError(
            f"rows must be int64 (R,), not {rows.dtype} {tuple(rows.shape)}; a mask gives it by .nonzero()[:, 0]."
        )
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}.")


class _LogitDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, rows, topk_ids, teacher_log_probs, alpha, add_tail, chunk_size, with_jacobian):
        dtype = compute_dtype(logits.dtype)
        values = logits.new_empty(rows.shape[0], dtype=dtype)
        jacobian = logits.new_empty((rows.shape[0] if with_jacobian else 0, logits.shape[1]))
        for start in range(0, rows.shape[0], chunk_size):
            part = slice(start, start + chunk_size)
            ids = topk_ids[part]
            log_probs = torch.log_softmax(logits[rows[part]], dim=-1, dtype=dtype)
            student = log_probs.gather(-1, ids)
            teacher = teacher_log_probs[part].to(dtype)
            if not with_jacobian:
                values[part] = topk_divergence(student, teacher, alpha=alpha, add_tail=add_tail)
                continue
            with torch.enable_grad():
                student.requires_grad_(True)
                value = topk_divergence(student, teacher, alpha=alpha, add_tail=add_tail)
                (slope,) = torch.autograd.grad(value.sum(), student)
            values[part] = value.detach()
            # log p_k = x_k - logsumexp(x), hence d/dx = scatter(slope) - sum(slope) * softmax(x).
            row_jacobian = log_probs.exp_().mul_(-slope.sum(-1, keepdim=True))
            jacobian[part] = row_jacobian.scatter_add_(-1, ids, slope)
        ctx.length = logits.shape[0]
        ctx.chunk_size = chunk_size
        if with_jacobian:
            ctx.save_for_backward(rows, jacobian)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        rows, jacobian = ctx.saved_tensors
        gradient = jacobian.new_zeros((ctx.length, jacobian.shape[1]))
        for start in range(0, rows.shape[0], ctx.chunk_size):
            part = slice(start, start + ctx.chunk_size)
            # Type promotion multiplies in the wider dtype and rounds once. Out of place: the buffer may be used again.
            gradient.index_add_(0, rows[part], (jacobian[part] * grad_output[part, None]).to(jacobian.dtype))
        return gradient, None, None, None, None, None, None, None


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
