"""Variants of other methods than SRPO, each usable alone; docs/family.md says what is of which paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from srpo_verl import core
from srpo_verl.variants import register

for _rule in (core.all_wrong, core.longest_wrong, core.positive_advantage, core.sign_routed):
    register.route(_rule.__name__)(lambda rollouts, available, srpo, rule=_rule: rule(rollouts, available))
for _weights in (core.pass_rate_spread, core.frontier_weights):
    register.question_weight(_weights.__name__)(lambda rollouts, share, srpo, of=_weights: of(rollouts, share))
for _pick in (core.shortest_sibling, core.random_sibling):
    register.provider(_pick.__name__, section=core.SECTIONS["sibling"])(lambda rollouts, srpo, of=_pick: of(rollouts))


# ---- what the teacher is shown -------------------------------------------------------------------------------------


@dataclass
class Reference:
    """`srpo.options.reference`: where a row of the data has the text, as `column.key`."""

    path: str = "extra_info.solution"


def _reference_columns(srpo: Any) -> Iterable[str]:
    return (srpo.options["reference"].path,)


@register.provider(
    "reference", columns=_reference_columns, section="\nReference solution:\n\n{text}", options=Reference
)
def reference(rollouts: core.Rollouts, srpo: Any) -> list[str | None]:
    """The data set's own solution, where a row has one."""
    column, *keys = srpo.options["reference"].path.split(".")
    found: list[str | None] = []
    for row in rollouts.columns:
        value: Any = row[column]
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        found.append(None if value is None else str(value))
    return found


@register.provider("question")
def question(rollouts: core.Rollouts, srpo: Any) -> list[str | None]:
    """Nothing: the teacher reads the question alone, so that its distillation is a KL to other weights."""
    return [core.NOTHING] * len(rollouts)


@dataclass
class Siblings:
    """`srpo.options.siblings`: the most right answers that are shown at once."""

    most: int = 3


@register.provider("siblings", section="\nCorrect solutions:\n\n{text}", responses=True, options=Siblings)
def siblings(rollouts: core.Rollouts, srpo: Any) -> list[str | None]:
    """The first right siblings, several at once, numbered."""
    good = (rollouts.correct & rollouts.showable).tolist()
    found: list[str | None] = []
    for row, group in enumerate(rollouts.groups.tolist()):
        others = [n for n in range(len(rollouts)) if good[n] and n != row and int(rollouts.groups[n]) == group]
        texts = [rollouts.responses[n] or "" for n in others[: srpo.options["siblings"].most]]
        shown = [core.visible_answer(text) if srpo.teacher.remove_thinking else text for text in texts]
        found.append("\n\n".join(f"{n}. {text}" for n, text in enumerate(shown, 1)) if shown else None)
    return found


@dataclass
class PastAnswers:
    """`srpo.options.past_answers`: how many right answers are kept, of how many questions."""

    per_question: int = 4
    questions: int = 50_000


@register.state("past_answers", responses=True, options=PastAnswers)
def past_answers(state: Mapping[str, Any], rollouts: core.Rollouts, srpo: Any) -> dict[str, Any]:
    """The right answers of earlier steps (DRIFT's success buffer, arXiv 2606.30345)."""
    limits = srpo.options["past_answers"]
    return core.with_answers(state, rollouts, per_question=limits.per_question, questions=limits.questions)


@register.provider("past_answer", section=core.SECTIONS["sibling"], responses=True, states=["past_answers"])
def past_answer(rollouts: core.Rollouts, srpo: Any) -> list[str | None]:
    """A right answer to the same question of an earlier step."""
    state = rollouts.states.get("past_answers", {})
    return core.past_answer(state, rollouts, remove_thinking=srpo.teacher.remove_thinking)


@dataclass
class WrongSiblings:
    """`srpo.options.wrong_siblings`: further passes of the teacher, each of which shows another one."""

    passes: int = 4


@register.provider("wrong_siblings", section=core.SECTIONS["sibling"], options=WrongSiblings)
def wrong_siblings(rollouts: core.Rollouts, srpo: Any) -> torch.Tensor:
    """Wrong siblings, presented as if they were right; for `srpo.contrast` (RLCSD, arXiv 2606.11709)."""
    return core.wrong_siblings(rollouts, passes=srpo.options["wrong_siblings"].passes)


# ---- the divergence, the baseline, the teacher ---------------------------------------------------------------------


@register.divergence("mixed_kl")
def mixed_kl(student: torch.Tensor, teacher: torch.Tensor, srpo: Any) -> torch.Tensor:
    """(1 - alpha) KL(T || S) + alpha KL(S || T) with `srpo.alpha` (I-SDPO, arXiv 2608.12957)."""
    return core.mixed_kl(srpo.alpha)(student, teacher)


@dataclass
class Barycenter:
    """`srpo.options.barycenter`: the most that the target moves to the student, and how readily it does."""

    alpha_max: float = 0.15
    sensitivity: float = 50.0


@register.divergence("barycenter", options=Barycenter)
def barycenter(student: torch.Tensor, teacher: torch.Tensor, srpo: Any) -> torch.Tensor:
    """KL to a target between student and teacher (DemoPSD, arXiv 2607.02502)."""
    of = srpo.options["barycenter"]
    return core.barycenter_divergence(of.alpha_max, of.sensitivity)(student, teacher)


@register.advantage("group_std")
def group_std(rewards: core.GroupRewards, srpo: Any) -> torch.Tensor:
    """(r_i - mean) / standard deviation of the group (GRPO, arXiv 2402.03300)."""
    return core.group_advantages(rewards.rewards, rewards.groups, normalize_by_std=True)


