"""Group-relative advantages of the GRPO branch (arXiv 2604.02288, section 2.1).

    A_i = r_i - mean(r_1 .. r_G)                  over ALL rollouts of the prompt, the ones routed to SDPO included

The division by the group's standard deviation is off by default (the unbiased form the paper's set-up names).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from .groups import check_scores, group_ids

__all__ = ["GroupRewards", "group_advantages", "leave_one_out_advantages"]

_EPSILON = 1e-6  # verl's GRPO adds this to the standard deviation


@dataclass(frozen=True)
class GroupRewards:
    """What a baseline sees: the N rollouts that count.

    Attributes:
        rewards: (N,), float.
        groups: int64 (N,), equal for the rollouts of one prompt; numbered from 0.
        correct: bool (N,), the verdict.
        share: float64 (N,) in [0, 1]; how much of a rollout is distilled, and hence has no policy gradient in SRPO.
        lengths: int64 (N,), tokens of the response.
        normalize_by_std: verl's `algorithm.norm_adv_by_std_in_grpo`.
    """

    rewards: torch.Tensor
    groups: torch.Tensor
    correct: torch.Tensor
    share: torch.Tensor
    lengths: torch.Tensor
    normalize_by_std: bool

    def __len__(self) -> int:
        return self.rewards.numel()


def leave_one_out_advantages(scores: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """r_i - mean of the other rewards of the group (RLOO, arXiv 2402.14740).

    Args:
        scores: as for `group_advantages`.
        groups: likewise.

    Returns:
        (N,), the dtype of the scores: G / (G - 1) times the group-mean advantage; the score in a group of one.
    """
    ids, n_groups = group_ids(groups, scores.numel(), device=scores.device)
    size = torch.bincount(ids, minlength=n_groups)[ids]
    factor = torch.where(size > 1, size / (size - 1).clamp(min=1), 1.0)
    return (group_advantages(scores, groups).double() * factor).to(scores.dtype)


def group_advantages(
    scores: torch.Tensor,
    groups: Sequence[Hashable],
    *,
    normalize_by_std: bool = False,
    exclude: torch.Tensor | None = None,
) -> torch.Tensor:
    """Advantage of each rollout against its group; equal to verl's outcome GRPO when nothing is excluded.

    Args:
        scores: (N,), any float dtype (bool and integers become float32).
        groups: N hashables, equal for the rollouts of one prompt.
        normalize_by_std: divide by the unbiased standard deviation + 1e-6.
        exclude: bool (N,); these rollouts get 0 and enter neither mean nor standard deviation.

    Returns:
        (N,), the dtype of the scores. A group of one rollout has nothing to compare with; verl then uses mean 0 and
        standard deviation 1, so its advantage is the score. If it is exclusion that left a single rollout, the
        advantage is 0: an ungraded sibling must not turn a comparison into a raw reward.

    Raises:
        ValueError: wrong lengths, or a score that is not finite and not excluded.
    """
    scores, counted = check_scores(scores, exclude)
    dtype = scores.dtype if scores.is_floating_point() else torch.float32
    ids, n_groups = group_ids(groups, scores.numel(), device=scores.device)
    infinite = torch.isinf(scores) & counted
    if infinite.any():
        raise ValueError(f"the score of rollout {int(infinite.nonzero()[0])} is infinite; a group mean needs numbers.")

    values = torch.where(counted, scores, torch.zeros_like(scores)).double()
    # Shift by the group's minimum, so that equal scores give an advantage of exactly zero whatever their value.
    shift = values.new_full((n_groups,), torch.inf)
    shift.scatter_reduce_(0, ids, torch.where(counted, values, torch.inf), reduce="amin")
    shift = torch.where(torch.isinf(shift), 0.0, shift)
    shifted = torch.where(counted, values - shift[ids], 0.0)

    size = torch.bincount(ids, minlength=n_groups)
    kept = torch.bincount(ids[counted], minlength=n_groups)
    total = values.new_zeros(n_groups).index_add_(0, ids, shifted)
    centred = torch.where(counted, shifted - (total / kept.clamp(min=1))[ids], 0.0)

    advantages = centred
    if normalize_by_std:
        squares = values.new_zeros(n_groups).index_add_(0, ids, centred.square())
        std = (squares / (kept - 1).clamp(min=1)).sqrt()
        advantages = centred / (std[ids] + _EPSILON)
    lone = (size == 1)[ids] & counted
    lone_value = values / (1.0 + _EPSILON) if normalize_by_std else values
    return torch.where(lone, lone_value, advantages).to(dtype)
