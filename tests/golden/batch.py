"""One fixed batch, as the trainer would read it: every kind of group, verdict and row that routing tells apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from srpo_verl.config import SRPOConfig
from srpo_verl.training.routing_plan import RoutingPlan, build_plan, rollout_of

VOCABULARY = 280
# Ids below are special tokens of the tiny model's tokenizer.
FIRST_TOKEN, END = 3, 2
SESSIONS = 4
PADDING = 3

# Per output `{uid}_{session}_{index}`: the score and what the grader says beside it.
OUTPUTS: dict[str, tuple[float, dict[str, Any] | None]] = {
    # mixed
    "a_0_0": (0.0, {"format_ok": 0.0}),
    "a_1_0": (1.0, {"format_ok": 1.0}),
    "a_2_0": (0.0, None),
    "a_3_0": (1.0, None),
    # all wrong; two of them with feedback, one with a blank one
    "b_0_0": (0.0, {"feedback": "Wrong sign."}),
    "b_1_0": (0.0, {"feedback": " \n"}),
    "b_2_0": (0.0, {"feedback": "Off by one."}),
    "b_3_0": (0.0, None),
    # all correct
    "c_0_0": (1.0, None),
    "c_1_0": (1.0, None),
    "c_2_0": (1.0, None),
    "c_3_0": (1.0, None),
    # an undecided verdict, a session of two outputs, feedback beside a correct sibling
    "d_0_0": (1.0, {"infra_error": 1.0}),
    "d_1_0": (0.0, None),
    "d_1_1": (0.0, {"acc": 0.0}),
    "d_2_0": (1.0, {"acc": 1.0}),
    "d_3_0": (0.0, {"acc": 0.0, "feedback": "Not a number."}),
    # shaped scores that say the opposite of `acc`, and a response of special tokens only
    "e_0_0": (0.7, {"acc": 0.0}),
    "e_1_0": (0.2, {"acc": 1.0}),
    "e_2_0": (0.1, {"acc": 0.0}),
    "e_3_0": (0.0, {"acc": 0.0}),
}
WITHOUT_TEXT = "e_3_0"


@dataclass(frozen=True)
class Batch:
    """Rows in batch order."""

    plan: RoutingPlan
    scores: torch.Tensor
    prompts: list[torch.Tensor]
    responses: list[torch.Tensor]
    masks: list[torch.Tensor]
    teacher_prompts: list[torch.Tensor]
    importance: list[torch.Tensor]

    def __len__(self) -> int:
        return len(self.prompts)


def make_batch(srpo: SRPOConfig, *, seed: int) -> Batch:
    """24 rows, shuffled: random tokens and lengths, masked response tokens, importance weights in [0.5, 2]."""
    rng = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> torch.Tensor:
        length = int(torch.randint(low, high, (1,), generator=rng))
        return torch.randint(FIRST_TOKEN, VOCABULARY, (length,), generator=rng)

    keys = list(OUTPUTS)
    keys = [keys[place] for place in torch.randperm(len(keys), generator=rng).tolist()]
    prompts = [tokens(3, 9) for _ in keys]
    responses = [torch.tensor([END]) if key == WITHOUT_TEXT else tokens(2, 12) for key in keys]
    masks = [(torch.rand(row.numel(), generator=rng) > 0.15).long() for row in responses]
    teacher_prompts = [tokens(4, 20) for _ in keys]
    importance = [0.5 + 1.5 * torch.rand(row.numel(), generator=rng) for row in responses]
    tags: list[dict[str, Any]] = [{} for _ in keys]
    verdicts = [OUTPUTS[key] for key in keys]
    for row in range(PADDING):
        keys.append(f"pad_{row}_0")
        tags.append({"is_padding": True})
        verdicts.append((1.0, {"acc": 1.0}))
        prompts.append(torch.full((127,), END))
        responses.append(torch.tensor([END]))
        masks.append(torch.zeros(1, dtype=torch.long))
        teacher_prompts.append(torch.tensor([END]))
        importance.append(torch.ones(1))

    scores = torch.tensor([score for score, _ in verdicts])
    extra = [{"reward_extra_info": info} for _, info in verdicts]
    special = torch.arange(FIRST_TOKEN)
    rows = zip(keys, tags, scores.tolist(), responses, masks, extra, strict=True)
    plan = build_plan([rollout_of(*row, special_ids=special) for row in rows], srpo)
    return Batch(plan, scores, prompts, responses, masks, teacher_prompts, importance)
