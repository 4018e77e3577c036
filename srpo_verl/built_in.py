"""Our own variants, through the door that yours take; the mathematics is in `srpo_verl.core`.

Those of SRPO and SDPO are here, those of other methods in `built_in_family`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from srpo_verl import core
from srpo_verl.variants import ROLLOUT_TURNS, register

for _name, _rule in core.RULES.items():
    register.route(_name)(lambda rollouts, available, srpo, rule=_rule: rule(rollouts, available))


@register.provider("sibling", section=core.SECTIONS["sibling"])
def sibling(rollouts: core.Rollouts, srpo: Any) -> torch.Tensor:
    """The first correct sibling (arXiv 2604.02288, Table 6)."""
    return core.PROVIDERS["sibling"](rollouts)


@register.provider("feedback", section=core.SECTIONS["feedback"])
def feedback(rollouts: core.Rollouts, srpo: Any) -> Sequence[str | None]:
    """The grader's `feedback` (arXiv 2604.02288, Algorithm 1, line 5)."""
    return rollouts.feedback


@register.provider("tool_feedback", columns=(ROLLOUT_TURNS,), section=core.SECTIONS["tool_feedback"])
def tool_feedback(rollouts: core.Rollouts, srpo: Any) -> Sequence[str | None]:
    """What the tools said to the calls of this very rollout that failed, turn by turn."""
    return [core.failed_calls(core.turns_from_json(columns[ROLLOUT_TURNS])) for columns in rollouts.columns]


@register.divergence("jsd")
def jsd(student: torch.Tensor, teacher: torch.Tensor, srpo: Any) -> torch.Tensor:
    """Generalised Jensen-Shannon with `srpo.alpha` (arXiv 2601.20802)."""
    return core.generalized_jsd(srpo.alpha, entry_clip=srpo.entry_clip)(student, teacher)


@register.weighting("entropy")
def entropy(tokens: core.TokenSignals, srpo: Any) -> torch.Tensor:
    """exp(-beta H) of the teacher (arXiv 2604.02288, section 3.2)."""
    return core.raw_entropy_weights(tokens.teacher_entropy, beta=srpo.beta)


@register.advantage("group_mean")
def group_mean(rewards: core.GroupRewards, srpo: Any) -> torch.Tensor:
    """r_i - mean of the group (arXiv 2604.02288, section 2.1)."""
    return core.group_advantages(rewards.rewards, rewards.groups, normalize_by_std=rewards.normalize_by_std)


@register.advantage("leave_one_out")
def leave_one_out(rewards: core.GroupRewards, srpo: Any) -> torch.Tensor:
    """r_i - mean of the others (RLOO, arXiv 2402.14740)."""
    return core.leave_one_out_advantages(rewards.rewards, rewards.groups)


@register.teacher("ema")
def ema(teacher: torch.Tensor, actor: torch.Tensor, step: int, srpo: Any) -> None:
    """teacher <- (1 - rate) teacher + rate actor (arXiv 2601.20802)."""
    teacher.lerp_(actor, srpo.teacher.ema_rate)


def _between(teacher: torch.Tensor, student: torch.Tensor, srpo: Any) -> torch.Tensor:
    return core.trust_region_logits(teacher, student, mix=srpo.teacher.trust_region_mix)


register.teacher("frozen")(None)
register.teacher("live", own_weights=False)(None)
register.teacher("trust_region", mix_logits=_between)(None)
