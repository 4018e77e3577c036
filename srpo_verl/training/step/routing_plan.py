"""The routing of one training batch, from what the driver knows about its rollouts. No verl, no Ray.

verl's batch has more rows than the algorithm has rollouts: padding rows, and agent loops that put out several rows per
session, of which the last carries the verdict. And balancing has shuffled it, so "the first correct sibling" needs an
order of its own: the session id in the key `{uid}_{session}_{index}`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from srpo_verl import variants
from srpo_verl.config import SRPOConfig
from srpo_verl.core import GroupRewards, GroupStatistics, Rollouts, Routing, group_statistics, route
from srpo_verl.training.fields import TOOL_COUNTS
from srpo_verl.training.rollout_keys import RolloutKey
from srpo_verl.variants import VariantError


@dataclass(frozen=True)
class Rollout:
    """One row of the batch as the driver sees it."""

    key: str
    score: float
    response_length: int
    padding: bool = False
    reward_info: dict[str, Any] | None = None
    # Nothing in it that the model wrote and that can be read: no token, special tokens only, or tool output only. It is
    # compared and distilled as any other, but never shown.
    without_text: bool = False
    # No valid token of the model's at all: compared, but there is nothing to train.
    without_tokens: bool = False
    # How many tool calls there were, failed, had no answer in time; None for an agent loop without tools.
    tool_counts: Mapping[str, int] | None = None
    # The columns of the data set, and fields of the rollout, that a provider asked for.
    columns: Mapping[str, Any] = field(default_factory=dict)
    # What was answered, as text, where a variant reads it.
    response: str | None = None
    # The same for the same question in every step, where the run keeps states.
    question: str = ""

    @property
    def session(self) -> tuple[str, int]:
        """Group (uid of the prompt) and session within it."""
        key = RolloutKey.parse(self.key)
        return key.uid, key.session

    @property
    def index(self) -> int:
        """Position among the outputs of its session."""
        return RolloutKey.parse(self.key).output

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
    columns: Mapping[str, Any] | None = None,
    text: str | None = None,
    question: str = "",
) -> Rollout:
    """A row of verl's batch: its tag, its score, (tokens,) response ids and mask (1: the model's), its extra fields."""
    own = response[mask.bool()]
    return Rollout(
        key=key,
        score=score,
        response_length=response.numel(),
        padding=bool(tag.get("is_padding", False)),
        reward_info=(extra or {}).get("reward_extra_info"),
        without_text=bool(torch.isin(own, special_ids).all()),
        without_tokens=own.numel() == 0,
        tool_counts=(extra or {}).get(TOOL_COUNTS),
        columns=columns or {},
        response=text,
        question=question,
    )


@dataclass(frozen=True)
class RoutingPlan:
    """Rows of the batch, in batch order; (n,) tensors.

    Attributes:
        final: row index of the last output of the row's session.
        counted: bool; last outputs of real sessions with a known verdict. Only these are routed or compared.
        routing: `srpo_verl.core.Routing` in batch order; `demonstration` holds row indices.
        groups: statistics over the groups of counted rows.
        group_size: sessions that were sampled per prompt, whether or not all of them are here.
        step: of training, from 1.
    """

    rollouts: tuple[Rollout, ...]
    final: torch.Tensor
    counted: torch.Tensor
    routing: Routing
    groups: GroupStatistics
    group_size: int = 1
    step: int = 1

    @property
    def routed(self) -> torch.Tensor:
        """bool (n,): distilled, at least in part."""
        return self.routing.to_sdpo

    @property
    def asked(self) -> torch.Tensor:
        """bool (n,): the teacher is asked about it; all that are routed, and others for a modulator."""
        return self.routing.asked

    def routed_rows(self) -> list[int]:
        return self.routed.nonzero().squeeze(-1).tolist()

    def asked_rows(self) -> list[int]:
        return self.asked.nonzero().squeeze(-1).tolist()

    def shown(self, row: int) -> str | None:
        """The text that the teacher of this row is shown, if it is not a sibling's response."""
        return self.routing.texts[row]

    def without(self, rows: Sequence[int]) -> RoutingPlan:
        """The plan with these rows sent to the GRPO branch, e.g. because no teacher prompt fits."""
        share, asked = self.routing.share.clone(), self.routing.asked.clone()
        share[list(rows)] = 0.0
        asked[list(rows)] = False
        return replace(self, routing=replace(self.routing, share=share, asked=asked))

    def showing(self, column: int, provider: str) -> RoutingPlan:
        """The plan of a further pass of the teacher: who is shown a sibling of this column of the contrast."""
        demonstration = self.routing.contrast[:, column]
        asked = self.asked & (demonstration >= 0)
        shown = replace(
            self.routing,
            demonstration=demonstration,
            asked=asked,
            provider=torch.where(asked, 0, -1),
            providers=(provider,),
            texts=(None,) * len(self.rollouts),
        )
        return replace(self, routing=shown)

    def advantages(self, rewards: torch.Tensor, srpo: SRPOConfig, *, normalize_by_std: bool) -> torch.Tensor:
        """(n,) advantage of each row's session by the baseline `srpo.advantage`; 0 for one that is not counted.

        Raises:
            VariantError: the baseline gives another form than (N,) or a number that is not finite.
        """
        inside = self.counted.nonzero().squeeze(-1)
        ids: dict[str, int] = {}
        numbers = [ids.setdefault(rollout.session[0], len(ids)) for rollout in self.rollouts]
        groups = torch.tensor(numbers, dtype=torch.int64)
        # Sessions that are here; the others were lost on the way.
        size = torch.bincount(groups[self.final.unique()], minlength=len(ids)).clamp(min=self.group_size)
        counted = torch.bincount(groups[inside], minlength=len(ids))
        seen = GroupRewards(
            rewards=rewards[inside],
            groups=groups[inside].unique(return_inverse=True)[1],
            correct=self.routing.correct[inside],
            share=self.routing.share[inside],
            lengths=torch.tensor([self.rollouts[row].response_length for row in inside.tolist()], dtype=torch.int64),
            normalize_by_std=normalize_by_std,
        )
        variant = srpo.variant("advantage")
        found = variant(seen, srpo)
        fits = isinstance(found, torch.Tensor) and found.shape == inside.shape and not found.is_complex()
        found = found.detach().to(rewards) if fits else found
        if not fits or not bool(found.isfinite().all()):
            raise VariantError(f"{variant} must give {len(inside)} finite numbers, one per rollout that it sees")
        # A sibling that is ungraded or lost must not turn a comparison into a raw reward.
        only_one_left = ((size > 1) & (counted == 1))[groups[inside]]
        found = torch.where(only_one_left, 0.0, found)
        values = torch.zeros_like(rewards).index_copy_(0, inside, found)
        return values[self.final]

    def policy_gradient_advantages(
        self, rewards: torch.Tensor, srpo: SRPOConfig, *, normalize_by_std: bool
    ) -> torch.Tensor:
        """(n,) `advantages`, less what is distilled, as far as the method gives the rows a policy gradient.

        All outputs of a session have the share of its last one, which is distilled.
        """
        values = self.advantages(rewards, srpo, normalize_by_std=normalize_by_std)
        if srpo.policy_gradient == "all":
            return values
        rest = self.policy_gradient_share(srpo).to(values.dtype)
        return torch.where(rest == 0, 0.0, values * rest)

    def policy_gradient_share(self, srpo: SRPOConfig) -> torch.Tensor:
        """(n,) float64: how much of each row's policy gradient the method leaves it."""
        share = self.routing.share[self.final]
        if srpo.policy_gradient == "unrouted":
            return 1.0 - share
        return torch.full_like(share, 1.0 if srpo.policy_gradient == "all" else 0.0)


