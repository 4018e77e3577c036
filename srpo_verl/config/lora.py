"""What a config says of LoRA, under verl's names for FSDP."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

_KEYS = ("lora_rank", "lora_alpha", "target_modules", "exclude_modules", "target_parameters")


def lora_settings(config: DictConfig) -> dict[str, Any] | None:
    """The keys of `actor_rollout_ref.model` that shape the adapter; None where all weights are trained."""
    model = config.actor_rollout_ref.model
    if model.lora_rank <= 0:
        return None
    found = OmegaConf.to_container(model, resolve=True)
    assert isinstance(found, dict)
    return {key: found[key] for key in _KEYS if found.get(key) is not None}
