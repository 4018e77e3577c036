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
from verl.utils import tensordict_utils as tu

from srpo_verl.config import SRPOConfig
from srpo_verl.core import linear_log_probs, student_topk, target_statistics, topk_targets
from srpo_verl.training.fields import (
    LOSS_DIVERGENCE,
    ROUTED,
    TEACHER_ENTROPY,
    TEACHER_LOG_PROBS,
    TEACHER_SAMPLED,
    TOPK_IDS,
    from_lengths,
    lengths_of,
    prediction_positions,
    require,
)
from srpo_verl.training.worker import policy_outputs
from srpo_verl.training.worker.logits_hook import LogitsHook, OutputLayer
from srpo_verl.training.worker.objective import DIVERGENCE, SRPOObjective
from srpo_verl.training.worker.sequence_parallel import LocalTokens, local_tokens
from srpo_verl.variants import VariantError
from srpo_verl.verl_names.worker import ONLY_LOGITS


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
        """What to keep of the packed logits (nnz, V), or of this rank's part of them: of all tokens, on every rank."""

    def tokens_here(self, logits: torch.Tensor, data: TensorDict) -> LocalTokens:
        """The tokens of `row_lengths` whose logits are here."""
        sequences = data["input_ids"]
        return local_tokens(logits, prediction_positions(sequences, self.row_lengths(data)), sequences)


