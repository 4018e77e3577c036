"""Values of verl's keys that no run can have are refused, each with what it may be."""

import pytest

from srpo_verl.launch.basic_values import problems
from srpo_verl.launch.preflight import check
from tests.compose import compose


def found(*overrides):
    return list(problems(compose("srpo", overrides)))


def test_our_configs_are_sound():
    for name in ("srpo", "srpo_tiny", "srpo_lora", "srpo_agent_tiny"):
        assert list(problems(compose(name, []))) == []
    assert found("trainer.total_training_steps=null", "trainer.total_epochs=0.5", "trainer.save_freq=-1") == []
    assert found("+reward.custom_reward_function.reward_kwargs.mode=paper") == []


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.train_batch_size=0", "data.train_batch_size=0 must be a whole number, 1 or more"),
        ("data.max_prompt_length=12.5", "data.max_prompt_length=12.5 must be a whole number, 1 or more"),
        ("actor_rollout_ref.rollout.n=true", "actor_rollout_ref.rollout.n=True must be a whole number, 1 or more"),
        ("trainer.n_gpus_per_node=null", "trainer.n_gpus_per_node=None must be a whole number, 1 or more"),
        ("trainer.save_freq=null", "trainer.save_freq=None must be a whole number: every so many steps, -1 for never"),
        ("data.reward_fn_key=null", "data.reward_fn_key=None must be a text"),
        ("actor_rollout_ref.model.path=''", "actor_rollout_ref.model.path='' must be a text"),
        ("trainer.total_epochs=0", "trainer.total_epochs=0 must be a number above 0"),
        ("trainer.total_training_steps=0", "trainer.total_training_steps=0 must be a whole number, 1 or more, or null"),
        ("trainer.device=tpu", "trainer.device=tpu must be one of cuda, npu, cpu"),
        ("+reward.custom_reward_function.reward_kwargs=3", "reward_kwargs=3 must be names with values"),
    ],
)
def test_a_value_that_no_run_can_have(override, says):
    (problem,) = found(override)
    assert says in problem
    assert check(compose("srpo", [override]))[0] == [problem]
