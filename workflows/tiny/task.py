"""The task: two facts and a join, over the digits 0..p-1; a table of facts is all there is to know.

    Compute (3 - 4) * (2 + 1) mod 5.

    3 - 4 = 4
    2 + 1 = 3
    4 * 3 = 2
    #### 2

Held-out questions ask for the same facts in new combinations. `arithmetic` is the table above; other tables, and words
in front of a line, make other tasks.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

# Served by the `math` grader, which reads the number behind the last `####`.
DATA_SOURCE = "tiny_arithmetic"
ANSWER_MARK = "#### "

Fact = tuple[int, str, int]
# A fact and the result that is claimed for it.
Stated = tuple[Fact, int]


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
        return f"({self.a} {self.left} {self.b}) {self.join} ({self.c} {self.right} {self.d})"


@dataclass(frozen=True)
class Task:
    """Facts, operator by operator, and the words around a question and in front of a line of working."""

    p: int
    facts: dict[Fact, int]
    before: str
    behind: str
    connectives: tuple[str, ...] = ()

    @cached_property
    def operators(self) -> list[str]:
        return list(dict.fromkeys(op for _, op, _ in self.facts))

    def knows(self, fact: Fact, _: random.Random | None = None) -> int:
        """The true result of a fact."""
        return self.facts[fact]

    def state(self, fact: Fact) -> Stated:
        """The truth about a fact."""
        return fact, self.facts[fact]

    def value(self, q: Question) -> int:
        """The true answer."""
        return derivation(q, self.state)[-1][1]

    def text(self, q: Question) -> str:
        """The user message."""
        return f"{self.before}{q}{self.behind}"

    def parse(self, text: str) -> Question:
        """The question in a user message. Raises ValueError if it is none of this task."""
        form = r"\((\d) (.) (\d)\) (.) \((\d) (.) (\d)\)"
        match = re.fullmatch(re.escape(self.before) + form + re.escape(self.behind), text)
        if not match:
            example = self.text(Question(3, self.operators[0], 4, self.operators[1], 2, self.operators[2], 1))
            raise ValueError(f"not a question of this task: {text!r}; expected the form {example!r}")
        a, left, b, join, c, right, d = match.groups()
        return Question(int(a), left, int(b), join, int(c), right, int(d))

    def opening(self, rng: random.Random) -> str:
        """What a line begins with."""
        return f"{rng.choice(self.connectives)} " if self.connectives else ""

    def response(self, lines: list[Stated], rng: random.Random) -> str:
        """Lines of working and the last one's result as the answer."""
        return "\n".join([*(self.opening(rng) + line_text(line) for line in lines), answer_text(lines[-1][1])])

    def solution(self, q: Question, rng: random.Random) -> str:
        """A true response."""
        return self.response(derivation(q, self.state), rng)

    def parse_line(self, line: str) -> Stated | None:
        """What a line of working states, None if it is no such line."""
        opening = f"(?:{'|'.join(self.connectives)}) " if self.connectives else ""
        match = re.fullmatch(rf"{opening}(\d) (.) (\d) = (\d)", line)
        return ((int(match[1]), match[2], int(match[3])), int(match[4])) if match else None

    def sample(self, rng: random.Random) -> Question:
        """A random question."""
        a, b, c, d = (rng.randrange(self.p) for _ in range(4))
        left, join, right = (rng.choice(self.operators) for _ in range(3))
        return Question(a, left, b, join, c, right, d)

    def stream(self, excluded: set[Question], rng: random.Random) -> Iterator[Question]:
        """Random questions outside the excluded set."""
        while True:
            q = self.sample(rng)
            if q not in excluded:
                yield q

    def split(self, sizes: dict[str, int], seed: int) -> dict[str, list[Question]]:
        """Distinct questions per split; no two splits share one. Raises ValueError if they are too many."""
        wanted, most = sum(sizes.values()), self.p**4 * len(self.operators) ** 3 // 2
        if wanted > most:
            raise ValueError(f"{wanted} distinct questions over {self.p} digits are too many: ask for at most {most}.")
        rng = random.Random(f"questions {seed}")
        seen: dict[Question, None] = {}
        while len(seen) < wanted:
            seen.setdefault(self.sample(rng))
        remaining = iter(seen)
        return {name: [next(remaining) for _ in range(size)] for name, size in sizes.items()}

    def verl_row(self, q: Question, index: int, split: str) -> dict:
        """One row of verl's parquet format."""
        return {
            "data_source": DATA_SOURCE,
            "prompt": [{"role": "user", "content": self.text(q)}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(self.value(q))},
            "extra_info": {"index": index, "split": split},
        }


def arithmetic(p: int) -> Task:
    """`+`, `-` and `*` modulo p: 75 facts for p = 5."""
    tables: dict[str, Callable[[int, int], int]] = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
    }
    facts = {(a, op, b): table(a, b) % p for op, table in tables.items() for a in range(p) for b in range(p)}
    return Task(p, facts, "Compute ", f" mod {p}.")


def derivation(q: Question, state: Callable[[Fact], Stated]) -> list[Stated]:
    """The two facts of a question and their join, each as it is stated by whoever works it out, left bracket first."""
    left, right = state((q.a, q.left, q.b)), state((q.c, q.right, q.d))
    return [left, right, state((left[1], q.join, right[1]))]


def line_text(stated: Stated) -> str:
    """One line of working."""
    (a, op, b), result = stated
    return f"{a} {op} {b} = {result}"


def answer_text(result: int) -> str:
    """The last line, in the form the `math` grader reads."""
    return f"{ANSWER_MARK}{result}"
