"""What a batch is trained on, once the teacher has answered: advantages, token weights, and the metrics of both.

One pure function, for the trainer and for anybody who makes a step without it. No verl, no Ray. It sees the whole
batch, since the mean of the entropy weights is over all routed valid tokens (arXiv 2604.02288, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import torch

from srpo_verl import variants
from srpo_verl.config import SRPOConfig
from srpo_verl.core import TokenSignals, mean_one_weights
from srpo_verl.training.step.routing_plan import RoutingPlan
from srpo_verl.training.step.step_metrics import advantage_metrics, token_metrics
from srpo_verl.variants import VariantError


@dataclass(frozen=True)
class RoutedTokens:
    """What is known of the tokens of the routed rows; lists of (response length,) float32 in the order of `rows`.

    Attributes:
        rows: numbers of the routed rows in the batch.
        teacher_entropy, student_entropy: over the full vocabulary, in nats.
        teacher_log_probs, student_log_probs: of the tokens that were sampled, in nats; the student's old ones.
        importance: truncated importance weights of the rollout engine; None for 1.
    """

    rows: list[int]
    teacher_entropy: list[torch.Tensor]
    student_entropy: list[torch.Tensor]
    teacher_log_probs: list[torch.Tensor]
    student_log_probs: list[torch.Tensor]
    importance: list[torch.Tensor] | None = None


@dataclass(frozen=True)
class StepSignals:
    """Per row of the batch, in its order: (j,) float32.

    Attributes:
        advantages: of the policy-gradient branch, per token.
        weights: of the divergence, the importance weight included; length 0 for rows that are not routed.
        routed_tokens: how many tokens are distilled.
        metrics: as docs/metrics.md has them.
    """

    advantages: list[torch.Tensor]
    weights: list[torch.Tensor]
    routed_tokens: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class StepView:
    """What a registered metric sees of a step, rows in batch order.

    Attributes:
        plan: rollouts, routing, groups; `plan.counted` says which rows count.
        responses: (j,) token ids per row.
        masks: (j,) float per row, 1 for the model's own valid tokens.
        tokens: of the routed rows, None if there are none.
        signals: what is trained on.
        decode: token ids to text.
    """

    plan: RoutingPlan
    responses: Sequence[torch.Tensor]
    masks: Sequence[torch.Tensor]
    tokens: RoutedTokens | None
    signals: StepSignals
    decode: Callable[[torch.Tensor], str]


def step_signals(
    plan: RoutingPlan,
    srpo: SRPOConfig,
    *,
    rewards: torch.Tensor,
    masks: Sequence[torch.Tensor],
    normalize_by_std: bool,
    tokens: RoutedTokens | None,
) -> StepSignals:
    """Advantages, weights and metrics of a batch.

    Args:
        rewards: (n,) float; what the advantages are made of.
        masks: response mask of every row, (j,) float.
        normalize_by_std: verl's `algorithm.norm_adv_by_std_in_grpo`.
        tokens: None if nothing is routed.

    Raises:
        VariantError: the baseline or the weighting breaks its contract; the message names it.
    """
    scalar = plan.policy_gradient_advantages(rewards, srpo, normalize_by_std=normalize_by_std)
    advantages = [value * mask for value, mask in zip(scalar, masks, strict=True)]
    if srpo.advantage_mix > 0:
        advantages = _mixed(advantages, masks, tokens, mix=srpo.advantage_mix)
    metrics = advantage_metrics(plan, scalar)
    if tokens is None:
        return StepSignals(advantages, [torch.zeros(0)] * len(masks), 0, metrics)

    valid = torch.cat([masks[row] for row in tokens.rows]) > 0
    lengths = [len(row) for row in tokens.teacher_entropy]
    variant = srpo.variant("weighting")
    raw = variant(_signals(tokens, valid), srpo)
    per_token = variant.named(mean_one_weights, raw, valid).float()
    factor = per_token if tokens.importance is None else per_token * torch.cat(tokens.importance)
    share = plan.routing.share[tokens.rows]
    if bool((share < 1).any()):
        factor = factor * share.to(factor.dtype).repeat_interleave(torch.tensor(lengths))
    pieces = dict(zip(tokens.rows, factor.split(lengths), strict=True))
    weights = [pieces.get(row, factor[:0]) for row in range(len(masks))]
    entropies = torch.cat(tokens.teacher_entropy)[valid], torch.cat(tokens.student_entropy)[valid]
    metrics |= token_metrics(*entropies, per_token[valid])
    return StepSignals(advantages, weights, int(valid.sum()), metrics)


def variant_metrics(view: StepView, srpo: SRPOConfig) -> dict[str, float]:
    """`srpo/metric/<name>/<key>` of what `srpo.metrics` names. Raises VariantError for one that is no finite number."""
    found = {}
    for variant in (variants.get("metric", name) for name in srpo.metrics):
        values = variant(view, srpo)
        if not isinstance(values, Mapping):
            raise VariantError(f"{variant} must give a dict of numbers, not a {type(values).__name__}")
        for key, value in values.items():
            if isinstance(value, torch.Tensor) and value.numel() == 1:
                value = value.item()
            if not isinstance(value, Real) or not math.isfinite(variant.named(float, value)):
                raise VariantError(f"{variant}: {key} is {value!r}, no finite number; leave it out of the dict instead")
            found[f"srpo/metric/{variant.name}/{key}"] = float(value)
    return found


def _signals(tokens: RoutedTokens, valid: torch.Tensor) -> TokenSignals:
    lengths = torch.tensor([len(row) for row in tokens.teacher_entropy])
    positions = torch.cat([torch.arange(length) for length in lengths.tolist()])

    def flat(rows: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(rows)[valid].double()

    return TokenSignals(
        teacher_entropy=flat(tokens.teacher_entropy),
        student_entropy=flat(tokens.student_entropy),
        teacher_log_probs=flat(tokens.teacher_log_probs),
        student_log_probs=flat(tokens.student_log_probs),
        rollout=torch.repeat_interleave(lengths)[valid],
        position=positions[valid],
    )


def _mixed(
    advantages: Sequence[torch.Tensor], masks: Sequence[torch.Tensor], tokens: RoutedTokens | None, *, mix: float
) -> list[torch.Tensor]:
    """(1 - mix) A_grpo + mix (log q(y_t) - log p_old(y_t)) per row; without teacher information the last term is 0."""
    mixed = [(1.0 - mix) * row for row in advantages]
    if tokens is None:
        return mixed
    for row, teacher, student in zip(tokens.rows, tokens.teacher_log_probs, tokens.student_log_probs, strict=True):
        mixed[row] = mixed[row] + mix * (teacher - student) * masks[row]
    return mixed
