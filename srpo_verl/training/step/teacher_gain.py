"""`srpo/teacher_gain`: what the teacher makes of the siblings that it is shown, in nats per token. No verl, no Ray.

The teacher is shown a correct sibling. It should then find that very sibling likelier than the student does, who has
not seen it; the difference is what it can teach. It shrinks as the student learns, and it also shrinks when the teacher
unlearns to read: training acts on the student's prompts only, and the teacher follows the student's weights
(docs/evidence.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from srpo_verl.core import TeacherPrompt
from srpo_verl.training.step.routing_plan import RoutingPlan


def shown_siblings(plan: RoutingPlan, prompts: Mapping[int, TeacherPrompt]) -> dict[int, TeacherPrompt]:
    """The rows that serve as a demonstration and are shown whole, each with the teacher prompt that shows it.

    Args:
        prompts: teacher prompts by asked row.
    """
    whole = [row for row in plan.asked_rows() if row in prompts and not prompts[row].truncated]
    siblings = {row: int(plan.routing.demonstration[row]) for row in whole}
    return {sibling: prompts[row] for row, sibling in siblings.items() if sibling >= 0}


def teacher_gain(
    teacher: Sequence[torch.Tensor], student: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]
) -> float | None:
    """Mean over the masked-in tokens of log q(y_t | prompt that shows y) - log p(y_t | prompt); None without any.

    Args:
        teacher, student: log-probs of the sampled tokens, (j,) per sibling, in nats.
        masks: response masks, (j,) per sibling.
    """
    differences = (torch.cat(list(teacher)) - torch.cat(list(student)))[torch.cat(list(masks)).bool()]
    return float(differences.double().mean()) if differences.numel() else None
