"""Memory of a node's host: processes, the weights that live there, and all of a run on a machine without a GPU."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from workflows.plan.gpus import GIB
from workflows.plan.memory import (
    FLOAT,
    Moment,
    reference_weights,
    shards,
    teacher_rest,
    teacher_weights,
    topk_payload,
    trained,
    training_moments,
)
from workflows.plan.settings import Lengths, Settings

MIB = 2**20
# What each process of a run takes before it holds a model: Python, torch, verl, Ray, vLLM, and their first use.
# Measured: `python -m benchmarks.plan_memory measure tiny`, the model's own share subtracted (docs/planning.md).
PROCESS_MIB = {
    "main program": 440,
    "Ray daemons": 240,
    "driver": 545,
    "trainer worker": 705,
    "rollout server": 540,
    "rollout engine": 580,
    "load balancer and idle Ray workers": 665,
    "agent loop worker": 550,
    "reward worker": 325,
    "transfer queue controller": 275,
    "storage unit": 275,
}
# vLLM's CPU build keeps weights in float32 and a cache of this many GiB.
CACHE_VARIABLE, CACHE_DEFAULT = "VLLM_CPU_KVCACHE_SPACE", 1.0


def processes(settings: Settings) -> dict[str, float]:
    """Bytes of the processes of one node, without any model; the driver's node, where there is more than one."""
    engines = settings.ranks_per_node / settings.tensor_parallel
    count = {
        "trainer worker": settings.ranks_per_node,
        "rollout server": engines,
        "rollout engine": settings.ranks_per_node,
        "agent loop worker": settings.agents / settings.nodes,
        "reward worker": settings.reward_workers / settings.nodes,
        "storage unit": settings.storage_units / settings.nodes,
    }
    return {name: size * MIB * count.get(name, 1) for name, size in PROCESS_MIB.items()}


@dataclass(frozen=True)
class HostPlan:
    """Bytes on one node by part, at its peak, and those of one trainer worker at its own."""

    parts: dict[str, float]
    worker: Moment
    engine: float

    @property
    def total(self) -> float:
        return sum(self.parts.values())


# vLLM's CPU build packs the weights for oneDNN; what it packed from stays with the process. Measured with SmolLM2-135M:
# (2,720 MiB after the first weight sync - process - cache) / 513 MiB of weights = 2.2.
CPU_ENGINE_COPIES = 2.2


def cpu_engine(settings: Settings) -> float:
    """vLLM's process on a CPU: weights and cache, beside what it takes without a model."""
    cache = float(os.environ.get(CACHE_VARIABLE, CACHE_DEFAULT)) * GIB
    weights = settings.shape.parameters * settings.rollout_bytes / settings.tensor_parallel
    return CPU_ENGINE_COPIES * weights + cache


def cpu_host(settings: Settings, *, routed: float, lengths: Lengths | None = None) -> HostPlan:
    """A run on the CPU platform: training and generation are processes of the same memory. `lengths`: as there."""
    moments = training_moments(settings, flash_cross_entropy=False, routed=routed, lengths=lengths)
    peak = max(moments, key=lambda moment: moment.total)
    engine = cpu_engine(settings)
    fixed = processes(settings)
    worker = Moment(peak.name, {"process": PROCESS_MIB["trainer worker"] * MIB, **peak.parts})
    parts = {f"trainer: {name}": size * settings.ranks_per_node for name, size in peak.parts.items()}
    parts |= {"vLLM weights and cache": engine * settings.ranks_per_node}
    return HostPlan({**{f"process: {name}": size for name, size in fixed.items()}, **parts}, worker, engine)


def pinned_rounding(settings: Settings) -> float:
    """What the weights take in pinned memory, over their size: torch rounds each tensor up to a power of two there."""
    taken = exact = 0.0
    for count, rows, columns in settings.shape.matrices:
        size = math.ceil(rows / settings.shards) * columns
        exact += count * size
        taken += count * 2.0 ** math.ceil(math.log2(size))
    return taken / exact


def gpu_host(settings: Settings, lengths: Lengths) -> HostPlan:
    """Host memory of a node with GPUs: processes, what is offloaded, forward-only engines, loading, payloads."""
    node = settings.ranks_per_node
    shard = shards(settings)
    rounding = pinned_rounding(settings)
    tokens = settings.rollouts * (lengths.prompt + lengths.response)
    readers = node if settings.shape.tied else 1
    parts = {
        "processes": sum(processes(settings).values()),
        "teacher, pinned": node * teacher_weights(settings) * rounding if settings.teacher_offload else 0.0,
        "teacher's last bits": node * teacher_rest(settings),
        "reference, pinned": node * reference_weights(settings) * rounding,
        # verl offloads without waiting, which torch does into pinned memory.
        "offloaded weights, pinned": node * shard * rounding if settings.param_offload else 0.0,
        "offloaded AdamW states, pinned": node * 2 * trained(settings) * rounding
        if settings.optimizer_offload
        else 0.0,
        # A model with a tied embedding is read by every rank, another by the first alone.
        "loading the model": readers * settings.shape.parameters * FLOAT,
        "transfer queue": tokens * 64 + topk_payload(settings.rollouts * lengths.response, settings.topk),
    }
    parts = {name: size for name, size in parts.items() if size}
    worker = Moment("loading", {"process": PROCESS_MIB["trainer worker"] * MIB})
    return HostPlan(parts, worker, 0.0)
