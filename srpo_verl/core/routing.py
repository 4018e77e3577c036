"""Which rollout is distilled, and from what: the sample routing of SRPO (arXiv 2604.02288, section 3.1, Tables 6, 7).

    c_i      = 1[r_i >= threshold]                           correct
    m_i      = 1[there is teacher information for i]         what the first provider that has something gives
    z_i^SDPO = (1 - c_i) m_i,   z_i^GRPO = 1 - z_i^SDPO      the rule "incorrect"; others give another z in [0, 1]

Correctness is read off the score and never off the advantage: in an all-wrong group every advantage is zero, so its
sign says nothing, and such a group must stay in the GRPO branch.

Rules and providers only ever see the rollouts that count, and what they answer is checked: nobody is its own teacher,
nobody without teacher information is distilled.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from .groups import check_scores, group_ids
from .rollouts import Rollouts, Shown, checked_contrast, checked_information, checked_share

__all__ = ["PROVIDERS", "RULES", "GroupStatistics", "Routing", "group_statistics", "route"]


Provider = Callable[[Rollouts], Shown]
Rule = Callable[[Rollouts, torch.Tensor], torch.Tensor]


def incorrect(rollouts: Rollouts, available: torch.Tensor) -> torch.Tensor:
    """SRPO (Table 7)."""
    return ~rollouts.correct


def correct(rollouts: Rollouts, available: torch.Tensor) -> torch.Tensor:
    """A diagnosis run of SDPO's loss."""
    return rollouts.correct


def everything(rollouts: Rollouts, available: torch.Tensor) -> torch.Tensor:
    """SDPO."""
    return torch.ones_like(rollouts.correct)


def nothing(rollouts: Rollouts, available: torch.Tensor) -> torch.Tensor:
    """GRPO."""
    return torch.zeros_like(rollouts.correct)


def sibling(rollouts: Rollouts) -> torch.Tensor:
    """The first correct sibling, self excluded (Table 6); of those that can be shown."""
    groups = int(rollouts.groups.max()) + 1 if len(rollouts) else 0
    return _first_correct_sibling(rollouts.correct & rollouts.showable, rollouts.groups, groups)


def feedback(rollouts: Rollouts) -> Sequence[str | None]:
    """What the grader said (Algorithm 1, line 5)."""
    return rollouts.feedback


RULES: Mapping[str, Rule] = MappingProxyType(
    {"incorrect": incorrect, "correct": correct, "all": everything, "none": nothing}
)
"""Which rollouts with teacher information are distilled."""
PROVIDERS: Mapping[str, Provider] = MappingProxyType({"sibling": sibling, "feedback": feedback})
"""Sources of teacher information, best first; a rollout takes the first one that has something for it."""


@dataclass(frozen=True)
class Routing:
    """The outcome of `route`, one entry per rollout, tensors on the device of the scores.

    Attributes:
        share: float64 (N,) in [0, 1], z^SDPO; what is left of 1 belongs to the GRPO branch.
        demonstration: int64 (N,), the sibling whose response is shown, -1 if none is. Given whatever the share is,
            because the teacher-information column of Table 7 does not depend on it.
        texts: what is shown of a provider that gives texts, None elsewhere.
        correct: bool (N,), c.
        provider: int64 (N,), index into `providers`; -1 where there is no teacher information.
        providers: the names of the sources, in order of preference.
        asked: bool (N,); whom the teacher is asked about: all that are distilled, and those of the rule `also_asked`.
        contrast: int64 (N, M), siblings that the teacher is shown in further passes, -1 for none.
        seen: what rules and providers saw, the rollouts that count.
        inside: int64, the place of each of these among the N.

    For an excluded rollout all of the first ones are 0, False, None or -1.
    """

    share: torch.Tensor
    demonstration: torch.Tensor
    texts: tuple[str | None, ...]
    correct: torch.Tensor
    provider: torch.Tensor
    providers: tuple[str, ...]
    asked: torch.Tensor
    contrast: torch.Tensor
    seen: Rollouts
    inside: torch.Tensor

    @property
    def to_sdpo(self) -> torch.Tensor:
        """bool (N,): distilled, at least in part."""
        return self.share > 0

    @property
    def teacher_available(self) -> torch.Tensor:
        """bool (N,), m."""
        return self.provider >= 0


