"""The start of an agent's run: data, tool config, and a model that calls the calculator rightly now and then.

    python -m workflows.tiny_agent.start --out runs/agent --seed 0

As `workflows.tiny.start`, with `tools.yaml`, verl's tool config, beside the model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pandas as pd
from omegaconf import OmegaConf

from workflows.tiny.model import Size
from workflows.tiny.start import Start, main, texts_of
from workflows.tiny.task import Task, arithmetic
from workflows.tiny.texts import Example
from workflows.tiny.warmup import WarmUp
from workflows.tiny_agent.task import SCHEMA, TEMPLATE, Faults, verl_row, work_out
from workflows.tiny_agent.texts import plain_example, teacher_example

TOOLS = "tools.yaml"


@dataclass(frozen=True)
class AgentStart(Start):
    """All that an agent's start depends on."""

    FORMAT: ClassVar[int] = 1
    TEMPLATE: ClassVar[str] = TEMPLATE

    p: int = 10
    test: int = 128
    size: Size = field(default_factory=Size)
    faults: Faults = field(default_factory=Faults)
    warm_up: WarmUp = field(
        default_factory=lambda: WarmUp(steps=260, clean_steps=160, batch=48, teacher_batch=16, lr=5e-3)
    )

    def task(self) -> Task:
        return arithmetic(self.p)

    def corpus(self) -> list[str]:
        rng = random.Random("corpus")
        examples = []
        for _ in range(100):
            q = self.task().sample(rng)
            examples.append(plain_example(q, self.p, work_out(q, self.p, rng, self.faults)))
            examples.append(teacher_example(q, self.p, rng))
        return texts_of(examples)

    def batches(self) -> Iterator[list[list[Example]]]:
        """Per step the plain examples (right ones, then with the faults) and those of the teacher's form."""
        rng = random.Random(f"agent {self.seed}")
        stream, warm = self.stream(rng), self.warm_up
        for step in range(warm.steps):
            faults = (self.faults,) if step >= warm.clean_steps else ()
            plain = [next(stream) for _ in range(warm.batch - warm.teacher_batch)]
            yield [
                [plain_example(q, self.p, work_out(q, self.p, rng, *faults)) for q in plain],
                [teacher_example(next(stream), self.p, rng) for _ in range(warm.teacher_batch)],
            ]

    def write_data(self, out: Path) -> None:
        for split, questions in self.questions().items():
            rows = [verl_row(q, index, split, self.p) for index, q in enumerate(questions)]
            pd.DataFrame(rows).to_parquet(out / f"{split}.parquet")
        calculator = {
            "class_name": "workflows.tiny_agent.calculator.Calculator",
            "config": {"type": "native", "modulus": self.p},
            "tool_schema": SCHEMA,
        }
        OmegaConf.save({"tools": [calculator]}, out / TOOLS)


if __name__ == "__main__":
    main(AgentStart, __doc__)
