"""What `srpo plan` says of a run, for the peaks that were measured in it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from omegaconf import DictConfig

from srpo_verl.launch.hardware import installed
from workflows.gpu_check.result import Peak
from workflows.plan.gpus import GIB, GPU, GPUS, gpu_called
from workflows.plan.memory import Moment
from workflows.plan.plan import plan_config

TRAINING = ("old log-probs", "teacher", "loss", "backward", "optimizer step")
# In the plan of a whole GPU, and not among the bytes that torch's allocator of the trainer has given out.
NOT_ALLOCATED = ("allocator", "CUDA and NCCL", "vLLM asleep")


def allocated(moment: Moment) -> float:
    """Bytes of a planned moment that torch's allocator counts."""
    return sum(size for name, size in moment.parts.items() if name not in NOT_ALLOCATED)


def card(name: str, total: float) -> GPU:
    """The row of the table for a card by the name that torch gives, or one of another speed with this memory."""
    return gpu_called(name, total) or replace(GPUS["H100"], name=name, memory_gib=total / GIB)


@dataclass(frozen=True)
class Measured:
    """Of a run: mean tokens and share of rollouts distilled, and peaks in bytes (0: not read).

    Attributes:
        allocated: verl's `actor/perf/max_memory_allocated_gb`, of the trainer's process.
        card: in use on the GPU, of all processes.
        host: of all processes of the run.
    """

    prompt: float
    response: float
    routed: float
    allocated: float
    card: float
    host: float


def run_peaks(config: DictConfig, what: str, gpu: GPU | None, measured: Measured) -> list[Peak]:
    """Planned against measured, for rollouts of the lengths that the run had. `gpu` is None on a CPU."""
    plan = plan_config(
        config,
        gpu,
        prompt=measured.prompt,
        response=measured.response,
        routed=measured.routed,
        flash_cross_entropy=installed("flash-attn"),
        expected=True,
    )
    peaks = []
    if plan.peak and measured.allocated:
        trainer = max(allocated(moment) for moment in plan.moments if moment.name in TRAINING)
        peaks.append(Peak(f"{what}: trainer, allocated", trainer, measured.allocated))
    if plan.peak and measured.card:
        peaks.append(Peak(f"{what}: the card, all processes", plan.peak.total, measured.card))
    if measured.host:
        peaks.append(Peak(f"{what}: processes on the host", plan.host.total, measured.host))
    return peaks
