"""A whole plan: memory of GPU, host and disk, and seconds per step, of one config on one cluster."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import DictConfig

from workflows.plan.gpus import GIB, GPU
from workflows.plan.host import HostPlan, cpu_host, gpu_host
from workflows.plan.memory import (
    Engine,
    Moment,
    checkpoint_bytes,
    generation_moments,
    rollout_engine,
    training_moments,
)
from workflows.plan.seconds import step_seconds, this_cpu
from workflows.plan.settings import Lengths, Settings, lengths_of, settings_of
from workflows.plan.shapes import ModelShape

# Which share of the rollouts the teacher sees early in training, by `srpo.route`: incorrect ones with a correct sibling
# (arXiv 2604.02288, figure 5: about 40 %, falling), and correct ones likewise.
_ROUTED = {"incorrect": 0.4, "correct": 0.4, "all": 0.8, "none": 0.0}


def routed_share(route: str) -> float:
    """For a registered route the most that can be: all rollouts with a correct sibling."""
    return _ROUTED.get(route, _ROUTED["all"])


@dataclass(frozen=True)
class Plan:
    """What a run would take. Bytes and seconds."""

    settings: Settings
    lengths: Lengths
    gpu: GPU
    routed: float
    flash_cross_entropy: bool
    expected: bool
    # Of one GPU; empty on a machine without GPUs.
    moments: list[Moment]
    engine: Engine | None
    host: HostPlan
    disk: float
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def peak(self) -> Moment | None:
        """The moment that takes most of a GPU's memory."""
        return max(self.moments, key=lambda moment: moment.total, default=None)

    @property
    def step_seconds(self) -> float:
        return sum(self.seconds.values())

    @property
    def measured(self) -> bool:
        """Whether such plans were compared with runs (docs/planning.md): on CPUs they were, on GPUs never."""
        return self.settings.cpu

    def misfits(self) -> list[str]:
        """Why the run would not start or would run out of memory, as sentences; none if it fits."""
        said = [
            f"{moment.name}: {moment.total / GIB:.1f} GiB, but a {self.gpu.name} has {self.gpu.memory / GIB:.1f}"
            for moment in self.moments
            if moment.total > self.gpu.memory
        ]
        if self.engine is not None:
            needed = self.settings.max_model_len
            if self.engine.cache <= 0:
                said.append(
                    f"vLLM: {(self.engine.weights + self.engine.working) / GIB:.1f} GiB of weights and working memory "
                    f"do not fit into its share of {self.settings.memory_share * self.gpu.memory / GIB:.1f} GiB"
                )
            elif self.engine.cache_tokens < needed:
                said.append(
                    f"vLLM: its cache holds {self.engine.cache_tokens:.0f} tokens, one sequence may have {needed}"
                )
        elif self.host.total > self.gpu.memory:
            said.append(
                f"{self.host.total / GIB:.1f} GiB, but this machine has {self.gpu.memory / GIB:.1f} GiB of memory"
            )
        return said

    def notes(self) -> list[str]:
        """What the figures do not show of this run, as sentences."""
        if not self.settings.asynchronous:
            return []
        return [
            "asynchronous on shared GPUs: memory as in the synchronous mode, whose seconds these are too; a step does "
            "not wait for its longest rollouts, so generation takes less (docs/async.md)"
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "parameters": self.settings.shape.parameters,
            "gpu": asdict(self.gpu),
            "lengths": asdict(self.lengths),
            "routed": self.routed,
            "moments": {moment.name: {**moment.parts, "total": moment.total} for moment in self.moments},
            "vllm": asdict(self.engine) if self.engine else None,
            "host": {**self.host.parts, "total": self.host.total},
            "checkpoint": self.disk,
            "seconds": {**self.seconds, "step": self.step_seconds},
            "misfits": self.misfits(),
            "notes": self.notes(),
        }


def plan_config(
    config: DictConfig,
    gpu: GPU | None = None,
    *,
    routed: float | None = None,
    response: float | None = None,
    prompt: float | None = None,
    flash_cross_entropy: bool = True,
    expected: bool = False,
    shape: ModelShape | None = None,
) -> Plan:
    """Plan a composed and resolved config.

    Args:
        config: see `workflows.compose_config`.
        gpu: a row of `workflows.plan.gpus`; not needed for platform=cpu, where this machine is measured.
        routed: share of rollouts that are distilled; that of early training by default.
        response: mean tokens of a response; a share of their limit by default.
        prompt: the same of a prompt.
        flash_cross_entropy: flash-attn is installed, so that verl's log-probs need no copies of the logits, and the
            attention no mask.
        expected: memory for rollouts of the mean lengths, evenly split, instead of the worst case.
        shape: dimensions of the model, read from its folder or the table of known ones by default.

    Raises:
        UnknownModel, ValueError: see `settings_of`; or there is no `gpu` for a config that wants one.
    """
    settings = settings_of(config, shape=shape, flash_attn=flash_cross_entropy)
    if not settings.cpu and gpu is None:
        raise ValueError("which GPU? Give --gpu, e.g. --gpu H20, or add platform=cpu")
    return plan_settings(
        settings,
        gpu or this_cpu(),
        lengths_of(settings, response, prompt),
        routed=routed_share(config.srpo.route) if routed is None or not settings.teacher_forward else routed,
        flash_cross_entropy=flash_cross_entropy,
        expected=expected,
    )


def plan_settings(
    settings: Settings,
    gpu: GPU,
    lengths: Lengths,
    *,
    routed: float,
    flash_cross_entropy: bool = True,
    expected: bool = False,
) -> Plan:
    """Plan from plain numbers."""
    moments, engine = [], None
    usual = lengths if expected else None
    if settings.cpu:
        host = cpu_host(settings, routed=routed, lengths=usual)
    else:
        moments = training_moments(settings, flash_cross_entropy=flash_cross_entropy, routed=routed, lengths=usual)
        moments += generation_moments(settings, gpu)
        engine, host = rollout_engine(settings, gpu), gpu_host(settings, lengths)
    return Plan(
        settings=settings,
        lengths=lengths,
        gpu=gpu,
        routed=routed,
        flash_cross_entropy=flash_cross_entropy,
        expected=expected,
        moments=moments,
        engine=engine,
        host=host,
        disk=checkpoint_bytes(settings),
        seconds=step_seconds(settings, lengths, gpu, routed=routed),
    )
