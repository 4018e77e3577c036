"""Weights of the distilled tokens, and the advantage mix, over a whole batch at once. No verl, no Ray.

The mean of the entropy weights is taken over all routed valid tokens of the batch (arXiv 2604.02288, section 3.2), so
it is computed here, once, and not per micro-batch or rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from srpo_verl.core import entropy_weights


class TeacherAnswers(Protocol):
    """The part of `teacher_pass.TeacherPass` that is needed here."""

    @property
    def rows(self) -> list[int]: ...
    @property
    def entropy(self) -> list[torch.Tensor]: ...
    @property
    def log_probs(self) -> list[torch.Tensor] | None: ...


def token_weights(
    teacher: TeacherAnswers,
    masks: Sequence[torch.Tensor],
    importance: Mapping[int, torch.Tensor] | Sequence[torch.Tensor] | None,
    *,
    beta: float,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Weight of every routed token in the loss, and the entropy weights alone.

    Args:
        masks: response mask of every row of the batch, (j,) float.
        importance: truncated importance weights by row, at least of the teacher's rows; None for 1.

    Returns:
        Per row of the batch (j,) float32, length 0 for rows that are not routed; and (routed tokens,) float32 in the
        order of `teacher.rows`, zero on masked tokens.
    """
    mask = torch.cat([masks[row] for row in teacher.rows])
    entropy = entropy_weights(torch.cat(teacher.entropy), mask.bool(), beta=beta).float()
    factor = entropy if importance is None else entropy * torch.cat([importance[row] for row in teacher.rows])
    pieces = dict(zip(teacher.rows, factor.split([len(row) for row in teacher.entropy]), strict=True))
    return [pieces.get(row, factor[:0]) for row in range(len(masks))], entropy


def mixed_advantages(
    advantages: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor],
    old_log_probs: Sequence[torch.Tensor],
    teacher: TeacherAnswers | None,
    *,
    mix: float,
) -> list[torch.Tensor]:
    """(1 - mix) A_grpo + mix (log q(y_t) - log p_old(y_t)) per row; without teacher information the last term is 0."""
    mixed = [(1.0 - mix) * row for row in advantages]
    if teacher is None:
        return mixed
    assert teacher.log_probs is not None
    for row, log_probs in zip(teacher.rows, teacher.log_probs, strict=True):
        mixed[row] = mixed[row] + mix * (log_probs.squeeze(-1) - old_log_probs[row]) * masks[row]
    return mixed
