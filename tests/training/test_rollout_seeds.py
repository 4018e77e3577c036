"""Seeds and order of rollouts."""

import random

from hypothesis import given
from hypothesis import strategies as st

from srpo_verl.training.rollout_seeds import batch_order, prompt_uid, rollout_seed


def test_the_seed_depends_on_everything_and_nothing_else():
    base = {"run": 42, "step": 3, "prompt": "0000003-00001", "sample": 0}
    seeds = [rollout_seed(**base), *(rollout_seed(**{**base, key: value}) for key, value in
             (("run", 43), ("step", 4), ("prompt", "0000003-00002"), ("sample", 1)))]  # fmt: skip
    assert len(set(seeds)) == 5
    assert rollout_seed(**base) == seeds[0] == 1349788746
    assert all(0 <= seed < 2**31 for seed in seeds)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 2), st.integers())
def test_order_does_not_depend_on_who_was_first(prompts, sessions, outputs, seed):
    keys = [f"{prompt_uid(7, p)}_{s}_{o}" for p in range(prompts) for s in range(sessions) for o in range(outputs)]
    shuffled = random.Random(seed).sample(keys, len(keys))
    assert [shuffled[i] for i in batch_order(shuffled)] == keys
    assert {key.split("_")[0] for key in keys} == {prompt_uid(7, p) for p in range(prompts)}
