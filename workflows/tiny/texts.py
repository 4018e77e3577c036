"""Texts of the warm-up, in two forms: the plain question, and the question with a demonstration.

The second is the form of SRPO's self-teacher. It is answered as shown; in some lines a fault is injected, without loss
on it: the teacher re-scores failed responses, so it must know how to go on after a fault.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from srpo_verl.core import SECTIONS, teacher_messages
from workflows.tiny.model import END, chat_text
from workflows.tiny.task import Fact, Question, Stated, Task, answer_text, derivation

Belief = Callable[[Fact, random.Random], int]


@dataclass(frozen=True)
class Piece:
    """A stretch of a response, and whether the loss counts on it."""

    text: str
    trained: bool = True


Example = tuple[str, list[Piece]]


@dataclass(frozen=True)
class TeacherForm:
    """How texts of the teacher's form are made."""

    # Share of the lines with an injected fault.
    corrupted: float = 0.15
    # Share of the demonstrations with invented results, so that they must be read: a model that knows the facts could
    # ignore true ones.
    invented: float = 0.5
    # A fault may also be a wrong operator.
    wrong_operators: bool = True
    # A fact with a faulty result in one line carries no loss in the others either.
    doubt_fact: bool = False


def plain_example(task: Task, q: Question, response: str) -> Example:
    """A question and its answer."""
    return chat_text([{"role": "user", "content": task.text(q)}]), [Piece(response + END)]


def teacher_example(task: Task, q: Question, belief: Belief, form: TeacherForm, rng: random.Random) -> Example:
    """A question with a demonstration, answered as shown, with faults injected that carry no loss.

    Facts that the demonstration does not show (behind a fault) are answered by the belief; an invented world says
    nothing of them, so there is no loss on these. Behind a fault the working goes on from what stands there: the
    teacher corrects the first wrong token of a failed response and not all that follows from it. (Trained to return to
    the demonstration's numbers, it would teach the student to write an answer other than the result of its last line.)
    """
    is_invented = rng.random() < form.invented
    shown: dict[Fact, int] = {}

    def show(fact: Fact) -> Stated:
        return fact, shown.setdefault(fact, rng.randrange(task.p) if is_invented else belief(fact, rng))

    demonstration = task.response(derivation(q, show), rng)
    question = [{"role": "user", "content": task.text(q)}]
    prompt = chat_text(teacher_messages(question, [(SECTIONS["sibling"], demonstration)]))
    faults: list[str] = []

    def expected(fact: Fact) -> int:
        return shown[fact] if fact in shown else belief(fact, rng)

    def work_out(fact: Fact) -> Stated:
        result, fault = expected(fact), ""
        if rng.random() < form.corrupted:
            fault = rng.choice(("operator", "result")) if form.wrong_operators else "result"
        if fault == "operator":
            fact = (fact[0], rng.choice([op for op in task.operators if op != fact[1]]), fact[2])
            result = expected(fact)
        elif fault == "result":
            result = rng.choice([r for r in range(task.p) if r != result])
        faults.append(fault)
        return fact, result

    worked = derivation(q, work_out)
    doubted = {fact for (fact, _), fault in zip(worked, faults, strict=True) if form.doubt_fact and fault == "result"}
    pieces, before = [], ""
    for ((a, op, b), result), fault in zip(worked, faults, strict=True):
        known = (a, op, b) in shown or not is_invented
        # Cut beside single digits only: a newline and what follows it are one token in a rollout.
        pieces += [
            Piece(f"{before}{task.opening(rng)}{a}"),
            Piece(f" {op} ", trained=fault != "operator"),
            Piece(f"{b} = "),
            Piece(f"{result}", trained=known and fault != "result" and (a, op, b) not in doubted),
        ]
        before = "\n"
    return prompt, [*pieces, Piece(f"\n{answer_text(worked[-1][1])}{END}")]
