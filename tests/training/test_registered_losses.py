"""`algorithm.adv_estimator=srpo` is verl's GRPO when nothing is routed, with and without the standard deviation."""

import numpy as np
import pytest
import torch
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, get_adv_estimator_fn, get_policy_loss_fn


@pytest.mark.parametrize("normalize", [False, True])
def test_equals_plain_verl_grpo(normalize):
    rng = torch.Generator().manual_seed(0)
    rewards = torch.zeros(16, 6)
    rewards[:, -1] = torch.randint(0, 2, (16,), generator=rng).float()
    mask = (torch.rand(16, 6, generator=rng) > 0.2).float()
    index = np.array([f"u{n % 4}" for n in range(16)], dtype=object)
    ours, _ = get_adv_estimator_fn("srpo")(
        token_level_rewards=rewards.clone(),
        response_mask=mask,
        index=index,
        config={"norm_adv_by_std_in_grpo": normalize},
    )
    theirs, _ = compute_grpo_outcome_advantage(rewards.clone(), mask, index, norm_adv_by_std_in_grpo=normalize)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_policy_loss_is_registered():
    assert get_policy_loss_fn("srpo").__name__ == "srpo_policy_loss"
