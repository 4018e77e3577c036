"""Weights that the ranks cannot share evenly, where verl moves them between host and device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig

from srpo_verl.config.lora import lora_settings
from srpo_verl.config.schema import SRPOConfig


def problems(config: DictConfig, srpo: SRPOConfig, model: Mapping[str, Any]) -> Iterator[str]:
    """Why `param_offload` cannot be had with this many ranks; `model` is its `config.json`, {} if not here.

    FSDP2 pads the shard of a weight whose rows the ranks do not divide evenly, whenever the weight moves. It pads from
    a copy on the host that verl 0.9.1 has not waited for, so a shard may be made of what was there before.
    """
    if config.trainer.device == "cpu":
        return
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    for key, size in _offloading(config, srpo, ranks):
        if uneven := [f"{name}={rows}" for name, rows in _rows(config, model) if rows % size]:
            yield (
                f"{key}=true with weights that {size} GPUs do not share evenly ({', '.join(uneven)}): verl 0.9.1 does "
                "not wait for the copy that FSDP2 pads such a shard from. Take a number of GPUs that divides them, or "
                f"{key.removesuffix('param_offload')}offload_policy=true in its place"
            )


def _offloading(config: DictConfig, srpo: SRPOConfig, ranks: int) -> Iterator[tuple[str, int]]:
    """Keys that have an engine's weights moved, each with the number of ranks that share a weight."""
    reference = config.algorithm.use_kl_in_reward or config.actor_rollout_ref.actor.use_kl_loss
    shares = ranks
    for role in ("actor", "ref"):
        engine = config.actor_rollout_ref[role].fsdp_config
        size = engine.fsdp_size if 0 < engine.fsdp_size < ranks else ranks
        shares = size if role == "actor" else shares
        if engine.param_offload and not engine.offload_policy and (role == "actor" or reference):
            yield f"actor_rollout_ref.{role}.fsdp_config.param_offload", size
    if srpo.owns_teacher and srpo.teacher.param_offload:
        yield "srpo.teacher.param_offload", shares


def _rows(config: DictConfig, model: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Numbers of rows of the model's matrices, by the names of `config.json`."""
    hidden, heads = model.get("hidden_size"), model.get("num_attention_heads")
    for name in ("vocab_size", "hidden_size", "intermediate_size"):
        if model.get(name):
            yield name, int(model[name])
    if hidden and heads:
        width = int(model.get("head_dim") or hidden // heads)
        yield "num_attention_heads x head_dim", int(heads) * width
        yield "num_key_value_heads x head_dim", int(model.get("num_key_value_heads") or heads) * width
    if (adapter := lora_settings(config)) is not None:
        yield "lora_rank", int(adapter["lora_rank"])
