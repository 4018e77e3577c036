"""Seconds per step by stage: FLOPs at an assumed utilisation, bytes at an assumed share of the memory bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from workflows.plan.gpus import GIB, GPU
from workflows.plan.memory import FLOAT, micro_batches, teacher_rest, teacher_weights, trained
from workflows.plan.settings import Lengths, Settings
from workflows.plan.shapes import ModelShape


@dataclass(frozen=True)
class Assumptions:
    """What is not computed. None of it was fitted to the runs that docs/planning.md compares with."""

    # Share of the peak FLOPs that training and prefill reach.
    utilisation: float = 0.45
    # Share of the peak memory bandwidth that decoding reaches.
    bandwidth: float = 0.7
    # Seconds of one decoding step beside the memory it reads: scheduler, sampling, kernel launches.
    decode_overhead: float = 0.004
    # Bytes per second and rank between host and GPU.
    host_link: float = 20e9
    # Reward, routing, queue round trips, data loader.
    driver: float = 3.0
    # Two stages per micro-batch are never hidden: launch, and the all-gather of the first layer.
    micro_batch: float = 0.2


# A machine without a GPU: float32 matrix products of small batches, and vLLM's CPU kernels with one thread per process.
ON_CPU = Assumptions(utilisation=0.4, bandwidth=0.7, decode_overhead=0.03, host_link=5e9, driver=1.0, micro_batch=0.1)


def generation_seconds(settings: Settings, lengths: Lengths, gpu: GPU, assumed: Assumptions) -> float:
    """One batch of rollouts, which ends with its longest response.

    Every decoding step reads the weights once, and the cache of the sequences still alive; a step on many sequences is
    bound by FLOPs instead. Prompts of a group are computed once (prefix cache).
    """
    shape, split = settings.shape, settings.tensor_parallel
    replicas = settings.ranks / split
    sequences = settings.rollouts / replicas
    read = gpu.bandwidth_tbs * 1e12 * assumed.bandwidth * split
    compute = gpu.tflops * 1e12 * assumed.utilisation * split
    steps = lengths.response * lengths.longest
    weights = steps * shape.matmul_parameters * settings.rollout_bytes / read
    # Mean of the square of the lengths: 1.5 times the square of their mean, between equal and exponential lengths.
    seen = sequences * (lengths.response * lengths.prompt + 0.75 * lengths.response**2)
    cache = shape.kv_bytes(seen, settings.rollout_bytes) / read
    decoded = shape.forward_flops(sequences * lengths.response, lengths.prompt + lengths.response / 2) / compute
    prefill = shape.forward_flops(sequences / settings.group * lengths.prompt, lengths.prompt / 2) / compute
    return max(weights + cache, decoded) + prefill + steps * assumed.decode_overhead


def pass_seconds(
    settings: Settings, rows: float, length: float, budget: float, factor: float, gpu: GPU, assumed: Assumptions
) -> float:
    """A pass over `rows` rollouts of `length` tokens, spread over all ranks; `factor` times a forward pass' FLOPs.

    Each micro-batch gathers the weights once per forward pass; that is hidden behind the computation if it is shorter.
    With a mask (sdpa) a token is computed against all tokens of its micro-batch, else against those before it.
    """
    if rows == 0:
        return 0.0
    shape = settings.shape
    tokens = rows * length / settings.ranks
    count = micro_batches(tokens, budget)
    context = tokens / count if settings.mask else length / 2
    computing = factor * shape.forward_flops(tokens, context) / (gpu.tflops * 1e12 * assumed.utilisation)
    passes = 1.0 if factor == 1.0 else 2.0
    gathering = count * passes * gather_seconds(shape, settings, gpu)
    return max(computing, gathering) + count * assumed.micro_batch


def gather_seconds(shape: ModelShape, settings: Settings, gpu: GPU) -> float:
    """All shards of the weights to every rank once, in the type that is computed in."""
    missing = 1.0 - 1.0 / settings.shards
    return shape.parameters * settings.compute_bytes * missing / (gpu.link_gbs * 1e9)


def step_seconds(
    settings: Settings, lengths: Lengths, gpu: GPU, *, routed: float, assumed: Assumptions | None = None
) -> dict[str, float]:
    """Seconds of each stage of a training step; `routed` is the share of rollouts that the teacher sees."""
    assumed = assumed or (ON_CPU if settings.cpu else Assumptions())
    shape = settings.shape
    length = lengths.prompt + lengths.response
    shard = shape.parameters / settings.shards
    stages = {"generation": generation_seconds(settings, lengths, gpu, assumed)}
    stages["old log-probs"] = pass_seconds(
        settings, settings.rollouts, length, settings.log_prob_tokens, 1.0, gpu, assumed
    )
    if settings.reference:
        stages["reference"] = stages["old log-probs"]
    if settings.teacher_forward:
        taught, teaching = routed * settings.rollouts, lengths.teacher_prompt + lengths.response
        stages["teacher"] = pass_seconds(settings, taught, teaching, settings.teacher_tokens, 1.0, gpu, assumed)
        if settings.teacher_weights and not settings.cpu:
            count = micro_batches(taught * teaching / settings.ranks, settings.teacher_tokens)
            loads = count if settings.teacher_streams else 2 if settings.teacher_offload else 0
            stages["teacher"] += loads * teacher_weights(settings) / assumed.host_link
    # Weights beneath an adapter have no gradient, which is a third of a step's products.
    backward = (4.0 if settings.checkpointing else 3.0) - (1.0 if settings.adapter else 0.0)
    per_mini_batch = settings.rollouts / settings.mini_batches
    stages["update"] = settings.mini_batches * (
        pass_seconds(settings, per_mini_batch, length, settings.actor_tokens, backward, gpu, assumed)
        # AdamW reads weight, gradient and both states, and writes weight and states.
        + 7 * trained(settings) / (gpu.bandwidth_tbs * 1e12 * assumed.bandwidth)
        + (4 * trained(settings) / assumed.host_link if settings.optimizer_offload else 0.0)
        + (2 * shard * FLOAT / assumed.host_link if settings.param_offload else 0.0)
    )
    if settings.moving_teacher:
        # Shards that rest on the host come to the GPU, and the teacher's go back. There, as on a CPU, teacher and actor
        # are read for the step, teacher written, and both read for their distance.
        moved = 2 * (teacher_weights(settings) if settings.teacher_offload else 0.0) + 2 * teacher_rest(settings)
        moved += shard * FLOAT if settings.param_offload else 0.0
        stages["teacher's EMA"] = (0.0 if settings.cpu else moved / assumed.host_link) + 5 * shard * FLOAT / (
            gpu.bandwidth_tbs * 1e12 * assumed.bandwidth
        )
    sync = shape.parameters * (FLOAT / (gpu.link_gbs * 1e9) + 3 * settings.rollout_bytes / assumed.host_link)
    stages["weight sync"] = sync
    stages["driver"] = assumed.driver
    return stages


def this_cpu(threads: int = 1) -> GPU:
    """This machine's processor as planning sees it: measured float32 matrix products and copies, half a second."""
    import psutil
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = torch.randn(768, 768), torch.randn(768, 768)
        flops = 2 * 768**3 / _fastest(lambda: torch.mm(left, right))
        block = torch.zeros(16 << 20)
        copied = 2 * block.numel() * block.element_size() / _fastest(block.clone)
    finally:
        torch.set_num_threads(before)
    return GPU("CPU", psutil.virtual_memory().total / GIB, flops / 1e12, copied / 1e12, copied / 1e9)


def _fastest(action: Callable[[], object], repeats: int = 5) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
