"""Real SRPO workers over gloo, without Ray: `run_ranks(scenario, world, ...)` calls `scenario(worker, ...)` per rank.

A scenario is a module-level function `(worker, rank, world, payload) -> result`; rank 0's result comes back.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.compose import compose

# On a GPU the same, in float32 and with the attention that needs no package: what differs is the device.
_FSDP = "actor_rollout_ref.actor.fsdp_config"
_PLATFORMS = {
    "cpu": ["platform=cpu"],
    "gpu": [
        "platform=gpu",
        "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
        f"+{_FSDP}.mixed_precision={{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}}",
        "actor_rollout_ref.actor.use_torch_compile=false",
    ],
}


def on_gpu() -> bool:
    """Whether `make gpu-check` runs these tests."""
    return os.environ.get("SRPO_TEST_PLATFORM") == "gpu"


def worker_config(model: Path, overrides: Sequence[str] = ()) -> Any:
    """`actor_rollout_ref` of `run_config`."""
    return run_config(model, overrides).actor_rollout_ref


def run_config(model: Path, overrides: Sequence[str] = ()) -> Any:
    """The config `srpo`, with a learning rate whose updates are seen."""
    return compose(
        "srpo",
        [
            *_PLATFORMS["gpu" if on_gpu() else "cpu"],
            f"actor_rollout_ref.model.path={model}",
            "actor_rollout_ref.actor.optim.lr=1e-2",
            "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
            "actor_rollout_ref.actor.optim.total_training_steps=10",
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048",
            "srpo.topk=8",
            *overrides,
        ],
    )


def run_ranks(
    scenario: Callable[..., Any],
    world: int,
    model: Path,
    payload: Any = None,
    overrides: Sequence[str] = (),
    *,
    plain_verl: bool = False,
    prepare: Callable[[], None] | None = None,
) -> Any:
    """Run `scenario` on `world` ranks, each a process; an exception of any rank, or its death, is raised here.

    Noted on it is what each rank has written to stderr: a signal leaves no traceback of its own.
    `plain_verl` takes verl's own worker instead of ours; `prepare`, a module-level function, runs before it is made.
    """
    if on_gpu() and world > torch.cuda.device_count():
        pytest.skip(f"needs {world} GPUs")
    # The store outlives the ranks and keeps the port it was given: one that is only looked up may be taken meanwhile.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (world, store.port, scenario, str(model), payload, list(overrides), plain_verl, prepare, folder)
        # Ranks fork from a process that has imported what they need, once for all tests; CUDA does not survive a fork.
        multiprocessing.set_forkserver_preload(["verl.workers.engine_workers", "srpo_verl.training.worker.worker"])
        method = "spawn" if on_gpu() else "forkserver"
        try:
            torch.multiprocessing.start_processes(_rank, args=arguments, nprocs=world, start_method=method)
        except (torch.multiprocessing.ProcessRaisedException, torch.multiprocessing.ProcessExitedException) as error:
            for path in sorted(Path(folder).glob("*.stderr")):
                said = path.read_text(errors="replace").partition("\nExtension modules:")[0]
                error.add_note(f"{path.name}:\n{said[-5000:]}")
            raise
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
    prepare: Callable[[], None] | None,
    folder: str,
) -> None:
    with open(os.path.join(folder, f"rank_{rank}.stderr"), "wb") as said:
        os.dup2(said.fileno(), 2)
    faulthandler.enable()
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_RANK=str(rank if on_gpu() else 0),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE="True",
    )
    from verl.workers.engine_workers import ActorRolloutRefWorker

    from srpo_verl.training.worker.worker import SRPOWorker

    if prepare is not None:
        prepare()
    worker_class = ActorRolloutRefWorker if plain_verl else SRPOWorker
    worker = worker_class(config=worker_config(Path(model), overrides), role="actor")
    worker.init_model()
    result = scenario(worker, rank, world, payload)
    if rank == 0:
        torch.save(result, os.path.join(folder, "result.pt"))
    torch.distributed.destroy_process_group()
