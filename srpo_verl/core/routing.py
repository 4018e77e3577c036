"""Which rollout is distilled, and from what: the sample routing of SRPO (arXiv 2604.02288, section 3.1, Tables 6, 7).

    c_i      = 1[r_i >= threshold]                           correct
    m_i      = 1[there is teacher information for i]         a correct sibling, or else feedback
    z_i^SDPO = (1 - c_i) m_i,   z_i^GRPO = 1 - z_i^SDPO

Correctness is read off the score and never off the advantage: in an all-wrong group every advantage is zero, so its
sign says nothing, and such a group must stay in the GRPO branch.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from .groups import check_scores, group_ids

__all__ = ["PROVIDERS", "ROWS", "GroupStatistics", "Routing", "group_statistics", "route"]

ROWS = ("incorrect", "correct", "all", "none")
"""Which rollouts with teacher information are distilled: SRPO, two diagnosis runs, SDPO ("all") and GRPO ("none")."""

PROVIDERS = ("sibling", "feedback")
"""Sources of teacher information, best first; a rollout takes the first one that has something for it."""


@dataclass(frozen=True)
class Routing:
    """The outcome of `route`, one entry per rollout, on the device of the scores.

    Attributes:
        to_sdpo: bool (N,), z^SDPO; every other rollout belongs to the GRPO branch.
        demonstration: int64 (N,), index of the first correct sibling in the given order, self excluded; -1 if none.
            Given whatever the route is, because the teacher-information column of Table 7 does not depend on it.
        teacher_available: bool (N,), m.
        correct: bool (N,), c.
        provider: int64 (N,), index into `providers`; -1 where there is no teacher information.
        providers: the names of the sources, in order of preference.

    For an excluded rollout all of these are False or -1.
    """

    to_sdpo: torch.Tensor
    demonstration: torch.Tensor
    teacher_available: torch.Tensor
    correct: torch.Tensor
    provider: torch.Tensor
    providers: tuple[str, ...] = PROVIDERS


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
    feedback: Sequence[str | None] | None = None,
    rows: str = "incorrect",
    exclude: torch.Tensor | None = None,
) -> Routing:
    """Route every rollout to the GRPO or the SDPO branch (Table 7) and pick its demonstration (Table 6).

    Args:
        scores: (N,), any float dtype (bool and integers too); the verdict per rollout.
        groups: N hashables, equal for the rollouts of one prompt. They need not be adjacent.
        threshold: a rollout is correct when its score is at least this.
        feedback: N texts or None; a text that is not blank is teacher information where no correct sibling exists.
        rows: which rollouts with teacher information are distilled, one of `ROWS`.
        exclude: bool (N,); rollouts that the grader could not decide, or padding. They are not routed, are nobody's
            demonstration, and count nowhere.

    Returns:
        `Routing`. Linear in N.

    Raises:
        ValueError: unknown `rows`, wrong lengths, a NaN score that is not excluded, feedback that is not a text.
    """
    if rows not in ROWS:
        raise ValueError(f"rows must be one of {', '.join(ROWS)}, not {rows!r}.")
    scores, counted = check_scores(scores, exclude)
    ids, n_groups = group_ids(groups, scores.numel(), device=scores.device)

    correct = (scores >= threshold) & counted
    demonstration = _first_correct_sibling(correct, ids, n_groups)
    demonstration = torch.where(counted, demonstration, -1)

    has_information = {
        "sibling": demonstration >= 0,
        "feedback": _has_feedback(feedback, counted) & counted,
    }
    provider = torch.full_like(demonstration, -1)
    for index, name in enumerate(PROVIDERS):
        provider = torch.where((provider < 0) & has_information[name], index, provider)
    available = provider >= 0

    to_sdpo = {
        "incorrect": available & ~correct,
        "correct": available & correct,
        "all": available,
        "none": torch.zeros_like(available),
    }[rows]
    return Routing(to_sdpo, demonstration, available, correct, provider)


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
        groups, threshold, exclude: as for `route`; a group of excluded rollouts only is not counted.

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


def _has_feedback(feedback: Sequence[str | None] | None, counted: torch.Tensor) -> torch.Tensor:
    """bool (N,): whose feedback is a text that is not blank."""
    if feedback is None:
        return torch.zeros_like(counted)
    if isinstance(feedback, str) or len(feedback) != counted.numel():
        raise ValueError(f"feedback must be a sequence of {counted.numel()} entries (a text or None), one per rollout.")
    for row, (text, counts) in enumerate(zip(feedback, counted.tolist(), strict=True)):
        if counts and text is not None and not isinstance(text, str):
            raise ValueError(
                f"the feedback of rollout {row} is a {type(text).__name__}; the grader must give a text or None."
            )
    present = [isinstance(text, str) and bool(text.strip()) for text in feedback]
    return torch.tensor(present, dtype=torch.bool, device=counted.device)
