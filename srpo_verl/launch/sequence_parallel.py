"""Ulysses sequence parallelism against model, attention and GPUs: what verl refuses after minutes, or lets go wrong."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from srpo_verl.launch import hardware

KEY = "ulysses_sequence_parallel_size"


def problems(config: DictConfig, model: Mapping[str, Any]) -> Iterator[str]:
    """Why rows cannot be shared by several ranks as the config asks; `model` is its `config.json`, {} if not here."""
    for size, key in _sizes(config).items():
        yield from _of_size(config, model, size, f"{key}={size}")


def _of_size(config: DictConfig, model: Mapping[str, Any], size: int, named: str) -> Iterator[str]:
    if config.trainer.device == "cpu":
        yield f"{named}: only flash-attn's call is split over ranks, and it needs GPUs; set it to 1 with platform=cpu"
        return
    yield from _attention(config, named)
    if not config.actor_rollout_ref.model.use_remove_padding:
        yield f"{named} splits packed tokens: set actor_rollout_ref.model.use_remove_padding=true"
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    if gpus % size:
        yield f"{named} does not divide the {gpus} GPUs of trainer.nnodes x trainer.n_gpus_per_node; lower it"
    heads = int(model.get("num_attention_heads") or 0)
    key_heads = int(model.get("num_key_value_heads") or heads)
    if heads and (heads % size or (key_heads % size and size % key_heads)):
        yield (
            f"{named} gives each rank an equal share of the attention heads, and the model has {heads} for queries and "
            f"{key_heads} for keys: it must divide the former, and divide the latter or be a multiple of it"
        )


def _sizes(config: DictConfig) -> dict[int, str]:
    """Sizes above 1 of the engines of this run, and the key of each."""
    found: dict[int, str] = {}
    reference = config.algorithm.use_kl_in_reward or config.actor_rollout_ref.actor.use_kl_loss
    for role in ("actor", "ref") if reference else ("actor",):
        # verl takes the older key if it is set.
        for key in (f"actor_rollout_ref.{role}.{KEY}", f"actor_rollout_ref.{role}.fsdp_config.{KEY}"):
            if (size := OmegaConf.select(config, key, default=1)) > 1:
                found.setdefault(size, key)
                break
    return found


def _attention(config: DictConfig, named: str) -> Iterator[str]:
    config = copy.deepcopy(config)
    hardware.choose_attention(config)
    attention = OmegaConf.select(config, hardware.ATTENTION)
    # Named after its package where it is taken from the hub.
    if attention is not None and "flash" not in attention:
        yield (
            f"{named}: only flash-attn's call is split over ranks, and with {hardware.ATTENTION}={attention} each rank "
            f"would attend to its own part alone, without a word. Set it to 1, or: {hardware.INSTALL_FLASH}"
        )
