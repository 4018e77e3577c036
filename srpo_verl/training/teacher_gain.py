"""Does the teacher still read its demonstration? `srpo/teacher_gain`, in nats per token. No verl, no Ray.

The teacher is shown a correct sibling. It should then find that very sibling likelier than the student does, who has
not seen it. Training acts on the student's prompts only, and the teacher follows the student's weights: what a model
does with a demonstration can be unlearned on the way, and the teacher then corrects towards something that nobody
wrote. A gain that sinks below 0 shows that before accuracy does (docs/evidence.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch

from srpo_verl.training.routing_plan import RoutingPlan

Prompt = TypeVar("Prompt")


def shown_siblings(plan: RoutingPlan, prompts: Mapping[int, Prompt]) -> dict[int, Prompt]:
    """The rows that serve as a demonstration, each with the teacher prompt that shows it.

    Args:
        prompts: the teacher prompt of each routed row.
    """
    siblings = {row: int(plan.routing.demonstration[row]) for row in plan.routed_rows()}
    return {sibling: prompts[row] for row, sibling in siblings.items() if sibling >= 0}


def teacher_gain(
    teacher: Sequence[torch.Tensor], student: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]
) -> float:
    """Mean over the masked-in tokens of log q(y_t | prompt that shows y) - log p(y_t | prompt).

    Args:
        teacher, student: log-probs of the sampled tokens, (j,) per sibling, in nats.
        masks: response masks, (j,) per sibling; at least one token is masked in.
    """
    mask = torch.cat(list(masks)).bool()
    return float((torch.cat(list(teacher)) - torch.cat(list(student)))[mask].double().mean())
