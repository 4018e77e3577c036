"""One batch through SRPO as its paper has it and as the code of RLCSD runs it: objective and gradient by change.

    python -m laboratory.which_srpo

A random tiny model and four questions of eight answers each: all wrong, one right, half right, all right. Every answer
has siblings and a reference, so that only the methods decide who learns from what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from laboratory.methods import compose
from laboratory.table_text import table as markdown
from laboratory.twin import Batch, Twin, gradient
from srpo_verl.config import settings
from srpo_verl.training.step.routing_plan import Rollout, build_plan

VOCABULARY, ANSWERS = 48, 8
RIGHT = {"all wrong": 0, "one right": 1, "half right": 4, "all right": 8}
# Each line adds its settings to those of the line before it.
CHANGES: dict[str, tuple[str, ...]] = {
    "SRPO (2604.02288)": (),
    "+ routed by the sign of the advantage": ("srpo.route=sign_routed",),
    "+ shown the reference": ("srpo.providers=[reference]",),
    "+ advantages over their standard deviation (`srpo_sign_routed`)": ("srpo.advantage=group_std",),
}
PER_MICRO_BATCH = "+ weights and denominator of each micro-batch (a question)"


@dataclass(frozen=True)
class Found:
    """What one set of settings makes of the batch."""

    distilled: int
    objective: float
    gradient: torch.Tensor
    # Of the divergence alone.
    divergence: torch.Tensor


def model() -> Qwen2ForCausalLM:
    """Random weights, large enough for teacher and student to disagree."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(
        vocab_size=VOCABULARY, num_key_value_heads=4, initializer_range=0.35, attn_implementation="eager", **sizes
    )
    return Qwen2ForCausalLM(config).float()


def batch(overrides: Sequence[str], questions: Sequence[str] = tuple(RIGHT)) -> tuple[Twin, Batch]:
    """The twin with these settings, and the answers to these questions as it routes them."""
    rng = torch.Generator().manual_seed(0)

    def tokens(length: int) -> torch.Tensor:
        return torch.randint(VOCABULARY, (length,), generator=rng)

    lengths = {name: 6 + 4 * place for place, name in enumerate(RIGHT)}
    asked = {name: (tokens(6), tokens(10), [tokens(lengths[name] + n) for n in range(ANSWERS)]) for name in RIGHT}
    config = compose(["srpo.topk=12", "actor_rollout_ref.actor.optim.lr_warmup_steps=0", *overrides])
    srpo = settings(config.srpo)
    places = [(name, n) for name in questions for n in range(ANSWERS)]
    rollouts = [
        Rollout(
            key=f"{questions.index(name)}_{n}_0",
            # The right ones are spread over the group.
            score=float((n * 3) % ANSWERS < RIGHT[name]),
            response_length=lengths[name] + n,
            columns={"extra_info": {"solution": "a reference"}},
        )
        for name, n in places
    ]
    plan = build_plan(rollouts, srpo)
    prompts = {}
    for row in plan.asked_rows():
        question, reference, answers = asked[places[row][0]]
        sibling = int(plan.routing.demonstration[row])
        prompts[row] = torch.cat([question, reference if sibling < 0 else answers[places[sibling][1]]])
    responses = [asked[name][2][n] for name, n in places]
    ones = [torch.ones(len(response)) for response in responses]
    made = Batch(
        plan=plan,
        prompts=[asked[name][0] for name, _ in places],
        responses=responses,
        masks=[torch.ones_like(response) for response in responses],
        rewards=torch.tensor([rollout.score for rollout in rollouts]),
        teacher_prompts=prompts,
        importance=ones,
    )
    return Twin(model(), config), made


def measure(overrides: Sequence[str], questions: Sequence[str] = tuple(RIGHT)) -> Found:
    """Objective and gradient of one batch."""
    twin, made = batch(overrides, questions)
    whole = gradient(twin, made)
    twin.objective.branch = "sdpo"
    part = gradient(twin, made) if made.plan.routed.any() else None
    flat = torch.cat([value.flatten() for value in whole["gradient"].values()])
    of_part = torch.cat([value.flatten() for value in part["gradient"].values()]) if part else torch.zeros_like(flat)
    return Found(int(made.plan.routed.sum()), whole["loss"], flat, of_part)


def per_micro_batch(overrides: Sequence[str]) -> Found:
    """The mean over micro-batches, each with weights and a denominator of its own."""
    parts = [measure(overrides, [name]) for name in RIGHT]
    return Found(
        sum(part.distilled for part in parts),
        sum(part.objective for part in parts) / len(parts),
        torch.stack([part.gradient for part in parts]).mean(0),
        torch.stack([part.divergence for part in parts]).mean(0),
    )


def table() -> str:
    """The whole comparison as text."""
    overrides: tuple[str, ...] = ()
    found: dict[str, Found] = {}
    for name, added in CHANGES.items():
        overrides += added
        found[name] = measure(overrides)
    found[PER_MICRO_BATCH] = per_micro_batch(overrides)
    (ours, *_) = found.values()
    rows = [
        [
            name,
            f"{line.distilled} of {ANSWERS * len(RIGHT)}",
            f"{line.objective:.4f}",
            f"{float(line.gradient.norm()):.4f}",
            f"{float(torch.cosine_similarity(line.gradient, ours.gradient, dim=0)):.3f}",
            f"{float(line.divergence.norm()):.4f}",
            f"{float(torch.cosine_similarity(line.divergence, ours.divergence, dim=0)):.3f}",
        ]
        for name, line in found.items()
    ]
    return markdown(
        [
            "settings",
            "distilled",
            "objective",
            "gradient",
            "cosine to the first",
            "gradient of the divergence",
            "cosine to the first",
        ],
        rows,
    )


if __name__ == "__main__":
    print(table())
