"""The losses of docs/family.md, each written as its paper has it: loops, float64 scalars, nothing of the package.

`tests.naive_objective` has the pieces that they share. A rollout's teacher logits are those of whatever the method
shows its teacher; `contrast` holds, by sibling, those of a teacher that is shown that wrong sibling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from tests.naive_objective import (
    NaiveRollout,
    naive_divergence,
    naive_entropy,
    naive_policy_loss,
    naive_softmax,
    number,
)


@dataclass
class FamilyRollout(NaiveRollout):
    """With what other methods know of a rollout: the data's reference, and the question's name in every step."""

    reference: str | None = None
    question: str = ""
    contrast: Mapping[int, torch.Tensor] = field(default_factory=dict)


class Batch:
    """Who is in a group with whom, and what each says about a token."""

    def __init__(self, rollouts: Sequence[FamilyRollout], k: int):
        self.rollouts, self.k = rollouts, k

    def mates(self, i: int) -> list[int]:
        return [j for j, other in enumerate(self.rollouts) if other.group == self.rollouts[i].group]

    def right(self, i: int) -> bool:
        return self.rollouts[i].reward >= 0.5

    def rate(self, i: int) -> float:
        return sum(self.right(j) for j in self.mates(i)) / len(self.mates(i))

    def right_siblings(self, i: int) -> list[int]:
        return [j for j in self.mates(i) if j != i and self.right(j) and not self.rollouts[j].empty]

    def wrong_siblings(self, i: int) -> list[int]:
        return [j for j in self.mates(i) if j != i and not self.right(j) and not self.rollouts[j].empty]

    def advantage(self, i: int, *, std: bool) -> float:
        rewards = [self.rollouts[j].reward for j in self.mates(i)]
        if len(rewards) == 1:
            return rewards[0] / (1 + 1e-6) if std else rewards[0]
        mean = sum(rewards) / len(rewards)
        spread = (sum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1)) ** 0.5
        return (self.rollouts[i].reward - mean) / (spread + 1e-6 if std else 1.0)

    def tokens(self) -> list[tuple[int, int]]:
        return [(i, t) for i, r in enumerate(self.rollouts) for t in range(len(r.tokens)) if r.counts(t)]

    def student(self, i: int, t: int) -> list[torch.Tensor]:
        return naive_softmax(self.rollouts[i].logits[t])

    def teacher(self, i: int, t: int) -> list[torch.Tensor]:
        return naive_softmax(self.rollouts[i].teacher_logits[t])

    def gap(self, i: int, t: int) -> float:
        """log q(y_t) - log p_old(y_t)."""
        rollout = self.rollouts[i]
        return math.log(number(self.teacher(i, t)[rollout.tokens[t]])) - rollout.old_log_probs[t]

    def evidence(self, i: int, t: int, passes: int) -> float | None:
        """log q(y_t | right) - log mean_k q(y_t | wrong k), of the siblings that were drawn."""
        rollout = self.rollouts[i]
        drawn = list(rollout.contrast.values())[:passes]
        if not drawn:
            return None
        wrong = sum(number(naive_softmax(logits[t])[rollout.tokens[t]]) for logits in drawn) / len(drawn)
        return math.log(number(self.teacher(i, t)[rollout.tokens[t]])) - math.log(wrong)

    def ratio(self, i: int, t: int) -> torch.Tensor:
        rollout = self.rollouts[i]
        return self.student(i, t)[rollout.tokens[t]] / math.exp(rollout.old_log_probs[t])

    def importance(self, i: int, t: int) -> float:
        tis = self.rollouts[i].tis
        return 1.0 if tis is None else min(tis[t], 2.0)

    def policy_loss(self, i: int, t: int, advantage: float) -> torch.Tensor:
        return naive_policy_loss(self.ratio(i, t), advantage, 0.2, 0.28, 3.0) * self.importance(i, t)

    def distilled(self, i: int, t: int, divergence: torch.Tensor) -> torch.Tensor:
        return divergence * self.importance(i, t) * min(number(self.ratio(i, t)), 2.0)

    def entropy_weights(self, shares: Mapping[int, float]) -> dict[tuple[int, int], float]:
        raw = {
            (i, t): math.exp(-naive_entropy(self.rollouts[i].teacher_logits[t])) for i, t in self.tokens() if shares[i]
        }
        mean = sum(raw.values()) / max(len(raw), 1)
        return {place: value / mean for place, value in raw.items()}

    def buckets(self, i: int, t: int, *, of: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """(p, q) on the k likeliest tokens of student or teacher, and the rest of each."""
        p, q = self.student(i, t), self.teacher(i, t)
        by = p if of == "student" else q
        ids = sorted(range(len(p)), key=lambda v: number(by[v]), reverse=True)[: self.k]
        return [*(p[v] for v in ids), 1 - sum(p[v] for v in ids)], [*(q[v] for v in ids), 1 - sum(q[v] for v in ids)]

    def jsd(self, i: int, t: int, alpha: float = 0.5) -> torch.Tensor:
        return naive_divergence(self.student(i, t), self.teacher(i, t), alpha=alpha, k=self.k, tail=True)

    def clipped_forward_kl(self, i: int, t: int, limit: float) -> torch.Tensor:
        p, q = self.buckets(i, t, of="teacher")
        total = torch.zeros((), dtype=torch.float64)
        for a, b in zip(p, q, strict=True):
            entry = b * torch.log(b / a)
            total = total + (entry if number(entry) <= limit else torch.tensor(limit, dtype=torch.float64))
        return total


def opsd(batch: Batch, step: int, past: Mapping[str, list[float]]) -> torch.Tensor:
    """(1 / N) sum_v min(q log(q / p), 0.05) on every answer to a question with a reference."""
    places = [(i, t) for i, t in batch.tokens() if batch.rollouts[i].reference]
    return sum(batch.distilled(i, t, batch.clipped_forward_kl(i, t, 0.05)) for i, t in places) / len(places)


def i_sdpo(batch: Batch, step: int, past: Mapping[str, list[float]]) -> torch.Tensor:
    shares = {i: float(batch.rate(i) == 0 and bool(r.reference)) for i, r in enumerate(batch.rollouts)}
    weights = batch.entropy_weights(shares)
    total = torch.zeros((), dtype=torch.float64)
    for i, t in batch.tokens():
        if shares[i]:
            p, q = batch.buckets(i, t, of="student")
            forward = sum(b * torch.log(b / a) for a, b in zip(p, q, strict=True))
            reverse = sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))
            total = total + batch.distilled(i, t, weights[i, t] * (0.5 * forward + 0.5 * reverse))
        else:
            total = total + batch.policy_loss(i, t, batch.advantage(i, std=False))
    return total / len(batch.tokens())


def sc_sdpo(batch: Batch, step: int, past: Mapping[str, list[float]]) -> torch.Tensor:
    taught = [i for i in range(len(batch.rollouts)) if batch.right_siblings(i)]
    raw = {i: math.sqrt(batch.rate(i) * (1 - batch.rate(i))) for i in taught}
    mean = sum(raw.values()) / len(raw)
    places = [(i, t) for i, t in batch.tokens() if i in raw]
    return sum(batch.distilled(i, t, raw[i] / mean * batch.jsd(i, t)) for i, t in places) / len(places)


def _evidence(batch: Batch, i: int, t: int, sign: float, strength: float) -> float:
    advantage = batch.advantage(i, std=True)
    direction = (advantage > 0) - (advantage < 0)
    weight = min(max(math.exp(direction * sign * batch.gap(i, t)), 0.8), 1.2)
    return advantage * ((1 - strength) + strength * weight)


def rlsd(batch: Batch, step: int, past: Mapping[str, list[float]]) -> torch.Tensor:
    strength = 0.5 * max(0.0, 1 - (step - 1) / 50)
    terms = [
        batch.policy_loss(
            i,
            t,
            _evidence(batch, i, t, 1.0, strength) if batch.rollouts[i].reference else batch.advantage(i, std=True),
        )
        for i, t in batch.tokens()
    ]
    return sum(terms) / len(terms)


def rlrt(batch: Batch, step: int, past: Mapping[str, list[float]]) -> torch.Tensor:
    terms = []
    for i, t in batch.tokens():
        own = batch.right(i) and batch.right_siblings(i)
        terms.append(
            batch.policy_loss(i, t, _evidence(batch, i, t, -1.0, 0.5) if own else batch.advantage(i, std=True))
        )
    return sum(terms) / len(terms)


def sdpg(batch: Batch, step: int, past: Mapping[str, list[float]]) -> torch.Tensor:
    beta = 1e-3 * min(1.0, step / 50) * min(1.0, (400 - step) / 350)
    total = torch.zeros((), dtype=torch.float64)
    for i, t in batch.tokens():
        advantage = batch.advantage(i, std=True)
        total = total + batch.policy_loss(i, t, advantage)
        mean = sum(batch.rollouts[j].reward for j in batch.mates(i)) / len(batch.mates(i))
        better = len(batch.mates(i)) == 1 or batch.rollouts[i].reward > mean
        if better and batch.rollouts[i].reference:
            total = total + beta * batch.distilled(i, t, batch.jsd(i, t, alpha=1.0))
    return total / len(batch.tokens())


def ssopd(batch: Batch, step: int, past: Mapping[str, list[float]]) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for i, t in batch.tokens():
        total = total + batch.policy_loss(i, t, batch.advantage(i, std=True))
        wrong = [j for j in batch.mates(i) if not batch.right(j) and batch.right_siblings(j)]
        if wrong and i == max(wrong, key=lambda j: (len(batch.rollouts[j].tokens), -j)):
            frontier = 4 * batch.rate(i) * (1 - batch.rate(i))
            total = total + batch.distilled(i, t, frontier * batch.clipped_forward_kl(i, t, 0.05))
    return total / len(batch.tokens())


def demopsd(batch: Batch, step: int, past: Mapping[str, list[float]]) -> torch.Tensor:
    total, places = torch.zeros((), dtype=torch.float64), 0
    for i, t in batch.tokens():
        if not batch.right_siblings(i):
            continue
        p, q = batch.buckets(i, t, of="student")
        a, b = [number(value) for value in p], [number(value) for value in q]
        middle = [(x + y) / 2 for x, y in zip(a, b, strict=True)]
        disagreement = sum(
            0.5 * x * math.log(x / m) + 0.5 * y * math.log(y / m) for x, y, m in zip(a, b, middle, strict=True)
        )
        mix = (1 / (1 + math.exp(-50 * disagreement)) - 0.5) * 2 * 0.15
        raw = [y ** (1 - mix) * x**mix for x, y in zip(a, b, strict=True)]
        target = [value / sum(raw) for value in raw]
        kl = sum(value * torch.log(value / aim) for value, aim in zip(p, target, strict=True))
        total, places = total + batch.distilled(i, t, kl), places + 1
    return total / places


def drift(batch: Batch, step: int, past: Mapping[str, list[float]]) -> torch.Tensor:
    """`past`: right and wrong answers per question before this step, and the step they are of."""

    def gates(i: int) -> tuple[float, float, float]:
        question = batch.rollouts[i].question
        now = [j for j in range(len(batch.rollouts)) if batch.rollouts[j].question == question]
        before = past.get(question, [0.0, 0.0, step])
        fade = 0.85 ** (step - before[2])
        good = fade * before[0] + sum(batch.right(j) for j in now)
        bad = fade * before[1] + sum(not batch.right(j) for j in now)
        trust = (good + bad) / (good + bad + 8)
        rate = trust * (good + 1) / (good + bad + 2) + (1 - trust) * 0.5
        hard, easy = 1 / (1 + math.exp(-(0.3 - rate) / 0.08)), 1 / (1 + math.exp(-(rate - 0.7) / 0.08))
        middling = (1 - hard) * (1 - easy)
        return tuple(value / (hard + middling + easy) for value in (hard, middling, easy))

    shares = {}
    for i in range(len(batch.rollouts)):
        hard, _, easy = gates(i)
        shares[i] = (hard + 0.35 * easy) if not batch.right(i) and batch.right_siblings(i) else 0.0
    weights = batch.entropy_weights(shares)
    total = torch.zeros((), dtype=torch.float64)
    for i, t in batch.tokens():
        hard, middling, easy = gates(i)
        if shares[i]:
            total = total + batch.distilled(i, t, shares[i] * weights[i, t] * batch.jsd(i, t))
            continue
        advantage = batch.advantage(i, std=False)
        if batch.right(i) and batch.right_siblings(i):
            bonus = min(max(math.exp(max(-batch.gap(i, t) - 0.2, 0.0)), 1.0), 2.0) - 1
            advantage *= (0.3 * hard + middling + 0.05 * easy) * (1 + middling * bonus)
        total = total + batch.policy_loss(i, t, advantage)
    return total / len(batch.tokens())


def rlcsd(batch: Batch, step: int, past: Mapping[str, list[float]]) -> torch.Tensor:
    terms = []
    for i, t in batch.tokens():
        advantage = batch.advantage(i, std=True)
        evidence = batch.evidence(i, t, 4) if batch.right_siblings(i) else None
        if evidence is not None:
            shift = 0.5 * math.tanh(evidence / 0.02)
            shifted = advantage + (shift if abs(shift) > 0.02 else 0.0)
            advantage = max(shifted, 0.0) if advantage > 0 else min(shifted, 0.0) if advantage < 0 else 0.0
        terms.append(batch.policy_loss(i, t, advantage))
    return sum(terms) / len(terms)


def srpo_sign_routed(batch: Batch, step: int, past: Mapping[str, list[float]]) -> torch.Tensor:
    shares = {i: float(batch.advantage(i, std=False) <= 0 and bool(r.reference)) for i, r in enumerate(batch.rollouts)}
    weights = batch.entropy_weights(shares)
    terms = [
        batch.distilled(i, t, weights[i, t] * batch.jsd(i, t))
        if shares[i]
        else batch.policy_loss(i, t, batch.advantage(i, std=True))
        for i, t in batch.tokens()
    ]
    return sum(terms) / len(terms)


def grpo_ema_kl(batch: Batch, step: int, past: Mapping[str, list[float]]) -> torch.Tensor:
    terms = [
        batch.policy_loss(i, t, batch.advantage(i, std=False)) + batch.distilled(i, t, batch.jsd(i, t, alpha=1.0))
        for i, t in batch.tokens()
    ]
    return sum(terms) / len(terms)


LOSSES: dict[str, Callable[[Batch, int, Mapping[str, list[float]]], torch.Tensor]] = {
    f.__name__: f
    for f in (opsd, i_sdpo, sc_sdpo, rlsd, rlrt, sdpg, ssopd, demopsd, drift, rlcsd, srpo_sign_routed, grpo_ema_kl)
}
