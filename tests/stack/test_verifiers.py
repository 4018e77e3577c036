"""SRPO on an environment of `verifiers`: its rows, and its rubric in the reward workers."""

import math

import pytest

from reward_fns.graders.verifiers import unusable
from tests.patience import STACK_TEST
from tests.stack.launch import run
from workflows.prepare.pipeline import prepare

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(STACK_TEST),
    pytest.mark.skipif(unusable() is not None, reason=str(unusable())),
]


def test_two_steps_with_an_environments_rubric(stack_model, tmp_path):
    data = tmp_path / "data"
    prepare("verifiers:tests.reward_fns.verifiers_envs", data, dataset_kwargs={"rows": 20, "test_rows": 4})
    overrides = [
        f"data.train_files={data}/train.parquet",
        f"data.val_files={data}/test.parquet",
        "data.max_prompt_length=256",
        "actor_rollout_ref.rollout.max_model_len=1024",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096",
        "reward.custom_reward_function.path=pkg://reward_fns",
        "srpo.score_range=[0,1.75]",
    ]
    result = run(tmp_path / "run", stack_model, steps=2, overrides=overrides)
    assert result.returncode == 0, result.log[-4000:]
    assert len(result.steps) == 2
    for step in result.steps:
        assert all(math.isfinite(value) for value in step.values())
        # What the asynchronous function gives to every answer; the others want a number in tags.
        assert step["critic/score/mean"] >= 0.125 - 1e-6
