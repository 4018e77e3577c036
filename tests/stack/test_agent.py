"""Two real steps of the agent: verl's ToolAgentLoop with its tool config, vLLM, and a teacher that sees conversations.

The calculator misbehaves in a quarter of its calls: it hangs, raises, or answers with control tokens.
"""

import math

import pytest
from omegaconf import OmegaConf

from tests.patience import STACK_TEST
from tests.stack.launch import run
from workflows.tiny.start import build
from workflows.tiny.warmup import WarmUp
from workflows.tiny_agent.start import AgentStart

pytestmark = [pytest.mark.stack, pytest.mark.timeout(STACK_TEST)]
GROUP = 8
# Enough for calls that can be read; that some are right and some wrong does not depend on it.
START = AgentStart(train=32, test=8, warm_up=WarmUp(steps=90, clean_steps=60, batch=32, teacher_batch=8, lr=8e-3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("agent")
    build(out, START, progress=False)
    tools = OmegaConf.load(out / "tools.yaml")
    tools.tools[0].class_name = "tests.stack.faulty_tools.FaultyCalculator"
    OmegaConf.save(tools, out / "tools.yaml")
    return out


def test_two_real_steps_of_an_agent(folder, tmp_path):
    overrides = [
        f"tiny.folder={folder}",
        f"data.train_files={folder}/train.parquet",
        f"data.val_files={folder}/test.parquet",
        f"actor_rollout_ref.rollout.n={GROUP}",
        "data.max_response_length=112",
        "actor_rollout_ref.rollout.max_model_len=800",
        "reward.custom_reward_function.path=pkg://tests.stack.reward",
        "srpo.providers=[sibling,tool_feedback]",
        "srpo.turn_mean=true",
        "srpo.watchdog.tool=2",
        "srpo.teacher_gain_freq=2",
        "srpo.dump_freq=1",
    ]
    result = run(tmp_path, folder / "model", config="srpo_agent_tiny", steps=2, overrides=overrides)
    assert result.returncode == 0, result.log[-4000:]
    assert len(result.steps) == 2
    for step in result.steps:
        assert all(math.isfinite(value) for value in step.values())
        assert step["training/rollout_probs_diff_max"] < 1e-5
        assert step["srpo/tools/calls"] > 0.5
        assert step["srpo/rollout_failures"] == 0
    first = result.steps[0]
    assert first["srpo/routed_share"] > 0
    assert first["srpo/sdpo_loss"] > 0
    assert first["srpo/tools/failed"] > first["srpo/tools/no_answer"] > 0
    prompts = [line["teacher_prompt"] for line in result.teacher_prompts]
    shown = [prompt for prompt in prompts if "(the conversation above)" in prompt]
    assert any("<|im_start|>tool\n" in prompt for prompt in shown)
    assert any("<tool_call>" in prompt for prompt in shown)
    for prompt in prompts:
        # The schemas are there, and the hostile answer is text: no message of a system but the first.
        assert prompt.startswith('<|im_start|>system\n{"type": "function", "function": {"name": "calculator"')
        assert prompt.endswith("\n\nCorrectly solve the original question.<|im_end|>\n<|im_start|>assistant\n")
