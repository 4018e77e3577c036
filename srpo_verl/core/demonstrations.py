"""Which siblings a teacher is shown, for methods other than SRPO, which shows the first right one (`routing.sibling`).

Nobody is shown to itself, and nobody to another prompt.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .rollouts import Rollouts

__all__ = ["best_sibling", "random_sibling", "shortest_sibling", "wrong_siblings"]


def best_sibling(rollouts: Rollouts, candidates: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    """The candidate of lowest rank in the rollout's group, itself excluded; of equal ones the first.

    Args:
        candidates: bool (N,).
        rank: (N,), numbers.

    Returns:
        int64 (N,), -1 for none. The best one of a group serves everybody but itself, the second best serves the best.
    """
    best = torch.full_like(rollouts.groups, -1)
    order = _by_group(rollouts, candidates, rank)
    for row, group in enumerate(rollouts.groups.tolist()):
        best[row] = next((other for other in order.get(group, ()) if other != row), -1)
    return best


def shortest_sibling(rollouts: Rollouts) -> torch.Tensor:
    """The right sibling with the fewest tokens (SSOPD, arXiv 2605.17497)."""
    return best_sibling(rollouts, rollouts.correct & rollouts.showable, rollouts.lengths)


def random_sibling(rollouts: Rollouts) -> torch.Tensor:
    """Any right sibling, the same one for the whole group but itself; drawn anew in each step, from its number."""
    draws = torch.rand(len(rollouts), generator=torch.Generator().manual_seed(rollouts.step), dtype=torch.float64)
    return best_sibling(rollouts, rollouts.correct & rollouts.showable, draws)


def wrong_siblings(rollouts: Rollouts, *, passes: int) -> torch.Tensor:
    """Up to `passes` wrong siblings in a random order (RLCSD, arXiv 2606.11709); int64 (N, passes), -1 for none."""
    draws = torch.rand(len(rollouts), generator=torch.Generator().manual_seed(rollouts.step), dtype=torch.float64)
    order = _by_group(rollouts, ~rollouts.correct & rollouts.showable, draws)
    found = rollouts.groups.new_full((len(rollouts), passes), -1)
    for row, group in enumerate(rollouts.groups.tolist()):
        others = [other for other in order.get(group, ()) if other != row][:passes]
        found[row, : len(others)] = torch.tensor(others, dtype=torch.int64)
    return found


def _by_group(rollouts: Rollouts, candidates: torch.Tensor, rank: torch.Tensor) -> dict[int, list[int]]:
    """By group its candidates, lowest rank first."""
    key: Callable[[int], tuple[float, int]] = lambda row: (float(rank[row]), row)  # noqa: E731
    order: dict[int, list[int]] = {}
    for row in sorted(candidates.nonzero().squeeze(-1).tolist(), key=key):
        order.setdefault(int(rollouts.groups[row]), []).append(row)
    return order
