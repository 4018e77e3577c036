"""Inside the autocast of a bfloat16 forward pass all functions on tensors compute the same, on CPU and by CUDA's lists.

verl calls the loss, the top-K and the teacher's targets from inside the autocast of the model's forward pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from srpo_verl import core

# What has no tensor in it, or is no function; and the context itself.
WITHOUT_TENSORS = {
    *("PROBLEMS", "PROVIDERS", "RULES", "SECTIONS", "TEMPLATE", "BadMessages", "PromptParts", "TeacherPrompt"),
    *("GroupRewards", "GroupStatistics", "LinearLogProbs", "ListedLogProbs", "Rollouts", "Routing", "Selection"),
    *("Call", "DEMONSTRATIONS", "TokenSignals", "Turn", "TurnPrompt"),
    *("check_conversation_template", "failed_calls", "turns_from_json", "turns_of", "turns_to_json"),
    *("checked_verdict", "choose_kernels", "strip_thinking", "teacher_messages", "teacher_prompt_ids"),
    "visible_answer",
    *("require_finite", "without_autocast"),
    *("NOTHING", "Nothing", "AdvantageTokens", "linear_decay", "trapezoid", "past_answer"),
    *("with_answers", "with_verdicts"),
}
ROWS = torch.tensor([0, 1, 3, 5])
SELECTION = core.Selection(torch.arange(6), ROWS, torch.arange(4 * 8).view(4, 8))


def logits(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return 3 * torch.randn(6, 700, generator=torch.Generator().manual_seed(seed)).to(dtype)


def log_probs(seed: int) -> torch.Tensor:
    return logits(seed).log_softmax(-1)[ROWS, :8]


def loss_and_gradient(dtype: torch.dtype) -> Any:
    student = logits(1, dtype).requires_grad_()
    values = core.logit_divergence(student, ROWS, core.student_topk(student, ROWS, 8), log_probs(2))
    values.backward(torch.linspace(0.5, 1.5, 4))
    return values, student.grad


def linear(dtype: torch.dtype) -> Any:
    """Products of one pair of blocks: what it gives and both gradients."""
    hidden, weight = (logits(seed, dtype)[:, :16].clone().requires_grad_() for seed in (1, 2))
    found = core.linear_log_probs(hidden, weight, torch.arange(12).view(6, 2) % 6, topk=3, with_entropy=True)
    (found.log_probs.sum() + found.entropy.sum()).backward()
    return found, hidden.grad, weight.grad


VERDICTS = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0]), list("aaabb")


def seen() -> core.Rollouts:
    return core.route(*VERDICTS, lengths=[5, 2, 7, 1, 4], questions=list("ppprr")).seen


def buckets(seed: int) -> torch.Tensor:
    return logits(seed)[:, :8].log_softmax(-1)


CALLS = {
    "all_wrong": lambda: core.all_wrong(seen(), torch.ones(5, dtype=torch.bool)),
    "barycenter_divergence": lambda: core.barycenter_divergence(0.15, 50.0)(buckets(1), buckets(2)),
    "best_sibling": lambda: core.best_sibling(seen(), seen().correct, seen().lengths),
    "contrast_advantages": lambda: core.contrast_advantages(torch.randn(9), torch.randn(9)),
    "difficulty_gates": lambda: core.difficulty_gates(torch.rand(9)),
    "evidence_advantages": lambda: core.evidence_advantages(torch.randn(9), torch.randn(9), strength=0.5, clip=0.2),
    "frontier_weights": lambda: core.frontier_weights(seen(), torch.ones(5)),
    "longest_wrong": lambda: core.longest_wrong(seen(), torch.ones(5, dtype=torch.bool)),
    "mixed_kl": lambda: core.mixed_kl(0.3)(buckets(1), buckets(2)),
    "pass_rate_spread": lambda: core.pass_rate_spread(seen(), torch.ones(5)),
    "pass_rates": lambda: core.pass_rates(seen()),
    "positive_advantage": lambda: core.positive_advantage(seen(), torch.ones(5, dtype=torch.bool)),
    "random_sibling": lambda: core.random_sibling(seen()),
    "rebellious_bonus": lambda: core.rebellious_bonus(torch.randn(9)),
    "shortest_sibling": lambda: core.shortest_sibling(seen()),
    "sign_routed": lambda: core.sign_routed(seen(), torch.ones(5, dtype=torch.bool)),
    "smoothed_pass_rates": lambda: core.smoothed_pass_rates({}, seen()),
    "wrong_siblings": lambda: core.wrong_siblings(seen(), passes=2),
    "group_statistics": lambda: [torch.tensor(core.group_statistics(*VERDICTS).mixed)],
    "route": lambda: core.route(*VERDICTS),
    "entropy_weights": lambda: core.entropy_weights(torch.rand(9), torch.rand(9) > 0.3, beta=5.0),
    "generalized_jsd": lambda: core.generalized_jsd(0.3)(log_probs(1), log_probs(2)),
    "group_advantages": lambda: core.group_advantages(torch.rand(6), list("aabbbb"), normalize_by_std=True),
    "join": lambda: core.join(*core.split(torch.rand(9) - 0.5)),
    "leave_one_out_advantages": lambda: core.leave_one_out_advantages(torch.rand(6), torch.tensor([0, 0, 1, 1, 1, 1])),
    "linear_log_probs": lambda: [linear(dtype) for dtype in (torch.float32, torch.bfloat16)],
    "listed_log_probs": lambda: [
        core.listed_log_probs(logits(1, dtype), SELECTION, with_entropy=True)
        for dtype in (torch.float32, torch.bfloat16)
    ],
    "logit_divergence": lambda: [loss_and_gradient(dtype) for dtype in (torch.float32, torch.bfloat16)],
    "mean_one_weights": lambda: core.mean_one_weights(torch.rand(9), torch.ones(9)),
    "raw_entropy_weights": lambda: core.raw_entropy_weights(torch.rand(9), beta=5.0),
    "split": lambda: core.split(torch.rand(9) - 0.5),
    "student_topk": lambda: core.student_topk(logits(1), ROWS, 8),
    "target_statistics": lambda: [
        core.target_statistics(logits(1, dtype), ROWS, core.student_topk(logits(2), ROWS, 8))
        for dtype in (torch.float32, torch.bfloat16)
    ],
    "topk_divergence": lambda: core.topk_divergence(log_probs(1), log_probs(2)),
    "topk_targets": lambda: core.topk_targets(logits(1), ROWS, 8),
    "turn_numbers": lambda: [core.turn_numbers(torch.tensor([1, 0, 1, 1]))],
    "turn_weights": lambda: [core.turn_weights(torch.tensor([0, 0, 1, 2]))],
    "trust_region_logits": lambda: core.trust_region_logits(
        logits(1, torch.bfloat16), logits(2, torch.bfloat16), mix=0.3
    ),
}


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = [getattr(value, item.name) for item in dataclasses.fields(value)]
    return [tensor for item in value for tensor in tensors(item)] if isinstance(value, list | tuple) else []


def called(name: str) -> list[torch.Tensor]:
    torch.manual_seed(0)
    found = tensors(CALLS[name]())
    assert found
    return found


def test_no_function_is_left_out():
    assert CALLS.keys() | WITHOUT_TENSORS == set(core.__all__)
    assert not CALLS.keys() & WITHOUT_TENSORS


@pytest.mark.parametrize("name", CALLS)
def test_inside_autocast_it_computes_the_same(name):
    expected = called(name)
    with torch.autocast("cpu", torch.bfloat16):
        found = called(name)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


class AsOnCuda(TorchFunctionMode):
    """Beside each operation, the same on fake CUDA tensors, inside CUDA's autocast where the CPU's is on."""

    # No autocast casts them, and on fake CUDA tensors they do not run without a GPU's PyTorch.
    ELEMENTS = ("__get__", "__getitem__", "__setitem__", "__invert__", "copy_", "nonzero")

    def __init__(self):
        super().__init__()
        self.fake = FakeTensorMode()
        self.seen = 0
        self.changed: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        inside = torch.is_autocast_enabled("cpu") and tensors(args) and func.__name__ not in self.ELEMENTS
        twin = tree_map_only(torch.Tensor, self.twin, (args, kwargs)) if inside else None
        with torch.autocast("cpu", enabled=False):
            result = func(*args, **kwargs)
        if twin is not None and isinstance(result, torch.Tensor):
            with self.fake, on_cuda():
                try:
                    there = func(*twin[0], **twin[1])
                except (DataDependentOutputException, DynamicOutputShapeException):
                    return result  # a choice of elements too
            self.seen += 1
            if there.dtype != result.dtype:
                self.changed.append(f"{func.__name__}: {result.dtype} becomes {there.dtype}")
        return result

    def twin(self, tensor: torch.Tensor) -> torch.Tensor:
        with self.fake:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")


@contextmanager
def on_cuda():
    # Not torch.autocast("cuda"), which turns itself off where no GPU is.
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


def changed_on_cuda(call: Callable[[], Any]) -> list[str]:
    with torch.autocast("cpu", torch.bfloat16), AsOnCuda() as mode:
        call()
    assert mode.seen
    return mode.changed


@pytest.mark.parametrize("name", CALLS)
def test_nothing_in_it_is_on_cudas_lists(name):
    assert changed_on_cuda(lambda: called(name)) == []


def test_what_is_on_cudas_lists_is_found():
    x = torch.rand(4, 5)
    assert changed_on_cuda(lambda: torch.linalg.vecdot(x, x)) == ["linalg_vecdot: torch.float32 becomes torch.bfloat16"]
    assert changed_on_cuda(lambda: x.bfloat16().exp()) == ["exp: torch.bfloat16 becomes torch.float32"]
    assert changed_on_cuda(lambda: x.exp()) == []
