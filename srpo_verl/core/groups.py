"""Prompt groups: the G rollouts of one prompt, named by any hashable (a uid), turned into dense integer ids.

Also the small input checks that routing and advantages share.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

__all__ = ["group_ids"]


def group_ids(groups: Sequence[Hashable], count: int | None = None, *, device: torch.device | str | None = None):
    """Number the groups in order of first appearance.

    Args:
        groups: N hashables; equal ones belong to one prompt. A list, a numpy array (any dtype) or a tensor.
        count: if given, the N that is expected.
        device: where the ids shall live.

    Returns:
        `(ids, n_groups)`: ids int64 (N,) in `[0, n_groups)`.

    Raises:
        ValueError: the length is not `count`, or an entry cannot be hashed.
    """
    # tolist: the elements of a tensor hash by identity, and python objects hash faster than numpy scalars.
    labels = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    if count is not None and len(labels) != count:
        raise ValueError(f"groups has {len(labels)} entries for {count} rollouts; pass one group label per rollout.")
    numbers: dict[Hashable, int] = {}
    try:
        ids = [numbers.setdefault(label, len(numbers)) for label in labels]
    except TypeError as error:
        raise ValueError(f"group labels must be hashable, for instance the prompt's uid ({error}).") from error
    return torch.tensor(ids, dtype=torch.int64, device=device), len(numbers)


def check_scores(scores: torch.Tensor, exclude: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Validate per-rollout scores; returns them and the complement of `exclude`, bool (N,): what counts."""
    scores = torch.as_tensor(scores)
    if scores.dim() != 1:
        raise ValueError(
            f"scores must have shape (N,), one number per rollout, but has shape {tuple(scores.shape)}; "
            "sum token-level rewards over the response first."
        )
    if exclude is None:
        counted = torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
    else:
        counted = ~torch.as_tensor(exclude, device=scores.device).bool()
        if counted.shape != scores.shape:
            raise ValueError(
                f"exclude must have one entry per rollout: expected shape {tuple(scores.shape)}, "
                f"got {tuple(counted.shape)}."
            )
    if scores.is_floating_point():
        undefined = torch.isnan(scores) & counted
        if undefined.any():
            row = int(undefined.nonzero()[0])
            raise ValueError(
                f"the score of rollout {row} is NaN; exclude rollouts that the grader could not decide "
                "(exclude[row] = True), or give them a score."
            )
    return scores, counted
