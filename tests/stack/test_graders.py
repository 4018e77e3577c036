"""SRPO with the four graders of `reward_fns`, end to end: a model that knows nothing is taught from their feedback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.stack.launch import REPOSITORY, run

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

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


def test_feedback_of_every_grader_reaches_a_teacher_prompt(stack_model, tmp_path):
    items = [(source, f"A question of {source}.", ROWS[source][0]) for source in list(ROWS) * 2]
    data = write_rows(tmp_path / "rows.parquet", *items)
    overrides = [
        f"data.train_files={data}",
        f"data.val_files={data}",
        "data.shuffle=false",
        "srpo.providers=[sibling,feedback]",
        "reward.custom_reward_function.path=pkg://reward_fns",
    ]
    result = run(tmp_path / "run", stack_model, steps=2, overrides=overrides)
    assert result.returncode == 0, result.log[-4000:]
    assert len(result.steps) == 2
    for step in result.steps:
        assert step["srpo/infra_errors"] == 0
        assert step["srpo/routed_share"] > 0
    for source, (_, words) in ROWS.items():
        prompts = [line for line in result.teacher_prompts if f"A question of {source}." in line["teacher_prompt"]]
        assert prompts, source
        for line in prompts:
            assert line["provider"] == "feedback"
            assert "feedback from your unsuccessful earlier attempt" in line["teacher_prompt"]
            assert words in line["teacher_prompt"]


def test_a_third_party_grader_is_trained_with(stack_model, tmp_path):
    """`examples/custom_reward`, installed by pip into a folder of its own, found in the Ray workers by entry point."""
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(REPOSITORY / "examples" / "custom_reward", source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True)
    # More words than 16 tokens have, so that no sibling is right and every rollout learns from feedback.
    items = [("word_count", f"Greet me in 20 words, please, {index}.", "20") for index in range(8)]
    data = write_rows(tmp_path / "rows.parquet", *items)
    overrides = [
        f"data.train_files={data}",
        f"data.val_files={data}",
        "srpo.providers=[sibling,feedback]",
        "reward.custom_reward_function.path=pkg://reward_fns",
    ]
    environment = {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{site}"}
    result = run(tmp_path / "run", stack_model, steps=2, overrides=overrides, environment=environment)
    assert result.returncode == 0, result.log[-4000:]
    for step in result.steps:
        assert step["srpo/infra_errors"] == 0
    assert any("words; 20 were asked for" in line["teacher_prompt"] for line in result.teacher_prompts)
