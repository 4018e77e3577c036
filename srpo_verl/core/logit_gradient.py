"""A divergence of the top-K log-probs as a loss on the logits, whose backward pass never looks at the logits again.

With p = softmax(x) and s_k = dD/d log p_k, for any differentiable function D of the listed log-probs,

    dD/dx = scatter(s) - (sum of s) p

so the forward pass leaves p in one (R, V) buffer, and the backward pass turns that buffer into the gradient in place.
"""

from __future__ import annotations

import math

import torch
from torch.autograd.function import once_differentiable

from .divergence import Divergence, jensen_shannon, require_finite, topk_divergence
from .listed_log_probs import graph_is_retained
from .rows import check_selection, compute_dtype, pieces

__all__ = ["logit_divergence"]


def logit_divergence(
    logits: torch.Tensor,
    rows: torch.Tensor,
    topk_ids: torch.Tensor,
    teacher_log_probs: torch.Tensor,
    *,
    divergence: Divergence = jensen_shannon,
    add_tail: bool = True,
    chunk_size: int = 256,
    sparse_gradient: bool = False,
    check_finite: bool = False,
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
        divergence, add_tail: as for `topk_divergence`; any differentiable function of the buckets.
        chunk_size: the most rows per piece; changes memory and speed only. On a CPU pieces are smaller (`rows.py`).
        sparse_gradient: hand the (R, V) buffer over as a sparse gradient instead of a dense (T, V) one; `rows` must
            ascend. Autograd adds it in place to the dense gradient of another loss on the same logits. Without such a
            loss the gradient stays sparse, which few operations take; not even a view between the logits and this
            function does.
        check_finite: look at every value and slope, for a divergence that nobody has proven; waits for the device.

    Returns:
        (R,), float64 for float64 logits, else float32. With R = 0 an empty tensor that is still connected to the
        graph, so that a micro-batch without routed rows runs the same backward hooks as every other one.

    Raises:
        ValueError: shapes that do not fit, chunk_size < 1; with `check_finite`, a value or slope that is not finite.
    """
    check_selection(logits.squeeze(0) if logits.dim() == 3 else logits, rows, chunk_size)
    if topk_ids.dim() != 2 or topk_ids.shape[0] != rows.shape[0] or topk_ids.shape[1] == 0:
        raise ValueError(f"topk_ids must be (R, K) with R = {rows.shape[0]} and K > 0, not {tuple(topk_ids.shape)}.")
    if teacher_log_probs.shape != topk_ids.shape:
        raise ValueError(
            f"teacher_log_probs {tuple(teacher_log_probs.shape)} must have the shape of topk_ids "
            f"{tuple(topk_ids.shape)}: gather the teacher at the student's ids."
        )

    def of_log_probs(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return topk_divergence(student, teacher, divergence=divergence, add_tail=add_tail)

    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    arguments = (of_log_probs, chunk_size, sparse_gradient, check_finite, with_gradient)
    return _LogitDivergence.apply(logits, rows, topk_ids, teacher_log_probs.detach(), *arguments)


class _LogitDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        logits,
        rows,
        topk_ids,
        teacher_log_probs,
        of_log_probs,
        chunk_size,
        sparse_gradient,
        check_finite,
        with_gradient,
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
            return of_log_probs(student, teacher)
        with torch.enable_grad():
            student.requires_grad_(True)
            values = of_log_probs(student, teacher)
            (slope,) = torch.autograd.grad(values.sum(), student)
        if check_finite:
            require_finite("values", values)
            require_finite("slopes", slope)
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
        if graph_is_retained():
            gradient = gradient.clone()
        scale = grad_output.unsqueeze(-1)
        _scale_rows(gradient, -total * scale)
        # Not scatter_, which on a CPU goes through a float32 copy of narrower matrices.
        places = torch.arange(rows.shape[0], device=rows.device).unsqueeze(-1), topk_ids
        gradient.index_put_(places, (listed * scale).to(gradient.dtype))
        if ctx.sparse_gradient:
            places = torch.stack([torch.zeros_like(rows), rows])[-(len(ctx.shape) - 1) :]
            # Each row once, in order: a GPU then adds rows, where it would add numbers one by one, by atomics.
            whole = torch.sparse_coo_tensor(places, gradient, ctx.shape, check_invariants=False, is_coalesced=True)
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
