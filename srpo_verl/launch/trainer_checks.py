"""What the trainer that a run names asks of its config and machine."""

from __future__ import annotations

import math
from collections.abc import Iterator

from omegaconf import DictConfig

from srpo_verl.config import SRPOConfig
from srpo_verl.config.lora import lora_settings
from srpo_verl.training.trainer_mode import SEPARATE_ASYNC, SYNC, trainer_modes, verl_mode

# GPUs of an engine, by what they are for.
_OF_AN_ENGINE = ("tensor_model_parallel_size", "data_parallel_size", "pipeline_model_parallel_size")


def problems(config: DictConfig, srpo: SRPOConfig) -> Iterator[str]:
    """Why a run cannot have the trainer that it names, each with the change that mends it."""
    mode, found = config.trainer.v1.trainer_mode, verl_mode(config)
    if found is None or not config.trainer.use_v1:
        yield (
            f"trainer.v1.trainer_mode={mode} must be one of {', '.join(trainer_modes())}, and trainer.use_v1 true: the "
            "routing lives in those trainers (srpo_verl.register.trainer adds one)"
        )
        return
    if found != SYNC and srpo.seeded_rollouts:
        yield (
            f"srpo.seeded_rollouts=true with trainer.v1.trainer_mode={mode}: when a rollout is interrupted is the "
            "clock's to say, and it would go on with the seed that it began with; set it to false, or the mode to srpo"
        )
    if found == SEPARATE_ASYNC:
        yield from _separate(config)
        return
    yield from _engines(config)
    if not config.actor_rollout_ref.hybrid_engine:
        yield (
            f"actor_rollout_ref.hybrid_engine=false: trainer.v1.trainer_mode={mode} has the rollout engine on the GPUs "
            "that train; set it to true"
        )


def _engines(config: DictConfig) -> Iterator[str]:
    """On the GPUs that train: verl asserts this once the models are loaded."""
    rollout, ranks = config.actor_rollout_ref.rollout, config.trainer.nnodes * config.trainer.n_gpus_per_node
    engine = math.prod(rollout[key] for key in _OF_AN_ENGINE)
    if ranks % engine:
        sizes = ", ".join(f"{key}={rollout[key]}" for key in _OF_AN_ENGINE if rollout[key] != 1)
        yield (
            f"actor_rollout_ref.rollout.{sizes}: an engine takes {engine} GPUs, which do not divide the {ranks} of "
            "trainer.nnodes x trainer.n_gpus_per_node; take a divisor"
        )


def warnings(config: DictConfig) -> Iterator[str]:
    if verl_mode(config) in (None, SYNC) or config.algorithm.rollout_correction.rollout_is is not None:
        return
    yield (
        f"trainer.v1.trainer_mode={config.trainer.v1.trainer_mode} without algorithm.rollout_correction.rollout_is: "
        "nothing corrects for the older weights that rollouts were sampled from"
    )


def _separate(config: DictConfig) -> Iterator[str]:
    """What `PPOTrainerSeparateAsync` asserts once Ray runs, and a machine that it cannot run on."""
    rollout, own = config.actor_rollout_ref.rollout, config.trainer.v1.separate_async
    if config.trainer.device == "cpu":
        yield (
            f"trainer.v1.trainer_mode={config.trainer.v1.trainer_mode} sends the weights to engines on GPUs of their "
            "own, by a checkpoint engine of verl's that is not naive, and each of those needs GPUs: with platform=cpu "
            "take srpo_colocate_async"
        )
        return
    if rollout.checkpoint_engine.backend == "naive":
        yield (
            "actor_rollout_ref.rollout.checkpoint_engine.backend=naive hands weights over within one process, and the "
            "engines have GPUs of their own: set it to nccl (or another of verl's)"
        )
    if rollout.nnodes < 1 or rollout.n_gpus_per_node < 1:
        yield (
            f"actor_rollout_ref.rollout.nnodes={rollout.nnodes} and n_gpus_per_node={rollout.n_gpus_per_node}: the "
            "engines need GPUs beside those of the trainer; set both to 1 or more"
        )
    if lora_settings(config) is not None and not config.actor_rollout_ref.model.lora.merge:
        yield (
            f"actor_rollout_ref.model.lora.merge=false with trainer.v1.trainer_mode={config.trainer.v1.trainer_mode}: "
            "verl 0.9.1 sends an adapter only to engines on the GPUs that train, and others would sample from the base "
            "model; set it to true"
        )
    mini_batch = config.actor_rollout_ref.actor.ppo_mini_batch_size
    if config.data.train_batch_size != own.parameter_sync_step * mini_batch:
        yield (
            f"data.train_batch_size={config.data.train_batch_size} must be "
            "trainer.v1.separate_async.parameter_sync_step x actor_rollout_ref.actor.ppo_mini_batch_size "
            f"({own.parameter_sync_step} x {mini_batch}): each mini-batch is sampled, and trained on, by itself"
        )