@dataclass
class Snapshot:
    """`srpo.options.snapshot`: steps between two copies."""

    every: int = 10


@register.teacher("snapshot", options=Snapshot)
def snapshot(teacher: torch.Tensor, actor: torch.Tensor, step: int, srpo: Any) -> None:
    """A copy of the actor that is taken every so many steps."""
    if step % srpo.options["snapshot"].every == 0:
        teacher.copy_(actor)


# ---- advantages per token ------------------------------------------------------------------------------------------


@dataclass
class Evidence:
    """`srpo.options.evidence`: l, e, and the steps over which l falls to 0 (0: it stays)."""

    strength: float = 0.5
    clip: float = 0.2
    decay_steps: int = 50


@register.modulator("evidence", options=Evidence)
def evidence(tokens: core.AdvantageTokens, srpo: Any) -> torch.Tensor:
    """A ((1 - l) + l clip(exp(sign(A) d), 1 - e, 1 + e)) (RLSD, arXiv 2604.03128)."""
    return _by_evidence(tokens, tokens.teacher_log_probs - tokens.student_log_probs, srpo.options["evidence"])


@dataclass
class ReversedEvidence(Evidence):
    """`srpo.options.reversed_evidence`: as of `evidence`."""

    decay_steps: int = 0


@register.modulator("reversed_evidence", options=ReversedEvidence)
def reversed_evidence(tokens: core.AdvantageTokens, srpo: Any) -> torch.Tensor:
    """The same with exp(-sign(A) d): more for what the teacher would not have said (RLRT, arXiv 2605.10781)."""
    return _by_evidence(tokens, tokens.student_log_probs - tokens.teacher_log_probs, srpo.options["reversed_evidence"])


def _by_evidence(tokens: core.AdvantageTokens, difference: torch.Tensor, of: Evidence) -> torch.Tensor:
    strength = of.strength * core.linear_decay(tokens.rollouts.step, of.decay_steps)
    return core.evidence_advantages(tokens.advantages, difference, strength=strength, clip=of.clip)


@dataclass
class Contrast:
    """`srpo.options.contrast`: of the squashed evidence; see `core.contrast_advantages`."""

    temperature: float = 0.02
    strength: float = 0.5
    threshold: float = 0.02
    limit: float = 2.0


@register.modulator("contrast", options=Contrast)
def contrast(tokens: core.AdvantageTokens, srpo: Any) -> torch.Tensor:
    """A + r, where r says what a right answer makes likelier than wrong ones do (RLCSD, arXiv 2606.11709)."""
    of = srpo.options["contrast"]
    return core.contrast_advantages(
        tokens.advantages,
        tokens.teacher_log_probs - tokens.contrast_log_probs,
        temperature=of.temperature,
        strength=of.strength,
        threshold=of.threshold,
        limit=of.limit,
    )


# ---- DRIFT (arXiv 2606.30345): by how well a question has been answered so far -------------------------------------


@dataclass
class PassRates:
    """`srpo.options.pass_rates`: what an answer is worth a step later, and how many make half of the trust."""

    decay: float = 0.85
    confidence: float = 8.0


@register.state("pass_rates", options=PassRates)
def pass_rates(state: Mapping[str, Any], rollouts: core.Rollouts, srpo: Any) -> dict[str, Any]:
    """Right and wrong answers per question, fading."""
    return core.with_verdicts(state, rollouts, decay=srpo.options["pass_rates"].decay)


def _gates(rollouts: core.Rollouts, srpo: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How hard, middling and easy each rollout's question is, this step included."""
    of = srpo.options["pass_rates"]
    state = rollouts.states.get("pass_rates", {})
    return core.difficulty_gates(core.smoothed_pass_rates(state, rollouts, decay=of.decay, confidence=of.confidence))


@dataclass
class Difficulty:
    """`srpo.options.difficulty`: how much of a wrong answer is distilled, and for how long everything is."""

    hard: float = 1.0
    middling: float = 0.0
    easy: float = 0.35
    warmup_steps: int = 0


@register.route("difficulty", states=["pass_rates"], options=Difficulty)
def difficulty(rollouts: core.Rollouts, available: torch.Tensor, srpo: Any) -> torch.Tensor:
    """Wrong answers by how hard the question is."""
    of = srpo.options["difficulty"]
    if rollouts.step <= of.warmup_steps:
        return torch.ones(len(rollouts), dtype=torch.float64)
    hard, middling, easy = _gates(rollouts, srpo)
    return ~rollouts.correct * (of.hard * hard + of.middling * middling + of.easy * easy).clamp(max=1.0)


@dataclass
class Rebellious:
    """`srpo.options.rebellious`: the policy gradient of right answers by difficulty, and the bonus of their tokens."""

    hard: float = 0.3
    middling: float = 1.0
    easy: float = 0.05
    margin: float = 0.2
    sharpness: float = 1.0
    most: float = 2.0


@register.modulator("rebellious", states=["pass_rates"], options=Rebellious)
def rebellious(tokens: core.AdvantageTokens, srpo: Any) -> torch.Tensor:
    """Right answers by difficulty, with a bonus for what the teacher would not have said; wrong ones not at all."""
    of = srpo.options["rebellious"]
    hard, middling, easy = _gates(tokens.rollouts, srpo)
    weights = tokens.rollouts.correct * (of.hard * hard + of.middling * middling + of.easy * easy)
    difference = tokens.teacher_log_probs - tokens.student_log_probs
    bonus = core.rebellious_bonus(difference, margin=of.margin, sharpness=of.sharpness, most=of.most)
    return tokens.advantages * weights[tokens.rollout] * (1.0 + middling[tokens.rollout] * bonus)
