"""Real SRPO workers over gloo, without Ray: `run_ranks(scenario, world, ...)` calls `scenario(worker, ...)` per rank.

A scenario is a module-level function `(worker, rank, world, payload) -> result`; rank 0's result comes back.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.compose import compose


def worker_config(model: Path, overrides: Sequence[str] = ()) -> Any:
    """`actor_rollout_ref` of the config `srpo platform=cpu`, with a learning rate whose updates are seen."""
    return compose(
        "srpo",
        [
            "platform=cpu",
            f"actor_rollout_ref.model.path={model}",
            "actor_rollout_ref.actor.optim.lr=1e-2",
            "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
            "actor_rollout_ref.actor.optim.total_training_steps=10",
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048",
            "srpo.topk=8",
            *overrides,
        ],
    ).actor_rollout_ref


def run_ranks(
    scenario: Callable[..., Any],
    world: int,
    model: Path,
    payload: Any = None,
    overrides: Sequence[str] = (),
    *,
    plain_verl: bool = False,
) -> Any:
    """Run `scenario` on `world` ranks, each a process; an exception of any rank is raised here.

    `plain_verl` takes verl's own worker instead of ours.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            _rank, args=(world, port, scenario, str(model), payload, list(overrides), plain_verl, folder), nprocs=world
        )
        return torch.load(os.path.join(folder, "result.pt"), weights_only=False)


def _rank(
    rank: int,
    world: int,
    port: int,
    scenario: Callable[..., Any],
    model: str,
    payload: Any,
    overrides: list[str],
    plain_verl: bool,
    folder: str,
) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    from verl.workers.engine_workers import ActorRolloutRefWorker

    from srpo_verl.training.worker.worker import SRPOWorker

    worker_class = ActorRolloutRefWorker if plain_verl else SRPOWorker
    worker = worker_class(config=worker_config(Path(model), overrides), role="actor")
    worker.init_model()
    result = scenario(worker, rank, world, payload)
    if rank == 0:
        torch.save(result, os.path.join(folder, "result.pt"))
    torch.distributed.destroy_process_group()
