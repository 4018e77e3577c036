"""Why each rollout of a step went where it went, and where other routes would have sent it; for the step's dump."""

from __future__ import annotations

import math
from typing import Any

import torch

from srpo_verl import variants
from srpo_verl.config import SRPOConfig
from srpo_verl.training.step.routing_plan import RoutingPlan
from srpo_verl.training.step.teacher_prompts import LeftOut

# Those of our routes that need nothing but the verdicts and lengths of a step.
ROUTES = ("incorrect", "correct", "all", "none", "all_wrong", "longest_wrong", "positive_advantage", "sign_routed")
_REASONS = {
    "too_long": "no teacher prompt: the question alone is longer than srpo.teacher.max_prompt_length",
    "bad_messages": "no teacher prompt: its messages are not a conversation",
    "nothing_to_show": "no teacher prompt: nothing is left of what the teacher would be shown",
}


def shares_of_routes(plan: RoutingPlan, srpo: SRPOConfig, left_out: LeftOut) -> dict[str, list[float]]:
    """By route, how much of each row it distils, (n,); the run's own first, as it was.

    Others see what the run's saw: its providers, and the rows without a teacher prompt left out.
    """
    seen, inside = plan.routing.seen, plan.routing.inside
    available = plan.routing.provider[inside] >= 0
    missing = [*left_out.too_long, *left_out.bad_messages, *left_out.nothing_to_show]
    missing += [row for row, rollout in enumerate(plan.rollouts) if rollout.without_tokens]
    found = {srpo.route: plan.routing.share.tolist()}
    for name in ROUTES:
        if name == srpo.route:
            continue
        rule = variants.get("route", name)
        share = torch.zeros_like(plan.routing.share)
        share[inside] = rule(seen.copied(), available, srpo).to(share.dtype) * available
        share[missing] = 0.0
        found[name] = share.tolist()
    return found


def rollout_line(
    plan: RoutingPlan, row: int, srpo: SRPOConfig, left_out: LeftOut, advantages: torch.Tensor
) -> dict[str, Any]:
    """Verdict, branch and reason of one row, as JSON types; `advantages` (j,) are those that are trained on."""
    rollout, routing = plan.rollouts[row], plan.routing
    uid, session = rollout.session
    sibling, provider = int(routing.demonstration[row]), int(routing.provider[row])
    branch, why = reason(plan, row, srpo, left_out, trained=bool((advantages != 0).any()))
    return {
        "row": row,
        "uid": uid,
        "session": session,
        "output": rollout.index,
        "score": rollout.score if math.isfinite(rollout.score) else None,
        "correct": bool(routing.correct[row]) if bool(plan.counted[row]) else None,
        "sibling": plan.rollouts[sibling].session[1] if sibling >= 0 else None,
        "sibling_row": sibling if sibling >= 0 else None,
        "provider": routing.providers[provider] if provider >= 0 else None,
        "asked": bool(routing.asked[row]),
        "share": float(routing.share[row]),
        "branch": branch,
        "why": why,
    }


def reason(plan: RoutingPlan, row: int, srpo: SRPOConfig, left_out: LeftOut, *, trained: bool) -> tuple[str, str]:
    """The branch of a row, "distilled", "reinforced" or "neither", and why; `trained`: it has an advantage."""
    rollout = plan.rollouts[row]
    share, branch = float(plan.routing.share[row]), "reinforced" if trained else "neither"
    if share > 0:
        shown = plan.routing.providers[int(plan.routing.provider[row])]
        how = "" if srpo.logit_loss else "; the teacher enters as an advantage"
        part = "" if share == 1 else f", {share:.3g} of it"
        return "distilled", f"route {srpo.route} takes it{part}, and the teacher is shown: {shown}{how}"
    if rollout.undecided:
        return branch, "the grader could not decide: it counts nowhere"
    if int(plan.final[row]) != row:
        return branch, "an earlier output of its session, whose last one is routed"
    if rollout.without_tokens:
        return branch, "it has no valid token of the model's"
    for name, why in _REASONS.items():
        if row in getattr(left_out, name):
            return branch, why
    if srpo.route == "none":
        why = "route none distils nobody"
    elif int(plan.routing.provider[row]) < 0:
        why = f"none of {', '.join(srpo.providers)} has anything that its teacher could be shown"
    else:
        why = f"route {srpo.route} leaves it"
    if branch == "neither":
        flat = "the method has no policy gradient" if srpo.policy_gradient == "none" else "its advantage is 0"
        why += f", and {flat}"
    return branch, why
