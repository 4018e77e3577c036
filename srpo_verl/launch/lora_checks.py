"""Settings of LoRA that cannot run, or would train something else than they say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from srpo_verl.config import SRPOConfig
from srpo_verl.config.lora import lora_settings
from srpo_verl.config.model_files import json_object

_MODEL = "actor_rollout_ref.model"
_ROLLOUT = "actor_rollout_ref.rollout"
# Of peft's adapter_config.json: what makes an adapter more than s B A with one s.
_NOT_PLAIN = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "bias", "modules_to_save", "lora_bias")


def problems(config: DictConfig, srpo: SRPOConfig) -> Iterator[str]:
    """Sentences, none for a config without LoRA."""
    model, rollout = config.actor_rollout_ref.model, config.actor_rollout_ref.rollout
    if model.lora.rank > 0:
        yield f"{_MODEL}.lora.rank is Megatron's key: set {_MODEL}.lora_rank={model.lora.rank} and leave lora.rank at 0"
    if lora_settings(config) is None:
        if model.lora_adapter_path:
            yield f"{_MODEL}.lora_adapter_path is not read while lora_rank is 0: set {_MODEL}.lora_rank to its rank"
        return
    yield from _of_adapter_path(model)
    if not model.lora.merge:
        if config.trainer.device == "cpu":
            yield f"vLLM is given no adapters on a CPU: set {_MODEL}.lora.merge=true, as platform=cpu does"
        elif rollout.layered_summon and str(rollout.load_format).startswith("dummy"):
            yield (
                f"{_ROLLOUT}.layered_summon=true sends the adapter alone, and load_format={rollout.load_format} gives "
                f"vLLM no weights to add it to: set {_ROLLOUT}.load_format=safetensors"
            )
    if "hf_model" in config.actor_rollout_ref.actor.checkpoint.save_contents:
        yield (
            "actor_rollout_ref.actor.checkpoint.save_contents: with LoRA verl 0.9.1 writes an hf_model under names of "
            "peft's that no model has; leave it out, `srpo evaluate` merges a checkpoint when it needs to"
        )
    if srpo.moves_teacher and srpo.teacher.path is not None and srpo.teacher.lora_ema == "adapter":
        yield (
            "srpo.teacher.path gives a teacher that moves all its weights, which an adapter does not follow: set "
            "srpo.teacher.lora_ema=exact"
        )


def warnings(config: DictConfig) -> Iterator[str]:
    dtype = config.actor_rollout_ref.actor.fsdp_config.model_dtype
    if lora_settings(config) is not None and dtype in ("bf16", "bfloat16"):
        yield (
            f"actor_rollout_ref.actor.fsdp_config.model_dtype={dtype}: verl keeps the adapter in it too, and an update "
            "of less than 1/256 of a weight is lost; fp32 keeps it"
        )


def _of_adapter_path(model: DictConfig) -> Iterator[str]:
    """verl builds what the adapter's own config says, and tells vLLM what `lora_rank` says."""
    if not model.lora_adapter_path or "://" in str(model.lora_adapter_path):
        return
    file = os.path.join(os.path.expanduser(str(model.lora_adapter_path)), "adapter_config.json")
    if not os.path.isfile(file):
        yield f"{_MODEL}.lora_adapter_path={model.lora_adapter_path} has no adapter_config.json"
        return
    try:
        described = json_object(Path(file))
    except ValueError as error:
        yield str(error)
        return
    if described.get("r") != model.lora_rank:
        yield (
            f"{_MODEL}.lora_rank={model.lora_rank}, but the adapter in {model.lora_adapter_path} has rank "
            f"{described.get('r')}"
        )
    if special := [key for key in _NOT_PLAIN if described.get(key) not in (None, False, "none", [], {})]:
        yield (
            f"{_MODEL}.lora_adapter_path={model.lora_adapter_path} has {', '.join(special)}, which verl's checkpoint "
            "does not say and the teacher does not know: give an adapter of A and B alone"
        )
