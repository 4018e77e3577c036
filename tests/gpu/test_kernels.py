"""Time and memory of the kernels on one CUDA GPU: what reading and writing the logits costs, and little more."""

from __future__ import annotations

import pytest
import torch

from srpo_verl.core import Selection, choose_kernels, listed_log_probs, student_topk, target_statistics, topk_divergence
from tests.gpu.device import peak, seconds
from tests.gpu.test_core import VOCABULARY, K

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU is visible"),
]
ROWS = 8192


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator("cuda").manual_seed(0)
    logits = torch.randn(ROWS, VOCABULARY, generator=generator, device="cuda", dtype=torch.bfloat16)
    rows = torch.arange(ROWS, device="cuda")
    labels = torch.randint(0, VOCABULARY, (ROWS,), generator=generator, device="cuda")
    ids = student_topk(logits, rows, K)
    return logits, Selection(labels, rows, ids), target_statistics(logits, rows, ids)[0]


def test_one_pass_takes_little_more_than_reading_and_writing_once(batch):
    logits, selection, teacher = batch
    kept = logits.clone()

    def one_pass() -> None:
        kept.copy_(logits)
        leaf = kept.detach().requires_grad_()
        found = listed_log_probs(leaf, selection, overwrite=True)
        (topk_divergence(found.listed, teacher).sum() - found.labels.sum()).backward()

    def copy() -> None:
        kept.copy_(logits)

    def read_read_and_write() -> None:
        kept.copy_(logits)
        kept.amax(-1)
        kept.mul_(1.0)

    times = {}
    for name, wanted in (("kernels", True), ("plain", False)):
        choose_kernels(wanted)
        times[name] = seconds(one_pass) - seconds(copy)
        print(f"{name}: {peak(one_pass) / (logits.numel() * 2):.4f} of the logits beyond them")
    choose_kernels(True)
    bare = seconds(read_read_and_write) - seconds(copy)
    print(
        torch.cuda.get_device_name(), {name: f"{1e3 * value:.2f} ms" for name, value in {**times, "bare": bare}.items()}
    )
    assert peak(one_pass) <= 0.02 * logits.numel() * 2
    assert times["kernels"] <= 1.3 * bare


def test_targets_of_the_teacher_in_one_read(batch):
    logits, selection, _ = batch

    def targets() -> None:
        target_statistics(logits, selection.rows, selection.ids)

    spent, bare = seconds(targets), seconds(lambda: logits.amax(-1))
    print(f"targets {1e3 * spent:.2f} ms, one read {1e3 * bare:.2f} ms, {peak(targets) / logits.numel() / 2:.4f} more")
    assert spent <= 1.5 * bare
