"""Advantages per token by `srpo.modulator`, where the teacher was asked. No verl, no Ray."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch

from srpo_verl.config import SRPOConfig
from srpo_verl.core import AdvantageTokens
from srpo_verl.training.step.routed_tokens import RoutedTokens
from srpo_verl.training.step.routing_plan import RoutingPlan
from srpo_verl.variants import VariantError


def modulated(
    plan: RoutingPlan,
    srpo: SRPOConfig,
    advantages: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor],
    tokens: RoutedTokens,
) -> list[torch.Tensor]:
    """The advantages, per row (j,), with what the modulator makes of the tokens that it sees.

    It sees the valid tokens of the rows that were asked about and have a policy gradient; all others stay as they are.

    Raises:
        VariantError: it gives another form than (T,) or a number that is not finite.
    """
    variant = srpo.variant("modulator")
    keeps = plan.policy_gradient_share(srpo) > 0
    places = [place for place, row in enumerate(tokens.rows) if keeps[row]]
    rows = [tokens.rows[place] for place in places]
    valid = [masks[row] > 0 for row in rows]
    if not any(bool(kept.any()) for kept in valid):
        return list(advantages)
    seen_as = {row: index for index, row in enumerate(plan.routing.inside.tolist())}

    def flat(values: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([row[kept] for row, kept in zip(values, valid, strict=True)]).double()

    def known(values: Sequence[torch.Tensor]) -> torch.Tensor:
        return flat([values[place] for place in places])

    teacher = known(tokens.teacher_log_probs)
    lengths = torch.tensor([int(kept.sum()) for kept in valid])
    seen = plan.routing.seen.copied()
    view = AdvantageTokens(
        advantages=flat([advantages[row] for row in rows]),
        teacher_log_probs=teacher,
        student_log_probs=known(tokens.student_log_probs),
        contrast_log_probs=(
            torch.full_like(teacher, torch.nan)
            if tokens.contrast_log_probs is None
            else known(tokens.contrast_log_probs)
        ),
        teacher_entropy=known(tokens.teacher_entropy),
        student_entropy=known(tokens.student_entropy),
        rollout=torch.tensor([seen_as[row] for row in rows]).repeat_interleave(lengths),
        position=torch.cat([kept.nonzero().squeeze(-1) for kept in valid]),
        rollouts=seen if variant.built_in else replace(seen, states=copy.deepcopy(dict(seen.states))),
    )
    found = variant(view, srpo)
    fits = isinstance(found, torch.Tensor) and found.shape == teacher.shape and not found.is_complex()
    found = found.detach().to(advantages[rows[0]].dtype) if fits else found
    if not fits or not bool(found.isfinite().all()):
        raise VariantError(f"{variant} must give {len(teacher)} finite numbers, one per token that it sees")
    result = list(advantages)
    for row, kept, values in zip(rows, valid, found.split(lengths.tolist()), strict=True):
        result[row] = torch.zeros_like(advantages[row]).masked_scatter(kept, values)
    return result
