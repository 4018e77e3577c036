"""Data for SmolLM2-135M in verl's parquet form: SciKnowEval rows from a local file, and one-digit arithmetic.

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
from workflows.prepare.benchmark import PrepareError
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
    """One-digit sums and differences; the grader reads the last integer of the reply."""
    # 200 questions exist; a fixed quarter of them is held out, so that no test question is trained on.
    questions = [(a, sign, b) for a in range(10) for sign in "+-" for b in range(10)]
    random.Random(0).shuffle(questions)
    questions = questions[:50] if split == "test" else questions[50:]
    rng = random.Random(f"{seed} {split}")
    rows = []
    for index in range(count):
        a, sign, b = rng.choice(questions)
        question = f"What is {a} {sign} {b}? Reply with the number only."
        answer = a + b if sign == "+" else a - b
        rows.append(_row("smollm2_arithmetic", [{"role": "user", "content": question}], str(answer), split, index))
    return rows


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
    sums = commands.add_parser("arithmetic", help="one-digit sums and differences")
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
