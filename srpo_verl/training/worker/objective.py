"""The loss of the actor: verl's policy loss plus the divergence on routed tokens, over one denominator.

    L = ( sum_GRPO l_it + sum_SDPO w_it l_it ) / (number of all response tokens)          arXiv 2604.02288, 3.3

Where the logits are at hand (see `logits_hook`) only the routed rows are touched. Advantages are zero on routed rows
(the driver saw to it), so verl's own `ppo_loss` is the GRPO branch, and clipping, dual clip, TIS, KL and entropy bonus
keep their meaning. A micro-batch without routed rows adds nothing and needs no collective.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from srpo_verl.config import SRPOConfig
from srpo_verl.core import logit_divergence, require_finite, topk_divergence
from srpo_verl.training.fields import (
    LOSS_FIELDS,
    TEACHER_LOG_PROBS,
    TOKEN_WEIGHTS,
    TOPK_IDS,
    lengths_of,
    prediction_positions,
    require,
    with_lengths_on_host,
)
from srpo_verl.training.worker import policy_outputs
from srpo_verl.training.worker.logits_hook import LogitsHook, OutputLayer
from srpo_verl.training.worker.sequence_parallel import local_tokens
from srpo_verl.variants import VariantError
from srpo_verl.verl_names.worker import LOG_PROBS, ONLY_LOGITS

DIVERGENCE = "srpo_divergence"
# Set by the driver: rows of the batch are routed, so a divergence without a value is a fault.
ANY_ROUTED = "srpo_any_routed"
# Set by the driver: scales sums over routed tokens so that verl's reductions give their mean over the batch.
METRIC_SCALE = "srpo_metric_scale"
# Set by the driver: what makes the divergence's denominator another one than all response tokens; 1 if it is not there.
DENOMINATOR_SCALE = "srpo_denominator_scale"


@dataclass(frozen=True)
class Distilled:
    """The distilled tokens of a micro-batch, on this rank.

    Attributes:
        rows: int64 (R,), ascending, of the packed positions here.
        ids: int64 (R, K); of the student's top K, or the teacher's.
        teacher: float32 (R, K), the teacher's log-probs at these.
        any_routed: whether any rollout of the batch is routed.
    """

    rows: torch.Tensor
    ids: torch.Tensor
    teacher: torch.Tensor
    any_routed: bool = True


class SRPOObjective(LogitsHook):
    """The actor's loss function.

    `branch` is "grpo" or "sdpo" while the gradient norm of one branch is measured, else None.
    """

    def __init__(self, actor_config: ActorConfig, srpo: SRPOConfig):
        self.actor_config, self.srpo = actor_config, srpo
        self.branch: str | None = None
        self.variant = srpo.variant("divergence")

    def _of_buckets(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return self.variant(student, teacher, self.srpo)

    def on_logits(self, logits: torch.Tensor, data: TensorDict) -> dict[str, torch.Tensor]:
        if not tu.get_non_tensor_data(data, ONLY_LOGITS, False):
            return {DIVERGENCE: self.divergence(logits, data).unsqueeze(0)}
        distilled, size = self._distilled_if_any(logits, data), self.srpo.chunk_size
        outputs, listed = policy_outputs.of_logits(logits, data, distilled.rows, distilled.ids, chunk_size=size)
        outputs |= self._divergence_of(listed, distilled, logits.shape[0])
        return {name: values.unsqueeze(0) for name, values in outputs.items()}

    def on_output_layer(self, layer: OutputLayer, data: TensorDict) -> dict[str, torch.Tensor]:
        distilled = self._distilled_if_any(layer.hidden, data)
        outputs, listed, _ = policy_outputs.of_output_layer(layer, data, distilled.rows, distilled.ids)
        return outputs | self._divergence_of(listed, distilled, layer.hidden.shape[0])

    def on_outputs(
        self, model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        if DIVERGENCE not in model_output and tu.get_non_tensor_data(data, ANY_ROUTED, False):
            raise RuntimeError(
                "rollouts are routed to the teacher, but verl's engine did not hand over the logits "
                "(`distillation_use_topk`), so the run would go on as GRPO without a word; is this the verl that "
                "srpo_verl is tested with?"
            )
        if not data["batch_num_tokens"]:
            # A mini-batch in which all tokens are masked: every sum is zero, and so is the loss.
            tu.assign_non_tensor(data, batch_num_tokens=1)
        data = with_lengths_on_host(data)
        loss, metrics = ppo_loss(self.actor_config, model_output, data, dp_group)
        if DIVERGENCE not in model_output:
            return loss, metrics
        distillation, distillation_metrics = self.distillation_loss(model_output, data)
        metrics.update(distillation_metrics)
        if self.branch == "grpo":
            return loss, metrics
        if self.branch == "sdpo":
            return distillation + 0.0 * loss, metrics
        return loss + distillation, metrics

    def divergence(self, logits: torch.Tensor, data: TensorDict) -> torch.Tensor:
        """Divergence per packed position of this rank, (nnz,); zero where nothing is routed.

        `logits` (nnz, V) are only read.
        """
        distilled = self._distilled(logits, data)
        per_token = torch.zeros(logits.shape[0], dtype=torch.float32, device=logits.device)
        if distilled.rows.numel() == 0:
            return per_token
        source = _undivided(logits)
        values = self.variant.named(
            logit_divergence,
            logits if source is None else source,
            distilled.rows,
            distilled.ids,
            distilled.teacher,
            divergence=self._of_buckets,
            add_tail=self.srpo.add_tail,
            chunk_size=self.srpo.chunk_size,
            sparse_gradient=source is not None,
            check_finite=not self.variant.built_in,
        )
        return per_token.to(values.dtype).index_put((distilled.rows,), values)

    def _distilled(self, local: torch.Tensor, data: TensorDict) -> Distilled:
        """The distilled tokens of this rank, whose logits or hidden states are `local` (nnz, ...)."""
        require(data, LOSS_FIELDS)
        ids, teacher, weights = data[TOPK_IDS], data[TEACHER_LOG_PROBS], data[TOKEN_WEIGHTS]
        positions = prediction_positions(data["input_ids"], lengths_of(ids))
        # Masked tokens (of tools, or rejected ones) have weight zero and need no work.
        kept = (weights.values() != 0).nonzero().squeeze(-1)
        here = local_tokens(local, positions[kept], data["input_ids"])
        kept = kept[here.kept]
        return Distilled(here.rows, ids.values()[kept].long(), teacher.values()[kept])

    def _distilled_if_any(self, local: torch.Tensor, data: TensorDict) -> Distilled:
        """`_distilled`; of a batch without routed rows, which has no such fields, no tokens."""
        if tu.get_non_tensor_data(data, ANY_ROUTED, TOKEN_WEIGHTS in data):
            return self._distilled(local, data)
        none = torch.zeros(0, dtype=torch.int64, device=local.device)
        return Distilled(none, none.unsqueeze(-1), local.new_zeros(0, 1), any_routed=False)

    def _divergence_of(self, listed: torch.Tensor, distilled: Distilled, length: int) -> dict[str, torch.Tensor]:
        """`divergence` by its name, of log-probs at the ids (R, K) that have a graph; {} if nothing is routed."""
        if not distilled.any_routed:
            return {}
        values = self.variant.named(
            topk_divergence,
            listed,
            distilled.teacher,
            divergence=self._of_buckets,
            add_tail=self.srpo.add_tail,
        )
        if not self.variant.built_in:
            self.variant.named(require_finite, "values", values)
            if listed.requires_grad:
                if not values.requires_grad:
                    raise VariantError(f"{self.variant}: what it gives does not require grad: it is constant")
                listed.register_hook(self._check_slope)
        return {DIVERGENCE: values.new_zeros(length).index_put((distilled.rows,), values)}

    def _check_slope(self, slope: torch.Tensor | None) -> None:
        # None where the divergence is not in the loss, as in the gradient norm of the other branch.
        if slope is not None:
            self.variant.named(require_finite, "slopes", slope)

    def distillation_loss(
        self, model_output: dict[str, torch.Tensor], data: TensorDict
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """sum of w * ratio * divergence over the micro-batch, over all response tokens of the mini-batch."""
        divergence = no_padding_2_padding(model_output[DIVERGENCE], data)
        log_probs = no_padding_2_padding(model_output[LOG_PROBS], data).detach()
        old_log_probs = data["old_log_probs"].to_padded_tensor(0.0)
        weights = data[TOKEN_WEIGHTS].to_padded_tensor(0.0, output_size=tuple(divergence.shape))
        # Off the routed rows log_probs and old_log_probs may differ by anything; there the weight is zero.
        log_ratio = torch.where(weights != 0, log_probs - old_log_probs, 0.0)
        ratio = log_ratio.exp().clamp(max=self.srpo.ratio_clip)
        scale = data["dp_size"] / data["batch_num_tokens"] * tu.get_non_tensor_data(data, DENOMINATOR_SCALE, 1.0)
        loss = (weights * ratio * divergence).sum() * scale

        mean = float(tu.get_non_tensor_data(data, METRIC_SCALE, 0.0)) * data["dp_size"]
        detached, routed = divergence.detach(), weights != 0
        values = {
            "srpo/sdpo_loss": loss.detach(),
            "srpo/divergence": (detached * routed).sum() * mean,
            "srpo/divergence_weighted": (detached * weights).sum() * mean,
            "srpo/ratio_clipped": ((log_ratio.exp() > self.srpo.ratio_clip) & routed).sum() * mean,
        }
        return loss, {key: Metric(value=value, aggregation=AggregationType.SUM) for key, value in values.items()}


def _undivided(logits: torch.Tensor) -> torch.Tensor | None:
    """The tensor that `logits` (nnz, V) is a view of, if it is the same logits in the shape (1, nnz, V).

    The engine computes log-probs from a view of it too. There the divergence's gradient meets that of the log-probs
    and is added in place; through a view of its own it would first have to become a second (nnz, V) tensor.
    """
    base = logits._base
    same = base is not None and base.shape == (1, *logits.shape) and base.data_ptr() == logits.data_ptr()
    return base if same and base.requires_grad else None
