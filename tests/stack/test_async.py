"""`srpo_colocate_async` on the real stack: rollouts are interrupted and go on; kills, and what a resumed run has left.

`srpo_separate_async` needs GPUs; tests/training/step/test_async_trainers.py has what can be seen of it without them.
"""

import json
import math
from pathlib import Path

import pytest

from tests.patience import STACK_TEST
from tests.stack.faults import kill, run_with_fault
from tests.stack.launch import run
from tests.stack.test_faults import WATCH, check_end
from tests.stack.uneven_agent import LONG

pytestmark = [pytest.mark.stack, pytest.mark.timeout(STACK_TEST)]

AGENTS = Path(__file__).with_name("uneven_agents.yaml")
LOOP = "actor_rollout_ref.rollout.agent"
ASYNC = [
    "trainer.v1.trainer_mode=srpo_colocate_async",
    f"{LOOP}.agent_loop_config_path={AGENTS}",
    f"{LOOP}.default_agent_loop=uneven",
    f"data.max_response_length={LONG}",
    "actor_rollout_ref.rollout.max_model_len=1000",
]
STALENESS = ("interrupted", "group_spread", "grpo")


def test_rollouts_are_interrupted_and_go_on_with_the_next_weights(stack_model, tmp_path):
    """The learning rate is 0 in step 1, so in step 2 the weights of before and after the interruption are equal."""
    overrides = [*ASYNC, "actor_rollout_ref.actor.optim.lr_warmup_steps=2", "trainer.save_freq=3"]
    result = run(tmp_path, stack_model, steps=3, overrides=overrides)
    assert result.returncode == 0, result.log[-4000:]
    first, second, third = result.steps
    for step in result.steps:
        assert all(math.isfinite(value) for value in step.values())
        assert step["actor/grad_norm"] > 0
        assert step["srpo/rollout_failures"] == 0
    # The four short groups of eight end first, and are of the weights that are updated.
    assert [first[f"srpo/staleness/{name}"] for name in STALENESS] == [0, 0, 0]
    assert first["response_length/max"] < LONG
    # Then long ones, begun before the update and ended after it. Each token has the log-prob that it was drawn with.
    assert second["srpo/staleness/interrupted"] >= 0.5
    assert second["srpo/staleness/group_spread"] >= 0.5
    assert second["response_length/max"] == LONG
    assert first["training/rollout_probs_diff_max"] < 1e-5
    assert second["training/rollout_probs_diff_max"] < 1e-5
    # Step 2 has moved the weights; the oldest of what step 3 trains on was waiting for its turn before that.
    assert third["training/off_policy/trajectory_staleness_worst/max"] >= 1
    assert third["training/rollout_probs_diff_max"] > 1e-5
    assert third["srpo/teacher_distance"] > 0
    folder = tmp_path / "checkpoints" / "global_step_3"
    assert json.loads((folder / "srpo_checkpoint.json").read_text())["identity"]["in_flight"] == 1
    assert (folder / "transfer_queue" / "metadata.json").is_file()


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("process", "says"),
    [
        ("ray::SRPOAgentLoop", "is dead: its process was killed"),
        ("VLLM::EngineCore", "has lost its engine"),
        ("ray::WorkerDict", "is dead: its process was killed"),
    ],
)
def test_a_killed_worker_ends_the_run(process, says, stack_model, tmp_path):
    result = run_with_fault(tmp_path, stack_model, inject=kill(process), overrides=[*ASYNC, WATCH])
    check_end(result, says, "there is no checkpoint yet")


def trained(folder, steps) -> dict[int, set[str]]:
    """The uids of the prompts of each step, from the rollouts that were dumped."""
    lines = {step: (folder / "rollouts" / f"{step}.jsonl").read_text().splitlines() for step in steps}
    return {step: {json.loads(line)["uid"].split("_")[0] for line in found} for step, found in lines.items()}


@pytest.mark.nightly
def test_after_a_sigkill_the_prompts_in_flight_are_trained_on_once(stack_model, tmp_path):
    overrides = [
        *ASYNC,
        "trainer.save_freq=2",
        "trainer.resume_mode=auto",
        f"trainer.rollout_data_dir={tmp_path}/rollouts",
    ]
    first = run(tmp_path, stack_model, steps=7, overrides=overrides, kill_after_step=3)
    assert first.returncode == -9, first.log[-4000:]
    before = trained(tmp_path, [1, 2])
    second = run(
        tmp_path,
        stack_model,
        steps=7,
        overrides=overrides,
        environment={"VERL_FILE_LOGGER_PATH": str(tmp_path / "second.jsonl")},
    )
    assert second.returncode == 0, second.log[-4000:]
    assert "resuming from" in second.log
    lines = [json.loads(line)["data"] for line in (tmp_path / "second.jsonl").read_text().splitlines()]
    assert [line["training/global_step"] for line in lines] == [3, 4, 5, 6, 7]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    uids = before | trained(tmp_path, range(3, 8))
    everything = [uid for found in uids.values() for uid in found]
    assert len(everything) == len(set(everything)) == 7 * 4
    # Twelve prompts were given out by step 2, and eight trained on; the other four came back, and were.
    given = {uid for uid in everything if int(uid.split("-")[0]) <= 2}
    assert len(given) == 12
    # In flight: one batch's prompts, before and after the kill; nothing of batches that were trained on.
    assert max(line["srpo/queue_entries"] for line in lines) <= 2 * 4 * (4 + 1)
