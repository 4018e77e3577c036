"""Each config runs two real steps end to end: main_ppo, Ray, vLLM, FSDP2, and the teacher where there is one."""

import math

import pytest

from tests.patience import STACK_TEST
from tests.stack.launch import run
from workflows.inspect.dumped_steps import read_step
from workflows.inspect.page import build_page

pytestmark = [pytest.mark.stack, pytest.mark.timeout(STACK_TEST)]

# Four groups of eight fair coins: that none of them is mixed happens once in 10^8.
GROUP = 8
OVERRIDES = [f"actor_rollout_ref.rollout.n={GROUP}", "srpo.teacher_gain_freq=2"]
DISTILLING = ("srpo", "sdpo", "srpo_routing_only", "sdpo_correct_only", "sdpo_incorrect_only")

# One for each path through the step: routed, all distilled, none distilled, an adapter. The others are settings.
IN_CI = ("srpo", "sdpo", "grpo", "srpo_lora")
NIGHTLY = [
    pytest.param(name, marks=pytest.mark.nightly) for name in (*DISTILLING, "advantage_mix") if name not in IN_CI
]


@pytest.mark.parametrize("config", [*IN_CI, *NIGHTLY])
def test_two_real_steps(config, stack_model, tmp_path):
    inspect = [f"srpo.inspect_dir={tmp_path}/inspect", "srpo.inspect_freq=2"]
    result = run(tmp_path, stack_model, config=config, steps=2, overrides=[*OVERRIDES, *inspect])
    assert result.returncode == 0, result.log[-4000:]
    assert len(result.steps) == 2
    for step in result.steps:
        assert all(math.isfinite(value) for value in step.values())
        # What vLLM samples from is what the actor is, after every update.
        assert step["training/rollout_probs_diff_max"] < 1e-5
        assert step["actor/grad_norm"] > 0
    first = result.steps[0]
    check_inspection(result)
    if config == "grpo":
        assert first["srpo/routed_share"] == 0
        assert result.teacher_prompts == []
        assert "timing_s/srpo_teacher" not in first
        return
    assert first["srpo/routed_share"] > 0
    assert first["srpo/teacher_distance"] > 0
    assert ["srpo/teacher_gain" in step for step in result.steps] == [False, True]
    if config != "advantage_mix":
        assert first["srpo/sdpo_loss"] > 0
    spread = "srpo/weight/std"
    assert (first[spread] > 0) == (config in ("srpo", "srpo_lora"))
    check_teacher_prompts(result, config)


@pytest.mark.parametrize(
    "path", ["srpo.fused_linear=true", pytest.param("srpo.one_pass=false", marks=pytest.mark.nightly)]
)
def test_two_real_steps_without_logits_and_with_verls_log_probs(path, stack_model, tmp_path):
    """With the reference and the entropy bonus, whose log-probs and entropies come from the same functions."""
    bonus = ["actor_rollout_ref.actor.use_kl_loss=true", "actor_rollout_ref.actor.entropy_coeff=0.01"]
    result = run(tmp_path, stack_model, config="srpo", steps=2, overrides=[*OVERRIDES, *bonus, path])
    assert result.returncode == 0, result.log[-4000:]
    for step in result.steps:
        assert all(math.isfinite(value) for value in step.values())
        assert step["training/rollout_probs_diff_max"] < 1e-5
        assert step["actor/entropy"] > 0
        assert "actor/kl_loss" in step
    assert result.steps[0]["srpo/sdpo_loss"] > 0
    check_teacher_prompts(result, "srpo")


def check_inspection(result) -> None:
    """The second step is dumped and becomes a page, and its entropies give the weights that were trained with."""
    page = build_page(result.folder)
    assert page.name == "step-2.html"
    data = read_step(result.folder, 2)
    assert [path.name for path in (result.folder / "inspect").iterdir()] == ["2.json.gz"]
    assert len(data["rollouts"]) == 4 * GROUP
    own, settings = data["routes"][0], data["settings"]
    routed = [rollout for rollout in data["rollouts"] if rollout["shares"][own] > 0]
    assert len(routed) / (4 * GROUP) == pytest.approx(result.steps[1]["srpo/routed_share"])
    by_row = {rollout["row"]: rollout for rollout in data["rollouts"]}
    assert all(detail["signals"]["student_entropy"] for detail in data["details"])
    assert all(group["question"].startswith("<|im_start|>user\n") for group in data["groups"])
    mean = sum(r["sums"][data["betas"].index(settings["beta"])] for r in routed) / max(
        sum(r["tokens"] for r in routed), 1
    )
    divergences = []
    for detail in data["details"]:
        if not (settings["logit_loss"] and by_row[detail["row"]]["shares"][own] > 0):
            continue
        signals = detail["signals"]
        divergences += signals["divergence"]
        for entropy, weight, importance in zip(
            signals["teacher_entropy"], signals["trained_weight"], signals["importance"], strict=True
        ):
            raw = math.exp(-settings["beta"] * (entropy - data["entropy_floor"]))
            assert weight == pytest.approx(raw / mean * importance, rel=1e-4)
    assert data["divergence"] == ("loss" if settings["logit_loss"] else "two_buckets")
    if divergences:
        # All groups are shown, and the step has one update: the update's own mean.
        assert sum(divergences) / len(divergences) == pytest.approx(result.steps[1]["srpo/divergence"], rel=1e-3)


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
        if config in ("srpo", "srpo_routing_only", "sdpo_incorrect_only", "srpo_lora"):
            assert line["score"] == 0.0
        if config == "sdpo_correct_only":
            assert line["score"] == 1.0
