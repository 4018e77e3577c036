"""The routing of one training batch, from what the driver knows about its rollouts. No verl, no Ray.

verl's batch has more rows than the algorithm has rollouts: padding rows, and agent loops that put out several rows per
session, of which the last carries the verdict. And balancing has shuffled it, so "the first correct sibling" needs an
order of its own: the session id in the key `{uid}_{session}_{index}`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from srpo_verl.config import SRPOConfig
from srpo_verl.core import GroupStatistics, Routing, group_advantages, group_statistics, route
from srpo_verl.training.rollout_keys import RolloutKey


@dataclass(frozen=True)
class Rollout:
    """One row of the batch as the driver sees it."""

    key: str
    score: float
    response_length: int
    padding: bool = False
    reward_info: dict[str, Any] | None = None
    # Nothing in it that the model wrote and that can be read: no token, special tokens only, or tool output only.
    without_text: bool = False

    @property
    def session(self) -> tuple[str, int]:
        """Group (uid of the prompt) and session within it."""
        key = RolloutKey.parse(self.key)
        return key.uid, key.session

    @property
    def index(self) -> int:
        """Position among the outputs of its session."""
        return RolloutKey.parse(self.key).index

    @property
    def verdict(self) -> float:
        """The grader's `acc` if it gives one, else the score: shaped rewards must not change what is correct."""
        value = (self.reward_info or {}).get("acc")
        return self.score if value is None else _number(value)

    @property
    def undecided(self) -> bool:
        """The grader could not decide, or what it gave is no number."""
        failed = bool((self.reward_info or {}).get("infra_error", 0))
        return failed or not (math.isfinite(self.score) and math.isfinite(self.verdict))

    @property
    def feedback(self) -> str | None:
        text = (self.reward_info or {}).get("feedback")
        return text if isinstance(text, str) else None


def rollout_of(
    key: str,
    tag: Mapping[str, Any],
    score: float,
    response: torch.Tensor,
    mask: torch.Tensor,
    extra: Mapping[str, Any] | None,
    *,
    special_ids: torch.Tensor,
) -> Rollout:
    """A row of verl's batch: its tag, its score, (tokens,) response ids and mask (1: the model's), its extra fields."""
    return Rollout(
        key=key,
        score=score,
        response_length=response.numel(),
        padding=bool(tag.get("is_padding", False)),
        reward_info=(extra or {}).get("reward_extra_info"),
        without_text=bool(torch.isin(response[mask.bool()], special_ids).all()),
    )


@dataclass(frozen=True)
class RoutingPlan:
    """Rows of the batch, in batch order; (n,) tensors.

    Attributes:
        final: row index of the last output of the row's session.
        counted: bool; last outputs of real sessions with a known verdict and with text. Only these are routed or
            compared.
        routing: `srpo_verl.core.Routing` in batch order; `demonstration` holds row indices.
        groups: statistics over the groups of counted rows.
    """

    rollouts: tuple[Rollout, ...]
    final: torch.Tensor
    counted: torch.Tensor
    routing: Routing
    groups: GroupStatistics

    @property
    def routed(self) -> torch.Tensor:
        return self.routing.to_sdpo

    def routed_rows(self) -> list[int]:
        return self.routed.nonzero().squeeze(-1).tolist()

    def without(self, rows: Sequence[int]) -> RoutingPlan:
        """The plan with these rows sent to the GRPO branch, e.g. because no teacher prompt fits."""
        to_sdpo = self.routed.clone()
        to_sdpo[list(rows)] = False
        return replace(self, routing=replace(self.routing, to_sdpo=to_sdpo))

    def advantages(self, rewards: torch.Tensor, *, normalize_by_std: bool) -> torch.Tensor:
        """(n,) group-relative advantage of each row's session; 0 for one that is not counted."""
        uids = [rollout.session[0] for rollout in self.rollouts]
        values = group_advantages(rewards, uids, normalize_by_std=normalize_by_std, exclude=~self.counted)
        return values[self.final]

    def policy_gradient_advantages(
        self, rewards: torch.Tensor, srpo: SRPOConfig, *, normalize_by_std: bool
    ) -> torch.Tensor:
        """(n,) `advantages`, zero on the rows that the method gives no policy gradient."""
        values = self.advantages(rewards, normalize_by_std=normalize_by_std)
        if srpo.policy_gradient == "none":
            return torch.zeros_like(values)
        return torch.where(self.routed, 0.0, values) if srpo.policy_gradient == "unrouted" else values


def _number(value: Any) -> float:
    """A verdict as a float; NaN, hence undecided, if it is none."""
    return float(value) if isinstance(value, int | float | np.number | np.bool_) else math.nan


def build_plan(rollouts: Sequence[Rollout], srpo: SRPOConfig) -> RoutingPlan:
    """Route a batch. Raises ValueError if a row's key is not `{uid}_{session}_{index}`."""
    rows = range(len(rollouts))
    last: dict[tuple[str, int], int] = {}
    for row in rows:
        session = rollouts[row].session
        if session not in last or rollouts[row].index > rollouts[last[session]].index:
            last[session] = row
    final = torch.tensor([last[rollout.session] for rollout in rollouts], dtype=torch.long)
    usable = [not (row.padding or row.undecided or row.without_text) for row in rollouts]
    counted = torch.tensor([usable[r] and int(final[r]) == r for r in rows], dtype=torch.bool)

    order = sorted(rows, key=lambda row: (rollouts[row].session, rollouts[row].index))
    verdicts = torch.tensor([rollouts[r].verdict for r in order], dtype=torch.float64)
    uids = [rollouts[r].session[0] for r in order]
    exclude = ~counted[order]
    feedback = [rollouts[r].feedback for r in order] if srpo.teacher.use_feedback else None
    ordered = route(verdicts, uids, threshold=srpo.threshold, feedback=feedback, rows=srpo.rows, exclude=exclude)
    statistics = group_statistics(verdicts, uids, threshold=srpo.threshold, exclude=exclude)
    return RoutingPlan(tuple(rollouts), final, counted, _in_batch_order(ordered, order), statistics)


def _in_batch_order(ordered: Routing, order: Sequence[int]) -> Routing:
    place = torch.tensor(order, dtype=torch.long)

    def back(values: torch.Tensor) -> torch.Tensor:
        result = torch.empty_like(values)
        result[place] = values
        return result

    demonstration = torch.where(ordered.demonstration >= 0, place[ordered.demonstration.clamp(min=0)], -1)
    return replace(
        ordered,
        to_sdpo=back(ordered.to_sdpo),
        demonstration=back(demonstration),
        teacher_available=back(ordered.teacher_available),
        correct=back(ordered.correct),
        provider=back(ordered.provider),
    )
