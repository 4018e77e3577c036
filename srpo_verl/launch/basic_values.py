"""Keys of verl whose values everything else counts with: verl would fail with them after minutes, or never say why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

_COUNTS = (
    "data.train_batch_size",
    "data.max_prompt_length",
    "data.max_response_length",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.tensor_model_parallel_size",
    "actor_rollout_ref.rollout.data_parallel_size",
    "actor_rollout_ref.rollout.pipeline_model_parallel_size",
    "trainer.nnodes",
    "trainer.n_gpus_per_node",
)
_FREQUENCIES = ("trainer.save_freq", "trainer.test_freq")
_TEXTS = (
    "data.prompt_key",
    "data.reward_fn_key",
    "actor_rollout_ref.model.path",
    "trainer.default_local_dir",
    "reward.custom_reward_function.name",
)
_DEVICES = ("cuda", "npu", "cpu")
_STEPS = "trainer.total_training_steps"
_EPOCHS = "trainer.total_epochs"
_KWARGS = "reward.custom_reward_function.reward_kwargs"


def problems(config: DictConfig) -> Iterator[str]:
    """Values that no run can have. The other checks calculate with them, so these come first."""
    for key in _COUNTS:
        if not _is_whole(found := _at(config, key)) or found < 1:
            yield f"{key}={found} must be a whole number, 1 or more"
    for key in _FREQUENCIES:
        if not _is_whole(found := _at(config, key)):
            yield f"{key}={found} must be a whole number: every so many steps, -1 for never"
    for key in _TEXTS:
        if not isinstance(found := _at(config, key), str) or not found:
            yield f"{key}={found!r} must be a text"
    if (found := _at(config, "trainer.device")) not in _DEVICES:
        yield f"trainer.device={found} must be one of {', '.join(_DEVICES)} (platform=gpu or platform=cpu sets it)"
    if (found := _at(config, _STEPS)) is not None and (not _is_whole(found) or found < 1):
        yield f"{_STEPS}={found} must be a whole number, 1 or more, or null: {_EPOCHS} then says when a run ends"
    if not isinstance(found := _at(config, _EPOCHS), int | float) or not found > 0:
        yield f"{_EPOCHS}={found} must be a number above 0"
    if (found := _at(config, _KWARGS)) is not None and not isinstance(found, DictConfig):
        yield f"{_KWARGS}={found} must be names with values, as {{mode: strict}}"


def _at(config: DictConfig, key: str) -> Any:
    return OmegaConf.select(config, key)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
