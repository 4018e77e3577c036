"""What the teacher and the student say of the tokens that the teacher was asked about. No verl, no Ray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RoutedTokens:
    """What is known of the tokens that the teacher was asked about; lists of (response length,) float32 by row.

    Attributes:
        rows: numbers of these rows in the batch: the routed ones, and those of `srpo.asked`.
        teacher_entropy, student_entropy: over the full vocabulary, in nats.
        teacher_log_probs, student_log_probs: of the tokens that were sampled, in nats; the student's old ones.
        importance: truncated importance weights of the rollout engine; None for 1.
        contrast_log_probs: log of the mean of the tokens' probabilities where the teacher is shown a sibling of the
            contrast, NaN for a row without one; None without a contrast.
    """

    rows: list[int]
    teacher_entropy: list[torch.Tensor]
    student_entropy: list[torch.Tensor]
    teacher_log_probs: list[torch.Tensor]
    student_log_probs: list[torch.Tensor]
    importance: list[torch.Tensor] | None = None
    contrast_log_probs: list[torch.Tensor] | None = None


def mean_log_prob(log_probs: Sequence[torch.Tensor], *, like: torch.Tensor) -> torch.Tensor:
    """log of the mean of exp of (j,) rows; NaN (j,) of the length of `like` if there is none."""
    if not log_probs:
        return torch.full(like.shape, torch.nan)
    return torch.logsumexp(torch.stack(list(log_probs)), dim=0) - math.log(len(log_probs))
