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
from srpo_verl.core import TokenSignals, mean_one_weights, turn_numbers, turn_weights
from srpo_verl.training.step.modulation import modulated
from srpo_verl.training.step.routed_tokens import RoutedTokens
from srpo_verl.training.step.routing_plan import RoutingPlan
from srpo_verl.training.step.step_metrics import advantage_metrics, token_metrics
from srpo_verl.variants import VariantError


@dataclass(frozen=True)
class StepSignals:
    """Per row of the batch, in its order: (j,) float32.

    Attributes:
        advantages: of the policy-gradient branch, per token.
        weights: of the divergence, the importance weight included; length 0 for rows that are not routed.
        routed_tokens: how many tokens are distilled.
        denominator_scale: what the divergence is multiplied by: all response tokens over those of `srpo.denominator`.
        metrics: as docs/metrics.md has them.
    """

    advantages: list[torch.Tensor]
    weights: list[torch.Tensor]
    routed_tokens: int
    denominator_scale: float
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
    turns: Sequence[torch.Tensor] | None = None,
) -> StepSignals:
    """Advantages, weights and metrics of a batch.

    Args:
        rewards: (n,) float; what the advantages are made of.
        masks: response mask of every row, (j,) float.
        normalize_by_std: verl's `algorithm.norm_adv_by_std_in_grpo`.
        tokens: None if nothing is routed.
        turns: `turn_numbers` of every row, (j,), where the masks lack tokens that were rejected; None: of the masks.

    Raises:
        VariantError: the baseline or the weighting breaks its contract; the message names it.
    """
    scalar = plan.policy_gradient_advantages(rewards, srpo, normalize_by_std=normalize_by_std)
    advantages = [value * mask for value, mask in zip(scalar, masks, strict=True)]
    if srpo.advantage_mix > 0:
        advantages = _mixed(advantages, masks, tokens, mix=srpo.advantage_mix)
    if srpo.modulator is not None and tokens is not None:
        advantages = modulated(plan, srpo, advantages, masks, tokens)
    # What verl counts its tokens by: those that were rejected are among them.
    before = [mask > 0 for mask in masks] if turns is None else [turn >= 0 for turn in turns]
    turns = _over_the_batch([turn_numbers(mask) for mask in masks] if turns is None else turns)
    if srpo.turn_mean:
        # Rows that do not count have no advantage; their turns must not weigh on those of the others.
        keeps = (plan.policy_gradient_share(srpo) > 0) & plan.counted[plan.final]
        acting = keeps.nonzero().squeeze(-1).tolist()
        advantages = _by_turns(advantages, acting, masks, turns)
    metrics = advantage_metrics(plan, scalar)
    if tokens is None:
        return StepSignals(advantages, [torch.zeros(0)] * len(masks), 0, 1.0, metrics)

    lengths = [len(row) for row in tokens.teacher_entropy]
    share = plan.routing.share[tokens.rows]
    distilled = (share > 0).repeat_interleave(torch.tensor(lengths))
    valid = (torch.cat([masks[row] for row in tokens.rows]) > 0) & distilled
    variant = srpo.variant("weighting")
    raw = torch.zeros(0)
    if bool(valid.any()):
        seen = _signals(tokens, valid, torch.cat([turns[row] for row in tokens.rows])[valid])
        raw = variant(seen, srpo)
        if srpo.turn_mean and isinstance(raw, torch.Tensor) and raw.shape == seen.turn.shape:
            raw = raw * turn_weights(seen.turn)
    dtype = torch.promote_types(tokens.teacher_entropy[0].dtype, torch.float32)
    per_token = variant.named(mean_one_weights, raw, valid).to(dtype)
    factor = per_token if tokens.importance is None else per_token * torch.cat(tokens.importance)
    scale = share * _question_weights(plan, srpo)[tokens.rows] * srpo.coefficient(plan.step)
    if bool((scale != 1).any()):
        factor = factor * scale.to(factor.dtype).repeat_interleave(torch.tensor(lengths))
    pieces = dict(zip(tokens.rows, factor.split(lengths), strict=True))
    weights = [pieces.get(row, factor[:0]) for row in range(len(masks))]
    entropies = torch.cat(tokens.teacher_entropy)[valid], torch.cat(tokens.student_entropy)[valid]
    metrics |= token_metrics(*entropies, per_token[valid])
    if srpo.distillation.coefficient != 1 or srpo.coefficient(plan.step) != 1:
        metrics["srpo/coefficient"] = srpo.coefficient(plan.step)
    return StepSignals(advantages, weights, int(valid.sum()), _denominator_scale(srpo, before, valid), metrics)


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


def _denominator_scale(srpo: SRPOConfig, counted: Sequence[torch.Tensor], distilled: torch.Tensor) -> float:
    """The loss is divided by all response tokens; this makes it the distilled ones, counted over the whole batch."""
    if srpo.denominator == "all_tokens":
        return 1.0
    return sum(int(tokens.sum()) for tokens in counted) / max(int(distilled.sum()), 1)


def _question_weights(plan: RoutingPlan, srpo: SRPOConfig) -> torch.Tensor:
    """(n,) float64: the factor on each row's divergence by its question; 1 without `srpo.question_weight`."""
    weights = torch.ones_like(plan.routing.share)
    if srpo.question_weight is None:
        return weights
    variant, seen, inside = srpo.variant("question_weight"), plan.routing.seen, plan.routing.inside
    found = variant(seen.copied(), plan.routing.share[inside], srpo)
    fits = isinstance(found, torch.Tensor) and found.shape == inside.shape and not found.is_complex()
    if not fits or not bool((found.isfinite() & (found >= 0)).all()):
        raise VariantError(f"{variant} must give {len(inside)} numbers that are finite and not negative, one a rollout")
    return weights.index_copy_(0, inside, found.detach().double())


def _over_the_batch(turns: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Numbers of turns, per row from 0, made different from row to row."""
    counts = [int(row.max()) + 1 if row.numel() else 0 for row in turns]
    starts = torch.tensor([0, *counts]).cumsum(0).tolist()
    return [torch.where(row < 0, row, row + start) for row, start in zip(turns, starts, strict=False)]


def _by_turns(
    advantages: Sequence[torch.Tensor],
    rows: Sequence[int],
    masks: Sequence[torch.Tensor],
    turns: Sequence[torch.Tensor],
) -> list[torch.Tensor]:
    """Advantages times `turn_weights` over the valid tokens of these rows; the others as they are."""
    found = list(advantages)
    if rows:
        valid = torch.cat([masks[row] for row in rows]) > 0
        weights = torch.zeros(valid.shape, dtype=torch.float64)
        weights[valid] = turn_weights(torch.cat([turns[row] for row in rows])[valid])
        for row, piece in zip(rows, weights.split([len(masks[row]) for row in rows]), strict=True):
            found[row] = advantages[row] * piece.to(advantages[row].dtype)
    return found


def _signals(tokens: RoutedTokens, valid: torch.Tensor, turn: torch.Tensor) -> TokenSignals:
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
        turn=turn,
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
