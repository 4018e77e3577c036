"""What to change when a plan does not fit: which key to which value, each tried by planning again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from workflows.plan.memory import generation_moments, rollout_engine
from workflows.plan.plan import Plan, plan_settings
from workflows.plan.settings import Settings

ACTOR = "actor_rollout_ref.actor"
ROLLOUT = "actor_rollout_ref.rollout"
MAX_NODES = 64
# Token budgets of micro-batches: their keys, and the moments whose memory they bound.
_KEYS = {
    "log_prob_tokens": f"{ROLLOUT}.log_prob_max_token_len_per_gpu",
    "teacher_tokens": "srpo.teacher.max_token_len_per_gpu",
    "actor_tokens": f"{ACTOR}.ppo_max_token_len_per_gpu",
}
_BUDGETS = {"log_prob_tokens": ("old log-probs",), "teacher_tokens": ("teacher",), "actor_tokens": ("loss", "backward")}


@dataclass(frozen=True)
class Change:
    """Hydra overrides, and what the plan would be with them."""

    overrides: tuple[str, ...]
    plan: Plan

    @property
    def fits(self) -> bool:
        return not self.plan.misfits()


def advise(plan: Plan) -> list[Change]:
    """Changes that make a plan fit: of single keys, else of several together, and of more nodes.

    [] if it fits as it is or nothing helps; one change that does not fit if some things help but not enough.
    """
    if not plan.misfits():
        return []
    found = [change for change in _changes(plan) if change.fits]
    combined = None if found else _combine(plan)
    found += [combined] if combined and combined.fits else []
    found += [] if plan.settings.cpu else _more_nodes(plan)
    return found or ([combined] if combined else [])


def _changes(plan: Plan) -> Iterator[Change]:
    """Changes of one key that could help, cheapest first."""
    settings = plan.settings

    def change(*overrides: str, **fields: Any) -> Change:
        return Change(overrides, _again(plan, replace(settings, **fields)))

    if not settings.checkpointing:
        yield change("actor_rollout_ref.model.enable_gradient_checkpointing=true", checkpointing=True)
    for field in _BUDGETS:
        tokens = _largest_budget(plan, field)
        if tokens is not None:
            yield _with_budget(plan, field, tokens)
    if settings.cpu:
        return
    if (share := _memory_share(plan)) is not None:
        yield change(f"{ROLLOUT}.gpu_memory_utilization={share:.2f}", memory_share=share)
    if not settings.optimizer_offload:
        yield change(f"{ACTOR}.fsdp_config.optimizer_offload=true", optimizer_offload=True)
    if not settings.param_offload and settings.even_shards:
        yield change(f"{ACTOR}.fsdp_config.param_offload=true", param_offload=True)
    for split in (2, 4, 8):
        divides = settings.ranks_per_node % split == 0 and settings.shape.kv_heads % split == 0
        if divides and split > settings.tensor_parallel:
            yield change(f"{ROLLOUT}.tensor_model_parallel_size={split}", tensor_parallel=split)


def _combine(plan: Plan) -> Change | None:
    """Change after change, always the one that takes most off what is too much; None if nothing helps."""
    overrides: list[str] = []
    while plan.misfits():
        best = min(_changes(plan), key=lambda change: _excess(change.plan), default=None)
        if best is None or _excess(best.plan) >= _excess(plan):
            break
        plan = best.plan
        overrides += best.overrides
    return Change(tuple(overrides), plan) if overrides else None


def _excess(plan: Plan) -> float:
    """Bytes over all moments that do not fit; a missing cache counts as what it lacks."""
    if plan.engine is None:
        return max(0.0, plan.host.total - plan.gpu.memory)
    lacking = plan.settings.shape.kv_bytes(plan.settings.max_model_len, plan.settings.rollout_bytes)
    short = max(0.0, lacking / plan.settings.tensor_parallel - plan.engine.cache)
    return short + sum(max(0.0, moment.total - plan.gpu.memory) for moment in plan.moments)


def _followers(settings: Settings, field: str) -> list[str]:
    """A token budget, and those that follow it: verl's log-probs take the update's, our teacher the log-probs'."""
    fields = [field]
    if field == "actor_tokens" and settings.log_prob_tokens == settings.actor_tokens:
        fields.append("log_prob_tokens")
    if "log_prob_tokens" in fields and settings.teacher_tokens == max(
        settings.log_prob_tokens, _longest(settings, "teacher_tokens")
    ):
        fields.append("teacher_tokens")
    return fields


