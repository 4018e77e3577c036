"""The task: two facts and a join, over random tables.

    Find (3 & 4) @ (2 % 1).

    so 3 & 4 = 0
    then 2 % 1 = 5
    next 0 @ 5 = 3
    #### 3

The operators are random tables over the digits 0..p-1, drawn from a seed, so there is nothing to learn but the facts;
held-out questions ask for the same facts in new combinations. A question has 64 right derivations, as any connective
may stand in front of a line: tokens on which a teacher is rightly uncertain.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

# Served by the `math` grader, which reads the number behind the last `####`.
DATA_SOURCE = "tiny_arithmetic"
OPERATORS = "&@%"
CONNECTIVES = ("so", "then", "next", "now")
LINE = re.compile(r"(?:so|then|next|now) (\d) (.) (\d) = (\d)")

Fact = tuple[int, str, int]


@dataclass(frozen=True)
class Question:
    """`(a left b) join (c right d)`."""

    a: int
    left: str
    b: int
    join: str
    c: int
    right: str
    d: int

    def __str__(self) -> str:
        return f"Find ({self.a} {self.left} {self.b}) {self.join} ({self.c} {self.right} {self.d})."


class Tables:
    """The true value of every fact, drawn from the seed."""

    def __init__(self, p: int, seed: int):
        if not 2 <= p <= 10:
            raise ValueError(f"p = {p}: the task has single digits, so p lies between 2 and 10.")
        rng = random.Random(f"tables {seed}")
        self.p = p
        self.facts: dict[Fact, int] = {
            (a, op, b): rng.randrange(p) for op in OPERATORS for a in range(p) for b in range(p)
        }

    def value(self, q: Question) -> int:
        """The true answer."""
        return self.facts[self.facts[q.a, q.left, q.b], q.join, self.facts[q.c, q.right, q.d]]


def parse_question(text: str) -> Question:
    """The question in a user message. Raises ValueError if it is none of this task."""
    match = re.fullmatch(r"Find \((\d) (.) (\d)\) (.) \((\d) (.) (\d)\)\.", text)
    if not match:
        raise ValueError(f"not a question of this task: {text!r}; expected the form 'Find (3 & 4) @ (2 % 1).'")
    a, left, b, join, c, right, d = match.groups()
    return Question(int(a), left, int(b), join, int(c), right, int(d))


def line_text(connective: str, fact: Fact, result: int) -> str:
    """One line of working."""
    return f"{connective} {fact[0]} {fact[1]} {fact[2]} = {result}"


def answer_text(result: int) -> str:
    """The last line, in the form the grader reads."""
    return f"#### {result}"


def is_correct(response: str, truth: int) -> bool:
    """The verdict: what stands behind the last `####` is the true value, and nothing follows it."""
    _, mark, tail = response.rpartition("#### ")
    return bool(mark) and tail == str(truth)


def wrong_lines(response: str, tables: Tables) -> int:
    """How many lines of working state a fact that is not true. Other lines are not counted: see `keeps_form`."""
    found = (LINE.fullmatch(line) for line in response.split("\n"))
    facts = [((int(m[1]), m[2], int(m[3])), int(m[4])) for m in found if m]
    return sum(tables.facts.get(fact) != result for fact, result in facts)


def keeps_form(response: str, q: Question) -> bool:
    """Whether it is a derivation of the question: its two facts in turn, the join of their results, and that result."""
    *lines, answer = response.split("\n")
    found = [LINE.fullmatch(line) for line in lines]
    if len(found) != 3 or None in found:
        return False
    facts = [(int(m[1]), m[2], int(m[3])) for m in found if m]
    x, y, result = (int(m[4]) for m in found if m)
    return facts == [(q.a, q.left, q.b), (q.c, q.right, q.d), (x, q.join, y)] and answer == answer_text(result)


def sample_question(rng: random.Random, p: int) -> Question:
    """A random question."""
    a, b, c, d = (rng.randrange(p) for _ in range(4))
    left, join, right = (rng.choice(OPERATORS) for _ in range(3))
    return Question(a, left, b, join, c, right, d)


def split_questions(sizes: dict[str, int], p: int, seed: int) -> dict[str, list[Question]]:
    """Distinct questions per split; no two splits share one."""
    most = p**4 * len(OPERATORS) ** 3 // 2
    if sum(sizes.values()) > most:
        raise ValueError(f"{sum(sizes.values())} distinct questions over {p} digits are too many: at most {most}.")
    rng = random.Random(f"questions {seed}")
    seen: dict[Question, None] = {}
    while len(seen) < sum(sizes.values()):
        seen.setdefault(sample_question(rng, p))
    remaining = iter(seen)
    return {name: [next(remaining) for _ in range(size)] for name, size in sizes.items()}


def question_stream(excluded: set[Question], p: int, rng: random.Random) -> Iterator[Question]:
    """Random questions outside the excluded set."""
    while True:
        q = sample_question(rng, p)
        if q not in excluded:
            yield q


def verl_row(q: Question, tables: Tables, index: int, split: str) -> dict:
    """One row of verl's parquet format."""
    return {
        "data_source": DATA_SOURCE,
        "prompt": [{"role": "user", "content": str(q)}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(tables.value(q))},
        "extra_info": {"index": index, "split": split},
    }
