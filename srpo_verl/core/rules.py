"""Further rules of who is distilled, for methods other than SRPO; SRPO's own are in `routing`.

Each gets the rollouts that count and says of each in [0, 1] how much of it is distilled. Whoever has nothing that a
teacher could be shown is left out by `route`.
"""

from __future__ import annotations

import torch

from .advantages import group_advantages
from .rollouts import Rollouts

__all__ = ["all_wrong", "difficulty_gates", "longest_wrong", "pass_rates", "positive_advantage", "sign_routed"]


def pass_rates(rollouts: Rollouts) -> torch.Tensor:
    """(N,) float64: the share of right answers in each rollout's group."""
    size = torch.bincount(rollouts.groups)
    right = torch.bincount(rollouts.groups, weights=rollouts.correct.double())
    return (right / size.clamp(min=1))[rollouts.groups]


def all_wrong(rollouts: Rollouts, available: torch.Tensor) -> torch.Tensor:
    """Everybody in a group without a right answer (I-SDPO, arXiv 2608.12957; HDPO, arXiv 2603.23871)."""
    return pass_rates(rollouts) == 0


def positive_advantage(rollouts: Rollouts, available: torch.Tensor) -> torch.Tensor:
    """Scores above their group's mean (SDPG, arXiv 2606.04036, equation 3.5)."""
    return group_advantages(rollouts.scores, rollouts.groups) > 0


def sign_routed(rollouts: Rollouts, available: torch.Tensor) -> torch.Tensor:
    """Scores not above their group's mean: what RLCSD's code takes for the wrong ones (arXiv 2606.11709).

    In a group whose scores are all equal that is everybody, right or wrong.
    """
    return ~positive_advantage(rollouts, available)


def longest_wrong(rollouts: Rollouts, available: torch.Tensor) -> torch.Tensor:
    """Of each group the longest wrong answer; of equal ones the first (SSOPD, arXiv 2605.17497)."""
    candidates = ~rollouts.correct & available
    lengths = torch.where(candidates, rollouts.lengths, -1)
    groups = int(rollouts.groups.max()) + 1 if len(rollouts) else 0
    longest = lengths.new_full((groups,), -1).scatter_reduce_(0, rollouts.groups, lengths, reduce="amax")
    tied = candidates & (lengths == longest[rollouts.groups])
    index = torch.arange(len(rollouts))
    first = index.new_full((groups,), len(rollouts))
    first.scatter_reduce_(0, rollouts.groups, torch.where(tied, index, len(rollouts)), reduce="amin")
    return tied & (index == first[rollouts.groups])


def difficulty_gates(
    rates: torch.Tensor, *, hard: float = 0.3, easy: float = 0.7, temperature: float = 0.08
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How hard, middling and easy a question is, which sum to 1 (DRIFT, arXiv 2606.30345, its published routing).

    Args:
        rates: (N,), pass rates.
        hard, easy: the rates at which a question is half hard, half easy.
        temperature: how soft the edges are.

    Returns:
        Three (N,) float64.
    """
    is_hard = torch.sigmoid((hard - rates.double()) / temperature)
    is_easy = torch.sigmoid((rates.double() - easy) / temperature)
    middling = (1.0 - is_hard) * (1.0 - is_easy)
    total = (is_hard + middling + is_easy).clamp(min=1e-6)
    return is_hard / total, middling / total, is_easy / total
