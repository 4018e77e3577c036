"""The whole loss of a micro-batch: log-probs of all tokens and the divergence of the distilled ones, both ways.

- one pass: on logits that exist, against verl's log-probs and our divergence as two functions (`srpo.one_pass=false`);
- output layer: from hidden states and weights (`srpo.fused_linear`), against the four matrix products that it needs,
  and against keeping the logits (three).

V = 151,936 and 1,024 hidden (Qwen3-0.6B), K = 100, four tokens of ten distilled.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from verl.utils.torch_functional import logprobs_from_logits

from benchmarks.divergence import DTYPES, VOCABULARY, K
from benchmarks.harness import Measure, Work, peak_bytes, ratio, rounds
from srpo_verl.core import Selection, linear_log_probs, listed_log_probs, logit_divergence, topk_divergence

HIDDEN, DISTILLED = 1024, 0.4
# Of the logits: what one pass may take beside them, and what no logits may take at 8,192 rows beyond the gradients.
ONE_PASS_MEMORY, OUTPUT_LAYER_MEMORY, ROWS = 0.1, 0.05, 8192
OUTPUT_LAYER_TIME = 1.4


def problem(tokens: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, Selection, torch.Tensor]:
    """Hidden states, weights, what is wanted of their logits, and teacher's log-probs at the ids."""
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, HIDDEN, generator=rng).to(dtype)
    weight = (torch.randn(VOCABULARY, HIDDEN, generator=rng) / HIDDEN**0.5).to(dtype)
    rows = torch.arange(0, tokens)[torch.rand(tokens, generator=rng) < DISTILLED]
    ids = torch.randint(0, VOCABULARY - K, (len(rows), 1), generator=rng) + torch.arange(K)
    labels = torch.randint(0, VOCABULARY, (tokens,), generator=rng)
    teacher = torch.randn(len(rows), K, generator=rng).log_softmax(-1) - 0.1
    return hidden.requires_grad_(), weight.requires_grad_(), Selection(labels, rows, ids), teacher


def loss(labels: torch.Tensor, divergence: torch.Tensor) -> torch.Tensor:
    return divergence.sum() - labels.sum()


def on_logits(logits: torch.Tensor, wanted: Selection, teacher: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """Losses of a model's output, which is what they must not find again after the backward pass."""

    def two_functions() -> torch.Tensor:
        output = logits.clone().unsqueeze(0)
        log_probs = logprobs_from_logits(output.squeeze(0), wanted.labels)
        values = logit_divergence(output, wanted.rows, wanted.ids, teacher, sparse_gradient=True)
        return loss(log_probs, values)

    def one_pass() -> torch.Tensor:
        found = listed_log_probs(logits.clone(), wanted, overwrite=True)
        return loss(found.labels, topk_divergence(found.listed, teacher))

    return {"two functions": two_functions, "one pass": one_pass}


def run(tokens: tuple[int, ...] = (96,), repeats: int = 3) -> list[Measure]:
    results = []
    for count in tokens:
        for name, dtype in DTYPES.items():
            label, size = f"{count} tokens {name}", count * VOCABULARY * dtype.itemsize
            hidden, weight, wanted, teacher = problem(count, dtype)
            results += _one_pass(label, size, (hidden @ weight.T).detach().requires_grad_(), wanted, teacher, repeats)
            results += _output_layer(label, size, hidden, weight, wanted, teacher, repeats)
    return results


def _one_pass(label, size, logits, wanted, teacher, repeats) -> list[Measure]:
    work: dict[str, Work] = {
        name: lambda call=call: torch.autograd.grad(call(), logits)  # type: ignore[misc]
        for name, call in on_logits(logits, wanted, teacher).items()
    }
    seconds = rounds(work, repeats)
    found = [
        Measure(
            f"{label}: time of one pass / two functions", ratio(seconds["one pass"], seconds["two functions"]), "x", 1.2
        )
    ]
    for name, call in work.items():
        # Beyond the copy of the logits, which stands for the model's output.
        extra = peak_bytes(call) / size - 1
        limit = ONE_PASS_MEMORY if name == "one pass" else None
        found.append(Measure(f"{label}: peak memory of {name} / logits", extra, "x", limit))
    return found


def _output_layer(label, size, hidden, weight, wanted, teacher, repeats) -> list[Measure]:
    ids = wanted.labels.unsqueeze(-1).repeat(1, 1 + K)
    ids[wanted.rows, 1:] = wanted.ids

    def fused() -> object:
        found = linear_log_probs(hidden, weight, ids).log_probs
        total = loss(found[:, 0], topk_divergence(found[wanted.rows, 1:], teacher))
        return torch.autograd.grad(total, (hidden, weight))

    def kept() -> object:
        found = listed_log_probs(hidden @ weight.T, wanted, overwrite=True)
        return torch.autograd.grad(loss(found.labels, topk_divergence(found.listed, teacher)), (hidden, weight))

    @torch.no_grad()
    def products() -> None:
        logits = hidden @ weight.T
        logits = hidden @ weight.T
        logits @ weight
        logits.T @ hidden

    seconds = rounds({"fused": fused, "kept": kept, "products": products}, repeats)
    beyond = peak_bytes(fused) - weight.numel() * weight.element_size()
    # Of fewer rows than a block has, the limit in bytes is that of 8,192 rows.
    limit = OUTPUT_LAYER_MEMORY * max(1.0, ROWS / len(ids))
    return [
        Measure(
            f"{label}: time without logits / four products",
            ratio(seconds["fused"], seconds["products"]),
            "x",
            OUTPUT_LAYER_TIME,
        ),
        Measure(f"{label}: time without logits / with them", ratio(seconds["fused"], seconds["kept"]), "x"),
        Measure(f"{label}: peak memory without logits / logits", beyond / size, "x", limit),
    ]
