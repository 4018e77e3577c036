"""The task: two operations in brackets and one that joins them, on the digits 0..p-1, modulo p.

    Compute (3 - 4) * (2 + 1) mod 5.

    3 - 4 = 4
    2 + 1 = 3
    4 * 3 = 2
    #### 2

The tables of `+ - *` modulo p are all there is to know (75 facts for p = 5); held-out questions ask for the same facts
in new combinations. A question has one derivation, left bracket first, so the first wrong token of a response is known.
"""

import random
import re
from dataclasses import dataclass

DATA_SOURCE = "tiny_arithmetic"
ANSWER_MARK = "#### "
OPERATORS = "+-*"


@dataclass(frozen=True)
class Question:
    """`(a left b) join (c right d)` modulo `p`."""

    a: int
    left: str
    b: int
    join: str
    c: int
    right: str
    d: int
    p: int

    def __str__(self) -> str:
        return f"({self.a} {self.left} {self.b}) {self.join} ({self.c} {self.right} {self.d})"


def fact(a: int, op: str, b: int, p: int) -> int:
    """The value of one operation modulo p."""
    if op not in OPERATORS:
        raise ValueError(f"unknown operator {op!r}: the task has {' '.join(OPERATORS)}")
    return {"+": a + b, "-": a - b, "*": a * b}[op] % p


def value(q: Question) -> int:
    """The true answer."""
    return fact(fact(q.a, q.left, q.b, q.p), q.join, fact(q.c, q.right, q.d, q.p), q.p)


def question_text(q: Question) -> str:
    """The user message."""
    return f"Compute {q} mod {q.p}."


def parse_question(text: str) -> Question:
    """The question in a user message."""
    match = re.fullmatch(r"Compute \((\d) (.) (\d)\) (.) \((\d) (.) (\d)\) mod (\d)\.", text)
    if not match:
        raise ValueError(f"not a question of this task: {text!r}; expected the form 'Compute (3 - 4) * (2 + 1) mod 5.'")
    a, left, b, join, c, right, d, p = match.groups()
    return Question(int(a), left, int(b), join, int(c), right, int(d), int(p))


def line_text(a: int, op: str, b: int, result: int) -> str:
    """One line of working."""
    return f"{a} {op} {b} = {result}"


def answer_text(result: int) -> str:
    """The last line, in the form the `math` grader reads."""
    return f"{ANSWER_MARK}{result}"


def solution(q: Question) -> str:
    """The derivation: three lines of working and the answer."""
    x, y, z = fact(q.a, q.left, q.b, q.p), fact(q.c, q.right, q.d, q.p), value(q)
    return "\n".join(
        [
            line_text(q.a, q.left, q.b, x),
            line_text(q.c, q.right, q.d, y),
            line_text(x, q.join, y, z),
            answer_text(z),
        ]
    )


def read_answer(response: str) -> str | None:
    """What stands behind the last answer mark, None when there is none. The grade is an exact match with the truth."""
    _, mark, tail = response.rpartition(ANSWER_MARK)
    return tail.strip() if mark else None


def sample_question(rng: random.Random, p: int) -> Question:
    """A random question."""
    a, b, c, d = (rng.randrange(p) for _ in range(4))
    left, join, right = (rng.choice(OPERATORS) for _ in range(3))
    return Question(a, left, b, join, c, right, d, p)


def split_questions(n_train: int, n_test: int, p: int, seed: int) -> tuple[list[Question], list[Question]]:
    """Distinct questions for training and for the held-out test; the two sets share none."""
    most = p**4 * len(OPERATORS) ** 3 // 2
    if n_train + n_test > most:
        raise ValueError(f"{n_train} + {n_test} distinct questions modulo {p} are too many: ask for at most {most}")
    rng = random.Random(f"questions {seed}")
    seen: dict[Question, None] = {}
    while len(seen) < n_train + n_test:
        seen.setdefault(sample_question(rng, p))
    questions = list(seen)
    return questions[n_test:], questions[:n_test]


def verl_row(q: Question, index: int, split: str) -> dict:
    """One row of verl's parquet format."""
    return {
        "data_source": DATA_SOURCE,
        "prompt": [{"role": "user", "content": question_text(q)}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(value(q))},
        "extra_info": {"index": index, "split": split},
    }
