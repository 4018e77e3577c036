"""Times and peaks of the loss beside those of TRL and Liger, where these are installed. Nothing is demanded of them.

pip install --no-deps --target DIR trl liger-kernel      # and PYTHONPATH=DIR
"""

from __future__ import annotations

import pytest
import torch

from srpo_verl.core import Selection, linear_log_probs, listed_log_probs, student_topk, target_statistics
from tests.gpu.device import DEVICE, needs_cuda, on_the_device, peak, seconds, size
from tests.gpu.test_core import HIDDEN, VOCABULARY, K, loss, problem

pytestmark = on_the_device


def record(record_property, name, call):
    record_property(name, f"{1e3 * seconds(call):.1f} ms, {peak(call) / 2**20:.0f} MiB")


def test_divergence_from_two_models_logits_beside_trls(record_property):
    """TRL's loss of SDPO takes the logits of student and teacher, so top K and targets are timed with ours."""
    utilities = pytest.importorskip("trl.experimental.sdpo.loss_utils", reason="trl is not installed")
    states, weight, rows, labels = problem(size(2048, 128), VOCABULARY, HIDDEN, torch.bfloat16)
    logits = (states @ weight.T)[rows].requires_grad_()
    teacher = 0.9 * logits.detach()
    every = torch.arange(len(logits), device=DEVICE)

    def trl():
        options = {"distillation_topk": K, "distillation_alpha": 0.5, "distillation_add_tail": True}
        utilities.compute_topk_self_distillation_loss(logits, teacher, **options).sum().backward()
        logits.grad = None

    def ours():
        ids = student_topk(logits, every, K)
        targets, _ = target_statistics(teacher, every, ids)
        found = listed_log_probs(logits, Selection(labels[rows], every, ids))
        loss(found.labels, found.listed, targets).backward()
        logits.grad = None

    record(record_property, "TRL", trl)
    record(record_property, "ours, with the log-probs", ours)


@needs_cuda
def test_log_probs_without_logits_beside_ligers_cross_entropy(record_property):
    """Liger's fused linear cross-entropy has no logits either; it has one id per row and no divergence."""
    liger = pytest.importorskip("liger_kernel.ops.fused_linear_cross_entropy", reason="liger-kernel is not installed")
    states, weight, _, labels = problem(size(8192, 128), VOCABULARY, HIDDEN, torch.bfloat16)
    states, weight = states.requires_grad_(), weight.requires_grad_()

    def ligers():
        found = liger.LigerFusedLinearCrossEntropyFunction.apply(states, weight, labels)
        torch.autograd.grad(found[0], (states, weight))

    def ours():
        found = linear_log_probs(states, weight, labels[:, None]).log_probs
        torch.autograd.grad(-found.mean(), (states, weight))

    record(record_property, "Liger", ligers)
    record(record_property, "ours", ours)
