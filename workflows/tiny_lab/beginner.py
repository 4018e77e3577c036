"""What the start policy gets wrong, by design: the warm-up text is sampled from it, so the start accuracy is a dial.

Two kinds of fault, both common in pupils:

- a habit: it overlooks a minus and works with a plus, `3 + 4` where the question has `3 - 4`. One habit for the whole
  task, seen in the text: soon unlearnt.
- facts: each entry of the tables is known, shaky or a misconception; when the beginner slips on it, it always writes
  the same wrong result. Many small habits: slowly unlearnt.
"""

import random
from dataclasses import dataclass

from workflows.tiny_lab.task import OPERATORS, Question, answer_text, fact, line_text


@dataclass(frozen=True)
class Faults:
    """Shares of the facts, and the probability of the right result in each class; probability of the habit."""

    shaky: float = 0.30
    misconceived: float = 0.25
    p_known: float = 0.97
    p_shaky: float = 0.70
    p_misconceived: float = 0.35
    overlooked_minus: float = 0.4


class Beginner:
    """A pupil whose faults are drawn once, from the seed."""

    def __init__(self, faults: Faults, p: int, seed: int):
        rng = random.Random(f"beginner {seed}")
        self.faults, self.p = faults, p
        self.p_right: dict[tuple[int, str, int], float] = {}
        self.slip: dict[tuple[int, str, int], int] = {}
        facts = [(a, op, b) for op in OPERATORS for a in range(p) for b in range(p)]
        rng.shuffle(facts)
        n_wrong, n_shaky = round(faults.misconceived * len(facts)), round(faults.shaky * len(facts))
        classes = [faults.p_misconceived] * n_wrong + [faults.p_shaky] * n_shaky
        classes += [faults.p_known] * (len(facts) - len(classes))
        for f, p_right in zip(facts, classes, strict=True):
            self.p_right[f] = p_right
            self.slip[f] = rng.choice([r for r in range(p) if r != fact(*f, p)])

    def work_out(self, a: int, op: str, b: int, rng: random.Random) -> tuple[str, int]:
        """One line of working and the result it claims."""
        if op == "-" and rng.random() < self.faults.overlooked_minus:
            op = "+"
        result = fact(a, op, b, self.p) if rng.random() < self.p_right[a, op, b] else self.slip[a, op, b]
        return line_text(a, op, b, result), result

    def answer(self, q: Question, rng: random.Random) -> str:
        """A whole response."""
        left, x = self.work_out(q.a, q.left, q.b, rng)
        right, y = self.work_out(q.c, q.right, q.d, rng)
        join, z = self.work_out(x, q.join, y, rng)
        return "\n".join([left, right, join, answer_text(z)])
