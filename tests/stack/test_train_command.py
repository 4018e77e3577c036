"""`srpo train` around the real trainer: checks, a run that is followed, its folder, a checkpoint that can be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.patience import RUN, STACK_TEST
from tests.stack.launch import ENVIRONMENT, REPOSITORY, write_data
from workflows.evaluate.checkpoint import check_whole, find_actor
from workflows.run_reader import read_run

pytestmark = [pytest.mark.stack, pytest.mark.timeout(STACK_TEST)]


def test_a_run_from_its_checks_to_its_summary(stack_model, tmp_path):
    run, data = tmp_path / "run", write_data(tmp_path)
    words = ["-m", "workflows.cli", "train", "srpo_tiny", "--out", str(run), f"tiny.run={run}"]
    words += [f"actor_rollout_ref.model.path={stack_model}", f"data.train_files={data}", f"data.val_files={data}"]
    words += ["data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=4", "data.val_max_samples=4"]
    words += ["data.max_response_length=16", "reward.custom_reward_function.path=pkg://tests.stack.reward"]
    words += ["trainer.total_training_steps=2", "trainer.save_freq=2", "trainer.test_freq=2"]
    settings = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, *words], env=settings, capture_output=True, text=True, timeout=RUN, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    # Every step was shown while the run went on, each start in a folder of its own.
    assert "step 1/2: " in done.stdout
    assert "step 2/2: " in done.stdout
    found = read_run(run)
    assert [record.step for record in found.records] == [0, 1, 2]
    assert found.get("trainer.default_local_dir") == str(run)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 2
    assert summary["held_out_after"] is not None
    check_whole(find_actor(run))
    assert find_actor(run).parent.name == "global_step_2"