@dataclass(frozen=True)
class GroupStatistics:
    """Shares of the groups that have at least one counted rollout; the three shares sum to 1 (0 without groups)."""

    groups: int
    all_correct: float
    all_wrong: float
    mixed: float


def route(
    scores: torch.Tensor,
    groups: Sequence[Hashable],
    *,
    threshold: float = 0.5,
    rule: Rule = incorrect,
    providers: Mapping[str, Provider] = PROVIDERS,
    feedback: Sequence[str | None] | None = None,
    columns: Sequence[Mapping[str, Any]] | None = None,
    exclude: torch.Tensor | None = None,
    not_shown: torch.Tensor | None = None,
    also_asked: Rule = nothing,
    contrast: Provider | None = None,
    lengths: Sequence[int] | None = None,
    responses: Sequence[str | None] | None = None,
    questions: Sequence[str] | None = None,
    states: Mapping[str, Any] | None = None,
    step: int = 1,
) -> Routing:
    """Route every rollout to the GRPO or the SDPO branch (Table 7) and pick what its teacher is shown (Table 6).

    Args:
        scores: (N,), any float dtype (bool and integers too); the verdict per rollout.
        groups: N hashables, equal for the rollouts of one prompt. They need not be adjacent.
        threshold: a rollout is correct when its score is at least this.
        rule: which rollouts are distilled: bool (N,), or a float (N,) in [0, 1]. It is multiplied by m.
        providers: by name, in order of preference.
        feedback: N texts or None, for the providers.
        columns: N mappings, for the providers.
        exclude: bool (N,); rollouts that the grader could not decide, or padding. No rule and no provider sees them.
        not_shown: bool (N,); rollouts whose response holds nothing to read. They are routed as any other.
        also_asked: which rollouts the teacher is asked about besides those that are distilled; as `rule`.
        contrast: a provider of int64 (N, M): siblings for further passes of the teacher, one after the other.
        lengths: N, as of `Rollouts`; the other four too.
        responses: N texts or None.
        questions: N names.
        states: by name.
        step: from 1.

    Returns:
        `Routing`. With our own rules and providers linear in N.

    Raises:
        ValueError: wrong lengths, a NaN score that is not excluded, feedback that is not a text; a rule or a provider
            whose answer has another form than said above, or that shows a rollout to itself or to another prompt's, or
            one with nothing to read.
    """
    scores, counted = check_scores(scores, exclude)
    ids, _ = group_ids(groups, scores.numel(), device=scores.device)
    inside = counted.nonzero().squeeze(-1)
    places = inside.tolist()
    seen_ids, _ = group_ids(ids[inside], device=scores.device)
    seen = Rollouts(
        scores=scores[inside],
        correct=scores[inside] >= threshold,
        groups=seen_ids,
        feedback=_per_rollout("feedback", feedback, None, len(counted), places),
        columns=_per_rollout("columns", columns, {}, len(counted), places),
        showable=_showable(not_shown, scores)[inside],
        lengths=torch.tensor(_per_rollout("lengths", lengths, 0, len(counted), places), dtype=torch.int64),
        responses=_per_rollout("responses", responses, None, len(counted), places),
        questions=_per_rollout("questions", questions, "", len(counted), places),
        states=states or {},
        step=step,
    )

    demonstration = torch.full_like(seen.groups, -1)
    provider = demonstration.clone()
    texts: list[str | None] = [None] * len(seen)
    for index, (name, provide) in enumerate(providers.items()):
        siblings, said = checked_information(name, provide(seen.copied()), seen)
        has_text = torch.tensor([text is not None for text in said], dtype=torch.bool, device=provider.device)
        takes = (provider < 0) & ((siblings >= 0) | has_text)
        provider[takes] = index
        demonstration[takes] = siblings[takes]
        texts = [new if take else old for new, old, take in zip(said, texts, takes.tolist(), strict=True)]
    share = checked_share(rule(seen.copied(), provider >= 0), seen) * (provider >= 0)
    asked = (share > 0) | ((checked_share(also_asked(seen.copied(), provider >= 0), seen) > 0) & (provider >= 0))
    others = checked_contrast(contrast(seen.copied()), seen) if contrast else seen.groups.new_empty((len(seen), 0))
    others = torch.where(asked.unsqueeze(-1), others, -1)

    def over_all(values: torch.Tensor, otherwise: float) -> torch.Tensor:
        full = values.new_full((scores.numel(), *values.shape[1:]), otherwise)
        return full.index_copy_(0, inside, values)

    def place_of(siblings: torch.Tensor) -> torch.Tensor:
        return torch.where(siblings >= 0, inside[siblings.clamp(min=0)] if len(seen) else -1, -1)

    of_all: list[str | None] = [None] * scores.numel()
    for place, text in zip(places, texts, strict=True):
        of_all[place] = text
    return Routing(
        share=over_all(share, 0.0),
        demonstration=over_all(place_of(demonstration), -1),
        texts=tuple(of_all),
        correct=over_all(seen.correct, False),
        provider=over_all(provider, -1),
        providers=tuple(providers),
        asked=over_all(asked, False),
        contrast=over_all(place_of(others), -1),
        seen=seen,
        inside=inside,
    )


