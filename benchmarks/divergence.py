"""The divergence loss on the logits, forward and backward, against the plain way and against a cross-entropy.

- plain: two full log-softmaxes, gather, Jensen-Shannon, all by autograd;
- TRL's helper for SDPO, if TRL can be imported (`pip install --no-deps --target DIR trl`, PYTHONPATH=DIR): from the
  logits of student and teacher, so the student's top K and the teacher's targets are timed with it;
- cross-entropy: forward and backward on the same rows; reading the logits and writing their gradient is the floor.

V = 151,936 (Qwen3), K = 100, all rows distilled: the gradient of the routed rows is the whole gradient.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from benchmarks.harness import Measure, Work, peak_bytes, ratio, rounds
from srpo_verl.core import logit_divergence, student_topk, target_statistics, topk_divergence

VOCABULARY, K = 151_936, 100
TIME_LIMIT, MEMORY_LIMIT = 1.3, 1.1
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Logits beyond this: ways that keep several tensors of their size are left out, and cross-entropy works in slices.
LARGE_BYTES = 2 * 2**30


def problem(tokens: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Logits, rows, the student's top K, teacher log-probs there; eight rows, rolled; a flatter teacher."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.empty(tokens, VOCABULARY, dtype=dtype)
    base = 3 * torch.randn(8, VOCABULARY, generator=rng)
    best = base.topk(K).indices
    listed = (0.9 * base).log_softmax(-1).gather(-1, best)
    rows = torch.arange(tokens)
    for row in range(tokens):
        logits[row] = base[row % 8].roll(row)
    ids, teacher = (best[rows % 8] + rows.unsqueeze(-1)) % VOCABULARY, listed[rows % 8]
    return logits.requires_grad_(True), rows, ids, teacher


def trl_helper() -> Any:
    """TRL's own loss of SDPO on two models' logits, if TRL is installed; else None."""
    try:
        return importlib.import_module("trl.experimental.sdpo.loss_utils").compute_topk_self_distillation_loss
    except ModuleNotFoundError:
        return None


def ways(tokens: int, dtype: torch.dtype) -> dict[str, Work]:
    logits, rows, ids, teacher = problem(tokens, dtype)
    labels, size = ids[:, 3].contiguous(), tokens * VOCABULARY * dtype.itemsize
    plain_teacher = logits.detach() * 0.9 if size < LARGE_BYTES else None
    # Row by row cross-entropy is the same work; in slices it fits into memory where the whole would not.
    slices = 1 if size < LARGE_BYTES else -(-size // 2**30)

    helper = trl_helper()

    def clear() -> None:
        logits.grad = None

    def ours() -> None:
        clear()
        logit_divergence(logits, rows, ids, teacher).sum().backward()

    def cross_entropy() -> None:
        clear()
        if slices == 1:
            torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
            return
        for part, answers in zip(logits.detach().chunk(slices), labels.chunk(slices), strict=True):
            torch.nn.functional.cross_entropy(part.requires_grad_(), answers, reduction="sum").backward()

    def plain() -> None:
        clear()
        assert plain_teacher is not None
        student = logits.log_softmax(-1, dtype=torch.float32).gather(-1, ids)
        other = plain_teacher.log_softmax(-1, dtype=torch.float32).gather(-1, ids)
        topk_divergence(student, other).sum().backward()

    def trl() -> None:
        clear()
        options = {"distillation_topk": K, "distillation_alpha": 0.5, "distillation_add_tail": True}
        helper(logits, plain_teacher, **options).sum().backward()

    def ours_from_logits() -> None:
        clear()
        assert plain_teacher is not None
        best = student_topk(logits, rows, K)
        listed, _ = target_statistics(plain_teacher, rows, best)
        logit_divergence(logits, rows, best, listed).sum().backward()

    found: dict[str, Work] = {"ours": ours, "cross_entropy": cross_entropy}
    if plain_teacher is not None:
        found["plain"] = plain
        if helper is not None:
            found |= {"trl": trl, "ours, from two logits": ours_from_logits}
    return {"clear": clear, **found}


def run(tokens: tuple[int, ...] = (512, 2048), repeats: int = 5) -> list[Measure]:
    results = []
    for count in tokens:
        for name, dtype in DTYPES.items():
            work = ways(count, dtype)
            clear = work.pop("clear")
            seconds = rounds(work, repeats)
            label = f"{count} tokens {name}"
            results.append(Measure(f"{label}: time", sorted(seconds["ours"])[repeats // 2], "s"))
            results.append(
                Measure(
                    f"{label}: time / cross-entropy",
                    ratio(seconds["ours"], seconds["cross_entropy"]),
                    "x",
                    TIME_LIMIT,
                )
            )
            if "plain" in seconds:
                results.append(Measure(f"{label}: time / plain", ratio(seconds["ours"], seconds["plain"]), "x", 0.8))
            if "trl" in seconds:
                against = ratio(seconds["ours, from two logits"], seconds["trl"])
                results.append(Measure(f"{label}: time from two models' logits / TRL", against, "x", 0.8))
            own = count * VOCABULARY * dtype.itemsize
            for way, function in work.items():
                clear()
                limit = MEMORY_LIMIT if way == "ours" else None
                extra = peak_bytes(lambda f=function, c=clear: (f(), c()))  # type: ignore[misc]
                results.append(Measure(f"{label}: peak memory of {way} / gradient", extra / own, "x", limit))
    return results
