"""Each teacher with an adapter, a reference in the actor, a resumed run; `test_methods` has the config itself."""

import math

import pytest

from tests.patience import STACK_TEST
from tests.stack.launch import run

pytestmark = [pytest.mark.stack, pytest.mark.nightly, pytest.mark.timeout(STACK_TEST)]
OVERRIDES = ["actor_rollout_ref.rollout.n=8", "actor_rollout_ref.model.lora_rank=4"]


def check(result):
    assert result.returncode == 0, result.log[-4000:]
    for step in result.steps:
        assert all(math.isfinite(value) for value in step.values())
        assert step["training/rollout_probs_diff_max"] < 1e-5
        assert step["srpo/sdpo_loss"] > 0


@pytest.mark.parametrize(
    "overrides",
    [
        ["srpo.teacher.lora_ema=exact"],
        ["srpo.teacher.kind=frozen"],
        ["srpo.teacher.kind=trust_region"],
        ["srpo.teacher.kind=live"],
        ["trainer.n_gpus_per_node=2"],
    ],
)
def test_two_real_steps(overrides, stack_model, tmp_path):
    result = run(tmp_path, stack_model, config="srpo_lora", overrides=[*OVERRIDES, *overrides])
    check(result)
    assert len(result.steps) == 2
    assert ("srpo/teacher_distance" in result.steps[0]) == (overrides != ["srpo.teacher.kind=live"])


def test_the_reference_is_the_model_without_its_adapter(stack_model, tmp_path):
    """It is asked of the actor's engine, by the call that also collects the student's top-K: the loss stays SRPO's."""
    kl = ["actor_rollout_ref.actor.use_kl_loss=true", "actor_rollout_ref.actor.kl_loss_coef=0.001"]
    result = run(tmp_path, stack_model, config="srpo_lora", overrides=[*OVERRIDES, *kl])
    check(result)
    first, second = (step["actor/kl_loss"] for step in result.steps)
    assert first == pytest.approx(0, abs=1e-6)
    assert second > 1e-6


def test_a_resumed_run_goes_on(stack_model, tmp_path):
    resume = ["trainer.save_freq=1", "trainer.resume_mode=auto", f"trainer.default_local_dir={tmp_path}/checkpoints"]
    overrides = [*OVERRIDES, *resume]
    check(run(tmp_path / "first", stack_model, config="srpo_lora", steps=1, overrides=overrides))
    second = run(tmp_path / "second", stack_model, config="srpo_lora", steps=2, overrides=overrides)
    check(second)
    assert [step["training/global_step"] for step in second.steps] == [2]
    other = [*overrides, "srpo.teacher.lora_ema=exact"]
    third = run(tmp_path / "third", stack_model, config="srpo_lora", steps=3, overrides=other)
    assert third.returncode != 0
    assert "holds a teacher of the form srpo.teacher.lora_ema=adapter" in third.log
