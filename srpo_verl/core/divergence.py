"""Divergence between student and teacher on the student's top-K tokens plus one tail bucket (SDPO, arXiv 2601.20802).

    M = (1 - alpha) p_S + alpha p_T
    D = (1 - alpha) KL(p_S || M) + alpha KL(p_T || M),      alpha = 0: KL(p_T || p_S),   alpha = 1: KL(p_S || p_T)

alpha = 0.5 is the Jensen-Shannon divergence, which SRPO uses (arXiv 2604.02288, Table 3). Both sides are log-probs
normalised over the full vocabulary; the tail bucket log(1 - sum of the K probabilities) keeps the mass that is not
listed. Without it the student could lower a reverse KL by letting mass escape from the support.

All of this is on small (..., K) tensors; `logit_gradient` makes a loss on logits of any divergence.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

__all__ = [
    "Divergence",
    "barycenter_divergence",
    "generalized_jsd",
    "mixed_kl",
    "require_finite",
    "topk_divergence",
]

Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(student, teacher) -> values: log-probs (..., B) of B buckets that hold all the mass, to (...), in nats."""

# log-probs are raised to this: exp gives exactly 0 there, and 0 * (finite) is 0 where 0 * inf would be NaN. No trained
# model comes near it, so a finite divergence is not changed; an infinite KL becomes a large finite one.
_LOG_FLOOR = -1e4
# The listed mass is kept this far below 1, so that the tail stays positive when K tokens hold everything.
_MAX_LOG_MASS = -1e-7


def generalized_jsd(alpha: float = 0.5, *, entry_clip: float | None = None) -> Divergence:
    """The divergence above; 0 is KL(T || S), 1 is KL(S || T), 0.5 Jensen-Shannon.

    Args:
        alpha: in [0, 1].
        entry_clip: the most that one bucket may add to a token's value, in nats (OPSD, arXiv 2601.18734); a bucket
            beyond it has no gradient. None: no limit.

    Raises:
        ValueError: alpha outside [0, 1], or a limit that is not positive.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must lie in [0, 1] (0.5 is Jensen-Shannon), not {alpha}.")
    if entry_clip is not None:
        return _clipped_jsd(alpha, entry_clip)
    if alpha == 0.0:
        return lambda student, teacher: _kl(teacher, student)
    if alpha == 1.0:
        return lambda student, teacher: _kl(student, teacher)

    def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        mixture = torch.logaddexp(student + math.log1p(-alpha), teacher + math.log(alpha))
        return (1.0 - alpha) * _kl(student, mixture) + alpha * _kl(teacher, mixture)

    return divergence


def mixed_kl(alpha: float = 0.5) -> Divergence:
    """(1 - alpha) KL(T || S) + alpha KL(S || T), without a middle (I-SDPO, arXiv 2608.12957)."""
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must lie in [0, 1], not {alpha}.")
    return lambda student, teacher: (1.0 - alpha) * _kl(teacher, student) + alpha * _kl(student, teacher)


def barycenter_divergence(alpha_max: float, sensitivity: float) -> Divergence:
    """KL(S || target), the target being between teacher and student, nearer to the student where they disagree.

        d = JSD(S, T),   a = 2 alpha_max (sigmoid(sensitivity d) - 1/2),   target ~ T^(1 - a) S^a

    Nothing but the first S has a gradient (DemoPSD, arXiv 2607.02502, equations 7 to 12).

    Raises:
        ValueError: alpha_max outside [0, 1], or a negative sensitivity.
    """
    if not (0.0 <= alpha_max <= 1.0 and sensitivity >= 0.0):
        raise ValueError(f"alpha_max={alpha_max} must lie in [0, 1], sensitivity={sensitivity} must not be negative.")

    def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        fixed = student.detach()
        disagreement = jensen_shannon(fixed, teacher).unsqueeze(-1)
        a = 2.0 * alpha_max * (torch.sigmoid(sensitivity * disagreement) - 0.5)
        target = torch.log_softmax((1.0 - a) * teacher + a * fixed, dim=-1)
        return _kl(student, target)

    return divergence


jensen_shannon = generalized_jsd(0.5)


def topk_divergence(
    student_log_probs: torch.Tensor,
    teacher_log_probs: torch.Tensor,
    *,
    divergence: Divergence = jensen_shannon,
    add_tail: bool = True,
) -> torch.Tensor:
    """Divergence per token. Differentiable with respect to the student; the teacher is detached.

    Args:
        student_log_probs: (..., K), float; normalised over the full vocabulary, at the K listed ids.
        teacher_log_probs: (..., K), float; the same for the teacher, at the SAME ids.
        divergence: of the buckets, (..., K + 1).
        add_tail: append the tail bucket; otherwise both sides are renormalised over the K ids.

    Returns:
        (...), float64 if an input is float64, else float32; in nats. Minus infinity as a log-prob gives a finite
        value and a finite gradient.

    Raises:
        ValueError: shapes that differ, K = 0, or a divergence that does not give one number per token.
    """
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
    values = divergence(student, teacher)
    if not isinstance(values, torch.Tensor) or values.shape != student.shape[:-1]:
        found = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise ValueError(f"a divergence must give one number per token, {tuple(student.shape[:-1])}, not {found}.")
    return values


def require_finite(what: str, tensor: torch.Tensor) -> None:
    """Raises ValueError if one of the values (`what` says of what) is not finite. Waits for the device."""
    wrong = int((~torch.isfinite(tensor)).sum())
    if wrong:
        raise ValueError(f"{wrong} of {tensor.numel()} {what} of the divergence are not finite.")


def _buckets(log_probs: torch.Tensor, add_tail: bool) -> torch.Tensor:
    """(..., K) -> (..., K + 1) with the tail bucket, or (..., K) renormalised."""
    log_probs = log_probs.clamp(min=_LOG_FLOOR)
    log_mass = torch.logsumexp(log_probs, dim=-1, keepdim=True)
    if not add_tail:
        return log_probs - log_mass
    tail = torch.log(-torch.expm1(log_mass.clamp(max=_MAX_LOG_MASS)))
    return torch.cat([log_probs, tail], dim=-1)


def _clipped_jsd(alpha: float, limit: float) -> Divergence:
    if not limit > 0:
        raise ValueError(f"entry_clip must be positive, not {limit}.")

    def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        if alpha == 0.0:
            entries = _kl_entries(teacher, student)
        elif alpha == 1.0:
            entries = _kl_entries(student, teacher)
        else:
            mixture = torch.logaddexp(student + math.log1p(-alpha), teacher + math.log(alpha))
            entries = (1.0 - alpha) * _kl_entries(student, mixture) + alpha * _kl_entries(teacher, mixture)
        return entries.clamp(max=limit).sum(-1)

    return divergence


def _kl_entries(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return log_p.exp() * (log_p - log_q)


def _kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return _kl_entries(log_p, log_q).sum(-1)
