"""Mathematics: GSM8K, MATH, MATH-500, AIME 2024 and 2025, DAPO-Math-17k.

One instruction for all of them, the one the math grader's "format_ok" is about: the final answer in a box.
"""

from __future__ import annotations

from reward_fns.graders.math import gold_answer
from workflows.prepare.adapters.benchmark import Benchmark, HubSplit, Published, Question, Row

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
# DAPO's own instruction, around its problems.
_DAPO_HEAD = "Solve the following math problem step by step."
_DAPO_TAIL = 'Remember to put your answer on its own line after "Answer:".'


def ask(problem: str, answer: str) -> Question:
    """A problem with the instruction; the answer may still be inside its solution. ValueError for an empty problem."""
    if not problem.strip():
        raise ValueError("the problem is empty")
    return Question(f"{problem.strip()}\n\n{INSTRUCTION}", gold_answer(answer))


def gsm8k(row: Row, split: str) -> Question:
    """`answer` is a worked solution that ends in `#### number`; thousands are written with commas."""
    return ask(row["question"], gold_answer(row["answer"]).replace(",", ""))


def competition(row: Row, split: str) -> Question:
    """`problem`, and `answer` or a `solution` with the answer in its last box."""
    answer = row.get("answer")
    gold = row["solution"] if answer is None or answer == "" else answer
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise TypeError(f"an answer is a text or a number, not {gold!r}")
    return ask(row["problem"], str(gold))


def dapo(row: Row, split: str) -> Question:
    """`prompt` is a text, or a message with DAPO's instruction around it."""
    text = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][0]["content"]
    if text.startswith(_DAPO_HEAD):
        text = text.split("\n\n", 1)[-1]
    return ask(text.removesuffix(_DAPO_TAIL), row["reward_model"]["ground_truth"])


def _math(name: str, source: str, adapt, columns, hub, published) -> Benchmark:
    return Benchmark(
        name=name, data_source=source, ability="math", adapt=adapt, columns=columns, hub=hub, published=published
    )


BENCHMARKS = [
    _math(
        "gsm8k",
        "openai/gsm8k",
        gsm8k,
        ("question", "answer"),
        {split: HubSplit("openai/gsm8k", split, config="main") for split in ("train", "test")},
        {"train": Published(7473), "test": Published(1319)},
    ),
    _math(
        "math",
        "DigitalLearningGmbH/MATH-lighteval",
        competition,
        ("problem", "solution"),
        {split: HubSplit("DigitalLearningGmbH/MATH-lighteval", split) for split in ("train", "test")},
        {"train": Published(7500), "test": Published(5000)},
    ),
    _math(
        "math-500",
        "HuggingFaceH4/MATH-500",
        competition,
        ("problem", "answer"),
        {"test": HubSplit("HuggingFaceH4/MATH-500", "test")},
        {"test": Published(500)},
    ),
    *(
        _math(
            name,
            name,
            competition,
            ("problem",),
            {"test": HubSplit(f"math-ai/{name}", "test")},
            {"test": Published(30)},
        )
        for name in ("aime24", "aime25")
    ),
    _math(
        "dapo-math",
        "math_dapo",
        dapo,
        ("prompt", "reward_model"),
        {"train": HubSplit("open-r1/DAPO-Math-17k-Processed", "train", config="all")},
        {"train": Published(17398)},
    ),
]
