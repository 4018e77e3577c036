"""The whole SRPO objective (arXiv 2604.02288), written as naively as possible: the yardstick of the other tests.

Python loops over rollouts, tokens and the vocabulary, float64 scalars, one formula after the other; nothing of the
package is imported, nothing is stable for extreme inputs, and the gradient comes from autograd on the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class NaiveRollout:
    """One response of T tokens over a vocabulary of V.

    Attributes:
        logits: (T, V) float64, requires_grad if a gradient is wanted.
        tokens: T sampled ids.
        old_log_probs: T log-probs of the sampled ids under the policy before the update.
        reward, group: verdict and prompt.
        teacher_logits: (T, V), needed where the rollout is distilled.
        tis: T importance weights between rollout and training engine, not yet truncated; None for 1.
        mask: T flags, False for tokens that do not count; None for all True.
        feedback: the environment's text.
        empty: nothing to read in it, so that it is shown to nobody.
    """

    logits: torch.Tensor
    tokens: Sequence[int]
    old_log_probs: Sequence[float]
    reward: float
    group: Any
    teacher_logits: torch.Tensor | None = None
    tis: Sequence[float] | None = None
    mask: Sequence[bool] | None = None
    feedback: str | None = None
    empty: bool = False

    def counts(self, t: int) -> bool:
        return True if self.mask is None else bool(self.mask[t])


@dataclass
class NaiveResult:
    """The loss, and what it was made of: per rollout, and for distilled ones per token (masked tokens left out)."""

    loss: torch.Tensor
    routed: list[bool]
    demonstration: list[int | None]
    advantages: list[float]
    weights: dict[tuple[int, int], float] = field(default_factory=dict)
    entropies: dict[tuple[int, int], float] = field(default_factory=dict)
    grpo_sum: float = 0.0
    sdpo_sum: float = 0.0
    tokens: int = 0


def naive_objective(
    rollouts: Sequence[NaiveRollout],
    *,
    alpha: float = 0.5,
    beta: float = 1.0,
    k: int = 100,
    tail: bool = True,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    dual_clip: float = 3.0,
    tis_clip: float = 2.0,
    sdpo_ratio_clip: float | None = None,
    threshold: float = 0.5,
    rows: str = "incorrect",
    normalize_by_std: bool = False,
    distilled_only: bool = False,
) -> NaiveResult:
    """( sum over GRPO tokens of l + sum over SDPO tokens of w l ) / ( number of all valid response tokens ).

    `distilled_only`: SDPO's, the second sum over the number of its own tokens.
    """
    routed, demonstration = naive_routing(rollouts, threshold=threshold, rows=rows)
    advantages = naive_advantages(rollouts, normalize_by_std=normalize_by_std)
    result = NaiveResult(torch.zeros((), dtype=torch.float64), routed, demonstration, advantages)

    for i, rollout in enumerate(rollouts):
        for t in range(len(rollout.tokens)):
            if rollout.counts(t):
                result.tokens += 1
                if routed[i]:
                    result.entropies[i, t] = naive_entropy(rollout.teacher_logits[t])
    raw = {
        place: float(torch.exp(torch.tensor(-beta * h, dtype=torch.float64))) for place, h in result.entropies.items()
    }
    if raw:
        mean = sum(raw.values()) / len(raw)
        result.weights = {place: value / mean for place, value in raw.items()}

    total = torch.zeros((), dtype=torch.float64)
    for i, rollout in enumerate(rollouts):
        for t, token in enumerate(rollout.tokens):
            if not rollout.counts(t):
                continue
            probs = naive_softmax(rollout.logits[t])
            ratio = probs[token] / torch.exp(torch.tensor(rollout.old_log_probs[t], dtype=torch.float64))
            tis = 1.0 if rollout.tis is None else min(float(rollout.tis[t]), tis_clip)
            if routed[i]:
                teacher = naive_softmax(rollout.teacher_logits[t].detach())
                term = naive_divergence(probs, teacher, alpha=alpha, k=k, tail=tail) * result.weights[i, t] * tis
                if sdpo_ratio_clip is not None:
                    term = term * min(number(ratio), sdpo_ratio_clip)
                result.sdpo_sum += number(term)
            elif distilled_only:
                continue
            else:
                term = naive_policy_loss(ratio, advantages[i], eps_low, eps_high, dual_clip) * tis
                result.grpo_sum += number(term)
            total = total + term
    result.loss = total / max(len(result.weights) if distilled_only else result.tokens, 1)
    return result


def naive_routing(
    rollouts: Sequence[NaiveRollout], *, threshold: float = 0.5, rows: str = "incorrect"
) -> tuple[list[bool], list[int | None]]:
    """Tables 6 and 7: who is distilled, and the first correct sibling of everybody."""
    routed: list[bool] = []
    demonstration: list[int | None] = []
    for i, rollout in enumerate(rollouts):
        sibling = None
        for j, other in enumerate(rollouts):
            if j != i and other.group == rollout.group and other.reward >= threshold and not other.empty:
                sibling = j
                break
        feedback = rollout.feedback is not None and rollout.feedback.strip() != ""
        informed = sibling is not None or feedback
        correct = rollout.reward >= threshold
        wanted = {"incorrect": not correct, "correct": correct, "all": True, "none": False}[rows]
        routed.append(informed and wanted)
        demonstration.append(sibling)
    return routed, demonstration


def naive_advantages(rollouts: Sequence[NaiveRollout], *, normalize_by_std: bool = False) -> list[float]:
    """r - mean over the group, all of its rollouts; a lone rollout has nothing to be compared with: its reward."""
    advantages = []
    for rollout in rollouts:
        rewards = [other.reward for other in rollouts if other.group == rollout.group]
        mean, std = 0.0, 1.0
        if len(rewards) > 1:
            mean = sum(rewards) / len(rewards)
            std = (sum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1)) ** 0.5
        advantage = rollout.reward - mean
        advantages.append(advantage / (std + 1e-6) if normalize_by_std else advantage)
    return advantages


def naive_policy_loss(
    ratio: torch.Tensor, advantage: float, eps_low: float, eps_high: float, dual_clip: float
) -> torch.Tensor:
    """-min(rho A, clip(rho) A); for A < 0 it is at most -dual_clip A."""
    clipped = min(max(number(ratio), 1.0 - eps_low), 1.0 + eps_high)
    plain = ratio * advantage
    loss = -plain if number(plain) <= clipped * advantage else torch.tensor(-clipped * advantage, dtype=torch.float64)
    if advantage < 0 and number(loss) > -dual_clip * advantage:
        loss = torch.tensor(-dual_clip * advantage, dtype=torch.float64)
    return loss


def naive_softmax(logits: torch.Tensor) -> list[torch.Tensor]:
    shift = float(logits.detach().max())
    exponentials = [torch.exp(logit - shift) for logit in logits]
    total = sum(exponentials)
    return [value / total for value in exponentials]


def naive_entropy(logits: torch.Tensor) -> float:
    """- sum over the full vocabulary of q log q."""
    return -sum(number(q * torch.log(q)) for q in naive_softmax(logits) if number(q) > 0)


def naive_divergence(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], *, alpha: float, k: int, tail: bool
) -> torch.Tensor:
    """On the student's k most probable tokens; the rest is one bucket, or (no tail) the k are made to sum to 1."""
    ids = sorted(range(len(student)), key=lambda v: number(student[v]), reverse=True)[:k]
    p, q = [student[v] for v in ids], [teacher[v] for v in ids]
    if tail:
        smallest = 1.0 - float(torch.exp(torch.tensor(-1e-7, dtype=torch.float64)))
        for side in (p, q):
            rest = 1.0 - sum(side)
            side.append(rest if number(rest) > smallest else torch.tensor(smallest, dtype=torch.float64))
    else:
        p, q = [value / sum(p) for value in p], [value / sum(q) for value in q]
    if alpha == 0.0:
        return naive_kl(q, p)
    if alpha == 1.0:
        return naive_kl(p, q)
    mixture = [(1.0 - alpha) * a + alpha * b for a, b in zip(p, q, strict=True)]
    return (1.0 - alpha) * naive_kl(p, mixture) + alpha * naive_kl(q, mixture)


def number(value: torch.Tensor) -> float:
    """The value alone, no gradient."""
    return float(value.detach())


def naive_kl(p: Sequence[torch.Tensor], q: Sequence[torch.Tensor]) -> torch.Tensor:
    return sum((a * torch.log(a / b) for a, b in zip(p, q, strict=True)), torch.zeros((), dtype=torch.float64))
