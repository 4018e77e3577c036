"""Files of prompts that the config cannot use; the files themselves are in `test_data_check.py`."""

import pandas as pd
import pytest

from srpo_verl.config import settings
from srpo_verl.launch.data_checks import problems_and_warnings
from tests.compose import compose

LOOP = "actor_rollout_ref.rollout.agent.default_agent_loop"


def problems(folder, *overrides, **columns):
    row = {"data_source": "x", "prompt": [{"role": "user", "content": "?"}], "reward_model": {"ground_truth": "1"}}
    file = folder / "data.parquet"
    pd.DataFrame([{**row, **columns}] * 40).to_parquet(file)
    config = compose("srpo", [f"data.train_files={file}", f"data.val_files={file}", *overrides])
    return problems_and_warnings(config, settings(config.srpo))[0]


@pytest.mark.parametrize(
    ("overrides", "columns"),
    [
        ([], {}),
        (["srpo.providers=[sibling,tool_feedback]", f"{LOOP}=tool_agent"], {}),
        (["srpo.providers=[sibling,tool_feedback]", f"{LOOP}=mine"], {}),
        (["srpo.providers=[sibling,tool_feedback]"], {"agent_name": "tool_agent"}),
    ],
)
def test_what_works_passes(tmp_path, overrides, columns):
    assert problems(tmp_path, *overrides, **columns) == []


def test_what_tools_said_is_refused_where_there_are_no_tools(tmp_path):
    (problem,) = problems(tmp_path, "srpo.providers=[sibling,tool_feedback]")
    assert "srpo.providers=tool_feedback" in problem
    assert f"set {LOOP}=tool_agent" in problem


def test_each_of_several_files_counts(tmp_path):
    """Rows of all of them, and none of them is looked over."""
    first = tmp_path / "data.parquet"
    assert problems(tmp_path, f"data.train_files=[{first},{first}]", "data.train_batch_size=80") == []
    (problem,) = problems(tmp_path, f"data.train_files=[{first},{first}]", "data.train_batch_size=81")
    assert "has 80 rows, less than data.train_batch_size=81" in problem
    (problem,) = problems(tmp_path, f"data.train_files=[{first},{tmp_path}/none.parquet]", "data.train_batch_size=81")
    assert "there is no such file" in problem
