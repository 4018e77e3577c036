"""Names and order of rollouts."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpo_verl.training.rollout_keys import RolloutKey, batch_order, prompt_uid


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 2), st.integers())
def test_order_does_not_depend_on_who_was_first(prompts, sessions, outputs, seed):
    keys = [f"{prompt_uid(7, p)}_{s}_{o}" for p in range(prompts) for s in range(sessions) for o in range(outputs)]
    shuffled = random.Random(seed).sample(keys, len(keys))
    assert [shuffled[i] for i in batch_order(shuffled)] == keys
    assert {key.split("_")[0] for key in keys} == {prompt_uid(7, p) for p in range(prompts)}


def test_a_key_is_taken_apart_from_its_end():
    assert RolloutKey.parse("my_uid_3_1") == ("my_uid", 3, 1)


@pytest.mark.parametrize("key", ["", "uid", "uid_1", "uid_1_x", "uid_-1_0"])
def test_another_form_of_key_is_an_error(key):
    with pytest.raises(ValueError, match=r"uid.*session.*index"):
        RolloutKey.parse(key)