def group_statistics(
    scores: torch.Tensor,
    groups: Sequence[Hashable],
    *,
    threshold: float = 0.5,
    exclude: torch.Tensor | None = None,
) -> GroupStatistics:
    """Shares of all-correct, all-wrong and mixed groups.

    Args:
        scores: (N,), scores to compare with `threshold`, or a bool tensor that already says which are correct.
        groups: as for `route`.
        threshold: likewise.
        exclude: likewise; a group of excluded rollouts only is not counted.

    Raises:
        ValueError: as `route`.
    """
    scores, counted = check_scores(scores, exclude)
    ids, n_groups = group_ids(groups, scores.numel(), device=scores.device)
    correct = scores if scores.dtype == torch.bool else scores >= threshold
    size = torch.bincount(ids[counted], minlength=n_groups)
    hits = torch.bincount(ids[counted & correct], minlength=n_groups)
    total = int((size > 0).sum())
    all_correct = int(((size > 0) & (hits == size)).sum())
    all_wrong = int(((size > 0) & (hits == 0)).sum())
    mixed = total - all_correct - all_wrong
    scale = max(total, 1)
    return GroupStatistics(total, all_correct / scale, all_wrong / scale, mixed / scale)


def _first_correct_sibling(correct: torch.Tensor, ids: torch.Tensor, n_groups: int) -> torch.Tensor:
    """Per rollout the lowest index of another correct rollout of its group, -1 if none; int64 (N,).

    The first correct one serves everybody but itself, the second one serves the first: two scatters, no loop.
    """
    count = correct.numel()
    none = count
    index = torch.arange(count, device=correct.device)

    def first(candidates: torch.Tensor) -> torch.Tensor:
        best = torch.full((n_groups,), none, dtype=torch.int64, device=correct.device)
        best.scatter_reduce_(0, ids, torch.where(candidates, index, none), reduce="amin")
        return best[ids]

    first_correct = first(correct)
    second_correct = first(correct & (index != first_correct))
    sibling = torch.where(first_correct == index, second_correct, first_correct)
    return torch.where(sibling == none, -1, sibling)


def _showable(not_shown: torch.Tensor | None, scores: torch.Tensor) -> torch.Tensor:
    if not_shown is None:
        return torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
    if not_shown.shape != scores.shape:
        raise ValueError(
            f"not_shown must have one entry per rollout, {tuple(scores.shape)}, not {tuple(not_shown.shape)}."
        )
    return ~not_shown.to(scores.device).bool()


def _per_rollout(name: str, values: Sequence[Any] | None, missing: Any, count: int, places: Sequence[int]) -> tuple:
    """The entries of the rollouts that count; checked."""
    if values is None:
        return (missing,) * len(places)
    if isinstance(values, str) or len(values) != count:
        raise ValueError(f"{name} must be a sequence of {count} entries, one per rollout; pass a list of that length.")
    return tuple(values[place] for place in places)
