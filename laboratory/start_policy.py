"""The start policies of the evidence page: random tables, and a pupil that answers in words of its own.

    python -m laboratory.start_policy --out runs/lab/start/0 --seed 0

Several slips per fact leave the model (and a teacher whose demonstration does not show the fact) uncertain. No text of
the warm-up knows the truth beyond the pupil's beliefs, or training could bring it back instead of finding it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from laboratory.task import random_tables
from workflows.tiny.model import Size
from workflows.tiny.pupil import Beliefs, Pupil
from workflows.tiny.start import Start, main, texts_of
from workflows.tiny.task import Fact, Question, Stated, Task, derivation
from workflows.tiny.texts import Belief, Example, TeacherForm, plain_example, teacher_example
from workflows.tiny.warmup import WarmUp


@dataclass(frozen=True)
class StartPolicy(Start):
    """Two layers and 147 facts. `clean_steps` of the warm-up are the pupil without its doubts."""

    FORMAT: ClassVar[int] = 3

    p: int = 7
    train: int = 4096
    validation: int = 96
    test: int = 96
    size: Size = field(default_factory=lambda: Size(layers=2, mlp=256, kv_heads=2))
    beliefs: Beliefs = field(
        default_factory=lambda: Beliefs(
            misconceived=0.30,
            p_known=0.92,
            p_shaky=0.50,
            p_misconceived=0.25,
            slips=(0.7, 0.15, 0.15),
            overlooked_minus=0.0,
        )
    )
    teacher_form: TeacherForm = field(
        default_factory=lambda: TeacherForm(corrupted=0.2, wrong_operators=False, doubt_fact=True)
    )
    warm_up: WarmUp = field(
        default_factory=lambda: WarmUp(steps=460, clean_steps=310, batch=80, teacher_batch=20, lr=5e-3)
    )

    def task(self) -> Task:
        return random_tables(self.p, self.seed)

    def pupil(self) -> Pupil:
        return Pupil(self.beliefs, self.task(), random.Random(f"pupil {self.seed}"))

    def corpus(self) -> list[str]:
        task, pupil, rng = self.task(), self.pupil(), random.Random("corpus")
        examples = []
        for _ in range(200):
            q = task.sample(rng)
            examples.append(answered(task, q, pupil.believes, rng))
            examples.append(teacher_example(task, q, pupil.believes, self.teacher_form, rng))
        return texts_of(examples)

    def batches(self) -> Iterator[list[list[Example]]]:
        task, pupil, rng = self.task(), self.pupil(), random.Random(f"warm-up {self.seed}")
        stream, warm, form = self.stream(rng), self.warm_up, self.teacher_form
        for step in range(warm.steps):
            belief = pupil.insists if step < warm.clean_steps else pupil.believes
            plain = [answered(task, next(stream), belief, rng) for _ in range(warm.batch - warm.teacher_batch)]
            shown = [teacher_example(task, next(stream), belief, form, rng) for _ in range(warm.teacher_batch)]
            yield [plain, shown]


def answered(task: Task, q: Question, belief: Belief, rng: random.Random) -> Example:
    """A question and an answer by a belief."""
    return plain_example(task, q, task.response(derivation(q, consistent(belief, rng)), rng))


def consistent(belief: Belief, rng: random.Random) -> Callable[[Fact], Stated]:
    """The belief, but the same fact has one result within an answer."""
    seen: dict[Fact, int] = {}
    return lambda fact: (fact, seen.setdefault(fact, belief(fact, rng)))


if __name__ == "__main__":
    main(StartPolicy, __doc__)
