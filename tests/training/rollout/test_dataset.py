"""Rows nothing can be learnt from never reach the data loader."""

import pandas as pd
import pytest
from omegaconf import OmegaConf
from verl.utils.dataset.rl_dataset import RLHFDataset

from srpo_verl.training.rollout.dataset import CheckedDataset

GOOD = {
    "data_source": "x",
    "prompt": [{"role": "user", "content": "2 + 2?"}],
    "reward_model": {"ground_truth": "4"},
    "extra_info": {"index": 0},
}
CONFIG = OmegaConf.create({"filter_overlong_prompts": False, "cache_dir": "", "prompt_key": "prompt"})


def dataset(folder, rows, name="rows.parquet"):
    pd.DataFrame(rows).to_parquet(folder / name)
    return CheckedDataset(str(folder / name), tokenizer=None, config=CONFIG)


def test_bad_rows_are_left_out_and_counted(tmp_path, capsys):
    bad = [{**GOOD, "prompt": []}, {**GOOD, "prompt": None}, {**GOOD, "reward_model": {"ground_truth": None}}]
    data = dataset(tmp_path, [GOOD, bad[0], GOOD, *bad[1:]])
    assert (len(data), data.left_out) == (2, 3)
    assert [row["raw_prompt"][0]["content"] for row in data] == ["2 + 2?"] * 2
    assert "srpo: warning: 2 rows without a prompt are left out" in capsys.readouterr().err


def test_good_rows_are_all_kept(tmp_path):
    data = dataset(tmp_path, [GOOD] * 3, "good.parquet")
    assert (len(data), data.left_out) == (3, 0)


def test_a_file_without_a_usable_row_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no row of .* can be used"):
        dataset(tmp_path, [{**GOOD, "prompt": []}, {**GOOD, "data_source": ""}], "none.parquet")


def test_rows_that_verl_reads_without_asking_are_an_error(tmp_path, monkeypatch):
    """As if a later verl filtered elsewhere: bad rows would go to the rollouts."""
    monkeypatch.setattr(RLHFDataset, "_read_files_and_tokenize", lambda self: None)
    with pytest.raises(RuntimeError, match="did not call maybe_filter_out_long_prompts"):
        dataset(tmp_path, [GOOD])
