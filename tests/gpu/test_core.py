"""The loss on one CUDA GPU with torch alone: exact against float64, without waiting for the device, in its memory.

    make gpu-check VENV=.venv-gpu

Times and peaks are printed (`-s`) with the card; limits are ratios of the same run. Elsewhere these tests are skipped.
"""

from __future__ import annotations

import warnings

import pytest
import torch

from srpo_verl.core import (
    Selection,
    choose_kernels,
    linear_log_probs,
    listed_log_probs,
    student_topk,
    target_statistics,
    topk_divergence,
)
from tests.gpu.device import CUDA, DEVICE, needs_cuda, on_the_device, peak, seconds, size

pytestmark = on_the_device
VOCABULARY, HIDDEN, K = size(151_936, 8192), size(1024, 256), 100
# bfloat16 has 8 bits; a gradient is rounded once, and a product of 1,024 terms as the model's own.
BOUND = {torch.float32: 1e-5, torch.bfloat16: 2.0**-7}


def problem(tokens: int, vocabulary: int, hidden: int, dtype: torch.dtype):
    generator = torch.Generator(DEVICE).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=DEVICE).to(dtype)

    states, weight = normal(tokens, hidden), normal(vocabulary, hidden) / hidden**0.5
    rows = torch.arange(0, tokens, 2, device=DEVICE)
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator, device=DEVICE)
    return states, weight, rows, labels


def loss(log_probs: torch.Tensor, listed: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return topk_divergence(listed, teacher).sum() - log_probs.sum()


def of_float64(states, weight, selection: Selection, teacher) -> list[torch.Tensor]:
    """Log-probs, and gradients by the logits, hidden states and weights."""
    states, weight = (value.double().requires_grad_() for value in (states, weight))
    logits = states @ weight.T
    log_p = logits.log_softmax(-1)
    at_labels = log_p.gather(-1, selection.labels[:, None]).squeeze(-1)
    total = loss(at_labels, log_p[selection.rows[:, None], selection.ids], teacher.double())
    return [at_labels, *torch.autograd.grad(total, (logits, states, weight))]


@pytest.fixture(params=[True, False], ids=["kernels", "plain"])
def kernels(request):
    choose_kernels(request.param)
    yield
    choose_kernels(True)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_against_float64(dtype):
    states, weight, rows, labels = problem(512, 4096, 256, dtype)
    torch.backends.cuda.matmul.allow_tf32 = False
    logits = (states @ weight.T).requires_grad_()
    selection = Selection(labels, rows, student_topk(logits, rows, K))
    teacher, entropy = target_statistics(0.9 * logits.detach(), rows, selection.ids)
    log_p = (0.9 * logits.detach()).double()[rows].log_softmax(-1)
    assert float((entropy.double() + (log_p.exp() * log_p).sum(-1)).abs().max()) < 1e-4
    expected = of_float64(states, weight, selection, teacher)

    found = listed_log_probs(logits, selection)
    (gradient,) = torch.autograd.grad(loss(found.labels, found.listed, teacher), logits)
    states, weight = states.requires_grad_(), weight.requires_grad_()
    ids = labels[:, None].repeat(1, 1 + K)
    ids[rows, 1:] = selection.ids
    without = linear_log_probs(states, weight, ids).log_probs
    gradients = torch.autograd.grad(loss(without[:, 0], without[rows, 1:], teacher), (states, weight))
    for one, other in zip((found.labels, gradient, *gradients), (expected[0], *expected[1:]), strict=True):
        off = float((one.detach().double() - other.detach()).norm() / other.detach().norm())
        print(f"{dtype}: off by {off:.2e}")
        assert off < BOUND[dtype]


@needs_cuda
def test_the_loss_waits_for_the_device_no_more_often_with_more_rows():
    """`torch.cuda.set_sync_debug_mode` warns of each time that the host waits."""
    counts = []
    for tokens in (512, 4096):
        states, weight, rows, labels = problem(tokens, 4096, 64, torch.bfloat16)
        logits = (states @ weight.T).requires_grad_()
        ids = student_topk(logits, rows, K)
        teacher, _ = target_statistics(logits, rows, ids)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                found = listed_log_probs(logits, Selection(labels, rows, ids), overwrite=True)
                loss(found.labels, found.listed, teacher).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchroniz" in str(item.message) for item in seen))
    print(f"the host waits {counts[0]} and {counts[1]} times")
    assert counts[1] <= counts[0]


def test_memory_and_time_of_8192_rows_of_qwens_vocabulary(record_property):
    """One pass over kept logits and none at all, against a cross-entropy and the bare products, in bfloat16."""
    states, weight, rows, labels = problem(size(8192, 512), VOCABULARY, HIDDEN, torch.bfloat16)
    states, weight = states.requires_grad_(), weight.requires_grad_()
    with torch.no_grad():
        kept = states @ weight.T
        ids = student_topk(kept, rows, K)
        teacher, _ = target_statistics(kept, rows, ids)
    selection, size_of_logits = Selection(labels, rows, ids), kept.numel() * kept.element_size()
    dense = labels[:, None].repeat(1, 1 + K)
    dense[rows, 1:] = ids

    def one_pass() -> None:
        found = listed_log_probs(kept.detach().requires_grad_(), selection, overwrite=True)
        loss(found.labels, found.listed, teacher).backward()

    def cross_entropy() -> None:
        torch.nn.functional.cross_entropy(kept.detach().requires_grad_(), labels).backward()

    def without_logits() -> None:
        found = linear_log_probs(states, weight, dense).log_probs
        torch.autograd.grad(loss(found[:, 0], found[rows, 1:], teacher), (states, weight))

    @torch.no_grad()
    def products() -> None:
        for start in range(0, len(labels), 2048):
            part = states[start : start + 2048]
            logits = part @ weight.T
            logits = part @ weight.T
            logits @ weight
            logits.T @ part

    for call in (one_pass, cross_entropy, without_logits, products):
        record_property(call.__name__, f"{1e3 * seconds(call):.1f} ms")
    peaks = {call.__name__: peak(call) / size_of_logits for call in (one_pass, without_logits)}
    for way, value in peaks.items():
        record_property(f"{way}, beyond its inputs", f"{value:.3f} of the logits")
    if not CUDA:
        return  # pieces are as large on a few rows, so their share is another
    assert peaks["one_pass"] < 0.1
    assert peaks["without_logits"] - weight.numel() * 2 / size_of_logits < 0.05
