"""The start policy, by design: what the pupil believes of each fact, and the warm-up texts that are sampled from it.

Each fact is known, shaky or a misconception; a slip goes to one of a few wrong results. The shares are the dial of the
start accuracy, and the several slips leave the model (and a teacher whose demonstration does not show the fact)
uncertain.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from workflows.lab.task import CONNECTIVES, Fact, Question, Tables, answer_text, line_text
from workflows.tiny_lab.model import END, chat_text
from workflows.tiny_lab.warmup import TEACHER_FORM, Example, Piece


@dataclass(frozen=True)
class Beliefs:
    """Shares of the facts, the probability of the right result in each class, and the number of different slips."""

    shaky: float = 0.30
    misconceived: float = 0.30
    p_known: float = 0.92
    p_shaky: float = 0.50
    p_misconceived: float = 0.25
    slips: int = 3


class Pupil:
    """A pupil whose beliefs are drawn once, from the seed."""

    def __init__(self, beliefs: Beliefs, tables: Tables, seed: int):
        rng = random.Random(f"pupil {seed}")
        self.tables = tables
        self.p_right: dict[Fact, float] = {}
        self.slips: dict[Fact, list[int]] = {}
        facts = list(tables.facts)
        rng.shuffle(facts)
        n_wrong, n_shaky = round(beliefs.misconceived * len(facts)), round(beliefs.shaky * len(facts))
        for place, fact in enumerate(facts):
            kind = "misconceived" if place < n_wrong else "shaky" if place < n_wrong + n_shaky else "known"
            self.p_right[fact] = getattr(beliefs, f"p_{kind}")
            others = [r for r in range(tables.p) if r != tables.facts[fact]]
            self.slips[fact] = rng.sample(others, beliefs.slips)

    def believes(self, fact: Fact, rng: random.Random) -> int:
        """A result sampled from the pupil's belief."""
        return self.tables.facts[fact] if rng.random() < self.p_right[fact] else rng.choice(self.slips[fact])


def plain_example(q: Question, tables: Tables, pupil: Pupil | None, rng: random.Random) -> Example:
    """A question and an answer: the truth in a random derivation, or the pupil's."""
    seen: dict[Fact, int] = {}

    def result(fact: Fact) -> int:
        return seen.setdefault(fact, pupil.believes(fact, rng) if pupil else tables.facts[fact])

    lines, answer = _derivation(q, result, rng)
    text = "\n".join([*(line_text(*line) for line in lines), answer_text(answer)])
    return chat_text([{"role": "user", "content": str(q)}]), [Piece(text + END)]


@dataclass(frozen=True)
class TeacherForm:
    """How texts of the teacher's form are made."""

    # Injected wrong results per line, without loss on them: the teacher re-scores failed responses.
    corrupted: float = 0.2
    # Demonstrations with invented results, so that they must be read: true ones could be ignored.
    invented: float = 0.5


def teacher_example(q: Question, tables: Tables, pupil: Pupil | None, form: TeacherForm, rng: random.Random) -> Example:
    """A question with a demonstration, answered with the demonstration's results in a derivation of its own.

    Facts that the demonstration does not show (behind an injected fault) are answered from the pupil's belief: a
    demonstration must not make the model know what it does not say. Without a pupil, from the tables.
    """
    is_invented = rng.random() < form.invented
    shown: dict[Fact, int] = {}

    def show(fact: Fact) -> int:
        return shown.setdefault(fact, rng.randrange(tables.p) if is_invented else tables.facts[fact])

    lines, answer = _derivation(q, show, rng)
    demonstration = "\n".join([*(line_text(*line) for line in lines), answer_text(answer)])
    prompt = chat_text([{"role": "user", "content": TEACHER_FORM.format(prompt=str(q), solution=demonstration)}])
    faults: set[Fact] = set()

    def work_out(fact: Fact) -> int:
        right = shown.get(fact, pupil.believes(fact, rng) if pupil else tables.facts[fact])
        if rng.random() >= form.corrupted:
            return right
        faults.add(fact)
        return rng.choice([r for r in range(tables.p) if r != right])

    worked, answer = _derivation(q, work_out, rng)
    pieces = []
    for connective, fact, result in worked:
        start, _, number = line_text(connective, fact, result).rpartition(" ")
        # An invented world says nothing of the facts that it does not show.
        known = fact in shown or not is_invented
        pieces += [Piece(start + " "), Piece(number, trained=known and fact not in faults), Piece("\n")]
    return prompt, [*pieces, Piece(answer_text(answer) + END)]


def _derivation(
    q: Question, result: Callable[[Fact], int], rng: random.Random
) -> tuple[list[tuple[str, Fact, int]], int]:
    """Three lines (connective, fact, result) and the answer."""
    left, right = (q.a, q.left, q.b), (q.c, q.right, q.d)
    x, y = result(left), result(right)
    join = (x, q.join, y)
    answer = result(join)
    return [(rng.choice(CONNECTIVES), *line) for line in ((left, x), (right, y), (join, answer))], answer
