"""Loss functions that compute no loss: they read logits in a forward pass and hand back per-token outputs.

A nested (n, j, ...) tensor put into the model's outputs is brought into row order over micro-batches and written to
TransferQueue by verl.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict

from srpo_verl.config import SRPOConfig
from srpo_verl.core import student_topk, target_statistics, topk_targets, trust_region_logits
from srpo_verl.training.fields import (
    ROUTED,
    TEACHER_ENTROPY,
    TEACHER_LOG_PROBS,
    TOPK_IDS,
    from_lengths,
    lengths_of,
    prediction_positions,
    require,
)
from srpo_verl.training.worker.logits_hook import LogitsHook


class Collector(LogitsHook):
    """Base: `collect` returns named flat tensors (tokens, ...), which are cut into rows of `row_lengths`."""

    def on_logits(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        self._collected = self.collect(logits, data)
        return {}

    def on_outputs(
        self, model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        lengths = self.row_lengths(data)
        for name, values in self._collected.items():
            model_output[name] = from_lengths(values, lengths)
        return torch.zeros((), device=lengths.device), {}

    @abstractmethod
    def row_lengths(self, data: TensorDict) -> torch.Tensor:
        """(n,) response length of routed rows, 0 elsewhere."""

    @abstractmethod
    def collect(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        """What to keep of the packed logits (nnz, V)."""


class StudentTopK(Collector):
    """The student's top-K ids on routed rows, out of the `old_log_prob` pass that runs anyway."""

    def __init__(self, srpo: SRPOConfig):
        self.srpo = srpo

    def row_lengths(self, data: TensorDict) -> torch.Tensor:
        require(data, (ROUTED,))
        return lengths_of(data["responses"]) * data[ROUTED].values()

    def collect(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        rows = prediction_positions(data["input_ids"], self.row_lengths(data))
        ids = student_topk(logits, rows, self.srpo.topk, chunk_size=self.srpo.chunk_size)
        return {TOPK_IDS: ids.to(torch.int32)}


class TeacherTargets(Collector):
    """Teacher log-probs at the ids, and the full-vocabulary entropy, for the responses of routed rows.

    `student_forward`, for the trust-region teacher, returns the actor's logits of the same micro-batch.
    """

    def __init__(self, srpo: SRPOConfig, student_forward: Callable[[TensorDict], torch.Tensor] | None = None):
        self.srpo, self.student_forward = srpo, student_forward

    def row_lengths(self, data: TensorDict) -> torch.Tensor:
        return lengths_of(data["responses"])

    def collect(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        srpo = self.srpo
        rows = prediction_positions(data["input_ids"], self.row_lengths(data))
        if self.student_forward is not None:
            student = self.student_forward(data)
            logits = trust_region_logits(logits[rows], student[rows], mix=srpo.teacher.trust_region_mix)
            rows = torch.arange(rows.shape[0], device=rows.device)
        if srpo.logit_loss and srpo.support == "teacher":
            ids, log_probs, entropy = topk_targets(logits, rows, srpo.topk, chunk_size=srpo.chunk_size)
            return {TOPK_IDS: ids.to(torch.int32), **_targets(log_probs, entropy)}
        ids = data[TOPK_IDS].values().long()
        return _targets(*target_statistics(logits, rows, ids, chunk_size=srpo.chunk_size))


class KeepLogits(Collector):
    """Keeps the packed logits (nnz, V) of the last micro-batch, for the trust-region teacher."""

    logits: torch.Tensor

    def row_lengths(self, data: TensorDict) -> torch.Tensor:
        return lengths_of(data["responses"])

    def collect(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        self.logits = logits
        return {}


def _targets(log_probs: torch.Tensor, entropy: torch.Tensor) -> dict[str, torch.Tensor]:
    return {TEACHER_LOG_PROBS: log_probs.float(), TEACHER_ENTROPY: entropy.float()}
