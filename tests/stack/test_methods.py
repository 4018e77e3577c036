"""Each config runs two real steps end to end: main_ppo, Ray, vLLM, FSDP2, and the teacher where there is one."""

import math

import pytest

from tests.stack.launch import run

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

# Four groups of eight fair coins: that none of them is mixed happens once in 10^8.
GROUP = 8
OVERRIDES = [f"actor_rollout_ref.rollout.n={GROUP}", "srpo.teacher_gain_freq=2"]
DISTILLING = ("srpo", "sdpo", "srpo_routing_only", "sdpo_correct_only", "sdpo_incorrect_only")


@pytest.mark.parametrize("config", [*DISTILLING, "grpo", "advantage_mix"])
def test_two_real_steps(config, stack_model, tmp_path):
    result = run(tmp_path, stack_model, config=config, steps=2, overrides=OVERRIDES)
    assert result.returncode == 0, result.log[-4000:]
    assert len(result.steps) == 2
    for step in result.steps:
        assert all(math.isfinite(value) for value in step.values())
        # What vLLM samples from is what the actor is, after every update.
        assert step["training/rollout_probs_diff_max"] < 1e-5
        assert step["actor/grad_norm"] > 0
    first = result.steps[0]
    if config == "grpo":
        assert first["srpo/routed_share"] == 0
        assert result.teacher_prompts == []
        assert "timing_s/srpo_teacher" not in first
        return
    assert first["srpo/routed_share"] > 0
    assert first["srpo/teacher_distance"] > 0
    assert ["srpo/teacher_gain" in step for step in result.steps] == [False, True]
    if config in DISTILLING:
        assert first["srpo/sdpo_loss"] > 0
    spread = "srpo/weight/std"
    assert (first[spread] > 0) == (config == "srpo")
    check_teacher_prompts(result, config)


def check_teacher_prompts(result, config: str) -> None:
    """Every routed rollout's teacher prompt is in the dump, whole, with a sibling's answer."""
    routed = sum(step["srpo/routed_share"] * 4 * GROUP for step in result.steps)
    assert len(result.teacher_prompts) == round(routed)
    for line in result.teacher_prompts:
        assert line["teacher_prompt"].startswith("<|im_start|>user\n")
        assert line["teacher_prompt"].endswith(
            "\n\nCorrectly solve the original question.<|im_end|>\n<|im_start|>assistant\n"
        )
        assert "\nCorrect solution:\n\n" in line["teacher_prompt"]
        assert line["demonstration"] != line["rollout"]
        if config in ("srpo", "srpo_routing_only", "sdpo_incorrect_only"):
            assert line["score"] == 0.0
        if config == "sdpo_correct_only":
            assert line["score"] == 1.0
