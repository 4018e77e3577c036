"""In which settings, and in which sources of variants and reward functions, runs differ."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from workflows.run_reader import Run

ABSENT = "not set"

# What may differ between two seeds of one experiment: seeds, places and names, how long and how often, and what of
# the machine changes speed but not results. Not `test_freq`: who validates more often has a better best.
_INCIDENTAL = re.compile(
    r"""(.*\.)?(seed|data_loader_seed|path|.*_path|.*_dir|.*_files|(?!.*test_freq).*_freq|folder|run|project_name|experiment_name
        |total_training_steps|total_epochs|logger|resume_mode|resume_from_path|poll_interval|chunk_size|inspect_groups
        |max_actor_ckpt_to_keep|max_critic_ckpt_to_keep|val_before_train|.*gpu_memory_utilization|num_workers
        |max_num_seqs|max_num_batched_tokens|tensor_model_parallel_size|enforce_eager
        |.*_per_gpu|n_gpus_per_node|nnodes|log_val_generations|port|ray_wait_register_center_timeout)
        |(ray_kwargs|global_profiler|transfer_queue|srpo\.lease|hydra|tiny|smollm2|platform)\..*
        |(actor_rollout_ref\.srpo|.*\.profiler|.*\.checkpoint|.*\.logging|critic|critic_.*)\..*""",
    re.VERBOSE,
)


def flat(config: Any) -> dict[str, str]:
    """A config as {dotted name: value as text}."""
    result: dict[str, str] = {}

    def walk(node: Any, name: str) -> None:
        if isinstance(node, Mapping) and node:
            for key, value in node.items():
                walk(value, f"{name}.{key}" if name else str(key))
        else:
            result[name] = node if isinstance(node, str) else json.dumps(node, default=str)

    walk(OmegaConf.to_container(config, resolve=False), "")
    return result


def sources(run: Run) -> dict[str, str]:
    """{"sources of NAME": hash} of each variant and grader from outside the package, as the run's record has it."""
    used: Mapping[str, str] = {**(run.record.get("variants") or {}), **(run.record.get("rewards") or {})}
    return {f"sources of {name}": origin.rpartition(", ")[2] for name, origin in used.items()}


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """{dotted name: value in each run} of every setting that is not the same in all; the worker's copy left out.

    The sources of variants and graders count as settings.
    """
    configs = [{**flat(run.config), **sources(run)} for run in runs]
    names = sorted({name for config in configs for name in config if not name.startswith("actor_rollout_ref.srpo.")})
    rows = {name: [config.get(name, ABSENT) for config in configs] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def is_incidental(name: str, values: Sequence[str]) -> bool:
    """Whether two seeds of one experiment may differ in this setting: by its name, or because it is a place."""
    by_name = _INCIDENTAL.fullmatch(name) is not None and not name.startswith(("srpo.options.", "srpo.teacher."))
    return by_name or all(value.startswith("/") for value in values)


def differing_settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The differences that make two runs different experiments.

    A setting that some runs do not have is none: it came with a later version, which knows it by its default.
    """
    return {
        name: values
        for name, values in differences(runs).items()
        if not is_incidental(name, values) and len(set(values) - {ABSENT}) > 1
    }