def _number(value: Any) -> float:
    """A verdict as a float; NaN, hence undecided, if it is none."""
    return float(value) if isinstance(value, int | float | np.number | np.bool_) else math.nan


def build_plan(
    rollouts: Sequence[Rollout],
    srpo: SRPOConfig,
    *,
    group_size: int = 1,
    step: int = 1,
    states: Mapping[str, Any] | None = None,
) -> RoutingPlan:
    """Route a batch of `group_size` sessions per prompt, some of which may not have arrived.

    Args:
        step: of training, from 1.
        states: what the run's states held before this step, by name.

    Raises:
        ValueError: a key of another form, or a variant that breaks its contract.
    """
    rows = range(len(rollouts))
    last: dict[tuple[str, int], int] = {}
    for row in rows:
        session = rollouts[row].session
        if session not in last or rollouts[row].index > rollouts[last[session]].index:
            last[session] = row
    final = torch.tensor([last[rollout.session] for rollout in rollouts], dtype=torch.long)
    usable = [not (row.padding or row.undecided) for row in rollouts]
    counted = torch.tensor([usable[r] and int(final[r]) == r for r in rows], dtype=torch.bool)

    order = sorted(rows, key=lambda row: (rollouts[row].session, rollouts[row].index))
    verdicts = torch.tensor([rollouts[r].verdict for r in order], dtype=torch.float64)
    uids = [rollouts[r].session[0] for r in order]
    exclude = ~counted[order]
    ordered = _route(
        srpo,
        verdicts,
        uids,
        threshold=srpo.threshold,
        rule=_with(srpo, srpo.variant("route")),
        providers={name: _with(srpo, variants.get("provider", name)) for name in srpo.providers},
        also_asked=_with(srpo, variants.get("route", srpo.asked)),
        contrast=_with(srpo, variants.get("provider", srpo.contrast)) if srpo.contrast else None,
        feedback=[rollouts[r].feedback for r in order],
        columns=[rollouts[r].columns for r in order],
        exclude=exclude,
        not_shown=torch.tensor([rollouts[r].without_text for r in order], dtype=torch.bool),
        lengths=[rollouts[r].response_length for r in order],
        responses=[rollouts[r].response for r in order],
        questions=[rollouts[r].question for r in order],
        states=states,
        step=step,
    )
    statistics = group_statistics(verdicts, uids, threshold=srpo.threshold, exclude=exclude)
    plan = RoutingPlan(tuple(rollouts), final, counted, _in_batch_order(ordered, order), statistics, group_size, step)
    return plan.without([row for row in rows if rollouts[row].without_tokens])


