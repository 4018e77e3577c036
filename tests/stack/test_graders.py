"""SRPO with our four graders and a stranger's: a model that knows nothing is taught from their feedback."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.patience import STACK_TEST
from tests.stack.launch import REPOSITORY, run

pytestmark = [pytest.mark.stack, pytest.mark.timeout(STACK_TEST)]

# One row per grader: data_source, ground truth, and words of the feedback on a reply that says nothing.
ROWS = {
    # A number that a random reply does not hit.
    "gsm8k": ("123456", "answer"),
    "sciknoweval": ("A", "<answer>X</answer>"),
    "tooluse": (json.dumps([{"Action": "getFacts", "Action_Input": "{}"}]), "Action Input"),
    "mbpp": (json.dumps({"test_list": ["assert double(2) == 4"]}), "No program found"),
}


def write_rows(path: Path, *items: tuple[str, str, str]) -> Path:
    """A verl data set of (data source, question, ground truth)."""
    rows = [
        {
            "data_source": source,
            "prompt": [{"role": "user", "content": question}],
            "ability": "any",
            "reward_model": {"style": "rule", "ground_truth": truth},
            "extra_info": {"index": index, "split": "train"},
        }
        for index, (source, question, truth) in enumerate(items)
    ]
    pd.DataFrame(rows).to_parquet(path)
    return path


# Of `examples/custom_reward`. More words than 16 tokens have, so that no sibling is right and all learn from feedback.
THIRD_PARTY = ("word_count", "20", "words; 20 were asked for")


def test_feedback_of_every_grader_reaches_a_teacher_prompt(stack_model, tmp_path):
    """Ours and one installed by pip into a folder of its own, which the Ray workers find by its entry point."""
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(REPOSITORY / "examples" / "custom_reward", source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True)
    rows = [*((name, *row) for name, row in ROWS.items()), THIRD_PARTY]
    items = [(name, f"A question of {name}.", truth) for name, truth, _ in rows * 2]
    data = write_rows(tmp_path / "rows.parquet", *items)
    overrides = [
        f"data.train_files={data}",
        f"data.val_files={data}",
        "data.shuffle=false",
        "data.train_batch_size=5",
        "actor_rollout_ref.actor.ppo_mini_batch_size=5",
        "srpo.providers=[sibling,feedback]",
        "reward.custom_reward_function.path=pkg://reward_fns",
        # Padded rows and micro-batches of a fixed size.
        "actor_rollout_ref.model.use_remove_padding=false",
        "actor_rollout_ref.actor.use_dynamic_bsz=false",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
    ]
    environment = {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{site}"}
    result = run(tmp_path / "run", stack_model, steps=2, overrides=overrides, environment=environment)
    assert result.returncode == 0, result.log[-4000:]
    assert len(result.steps) == 2
    for step in result.steps:
        assert all(math.isfinite(value) for value in step.values())
        assert step["srpo/infra_errors"] == 0
        assert step["srpo/routed_share"] > 0
    for name, _, words in rows:
        prompts = [line for line in result.teacher_prompts if f"A question of {name}." in line["teacher_prompt"]]
        assert prompts, name
        for line in prompts:
            assert line["provider"] == "feedback"
            assert "feedback from your unsuccessful earlier attempt" in line["teacher_prompt"]
            assert words in line["teacher_prompt"]
