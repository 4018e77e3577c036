"""What the start policy gets wrong, by design: the warm-up texts are sampled from a pupil, the dial of the start.

Two kinds of fault, both common in pupils:

- a habit: it overlooks a minus and works with a plus, `3 + 4` where the question has `3 - 4`. One habit for the whole
  task, seen in the text: soon unlearnt.
- facts: each is known, shaky or a misconception; a misconception favours one wrong result. Many small habits: slowly
  unlearnt.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from workflows.tiny.task import Fact, Stated, Task


@dataclass(frozen=True)
class Beliefs:
    """Shares of the facts, and the probability of the right result in each class; probability of the habit."""

    shaky: float = 0.30
    misconceived: float = 0.25
    p_known: float = 0.97
    p_shaky: float = 0.70
    p_misconceived: float = 0.35
    # Weights of the wrong results of a fact.
    slips: tuple[float, ...] = (1.0,)
    overlooked_minus: float = 0.4


class Pupil:
    """A pupil whose beliefs are drawn once."""

    def __init__(self, beliefs: Beliefs, task: Task, rng: random.Random):
        self.overlooked_minus = beliefs.overlooked_minus
        self.results: dict[Fact, list[int]] = {}
        self.weights: dict[Fact, list[float]] = {}
        facts = list(task.facts)
        rng.shuffle(facts)
        n_wrong, n_shaky = round(beliefs.misconceived * len(facts)), round(beliefs.shaky * len(facts))
        for place, fact in enumerate(facts):
            kind = "misconceived" if place < n_wrong else "shaky" if place < n_wrong + n_shaky else "known"
            right, others = task.facts[fact], [r for r in range(task.p) if r != task.facts[fact]]
            p_right = getattr(beliefs, f"p_{kind}")
            self.results[fact] = [right, *rng.sample(others, len(beliefs.slips))]
            self.weights[fact] = [p_right, *((1 - p_right) * weight for weight in beliefs.slips)]

    def believes(self, fact: Fact, rng: random.Random) -> int:
        """A result sampled from the pupil's belief."""
        return rng.choices(self.results[fact], self.weights[fact])[0]

    def insists(self, fact: Fact, _: random.Random) -> int:
        """The result that the pupil holds to be the likeliest."""
        return max(zip(self.weights[fact], self.results[fact], strict=True))[1]

    def state(self, fact: Fact, rng: random.Random) -> Stated:
        """What it writes when it is asked for a fact, habit included."""
        a, op, b = fact
        if op == "-" and rng.random() < self.overlooked_minus:
            fact = (a, "+", b)
        return fact, self.believes(fact, rng)
