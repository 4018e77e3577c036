"""The start policy, by design: what the pupil believes of each fact, and the warm-up texts that are sampled from it.

Each fact is known, shaky or a misconception. The shares are the dial of the start accuracy; several slips per fact
leave the model (and a teacher whose demonstration does not show the fact) uncertain. No text of the warm-up knows the
truth beyond the pupil's beliefs, or training could bring it back instead of finding it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from workflows.lab.task import CONNECTIVES, Fact, Question, Tables, answer_text, line_text
from workflows.tiny_lab.model import END, chat_text
from workflows.tiny_lab.warmup import TEACHER_FORM, Example, Piece

Belief = Callable[[Fact, random.Random], int]


@dataclass(frozen=True)
class Beliefs:
    """Shares of the facts, and the probability of the right result in each class."""

    shaky: float = 0.30
    misconceived: float = 0.30
    p_known: float = 0.92
    p_shaky: float = 0.50
    p_misconceived: float = 0.25
    # Weights of the wrong results of a fact; the first is the one that a misconception favours.
    slips: tuple[float, ...] = (0.7, 0.15, 0.15)


class Pupil:
    """A pupil whose beliefs are drawn once, from the seed."""

    def __init__(self, beliefs: Beliefs, tables: Tables, seed: int):
        rng = random.Random(f"pupil {seed}")
        self.p = tables.p
        self.results: dict[Fact, list[int]] = {}
        self.weights: dict[Fact, list[float]] = {}
        facts = list(tables.facts)
        rng.shuffle(facts)
        n_wrong, n_shaky = round(beliefs.misconceived * len(facts)), round(beliefs.shaky * len(facts))
        for place, fact in enumerate(facts):
            kind = "misconceived" if place < n_wrong else "shaky" if place < n_wrong + n_shaky else "known"
            right, others = tables.facts[fact], [r for r in range(tables.p) if r != tables.facts[fact]]
            p_right = getattr(beliefs, f"p_{kind}")
            self.results[fact] = [right, *rng.sample(others, len(beliefs.slips))]
            self.weights[fact] = [p_right, *((1 - p_right) * weight for weight in beliefs.slips)]

    def believes(self, fact: Fact, rng: random.Random) -> int:
        """A result sampled from the pupil's belief."""
        return rng.choices(self.results[fact], self.weights[fact])[0]

    def insists(self, fact: Fact, _: random.Random) -> int:
        """The result that the pupil holds to be the likeliest."""
        return max(zip(self.weights[fact], self.results[fact], strict=True))[1]


def plain_example(q: Question, belief: Belief, rng: random.Random) -> Example:
    """A question and an answer by a belief."""
    lines, answer = _derivation(q, _consistent(belief, rng), rng)
    text = "\n".join([*(line_text(*line) for line in lines), answer_text(answer)])
    return chat_text([{"role": "user", "content": str(q)}]), [Piece(text + END)]


@dataclass(frozen=True)
class TeacherForm:
    """How texts of the teacher's form are made."""

    # Injected wrong results per line, without loss on them: the teacher re-scores failed responses.
    corrupted: float = 0.2
    # Demonstrations with invented results, so that they must be read: the pupil's own could be ignored.
    invented: float = 0.5


def teacher_example(q: Question, belief: Belief, p: int, form: TeacherForm, rng: random.Random) -> Example:
    """A question with a demonstration, answered with the demonstration's results in words of its own.

    Facts that the demonstration does not show (behind an injected fault) are answered by the belief: a demonstration
    must not make the model know what it does not say.
    """
    is_invented = rng.random() < form.invented
    shown: dict[Fact, int] = {}

    def show(fact: Fact) -> int:
        return shown.setdefault(fact, rng.randrange(p) if is_invented else belief(fact, rng))

    lines, answer = _derivation(q, show, rng)
    demonstration = "\n".join([*(line_text(*line) for line in lines), answer_text(answer)])
    prompt = chat_text([{"role": "user", "content": TEACHER_FORM.format(prompt=str(q), solution=demonstration)}])
    faults: set[Fact] = set()

    def work_out(fact: Fact) -> int:
        expected = shown[fact] if fact in shown else belief(fact, rng)
        if rng.random() >= form.corrupted:
            return expected
        faults.add(fact)
        return rng.choice([r for r in range(p) if r != expected])

    worked, answer = _derivation(q, work_out, rng)
    pieces, before = [], ""
    for connective, fact, result in worked:
        start, _, number = line_text(connective, fact, result).rpartition(" ")
        # An invented world says nothing of the facts that it does not show.
        known = fact in shown or not is_invented
        # Cut beside single digits only: a newline and what follows it are one token in a rollout.
        pieces += [Piece(f"{before}{start} "), Piece(number, trained=known and fact not in faults)]
        before = "\n"
    return prompt, [*pieces, Piece(f"\n{answer_text(answer)}{END}")]


def _consistent(belief: Belief, rng: random.Random) -> Callable[[Fact], int]:
    """The belief, but the same fact has one result within an answer."""
    seen: dict[Fact, int] = {}
    return lambda fact: seen.setdefault(fact, belief(fact, rng))


def _derivation(
    q: Question, result: Callable[[Fact], int], rng: random.Random
) -> tuple[list[tuple[str, Fact, int]], int]:
    """Three lines (connective, fact, result) and the answer."""
    left, right = (q.a, q.left, q.b), (q.c, q.right, q.d)
    x, y = result(left), result(right)
    join = (x, q.join, y)
    answer = result(join)
    return [(rng.choice(CONNECTIVES), *line) for line in ((left, x), (right, y), (join, answer))], answer
