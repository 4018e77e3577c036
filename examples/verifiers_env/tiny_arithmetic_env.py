"""An environment of `verifiers`: the tiny model's questions, and a rubric that reads the last line of an answer.

One function is asynchronous and one has the weight 0, as verifiers allows; `srpo prepare verifiers:tiny_arithmetic_env`
takes the environment as it is.
"""

import asyncio

import verifiers as vf
from datasets import Dataset

from workflows.tiny.start import Start
from workflows.tiny.task import ANSWER_MARK

PARSER = vf.Parser(extract_fn=lambda text: text.rpartition(ANSWER_MARK)[2].strip() if ANSWER_MARK in text else None)


def right(parser, completion, answer):
    """Whether the last line has the answer."""
    return float(parser.parse_answer(completion) == answer)


async def worked_out(completion, info):
    """Whether there are as many lines of working as it takes. Asynchronous, as one that asks a service would be."""
    await asyncio.sleep(0)
    return float(len(completion[-1]["content"].splitlines()) == info["lines"])


def length(completion):
    """Characters of the answer: of weight 0, for the log of verifiers alone."""
    return float(len(completion[-1]["content"]))


def load_environment(seed=0, train=1024, test=128):
    """Called by verifiers: the questions of `python -m workflows.tiny.start` with the same numbers."""
    start = Start(seed=seed, train=train, test=test)
    task = start.task()
    rows = {
        split: [{"question": task.text(q), "answer": str(task.value(q)), "info": {"lines": 4}} for q in questions]
        for split, questions in start.questions().items()
    }
    return vf.SingleTurnEnv(
        dataset=Dataset.from_list(rows["train"]),
        eval_dataset=Dataset.from_list(rows["test"]),
        parser=PARSER,
        rubric=vf.Rubric([right, worked_out, length], weights=[1.0, 0.2, 0.0], parser=PARSER),
    )