def _longest(settings: Settings, field: str) -> int:
    """Tokens of a rank of the longest row of the pass that a budget is for: it cannot be smaller."""
    prompt = settings.max_teacher_prompt if field == "teacher_tokens" else settings.max_prompt
    return -(-(prompt + settings.max_response) // settings.sequence_parallel)


def _with_budget(plan: Plan, field: str, tokens: int) -> Change:
    """The plan with a smaller budget. The overrides name the teacher's only where it is the one that is changed."""
    settings, fields = plan.settings, _followers(plan.settings, field)
    changed = {name: max(tokens, _longest(settings, name)) for name in fields}
    named = [name for name in fields if name == field or name != "teacher_tokens"]
    overrides = tuple(f"{_KEYS[name]}={changed[name]}" for name in named)
    return Change(overrides, _again(plan, replace(settings, **changed)))  # type: ignore[arg-type]


def _largest_budget(plan: Plan, field: str) -> int | None:
    """The largest token budget below the present one with which its moments fit; None if they fit or never do."""
    bounded = [moment for name in _followers(plan.settings, field) for moment in _BUDGETS[name]]

    def fits(tokens: int) -> bool:
        again = _with_budget(plan, field, tokens).plan
        if plan.settings.cpu:
            return not again.misfits()
        return all(moment.total <= plan.gpu.memory for moment in again.moments if moment.name in bounded)

    now = getattr(plan.settings, field)
    return None if fits(now) else _search(fits, _longest(plan.settings, field), now)


def _search(fits: Callable[[int], bool], least: int, most: int, step: int = 256) -> int | None:
    """The largest of least, least + step, ... below `most` that fits; None if the least does not."""
    if most <= least or not fits(least):
        return None
    low, high = 0, (most - least - 1) // step + 1
    while high - low > 1:
        middle = (low + high) // 2
        if fits(least + middle * step):
            low = middle
        else:
            high = middle
    return least + low * step


def _memory_share(plan: Plan) -> float | None:
    """vLLM's largest share with which generation fits beside the trainer; None if that is the present one or none."""
    settings, gpu = plan.settings, plan.gpu
    for hundredths in range(95, 4, -1):
        tried = replace(settings, memory_share=hundredths / 100)
        enough = rollout_engine(tried, gpu).cache_tokens >= settings.max_model_len
        if enough and all(moment.total <= gpu.memory for moment in generation_moments(tried, gpu)):
            now = rollout_engine(settings, gpu).cache_tokens >= settings.max_model_len
            return None if now and settings.memory_share <= tried.memory_share else tried.memory_share
    return None


def _more_nodes(plan: Plan) -> list[Change]:
    nodes = plan.settings.nodes * 2
    while nodes <= MAX_NODES:
        ranks = nodes * plan.settings.ranks_per_node
        shards = ranks if plan.settings.shards == plan.settings.ranks else plan.settings.shards
        again = _again(plan, replace(plan.settings, nodes=nodes, ranks=ranks, shards=shards))
        if not again.misfits():
            return [Change((f"trainer.nnodes={nodes}",), again)]
        nodes *= 2
    return []


def _again(plan: Plan, settings: Settings) -> Plan:
    return plan_settings(
        settings,
        plan.gpu,
        plan.lengths,
        routed=plan.routed,
        flash_cross_entropy=plan.flash_cross_entropy,
        expected=plan.expected,
    )
