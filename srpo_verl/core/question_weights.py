"""How much the distillation of a question's rollouts counts, from its pass rate p in this step."""

from __future__ import annotations

import torch

from .rollouts import Rollouts
from .rules import pass_rates

__all__ = ["frontier_weights", "pass_rate_spread"]


def pass_rate_spread(rollouts: Rollouts, share: torch.Tensor) -> torch.Tensor:
    """sqrt(p (1 - p)), over its mean over the rollouts that are distilled (SC-SDPO, arXiv 2605.27765).

    Args:
        share: (N,), how much of each rollout is distilled.

    Returns:
        (N,) float64. Without a distilled rollout of a mixed group there is no mean: then all weights are 0.
    """
    rates = pass_rates(rollouts)
    raw = (rates * (1.0 - rates)).sqrt()
    mean = raw[share > 0].mean() if bool((share > 0).any()) else raw.new_zeros(())
    return raw / mean if mean > 0 else torch.zeros_like(raw)


def frontier_weights(rollouts: Rollouts, share: torch.Tensor) -> torch.Tensor:
    """4 p (1 - p): 1 where half of the answers are right, 0 where all or none are (SSOPD, arXiv 2605.17497); (N,)."""
    rates = pass_rates(rollouts)
    return 4.0 * rates * (1.0 - rates)
