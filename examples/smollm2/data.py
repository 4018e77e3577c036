"""Data for SmolLM2-135M in verl's parquet form: SciKnowEval rows from a local file, and arithmetic of one or two steps.

    python examples/smollm2/data.py sciknoweval --from chemistry/train.json --out runs/smollm2/train.parquet --rows 64
    python examples/smollm2/data.py arithmetic --out runs/smollm2 --rows 256

A SciKnowEval file is one of SDPO's repository (`srpo prepare` reads them as well). The instruction of the rows asks for
reasoning and `<answer>` tags, which a model of this size ignores; it is replaced by "the letter only", see
`letter_reward.py`. `--keep-instruction` leaves the rows as published.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import pandas as pd

from workflows.prepare.adapters import sdpo_rows
from workflows.prepare.adapters.benchmark import PrepareError
from workflows.prepare.registry import find
from workflows.prepare.sources import from_files

REASONING = "Please reason step by step."
LETTER_ONLY = "Reply with the letter of the correct option only."


def sciknoweval_rows(path: Path, *, limit: int | None, keep_instruction: bool = False) -> list[dict[str, Any]]:
    """verl rows, shortest questions first. Raises PrepareError naming what cannot be used."""
    (file,) = from_files(find("chemistry"), path, split=path.stem).values()
    rows = []
    for index, item in enumerate(file):
        question = sdpo_rows.adapt(item, path.stem)
        messages = question.messages
        if not keep_instruction:
            text = question.prompt.replace(REASONING, "").strip()
            messages = [{"role": "user", "content": f"{text}\n\n{LETTER_ONLY}"}]
        rows.append(_row("sciknoweval", messages, question.ground_truth, split=path.stem, index=index))
    rows.sort(key=lambda row: sum(len(message["content"]) for message in row["prompt"]))
    return rows[:limit]


def arithmetic_rows(count: int, *, split: str, seed: int) -> list[dict[str, Any]]:
    """Sums and differences of one-digit numbers, and word problems of two steps, in turns.

    The grader reads the last integer of the reply. A fixed quarter of all questions is held out for `test`, so that no
    test question is trained on.
    """
    rng = random.Random(f"{seed} {split}")
    kinds = []
    for questions in (_sums(), _word_problems()):
        random.Random(0).shuffle(questions)
        held_out = len(questions) // 4
        kinds.append(questions[:held_out] if split == "test" else questions[held_out:])
    rows = []
    for index in range(count):
        question, answer = rng.choice(kinds[index % 2])
        messages = [{"role": "user", "content": f"{question} Reply with the number only."}]
        rows.append(_row("smollm2_arithmetic", messages, str(answer), split, index))
    return rows


def _sums() -> list[tuple[str, int]]:
    digits = range(10)
    return [
        (f"What is {a} {sign} {b}?", a + b if sign == "+" else a - b) for a in digits for sign in "+-" for b in digits
    ]


def _word_problems() -> list[tuple[str, int]]:
    """Two steps: some more, then some fewer."""
    return [
        (f"Tom has {a} {thing}. He gets {b} more and gives away {c}. How many {thing} does he have?", a + b - c)
        for thing in ("apples", "books", "coins")
        for a in range(1, 10)
        for b in range(1, 10)
        for c in range(1, a + b)
        if c < 10
    ]


def _row(source: str, messages: list[dict[str, str]], answer: str, split: str, index: int) -> dict[str, Any]:
    return {
        "data_source": source,
        "prompt": messages,
        "ability": "science" if source == "sciknoweval" else "math",
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {"split": split, "index": index},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    science = commands.add_parser("sciknoweval", help="rows of a local SciKnowEval file")
    science.add_argument("--from", dest="source", type=Path, required=True, help="JSON lines")
    science.add_argument("--out", type=Path, required=True, help="parquet file to write")
    science.add_argument("--rows", type=int, help="keep so many of the shortest questions")
    science.add_argument("--keep-instruction", action="store_true", help="leave the rows as published")
    sums = commands.add_parser("arithmetic", help="one-digit sums and differences, and word problems of two steps")
    sums.add_argument("--out", type=Path, required=True, help="folder for train.parquet and test.parquet")
    sums.add_argument("--rows", type=int, default=256)
    sums.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.command == "sciknoweval":
        try:
            rows = sciknoweval_rows(options.source, limit=options.rows, keep_instruction=options.keep_instruction)
        except PrepareError as error:
            raise SystemExit(str(error)) from error
        _write(rows, options.out)
    else:
        _write(arithmetic_rows(options.rows, split="train", seed=options.seed), options.out / "train.parquet")
        _write(arithmetic_rows(64, split="test", seed=options.seed), options.out / "test.parquet")


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(path)
    print(f"wrote {len(rows)} rows to {path}")


if __name__ == "__main__":
    main()
