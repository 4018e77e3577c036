"""What a run was: resolved config, versions, seed, git state, and how it differs from the paper's Table 3."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from srpo_verl import variants
from srpo_verl.base.files import write_atomically
from srpo_verl.base.versions import git_state, package_versions
from srpo_verl.config import SRPOConfig, settings
from srpo_verl.config.secrets import is_secret
from srpo_verl.training.durable.reward_sources import reward_sources

# arXiv 2604.02288, Table 3, column SRPO.
TABLE_3: dict[str, Any] = {
    "data.train_batch_size": 32,
    "data.max_prompt_length": 2048,
    "data.max_response_length": 8192,
    "actor_rollout_ref.rollout.n": 8,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "actor_rollout_ref.rollout.val_kwargs.n": 16,
    "actor_rollout_ref.rollout.val_kwargs.temperature": 0.6,
    "actor_rollout_ref.rollout.val_kwargs.top_p": 0.95,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 32,
    "actor_rollout_ref.actor.clip_ratio_high": 0.28,
    "actor_rollout_ref.actor.use_kl_loss": False,
    "actor_rollout_ref.actor.optim.lr": 5e-6,
    "actor_rollout_ref.actor.optim.lr_warmup_steps": 10,
    "actor_rollout_ref.actor.optim.weight_decay": 0.01,
    "actor_rollout_ref.actor.optim.clip_grad": 1.0,
    "algorithm.rollout_correction.rollout_is": "token",
    "algorithm.rollout_correction.rollout_is_threshold": 2.0,
    "srpo.route": "incorrect",
    "srpo.providers": ["sibling"],
    "srpo.advantage": "group_mean",
    "srpo.divergence": "jsd",
    "srpo.weighting": "entropy",
    "srpo.policy_gradient": "unrouted",
    "srpo.topk": 100,
    "srpo.alpha": 0.5,
    "srpo.beta": 1.0,
    "srpo.teacher.kind": "ema",
    "srpo.teacher.ema_rate": 0.05,
}


def differences_from_paper(config: DictConfig) -> dict[str, tuple[Any, Any]]:
    """Keys of Table 3 whose value differs, as {key: (paper, here)}."""
    found = {key: OmegaConf.select(config, key) for key in TABLE_3}
    found = {key: OmegaConf.to_object(v) if OmegaConf.is_config(v) else v for key, v in found.items()}
    return {key: (TABLE_3[key], found[key]) for key in TABLE_3 if found[key] != TABLE_3[key]}


def foreign_variants(srpo: SRPOConfig, trainer_mode: str = "srpo") -> dict[str, str]:
    """What is used of variants that are not ours: `{"divergence=skew": "my_variants:skew, my-variants 0.1, ..."}`."""
    trainers = [variants.get("trainer", trainer_mode)] if trainer_mode in variants.names("trainer") else []
    used = [*srpo.named_variants(), *trainers]
    return {f"{variant.kind}={variant.name}": variant.origin for variant in used if not variant.built_in}


def write_run_record(config: DictConfig) -> str:
    """Write `config.yaml` and `run.json` into `trainer.default_local_dir/srpo_run/<time>`; returns the folder.

    verl's `file` and `tensorboard` loggers write there too, unless VERL_FILE_LOGGER_PATH or TENSORBOARD_DIR is set:
    a resumed run then never overwrites the metrics of the run it goes on from.
    """
    folder = os.path.join(config.trainer.default_local_dir, "srpo_run", time.strftime("%Y%m%d-%H%M%S"))
    os.makedirs(folder, exist_ok=True)
    resolved = OmegaConf.create(_masked(OmegaConf.to_container(config, resolve=True)))
    write_atomically(Path(folder, "config.yaml"), OmegaConf.to_yaml(resolved))  # `srpo attach` may be reading
    record = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": sys.version.split()[0],
        "versions": package_versions(),
        "seeds": {key: OmegaConf.select(config, key) for key in ("data.seed", "actor_rollout_ref.rollout.seed")},
        "git": git_state(),
        "variants": foreign_variants(settings(config.srpo), config.trainer.v1.trainer_mode),
        "rewards": reward_sources(config),
        "differs_from_table_3": differences_from_paper(config),
    }
    write_atomically(Path(folder, "run.json"), json.dumps(record, indent=2))
    os.environ.setdefault("VERL_FILE_LOGGER_PATH", os.path.join(folder, "metrics.jsonl"))
    os.environ.setdefault("TENSORBOARD_DIR", os.path.join(folder, "tensorboard"))
    return folder


def _masked(node: Any, key: str = "") -> Any:
    if isinstance(node, dict):
        return {name: _masked(value, str(name)) for name, value in node.items()}
    if isinstance(node, list):
        return [_masked(value, key) for value in node]
    return "***" if isinstance(node, str) and node and is_secret(key) else node
