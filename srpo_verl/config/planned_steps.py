"""How many steps a run will train, from its config and its data files, before anything starts."""

from __future__ import annotations

import os

from omegaconf import DictConfig, ListConfig, OmegaConf

from srpo_verl.config.data_check import check_file


def planned_steps(config: DictConfig) -> int | None:
    """The step after which verl ends the run: `trainer.total_training_steps`, or earlier the last whole batch of
    `trainer.total_epochs`. None if neither is known; see `trainable_rows`.
    """
    rows, steps = trainable_rows(config), config.trainer.total_training_steps
    epochs = None if rows is None else rows // config.data.train_batch_size * config.trainer.total_epochs
    return min((int(known) for known in (steps, epochs) if known is not None), default=None)


def trainable_rows(config: DictConfig) -> int | None:
    """The rows of `data.train_files` that are trained on, so without those that the data set leaves out.

    None where that is not known here: files that are missing, not local, not parquet or not usable, prompts that are
    filtered by their length in tokens, a sample of rows of which some are left out, a data set of another class.
    """
    data = config.data
    if OmegaConf.select(data, "custom_cls.name") != "CheckedDataset" or data.get("filter_overlong_prompts", True):
        return None
    rows = left_out = 0
    for path in map(os.path.expanduser, train_files(config)):
        if not path.endswith(".parquet") or not os.path.isfile(path):
            return None
        report = check_file(path, prompt_key=data.prompt_key, source_key=data.reward_fn_key)
        if report.problems:
            return None
        rows, left_out = rows + report.rows, left_out + report.left_out
    sample = data.get("train_max_samples", -1)
    if 0 < sample < rows:
        return None if left_out else sample
    return rows - left_out


def train_files(config: DictConfig) -> list[str]:
    """`data.train_files`, one path or several."""
    files = config.data.train_files
    return [str(path) for path in files] if isinstance(files, list | ListConfig) else [str(files)]
