"""The `srpo/...` metrics that the driver computes; docs/metrics.md has one line each. No verl, no Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from srpo_verl.core import PROBLEMS, TeacherPrompt
from srpo_verl.training.step.routing_plan import RoutingPlan
from srpo_verl.training.step.teacher_prompts import LeftOut

# What is counted over a batch, where others are means, shares or extremes.
COUNTS = (
    "srpo/infra_errors",
    "srpo/bad_score/",
    "srpo/without_text",
    "srpo/rollout_failures",
    "srpo/teacher_prompt/truncated",
    "srpo/teacher_prompt/dropped_tokens",
    "srpo/teacher_prompt/too_long",
    "srpo/teacher_prompt/bad_messages",
    "srpo/teacher_prompt/nothing_to_show",
    "srpo/teacher_prompt/shortened_results",
    "srpo/teacher_prompt/dropped_turns",
    "srpo/contrast/left_out",
    "srpo/tools/failed",
    "srpo/tools/no_answer",
    "srpo/routed_tokens",
    "srpo/skipped_updates",
)


def is_count(name: str) -> bool:
    """Whether the metrics of a batch that is cut into parts add up to that of the batch."""
    return name.startswith(COUNTS)


def routing_metrics(plan: RoutingPlan) -> dict[str, float]:
    """Shares over counted rollouts, and length, accuracy and format by route."""
    counted = plan.counted
    total = max(int(counted.sum()), 1)
    real = [rollout for rollout in plan.rollouts if not rollout.padding]
    metrics = {
        "srpo/routed_share": int(plan.routed.sum()) / total,
        "srpo/with_teacher_information": int(plan.routing.teacher_available.sum()) / total,
        "srpo/accuracy": int(plan.routing.correct.sum()) / total,
        "srpo/groups/all_correct": plan.groups.all_correct,
        "srpo/groups/all_wrong": plan.groups.all_wrong,
        "srpo/groups/mixed": plan.groups.mixed,
        "srpo/infra_errors": sum(rollout.undecided for rollout in real),
    }
    for name, rows in (("sdpo", plan.routed), ("grpo", counted & ~plan.routed)):
        chosen = [plan.rollouts[row] for row in rows.nonzero().squeeze(-1).tolist()]
        if not chosen:
            continue
        metrics[f"srpo/{name}/response_length"] = sum(r.response_length for r in chosen) / len(chosen)
        metrics[f"srpo/{name}/accuracy"] = float(plan.routing.correct[rows].double().mean())
        formats = [float(r.reward_info["format_ok"]) for r in chosen if r.reward_info and "format_ok" in r.reward_info]
        if formats:
            metrics[f"srpo/{name}/format_ok"] = sum(formats) / len(formats)
    return metrics


def tool_metrics(plan: RoutingPlan) -> dict[str, float]:
    """Tool calls of the sessions of a batch; {} for a run whose agent loop has no tools."""
    sessions = [plan.rollouts[row] for row in sorted(set(plan.final.tolist())) if not plan.rollouts[row].padding]
    counts = [session.tool_counts for session in sessions if session.tool_counts is not None]
    if not counts:
        return {}
    return {
        "srpo/tools/calls": sum(count["calls"] for count in counts) / len(counts),
        "srpo/tools/failed": float(sum(count["failed"] for count in counts)),
        "srpo/tools/no_answer": float(sum(count["no_answer"] for count in counts)),
        "srpo/tools/with_failure": sum(count["failed"] > 0 for count in counts) / len(counts),
    }


def advantage_metrics(plan: RoutingPlan, advantages: torch.Tensor) -> dict[str, float]:
    """`advantages`: (n,), one per row; the share of counted rollouts that the policy gradient acts on."""
    acting = int((advantages[plan.counted] != 0).sum())
    return {"srpo/grpo/with_advantage": acting / max(int(plan.counted.sum()), 1)}


def bad_data_metrics(plan: RoutingPlan, failures: Sequence[Mapping[str, Any]], rows_left_out: int) -> dict[str, float]:
    """What is wrong with the rollouts of a batch, by kind; `failures` are notes of rollouts that are not in it."""
    real = [rollout for rollout in plan.rollouts if not rollout.padding]
    problems = Counter((rollout.reward_info or {}).get("bad_score", "") for rollout in real)
    return {
        "srpo/rows_left_out": float(rows_left_out),
        "srpo/rollout_failures": float(sum(not note["validate"] for note in failures)),
        "srpo/without_text": float(sum(rollout.without_text for rollout in real)),
        **{f"srpo/bad_score/{kind}": float(problems[kind]) for kind in PROBLEMS},
    }


def prompt_metrics(prompts: Sequence[TeacherPrompt], left_out: LeftOut) -> dict[str, float]:
    """Lengths of the teacher prompts, how many had to be shortened, and how many could not be made."""
    metrics = {
        "srpo/teacher_prompt/too_long": float(len(left_out.too_long)),
        "srpo/teacher_prompt/bad_messages": float(len(left_out.bad_messages)),
        "srpo/teacher_prompt/nothing_to_show": float(len(left_out.nothing_to_show)),
    }
    if left_out.contrast is not None:
        metrics["srpo/contrast/left_out"] = float(left_out.contrast)
    if prompts:
        lengths = [len(prompt.input_ids) for prompt in prompts]
        metrics["srpo/teacher_prompt/length_mean"] = sum(lengths) / len(lengths)
        metrics["srpo/teacher_prompt/length_max"] = float(max(lengths))
        metrics["srpo/teacher_prompt/truncated"] = float(sum(prompt.truncated for prompt in prompts))
        metrics["srpo/teacher_prompt/dropped_turns"] = float(sum(prompt.dropped_turns for prompt in prompts))
        metrics["srpo/teacher_prompt/shortened_results"] = float(sum(prompt.shortened_results for prompt in prompts))
        metrics["srpo/teacher_prompt/dropped_tokens"] = float(sum(prompt.dropped_tokens for prompt in prompts))
    return metrics


def token_metrics(
    teacher_entropy: torch.Tensor, student_entropy: torch.Tensor, weights: torch.Tensor
) -> dict[str, float]:
    """Over the routed valid tokens, all (tokens,): entropies in nats and the spread of the entropy weights."""
    if weights.numel() == 0:
        return {"srpo/routed_tokens": 0.0}
    return {
        "srpo/routed_tokens": float(weights.numel()),
        "srpo/teacher_entropy": float(teacher_entropy.mean()),
        "srpo/student_entropy": float(student_entropy.mean()),
        "srpo/weight/min": float(weights.min()),
        "srpo/weight/max": float(weights.max()),
        "srpo/weight/std": float(weights.std(correction=0)),
    }
