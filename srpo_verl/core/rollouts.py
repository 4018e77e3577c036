"""What rules and providers see of a batch, and how what they answer is checked.

They see only the rollouts that count. Nobody is shown to itself, to another prompt's rollout, or without something to
read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch

__all__ = ["NOTHING", "Nothing", "Rollouts", "Shown", "checked_contrast", "checked_information", "checked_share"]


@dataclass(frozen=True)
class Rollouts:
    """What rules and providers see: the N rollouts that count, in the given order.

    Attributes:
        scores: (N,), any float dtype; the verdicts.
        correct: bool (N,), c.
        groups: int64 (N,), equal for the rollouts of one prompt; numbered from 0.
        feedback: N texts or None, what the grader said.
        columns: N mappings, the columns of the data set that a provider asked for.
        showable: bool (N,); whether there is something in the response that a teacher could be shown.
        lengths: int64 (N,), tokens of the response.
        responses: N texts, what was answered, where a variant asked for them; None elsewhere.
        questions: N texts, equal for the same question in any step, where the run keeps states; empty elsewhere.
        states: by name, what the run's states held before this step.
        step: of training, from 1.
    """

    scores: torch.Tensor
    correct: torch.Tensor
    groups: torch.Tensor
    feedback: tuple[str | None, ...]
    columns: tuple[Mapping[str, Any], ...]
    showable: torch.Tensor
    lengths: torch.Tensor
    responses: tuple[str | None, ...] = ()
    questions: tuple[str, ...] = ()
    states: Mapping[str, Any] = field(default_factory=dict)
    step: int = 1

    def __len__(self) -> int:
        return self.scores.numel()

    def copied(self) -> Rollouts:
        """For each function its own: what it does to them must not reach the checks, or the next one."""
        tensors = ("scores", "correct", "groups", "showable", "lengths")
        return replace(self, **{name: getattr(self, name).clone() for name in tensors})


class Nothing(str):
    """A text that is shown as nothing at all, where an empty one would mean that there is none."""


NOTHING = Nothing()
"""What a provider answers if the teacher is to read the question alone, as the student does."""

Shown: TypeAlias = torch.Tensor | Sequence[str | None]
"""What a provider answers: int64 (N,), the sibling whose response is shown, -1 for none; or N texts or None."""


def checked_information(name: str, shown: Any, seen: Rollouts) -> tuple[torch.Tensor, list[str | None]]:
    """Siblings (N,) int64 and texts, of which one says nothing."""
    count = len(seen)
    if isinstance(shown, torch.Tensor):
        if shown.shape != (count,) or shown.dtype != torch.int64:
            raise ValueError(
                f"provider {name} must give int64 ({count},) or {count} texts, not {shown.dtype} {tuple(shown.shape)}."
            )
        there = shown >= 0
        if bool((shown < -1).any() or (shown >= count).any()):
            raise ValueError(f"provider {name} names a rollout outside 0..{count - 1}; -1 stands for none.")
        itself = there & (shown == torch.arange(count, device=shown.device))
        stranger = there & (seen.groups[shown.clamp(min=0)] != seen.groups if count else there)
        empty = there & (~seen.showable[shown.clamp(min=0)] if count else there)
        wrongs = ((itself, "to itself"), (stranger, "a rollout of another prompt"), (empty, "one with nothing to read"))
        for wrong, what in wrongs:
            if wrong.any():
                raise ValueError(f"provider {name} shows rollout {int(wrong.nonzero()[0])} {what}.")
        return shown, [None] * count
    if isinstance(shown, str | bytes) or not isinstance(shown, Sequence) or len(shown) != count:
        raise ValueError(f"provider {name} must give a sequence of {count} texts or None, one per rollout it sees.")
    for row, text in enumerate(shown):
        if text is not None and not isinstance(text, str):
            raise ValueError(f"the {name} of rollout {row} is a {type(text).__name__}; it must be a text or None.")
    kept = [text if text is not None and (text.strip() or isinstance(text, Nothing)) else None for text in shown]
    return torch.full_like(seen.groups, -1), kept


def checked_contrast(shown: Any, seen: Rollouts) -> torch.Tensor:
    """(N, M) int64, each column of which is what a provider of siblings may answer."""
    if not isinstance(shown, torch.Tensor) or shown.dim() != 2:
        raise ValueError(f"the provider of the contrast must give int64 ({len(seen)}, M), siblings by pass.")
    columns = [checked_information("of the contrast", column, seen)[0] for column in shown.unbind(1)]
    return torch.stack(columns, dim=1) if columns else shown.long()


def checked_share(share: Any, seen: Rollouts) -> torch.Tensor:
    if not isinstance(share, torch.Tensor) or share.shape != (len(seen),):
        found = tuple(share.shape) if isinstance(share, torch.Tensor) else type(share).__name__
        raise ValueError(f"a rule must give a tensor ({len(seen)},), one number per rollout it sees, not {found}.")
    share = share.detach().double()
    if not bool(((share >= 0) & (share <= 1)).all()):
        raise ValueError("a rule must give booleans or numbers in [0, 1].")
    return share
