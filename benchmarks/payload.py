"""What travels per routed token from teacher to student, its lower bound, and the loss with narrower log-probs."""

from __future__ import annotations

import math

import torch

from benchmarks.harness import Measure
from srpo_verl.core import topk_divergence

VOCABULARY, K = 151_936, 100
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
# How far the teacher's logits are from the student's: from a demonstration that changes much to one that hardly does.
NOISES = (1.0, 0.3, 0.05, 0.02)


def errors_of(noise: float, tokens: int = 256, vocabulary: int = 20_000) -> tuple[float, dict[str, float]]:
    """Mean divergence; relative errors of its sum and of its gradient with teacher log-probs in each narrow dtype."""
    rng = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(tokens, vocabulary, generator=rng)
    teacher = (logits + noise * torch.randn(tokens, vocabulary, generator=rng)).log_softmax(-1)
    student, ids = logits.log_softmax(-1).topk(K)
    listed = teacher.gather(-1, ids)
    student = student.double().requires_grad_(True)

    def loss_and_slope(teacher_log_probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss = topk_divergence(student, teacher_log_probs.double()).sum()
        return loss.detach(), torch.autograd.grad(loss, student)[0]

    exact, slope = loss_and_slope(listed)
    errors = {}
    for name, dtype in DTYPES.items():
        loss, other = loss_and_slope(listed.to(dtype))
        errors[f"loss, {name}"] = float((loss / exact - 1).abs())
        errors[f"gradient, {name}"] = float((other - slope).norm() / slope.norm())
    return float(exact) / tokens, errors


def run() -> list[Measure]:
    float32, int32 = 4, 4
    sent = K * (int32 + float32) + 2 * float32  # entropy and weight
    ids = math.log2(math.comb(VOCABULARY, K)) / 8
    results = [
        Measure("bytes per routed token: ids, log-probs, entropy, weight", sent, "B"),
        Measure("lower bound of the ids: log2 of (V choose K)", ids, "B"),
        Measure("sent / (ids at their bound + float32 log-probs)", sent / (ids + K * float32), "x", 1.5),
    ]
    for noise in NOISES:
        divergence, errors = errors_of(noise)
        results += [
            Measure(f"relative error at {divergence:.1e} nats per token: {name}", error, "x")
            for name, error in errors.items()
        ]
    return results
