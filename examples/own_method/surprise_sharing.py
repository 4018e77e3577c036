"""A method that none of the papers of docs/family.md has, in one file outside the package: surprise sharing.

Wrong answers are distilled from a right one where the student is unsure and the teacher is not; right answers keep the
policy gradient, moved from the tokens that the teacher would have said anyway to those that it would not have. The
mean advantage of an answer stays what the verdict made it.

    PYTHONPATH=examples/own_method srpo demo --steps 5 'srpo.variant_modules=[surprise_sharing]' \
        srpo.asked=correct srpo.weighting=resolved_doubt srpo.modulator=surprise_sharing
"""

from dataclasses import dataclass

import torch

from srpo_verl import register


@dataclass
class Sharing:
    """`srpo.options.surprise_sharing`: how unevenly an answer's advantage is shared out, in nats."""

    temperature: float = 1.0


@register.weighting("resolved_doubt")
def resolved_doubt(tokens, srpo):
    """How much surer the teacher is than the student; a little everywhere."""
    return (tokens.student_entropy - tokens.teacher_entropy).clamp(min=0) + 0.05


@register.modulator("surprise_sharing", options=Sharing)
def surprise_sharing(tokens, srpo):
    """A T softmax(-d / temperature) over the T tokens of each answer: its mean is A."""
    surprise = (tokens.student_log_probs - tokens.teacher_log_probs) / srpo.options["surprise_sharing"].temperature
    answers = len(tokens.rollouts)
    most = surprise.new_full((answers,), -torch.inf).scatter_reduce_(0, tokens.rollout, surprise, reduce="amax")
    raw = (surprise - most[tokens.rollout]).exp()
    total = raw.new_zeros(answers).index_add_(0, tokens.rollout, raw)
    count = torch.bincount(tokens.rollout, minlength=answers)
    return tokens.advantages * raw / total[tokens.rollout] * count[tokens.rollout]
