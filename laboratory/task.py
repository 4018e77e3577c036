"""The laboratory's task: two facts and a join, over random tables.

    Find (3 & 4) @ (2 % 1).

    so 3 & 4 = 0
    then 2 % 1 = 5
    next 0 @ 5 = 3
    #### 3

The operators are random tables over the digits 0..p-1, drawn from a seed, so there is nothing to learn but the facts. A
question has 64 right derivations, as any connective may stand in front of a line: tokens on which a teacher is rightly
uncertain.
"""

from __future__ import annotations

import random

from workflows.tiny.task import ANSWER_MARK, Question, Task, answer_text

OPERATORS = "&@%"
CONNECTIVES = ("so", "then", "next", "now")


def random_tables(p: int, seed: int) -> Task:
    """The task whose facts are drawn from the seed. Raises ValueError unless p is between 2 and 10."""
    if not 2 <= p <= 10:
        raise ValueError(f"p = {p}: the task has single digits, so p lies between 2 and 10.")
    rng = random.Random(f"tables {seed}")
    facts = {(a, op, b): rng.randrange(p) for op in OPERATORS for a in range(p) for b in range(p)}
    return Task(p, facts, "Find ", ".", CONNECTIVES)


def is_correct(response: str, truth: int) -> bool:
    """The verdict: what stands behind the last `####` is the true value, and nothing follows it."""
    _, mark, tail = response.rpartition(ANSWER_MARK)
    return bool(mark) and tail == str(truth)


def wrong_lines(response: str, task: Task) -> int:
    """How many lines of working state a fact that is not true. Other lines are not counted: see `keeps_form`."""
    stated = [found for line in response.split("\n") if (found := task.parse_line(line))]
    return sum(task.facts.get(fact) != result for fact, result in stated)


def keeps_form(response: str, q: Question, task: Task) -> bool:
    """Whether it is a derivation of the question: its two facts in turn, the join of their results, and that result."""
    *lines, answer = response.split("\n")
    stated = [task.parse_line(line) for line in lines]
    if len(stated) != 3:
        return False
    left, right, join = stated
    if left is None or right is None or join is None:
        return False
    asked = [(q.a, q.left, q.b), (q.c, q.right, q.d), (left[1], q.join, right[1])]
    return [left[0], right[0], join[0]] == asked and answer == answer_text(join[1])