def _route(srpo: SRPOConfig, *args: Any, **options: Any) -> Routing:
    """`route`, whose complaints name the variants that may be meant."""
    try:
        return route(*args, **options)
    except VariantError:
        raise
    except (ValueError, RuntimeError, TypeError) as error:
        used = [srpo.variant("route"), variants.get("route", srpo.asked), *srpo.used_providers()]
        foreign = ", ".join(str(variant) for variant in used if not variant.built_in)
        if not foreign:
            raise
        raise VariantError(f"{foreign}: {error}") from error


def _with(srpo: SRPOConfig, variant: variants.Variant) -> Callable[..., Any]:
    def call(rollouts: Rollouts, *others: Any) -> Any:
        # A stranger's function may change what it is given; ours do not, and a state can be large.
        own = rollouts if variant.built_in else replace(rollouts, states=copy.deepcopy(dict(rollouts.states)))
        return variant(own, *others, srpo)

    return call


def _in_batch_order(ordered: Routing, order: Sequence[int]) -> Routing:
    place = torch.tensor(order, dtype=torch.long)

    def back(values: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(values).index_copy_(0, place, values)

    demonstration = torch.where(ordered.demonstration >= 0, place[ordered.demonstration.clamp(min=0)], -1)
    texts = dict(zip(order, ordered.texts, strict=True))
    return replace(
        ordered,
        share=back(ordered.share),
        demonstration=back(demonstration),
        texts=tuple(texts[row] for row in range(len(order))),
        correct=back(ordered.correct),
        provider=back(ordered.provider),
        asked=back(ordered.asked),
        contrast=torch.where(ordered.contrast >= 0, place[ordered.contrast.clamp(min=0)], -1)[place.argsort()],
        inside=place[ordered.inside],
    )
