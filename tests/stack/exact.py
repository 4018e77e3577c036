"""Runs that can be compared bit by bit, and the comparison of what they leave."""

from __future__ import annotations

import torch

# One request at a time and no cached prefixes: a rollout's logits do not depend on what else vLLM is computing.
EXACT = [
    "srpo.seeded_rollouts=true",
    "actor_rollout_ref.rollout.max_num_seqs=1",
    "actor_rollout_ref.rollout.enable_prefix_caching=false",
    "srpo.grad_norm_freq=2",
    "trainer.save_freq=3",
    "trainer.test_freq=3",
    "trainer.resume_mode=auto",
]


def assert_same(one, other, path=""):
    if isinstance(one, torch.Tensor):
        local = [value.to_local() if hasattr(value, "to_local") else value for value in (one, other)]
        assert torch.equal(*local), f"{path}: {(local[0] - local[1]).abs().max()}"
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{path}[{index}]")
    elif path.split(".")[-1] not in ("weights_only",):
        assert str(one) == str(other), path
