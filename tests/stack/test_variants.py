"""Runs that differ from the plain one in what verl does around SRPO."""

import math

import pytest

from tests.patience import STACK_TEST
from tests.stack.launch import run, write_data

pytestmark = [pytest.mark.stack, pytest.mark.timeout(STACK_TEST)]


def test_two_ranks_reference_mini_batches_and_resume(stack_model, tmp_path):
    """Two FSDP2 ranks, a KL reference, two mini-batches, groups of unequal size, hence padding rows; then resume."""
    unequal = write_data(stack_model.parent, rollouts=[8, 7])
    overrides = [
        f"data.train_files={unequal}",
        "trainer.n_gpus_per_node=2",
        "actor_rollout_ref.rollout.n=8",
        "actor_rollout_ref.actor.use_kl_loss=true",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "srpo.grad_norm_freq=1",
        "srpo.teacher_gain_freq=1",
        "trainer.save_freq=2",
    ]
    first = run(tmp_path / "first", stack_model, steps=2, overrides=overrides)
    assert first.returncode == 0, first.log[-4000:]
    for step in first.steps:
        assert step["srpo/grad_norm/grpo"] > 0
        assert step["srpo/grad_norm/sdpo"] > 0
        assert "actor/kl_loss" in step
        # The teacher's prompt is another one than the student's: they disagree, by less than a few nats.
        assert 0 < abs(step["srpo/teacher_gain"]) < 5
        assert step["training/rollout_probs_diff_max"] < 1e-5
        assert step["srpo/infra_errors"] == 0
    assert "Upsampled batch from" in first.log
    assert (tmp_path / "first/checkpoints/global_step_2/teacher/model_world_size_2_rank_1.pt").is_file()

    resume = ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={tmp_path}/first/checkpoints/global_step_2"]
    second = run(tmp_path / "second", stack_model, steps=3, overrides=[*overrides, *resume])
    assert second.returncode == 0, second.log[-4000:]
    assert [step["training/global_step"] for step in second.steps] == [3]
    # A teacher rebuilt from the actor would be at most one EMA step of the last update away.
    assert second.steps[0]["srpo/teacher_distance"] > 1.3 * first.steps[0]["srpo/teacher_distance"]


@pytest.mark.nightly
def test_feedback_and_undecided_verdicts(stack_model, tmp_path):
    """Feedback teaches where no sibling is correct; what the grader could not decide counts nowhere."""
    overrides = [
        "srpo.providers=[sibling,feedback]",
        "reward.custom_reward_function.name=sometimes_undecided",
        "actor_rollout_ref.rollout.n=6",
        "actor_rollout_ref.model.use_remove_padding=false",
        "actor_rollout_ref.actor.use_dynamic_bsz=false",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
    ]
    result = run(tmp_path, stack_model, steps=2, overrides=overrides)
    assert result.returncode == 0, result.log[-4000:]
    assert sum(step["srpo/infra_errors"] for step in result.steps) > 0
    for step in result.steps:
        assert all(math.isfinite(value) for value in step.values())
    providers = {line["provider"] for line in result.teacher_prompts}
    assert providers <= {"sibling", "feedback"}
    for line in result.teacher_prompts:
        if line["provider"] == "feedback":
            assert "The checksum is odd." in line["teacher_prompt"]
            assert line["demonstration"] is None
