"""Prompts that a checkpoint of an asynchronous run finds in flight: fetched from the data, not trained on yet.

verl restores finished groups with their rollouts and starts the unfinished ones anew, from their prompts
(`PPOTrainer._load_checkpoint`, `_reissue_inflight_prompts`). What it saves holds the batch of the step too, which has
just been trained on: those rollouts have no prompt any more, and would stay in the queue for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf

from srpo_verl.training.trainer_mode import SYNC, verl_mode

# verl's names, of the folder and of the partition.
FOLDER = "transfer_queue"
PARTITION = "train"


def save(folder: Path, step: int) -> None:
    """Write what is in TransferQueue beside the other parts of a checkpoint, where verl looks for it."""
    tq.save_checkpoint(str(folder / FOLDER), metadata={"global_steps": step})


def forget_trained() -> None:
    """Clear the rollouts of prompts that are not in flight."""
    items = _items()
    waiting = {key for key, tag in items.items() if tag.get("is_prompt")}
    _clear([key for key in items if key not in waiting and key.split("_")[0] not in waiting])


def forget_all() -> None:
    """Clear everything: the prompts are of data that are no longer read."""
    _clear(list(_items()))


def storage_units(config: DictConfig) -> int | None:
    """Units of TransferQueue that keep prompts from step to step; None in the synchronous trainer."""
    if verl_mode(config) in (None, SYNC):
        return None
    return OmegaConf.select(config, "transfer_queue.backend.SimpleStorage.num_data_storage_units")


def other_loader(saved: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether one of two runs (`resume.identity`) is asynchronous: verl's loader then gives prompts one by one."""
    return (saved.get("in_flight") is None) != (now["in_flight"] is None)


def problems(saved: dict[str, Any], now: dict[str, Any], folder: Path, *, restart_data: bool) -> Iterator[str]:
    """Why a run cannot go on with what is in flight in a checkpoint."""
    units = saved.get("in_flight")
    if other_loader(saved, now):
        if not restart_data:
            yield (
                f"{folder} was written by {'the synchronous' if units is None else 'an asynchronous'} trainer, which "
                "reads the data in another way: set trainer.v1.trainer_mode as it was, or "
                "srpo.checkpoint.restart_data=true to read the data from their beginning"
            )
    elif units != now["in_flight"]:
        # TransferQueue reads a checkpoint with as many units as wrote it.
        yield (
            f"{folder} holds prompts in flight in {units} storage units of TransferQueue: set "
            f"transfer_queue.backend.SimpleStorage.num_data_storage_units={units}"
        )


def _items() -> dict[str, dict]:
    return (tq.kv_list(PARTITION) or {}).get(PARTITION) or {}


def _clear(keys: list[str]) -> None:
    if keys:
        tq.kv_clear(keys=keys, partition_id=PARTITION)
