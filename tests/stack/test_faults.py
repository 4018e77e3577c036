"""The fault table of docs/reliability.md: each fault is injected into a real run, which ends by itself, says why, and
leaves no process behind. Faults that do not end a run share one run, the last test.
"""

import math
import signal
from pathlib import Path

import pandas as pd
import pytest

from tests.patience import STACK_TEST
from tests.stack.faults import kill, run_with_fault
from tests.stack.faulty import STUCK

pytestmark = [pytest.mark.stack, pytest.mark.timeout(STACK_TEST)]
nightly = pytest.mark.nightly

AGENTS = Path(__file__).with_name("faulty_agents.yaml")
WATCH = "srpo.watchdog.interval=1"


def agent(name: str) -> list[str]:
    loop = "actor_rollout_ref.rollout.agent"
    return [f"{loop}.agent_loop_config_path={AGENTS}", f"{loop}.default_agent_loop={name}"]


def bad_rows(folder: Path) -> Path:
    """16 good rows, and one each without a prompt, with no user in it, and without a ground truth."""
    good = {
        "data_source": "checksum",
        "prompt": [{"role": "user", "content": "2 + 2?"}],
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "extra_info": {"index": 0},
    }
    bad = [
        {"prompt": []},
        {"prompt": [{"role": "system", "content": "Be brief."}]},
        {"reward_model": {"style": "rule", "ground_truth": None}},
    ]
    path = folder / "rows.parquet"
    pd.DataFrame([good] * 16 + [{**good, **change} for change in bad]).to_parquet(path)
    return path


def check_end(result, *says: str) -> None:
    """It ended by itself with an error, said everything in `says`, and nothing of it is left."""
    assert result.returncode not in (0, -9), result.log[-4000:]
    for words in says:
        assert any(words in line for line in result.sentences), "\n".join(result.sentences) or result.log[-4000:]
    assert result.left_over == []


@pytest.mark.parametrize(
    ("process", "says"),
    [
        pytest.param("ray::SRPOAgentLoop", "is dead: its process was killed", id="agent loop worker", marks=nightly),
        pytest.param("VLLM::EngineCore", "has lost its engine", id="vLLM engine", marks=nightly),
        pytest.param("ray::RewardLoopWorker", "rollouts failed", id="reward worker", marks=nightly),
        pytest.param("ray::WorkerDict", "is dead: its process was killed", id="actor"),
        pytest.param("ray::vLLMHttpServer", "is dead: its process was killed", id="vLLM server", marks=nightly),
    ],
)
def test_a_killed_worker_ends_the_run(process, says, stack_model, tmp_path):
    result = run_with_fault(tmp_path, stack_model, inject=kill(process), overrides=[WATCH])
    check_end(result, says, "there is no checkpoint yet")


@pytest.mark.nightly
@pytest.mark.parametrize(
    "process", ["ray::TransferQueueController", "ray::SimpleStorageUnit", "ray::GlobalRequestLoad"]
)
def test_a_killed_service_ends_the_run(process, stack_model, tmp_path):
    result = run_with_fault(tmp_path, stack_model, inject=kill(process), overrides=[WATCH])
    check_end(result, "is dead: its process was killed")


@pytest.mark.nightly
def test_the_trainers_own_process_killed(stack_model, tmp_path):
    result = run_with_fault(tmp_path, stack_model, inject=kill("ray::TaskRunner"))
    assert result.returncode not in (0, -9)
    assert "class_name: TaskRunner" in result.log
    assert result.left_over == []


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_main_process_takes_everything_with_it(number, stack_model, tmp_path):
    result = run_with_fault(tmp_path, stack_model, inject=lambda tree: tree.process.send_signal(number))
    assert result.returncode != 0
    assert result.left_over == []


STUCK_WEIGHTS = "actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls=tests.stack.faulty.StuckWeights"


def test_an_engine_killed_while_it_receives_weights_ends_the_run(stack_model, tmp_path):
    """No call raises then: the actor waits for a receiver that is gone, the server for an answer of it."""
    stuck = tmp_path / "stuck"
    result = run_with_fault(
        tmp_path,
        stack_model,
        inject=kill("VLLM::EngineCore"),
        once=stuck,
        overrides=[STUCK_WEIGHTS, WATCH],
        environment={STUCK: str(stuck)},
    )
    check_end(result, "update_weights (step 2) waits since", "has lost its engine")


@pytest.mark.nightly
def test_a_weight_transfer_that_hangs_is_named(stack_model, tmp_path):
    overrides = [STUCK_WEIGHTS, "srpo.watchdog.update_weights=30", WATCH]
    environment = {STUCK: str(tmp_path / "stuck")}
    result = run_with_fault(tmp_path, stack_model, overrides=overrides, environment=environment)
    check_end(result, "update_weights (step 2) has taken", "actor worker, rank 0 (pid", "the driver is at")


@pytest.mark.nightly
def test_rollouts_that_never_come_are_named_by_uid(stack_model, tmp_path):
    overrides = [*agent("sleeping"), "srpo.watchdog.gen=40", WATCH]
    result = run_with_fault(tmp_path, stack_model, overrides=overrides)
    check_end(result, "gen (step 2) has taken", "4 of 4 prompts are unfinished: uid ", "3 rollouts there")


def test_a_reward_worker_that_hangs_is_named(stack_model, tmp_path):
    overrides = ["reward.custom_reward_function.name=stuck", "srpo.watchdog.reward=20", WATCH]
    result = run_with_fault(tmp_path, stack_model, overrides=overrides)
    says = "gen (step 2) failed: 16 rollouts failed"
    check_end(result, says, "no verdict of the reward worker within srpo.watchdog.reward=20 s")


@pytest.mark.nightly
def test_an_agent_loop_that_raises_is_named(stack_model, tmp_path):
    result = run_with_fault(tmp_path, stack_model, overrides=[*agent("raising"), WATCH])
    says = "gen (step 2) failed: 16 rollouts failed"
    check_end(result, says, "ZeroDivisionError: a bug in this agent loop")


def test_bad_responses_verdicts_and_rows_are_counted_and_trained_around(stack_model, tmp_path):
    """Half of the rollouts have no usable response (a kind each), half of the others no usable verdict."""
    overrides = [
        *agent("odd"),
        "reward.custom_reward_function.name=odd_verdicts",
        "actor_rollout_ref.rollout.n=8",
        f"data.train_files={bad_rows(tmp_path)}",
        WATCH,
    ]
    result = run_with_fault(tmp_path / "run", stack_model, steps=3, overrides=overrides)
    assert result.returncode == 0, result.log[-4000:]
    assert len(result.steps) == 3
    # A step without a routed rollout has fewer metrics.
    names = {key for step in result.steps for key in step if key.startswith("srpo/")}
    total = {key: sum(step.get(key, 0.0) for step in result.steps) for key in names}
    # Of each group, session 0 has no token and session 3 raises; 1 is special tokens, 2 is tool output.
    assert total["srpo/rollout_failures"] == 3 * 4 * 2
    assert total["srpo/without_text"] == 3 * 4 * 2
    assert result.steps[0]["srpo/rows_left_out"] == 3
    bad = {key: value for key, value in total.items() if key.startswith("srpo/bad_score/")}
    assert all(bad.values()), bad
    assert total["srpo/infra_errors"] == sum(bad.values())
    for step in result.steps:
        assert all(math.isfinite(value) for value in step.values())
    for line in result.teacher_prompts:
        # Sessions 4 to 7 are the only ones that can teach; session 1 only ended, and is taught.
        assert line["demonstration"] >= 4
        assert line["rollout"] not in (0, 2, 3)
