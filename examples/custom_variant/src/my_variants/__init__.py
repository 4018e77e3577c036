"""One variant of each kind. What each function gets and must give is in docs/variants.md."""

from dataclasses import dataclass

import torch

from srpo_verl import register


@register.route("hard")
def hard(rollouts, available, srpo):
    """Distil the failed rollouts of groups of which less than half are right."""
    correct = rollouts.correct.double()
    size, right = torch.bincount(rollouts.groups), torch.bincount(rollouts.groups, weights=correct)
    return ~rollouts.correct & (right / size < 0.5)[rollouts.groups]


@register.provider("solution", columns=("extra_info",), section="\nReference solution:\n\n{text}")
def solution(rollouts, srpo):
    """The data set's own solution, where a row has one."""
    return [row["extra_info"].get("solution") for row in rollouts.columns]


@dataclass
class Skew:
    """`srpo.options.skew_kl`; a wrong key or type is refused before the run starts."""

    share: float = 0.1


@register.divergence("skew_kl", options=Skew)
def skew_kl(student, teacher, srpo):
    """KL(teacher || (1 - share) student + share teacher), bounded where the student has no mass."""
    share = torch.tensor(srpo.options["skew_kl"].share, device=student.device, dtype=student.dtype)
    mixture = torch.logaddexp(student + torch.log1p(-share), teacher + share.log())
    return (teacher.exp() * (teacher - mixture)).sum(-1)


@register.weighting("gap")
def gap(tokens, srpo):
    """More where the teacher is surer than the student."""
    return torch.sigmoid(tokens.student_entropy - tokens.teacher_entropy)


@register.advantage("median")
def median(rewards, srpo):
    """r - median of the group; for an even group the lower one of the two in the middle."""
    values = torch.zeros_like(rewards.rewards)
    for group in rewards.groups.unique():
        members = rewards.groups == group
        values[members] = rewards.rewards[members] - rewards.rewards[members].median()
    return values


@register.teacher("every_ten")
def every_ten(teacher, actor, step, srpo):
    """A copy of the actor that is taken every ten steps."""
    if step % 10 == 0:
        teacher.copy_(actor)


@register.metric("repetition")
def repetition(step, srpo):
    """How much of a response is said before: 1 - distinct / all words, by route."""
    shares = {"sdpo": [], "grpo": []}
    for row in step.plan.counted.nonzero().squeeze(-1).tolist():
        words = step.decode(step.responses[row]).split()
        if words:
            shares["sdpo" if step.plan.routed[row] else "grpo"].append(1 - len(set(words)) / len(words))
    return {route: sum(values) / len(values) for route, values in shares.items() if values}


register.trainer("my_trainer", "my_variants.trainer:MyTrainer")
