"""Advantages per token, where the teacher says which tokens matter and the verdict says in which direction.

d_t = log q(y_t) - log p_old(y_t) is what the teacher's information changes about the sampled token. Nothing here has a
gradient: the results are advantages of the policy gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .rollouts import Rollouts

__all__ = ["AdvantageTokens", "contrast_advantages", "evidence_advantages", "rebellious_bonus"]


@dataclass(frozen=True)
class AdvantageTokens:
    """The T valid tokens of the rollouts that the teacher was asked about and that have a policy gradient.

    All (T,), float64 unless said otherwise; log-probs in nats.

    Attributes:
        advantages: of the token's rollout, less what of it is distilled.
        teacher_log_probs, student_log_probs: of the token that was sampled; the student's old ones.
        contrast_log_probs: log of the mean of its probabilities under the contrast, NaN without one.
        teacher_entropy, student_entropy: over the full vocabulary, in nats.
        rollout: int64, index into `rollouts`.
        position: int64, of the token in its response.
        rollouts: all that count; with the states and the step.
    """

    advantages: torch.Tensor
    teacher_log_probs: torch.Tensor
    student_log_probs: torch.Tensor
    contrast_log_probs: torch.Tensor
    teacher_entropy: torch.Tensor
    student_entropy: torch.Tensor
    rollout: torch.Tensor
    position: torch.Tensor
    rollouts: Rollouts

    def __len__(self) -> int:
        return self.advantages.numel()


def evidence_advantages(
    advantages: torch.Tensor, difference: torch.Tensor, *, strength: float, clip: float
) -> torch.Tensor:
    """A ((1 - l) + l clip(exp(sign(A) d), 1 - e, 1 + e)): RLSD (arXiv 2604.03128, equations 13 to 15).

    Args:
        advantages: (T,).
        difference: (T,), d; its negative reverses the teacher (RLRT, arXiv 2605.10781).
        strength: l in [0, 1].
        clip: e in [0, 1); so a token's advantage keeps the sign of its rollout's.
    """
    weights = (advantages.sign() * difference).exp().clamp(1.0 - clip, 1.0 + clip)
    return advantages * ((1.0 - strength) + strength * weights)


def contrast_advantages(
    advantages: torch.Tensor,
    evidence: torch.Tensor,
    *,
    temperature: float = 0.02,
    strength: float = 0.5,
    threshold: float = 0.02,
    limit: float = 2.0,
) -> torch.Tensor:
    """A + r with r = clip(strength tanh(e / temperature)), never beyond 0: RLCSD (arXiv 2606.11709).

    Args:
        advantages: (T,); where one is 0 it stays 0.
        evidence: (T,), e = log q(y_t | a right answer) - log mean_k q(y_t | wrong answer k); NaN changes nothing.
        threshold: an r that is not larger than this changes nothing.
        limit: the most that r may be, up or down.
    """
    shift = (strength * torch.tanh(evidence / temperature)).clamp(-limit, limit).nan_to_num(0.0)
    shifted = advantages + torch.where(shift.abs() > threshold, shift, 0.0)
    return torch.where(advantages > 0, shifted.clamp(min=0.0), torch.where(advantages < 0, shifted.clamp(max=0.0), 0.0))


def rebellious_bonus(
    difference: torch.Tensor, *, margin: float = 0.2, sharpness: float = 1.0, most: float = 2.0
) -> torch.Tensor:
    """clip(exp(sharpness (-d - margin)+), 1, most) - 1: for tokens that the teacher finds less likely than the student.

    DRIFT (arXiv 2606.30345, its published routing), without its gate of the rhythm.
    """
    return (sharpness * (-difference - margin).clamp(min=0.0)).exp().clamp(1.0, most) - 1.0
