"""The advantage estimator and the policy loss that verl knows as `srpo`.

The estimator is the group mean over all rollouts of a prompt (arXiv 2604.02288, section 2.1); the trainer then zeroes
the rollouts that are distilled instead. The policy loss is verl's clipped surrogate, with dual clip and truncated
importance sampling: `loss_mode` may be any other of verl's (gspo, cispo, ...), the distilled rows do not depend on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla, register_adv_est, register_policy_loss

from srpo_verl.core import group_advantages


@register_adv_est("srpo")
def srpo_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    config: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns, both (n, response length): r_i - group mean on every response token.

    `algorithm.norm_adv_by_std_in_grpo` divides by the group's standard deviation.
    """
    normalize = bool(config is not None and config.get("norm_adv_by_std_in_grpo", False))
    scalar = group_advantages(token_level_rewards.sum(dim=-1), index.tolist(), normalize_by_std=normalize)
    advantages = scalar.unsqueeze(-1) * response_mask
    return advantages, advantages


@register_policy_loss("srpo")
def srpo_policy_loss(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, dict[str, Any]]:
    """min(rho A, clip(rho, 1 - eps_low, 1 + eps_high) A), dual clip, times the truncated importance weight."""
    return compute_policy_loss_vanilla(*args, **kwargs)
