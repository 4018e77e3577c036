"""The files of prompts against the config: missing, of no use to it, or with rows that nothing can be learnt from."""

from __future__ import annotations

import os
from collections.abc import Iterator

from omegaconf import DictConfig, ListConfig

from srpo_verl.config.data_check import FileReport, check_file
from srpo_verl.config.schema import SRPOConfig
from srpo_verl.variants import ROLLOUT_TURNS

_LOOP = "actor_rollout_ref.rollout.agent.default_agent_loop"


def problems_and_warnings(config: DictConfig, srpo: SRPOConfig) -> tuple[list[str], list[str]]:
    """Sentences about `data.train_files` and `data.val_files`. Files of other file systems are not looked into."""
    problems, warnings = [], []
    columns = {column: name for column, name in srpo.columns().items() if column != ROLLOUT_TURNS}
    for key in ("train_files", "val_files"):
        files = config.data[key]
        reports: list[FileReport | None] = []
        for path in files if isinstance(files, list | ListConfig) else [files]:
            local = os.path.expanduser(str(path))
            name = f"data.{key}={path}"
            if "://" not in local and not os.path.isfile(local):
                problems.append(f"{name}: there is no such file")
            if not os.path.isfile(local) or not local.endswith(".parquet"):
                reports.append(None)
                continue
            report = check_file(
                local,
                prompt_key=config.data.prompt_key,
                source_key=config.data.reward_fn_key,
                columns=columns if key == "train_files" else {},
            )
            problems += [f"{name} {problem}" for problem in report.problems]
            warnings += [f"{name} {warning}" for warning in report.warnings]
            reports.append(report)
        known = [report for report in reports if report is not None and not report.problems]
        if key == "train_files" and len(known) == len(reports):
            rows, size = sum(report.rows for report in known), config.data.train_batch_size
            if rows < size:
                problems.append(f"data.{key} has {rows} rows, less than data.train_batch_size={size}")
            problems += _turns(config, srpo, known)
    return problems, warnings


def _turns(config: DictConfig, srpo: SRPOConfig, files: list[FileReport]) -> Iterator[str]:
    """A provider that reads a rollout's turns, of rollouts that have none."""
    provider, loop = srpo.columns().get(ROLLOUT_TURNS), config.actor_rollout_ref.rollout.agent.default_agent_loop
    # verl takes the loop that a row names in its column agent_name.
    if provider and loop == "single_turn_agent" and not any("agent_name" in file.columns for file in files):
        yield (
            f"srpo.providers={provider} reads the turns of a rollout with tools, and {_LOOP}={loop} makes rollouts of "
            f"one answer: set {_LOOP}=tool_agent with the tools (docs/agents.md), or leave {provider} out"
        )
