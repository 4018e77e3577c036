"""How old the weights are that a batch was sampled from, by route and within groups. No verl, no Ray.

A version of the weights is the step after which the rollout engine got them. verl writes the versions of the first and
the last token of each rollout on its tag (`min_global_steps`, `max_global_steps`) and logs both over the whole batch
(`training/off_policy/...`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from srpo_verl.training.step.routing_plan import RoutingPlan


def staleness_metrics(plan: RoutingPlan, tags: Sequence[Mapping[str, Any]], *, version: int) -> dict[str, float]:
    """Over the counted rollouts.

    Args:
        tags: of the rows, in the order of the plan.
        version: of the weights that are about to be updated.

    Returns:
        srpo/staleness/interrupted: the share that more than one version has written.
        srpo/staleness/group_spread: versions between the oldest and the newest token of a group, mean over groups.
        srpo/staleness/sdpo, .../grpo: versions between `version` and the oldest token, mean by route.
    """
    rows = plan.counted.nonzero().squeeze(-1).tolist()
    if not rows:
        return {}
    oldest = {row: int(tags[row]["min_global_steps"]) for row in rows}
    newest = {row: int(tags[row]["max_global_steps"]) for row in rows}
    groups: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        groups[plan.rollouts[row].session[0]].append(row)
    spreads = [max(newest[row] for row in group) - min(oldest[row] for row in group) for group in groups.values()]
    metrics = {
        "srpo/staleness/interrupted": sum(newest[row] > oldest[row] for row in rows) / len(rows),
        "srpo/staleness/group_spread": sum(spreads) / len(spreads),
    }
    routed = set(plan.routed_rows())
    for name, chosen in (("sdpo", [r for r in rows if r in routed]), ("grpo", [r for r in rows if r not in routed])):
        if chosen:
            metrics[f"srpo/staleness/{name}"] = sum(version - oldest[row] for row in chosen) / len(chosen)
    return metrics
