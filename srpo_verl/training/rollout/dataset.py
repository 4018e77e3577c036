"""verl's data set without the rows nothing can be learnt from: left out and counted, instead of ending the run."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import datasets
from verl.utils.dataset.rl_dataset import RLHFDataset

from srpo_verl.config.data_check import row_problem


class CheckedDataset(RLHFDataset):
    """`data.custom_cls` of our configs.

    Attributes:
        left_out: rows that were dropped.

    Raises:
        RuntimeError: verl has read the rows without asking which to keep.
    """

    left_out: int | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.left_out is None:
            raise RuntimeError(
                "verl's data set did not call maybe_filter_out_long_prompts, where bad rows are left out: is this a "
                "verl that srpo_verl is tested with?"
            )

    def maybe_filter_out_long_prompts(self, dataframe: datasets.Dataset) -> datasets.Dataset:
        source_key = self.config.get("reward_fn_key", "data_source")
        kinds: Counter[str] = Counter()
        kept = []
        columns = [name for name in (self.prompt_key, source_key, "reward_model") if name in dataframe.column_names]
        for number, row in enumerate(dataframe.select_columns(columns)):
            problem = row_problem(row, prompt_key=self.prompt_key, source_key=source_key)
            kinds.update([problem] if problem else [])
            if not problem:
                kept.append(number)
        self.left_out = kinds.total()
        for problem, count in kinds.items():
            print(f"srpo: warning: {count} rows {problem} are left out of {self.data_files}", file=sys.stderr)
        if not kept:
            raise ValueError(f"no row of {self.data_files} can be used: {dict(kinds)}")
        return super().maybe_filter_out_long_prompts(dataframe.select(kept) if kinds else dataframe)