class LogProbs(Collector):
    """Log-probs and entropy of a pass that leaves these to the hook, and nothing else."""

    def __init__(self, srpo: SRPOConfig):
        self.srpo = srpo

    def row_lengths(self, data: TensorDict) -> torch.Tensor:
        return torch.zeros_like(lengths_of(data["input_ids"]))

    def on_logits(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        super().on_logits(logits, data)
        if not tu.get_non_tensor_data(data, ONLY_LOGITS, False):
            return {}
        outputs, _ = policy_outputs.of_logits(logits, data, chunk_size=self.srpo.chunk_size)
        return {name: values.unsqueeze(0) for name, values in outputs.items()}

    def on_output_layer(self, layer: OutputLayer, data: TensorDict) -> dict[str, torch.Tensor]:
        self._collected = {}
        return policy_outputs.of_output_layer(layer, data)[0]

    def collect(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        return {}


class StudentTopK(LogProbs):
    """The student's top-K ids on routed rows, out of the `old_log_prob` pass that runs anyway."""

    def row_lengths(self, data: TensorDict) -> torch.Tensor:
        require(data, (ROUTED,))
        return lengths_of(data["responses"]) * data[ROUTED].values()

    def on_output_layer(self, layer: OutputLayer, data: TensorDict) -> dict[str, torch.Tensor]:
        outputs, _, found = policy_outputs.of_output_layer(layer, data, topk=self.srpo.topk)
        here = self.tokens_here(layer.hidden, data)
        self._collected = here.whole({TOPK_IDS: found.topk_ids[here.rows].to(torch.int32)})
        return outputs

    def collect(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        here = self.tokens_here(logits, data)
        ids = student_topk(logits, here.rows, self.srpo.topk, chunk_size=self.srpo.chunk_size)
        return here.whole({TOPK_IDS: ids.to(torch.int32)})


class TeacherTargets(Collector):
    """The teacher's log-probs of the sampled tokens and its full-vocabulary entropy; for a loss also at the top-K ids.

    `student_forward`, for a teacher that mixes logits, returns the actor's logits of the same micro-batch.
    `sampled_only` leaves out what only the loss needs.
    """

    def __init__(
        self,
        srpo: SRPOConfig,
        student_forward: Callable[[TensorDict], torch.Tensor] | None = None,
        *,
        sampled_only: bool = False,
    ):
        self.srpo, self.student_forward = srpo, student_forward
        self.sampled_only = sampled_only or not srpo.logit_loss

    def row_lengths(self, data: TensorDict) -> torch.Tensor:
        return lengths_of(data["responses"])

    def collect(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        here = self.tokens_here(logits, data)
        return here.whole(self._answers(logits, here, data))

    def _answers(self, logits: torch.Tensor, here: LocalTokens, data: TensorDict) -> dict[str, torch.Tensor]:
        srpo, rows = self.srpo, here.rows
        sampled = data["responses"].values()[here.kept].long().unsqueeze(-1).to(logits.device)
        if self.student_forward is not None:
            logits = self._mixed(logits[rows], self.student_forward(data)[rows])
            rows = torch.arange(rows.shape[0], device=rows.device)
        if self.sampled_only:
            return _answers(*target_statistics(logits, rows, sampled, chunk_size=srpo.chunk_size))
        if srpo.support == "teacher":
            ids, log_probs, entropy = topk_targets(logits, rows, srpo.topk, also=sampled, chunk_size=srpo.chunk_size)
            return {TOPK_IDS: ids.to(torch.int32), **_answers(log_probs, entropy)}
        ids = torch.cat([data[TOPK_IDS].values()[here.kept].long(), sampled], dim=-1)
        return _answers(*target_statistics(logits, rows, ids, chunk_size=srpo.chunk_size))

    def on_output_layer(self, layer: OutputLayer, data: TensorDict) -> dict[str, torch.Tensor]:
        here = self.tokens_here(layer.hidden, data)
        ids = data["responses"].values()[here.kept].long().unsqueeze(-1).to(layer.hidden.device)
        own_support = self.srpo.support == "teacher" and not self.sampled_only
        if not (own_support or self.sampled_only):
            ids = torch.cat([data[TOPK_IDS].values()[here.kept].long(), ids], dim=-1)
        found = linear_log_probs(
            layer.hidden[here.rows],
            layer.weight,
            ids,
            topk=self.srpo.topk if own_support else 0,
            with_entropy=True,
            temperature=layer.temperature,
        )
        topk = {TOPK_IDS: found.topk_ids.to(torch.int32)} if own_support else {}
        log_probs = torch.cat([found.topk_log_probs, found.log_probs], dim=-1)
        self._collected = here.whole({**topk, **_answers(log_probs, found.entropy)})
        return {}

    def _mixed(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        variant = self.srpo.variant("teacher")
        assert variant.mix_logits is not None
        mixed = variant.named(variant.mix_logits, teacher, student.detach(), self.srpo)
        if not isinstance(mixed, torch.Tensor) or mixed.shape != teacher.shape:
            raise VariantError(f"{variant}: mix_logits must give logits of shape {tuple(teacher.shape)}")
        if not variant.built_in and bool(mixed.isnan().any()):
            raise VariantError(f"{variant}: mix_logits gives logits that are not numbers")
        return mixed


class LossDivergence(LogitsHook):
    """The divergence of the loss on the responses, by the actor's own loss function, of logits or without them."""

    def __init__(self, objective: SRPOObjective):
        self.objective = objective

    def on_logits(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        return self.objective.on_logits(logits, data)

    def on_output_layer(self, layer: OutputLayer, data: TensorDict) -> dict[str, torch.Tensor]:
        return self.objective.on_output_layer(layer, data)

    def on_outputs(
        self, model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        lengths = lengths_of(data[TOPK_IDS])
        places = prediction_positions(data["input_ids"], lengths)
        model_output[LOSS_DIVERGENCE] = from_lengths(model_output.pop(DIVERGENCE).values()[places], lengths)
        return torch.zeros((), device=lengths.device), {}


class KeepLogits(Collector):
    """Keeps this rank's packed logits (nnz, V) of the last micro-batch, for a teacher that mixes logits."""

    logits: torch.Tensor

    def row_lengths(self, data: TensorDict) -> torch.Tensor:
        return lengths_of(data["responses"])

    def collect(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        self.logits = logits
        return {}


def _answers(log_probs: torch.Tensor, entropy: torch.Tensor) -> dict[str, torch.Tensor]:
    """Log-probs (tokens, K + 1), of which the last are those of the sampled tokens, as fields."""
    fields = {TEACHER_SAMPLED: log_probs[:, -1].float(), TEACHER_ENTROPY: entropy.float()}
    if log_probs.shape[1] > 1:
        fields[TEACHER_LOG_PROBS] = log_probs[:, :-1].float()
    return fields
