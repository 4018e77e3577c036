"""Small rows in the layout of each benchmark's hub repository."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def sciknoweval(count: int, *, domain: str = "Chemistry", **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "domain": domain,
            "details": {"level": "L3", "task": "t", "subtask": "s"},
            "type": "mcq-4-choices",
            "question": f"Which is number {number}?",
            "choices": {"label": list("ABCD"), "text": [str(number + offset) for offset in range(4)]},
            "answerKey": "A",
            "answer": "",
            "prompt": {"default": "unused"},
            **changes,
        }
        for number in range(count)
    ]


def packed(cases: list[dict[str, Any]]) -> str:
    """As LiveCodeBench packs its private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def livecodebench(**changes: Any) -> dict[str, Any]:
    cases = [{"input": f"{n}\n", "output": f"{2 * n}\n", "testtype": "stdin"} for n in range(6)]
    return {
        "question_title": "Double",
        "question_content": "Print twice the number.",
        "question_id": "abc1",
        "contest_date": "2025-03-01T00:00:00",
        "starter_code": "",
        "public_test_cases": json.dumps(cases[:2]),
        "private_test_cases": packed(cases[2:]),
        "metadata": "{}",
        **changes,
    }


MBPP = {
    "task_id": 11,
    "text": "Write a function to add.",
    "code": "def add(a, b):\n    return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "canonical_solution": "    return a + b\n",
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}
MATH = {"problem": "What is $1/2$?", "solution": "It is $\\boxed{\\frac{1}{2}}$.", "level": "1", "type": "Algebra"}
TOOLUSE = {
    "idx": 7,
    "kind": "tooluse",
    "dataset": "tooluse",
    "prompt": "Use the tools.",
    "description": "",
    "system": None,
    "answer": json.dumps([{"Action": "find", "Action_Input": '{"name": "x"}'}]),
    "tests": None,
    "elo": 1500,
}
DAPO = {
    "prompt": "Compute 1+1.",
    "solution": "2",
    "reward_model": {"ground_truth": "2", "style": "rule-lighteval/MATH_v2"},
}

# benchmark -> the files of a hub repository, by split
LAYOUTS: dict[str, dict[str, list[dict[str, Any]]]] = {
    **{
        name: {"test": sciknoweval(20, domain=domain)}
        for name, domain in (
            ("chemistry", "Chemistry"), ("physics", "Physics"), ("biology", "Biology"), ("materials", "Material")
        )
    },
    "gsm8k": {
        split: [{"question": "2 * 617?", "answer": "That is <<2*617=1234>>1234.\n#### 1,234"}]
        for split in ("train", "test")
    },
    "math": {"train": [MATH], "test": [MATH]},
    "math-500": {"test": [{**MATH, "answer": "\\frac{1}{2}", "subject": "Algebra", "unique_id": "1"}]},
    "aime24": {"test": [{"id": 1, "problem": "Count.", "solution": "\\boxed{204}"}]},
    "aime25": {"test": [{"id": 1, "problem": "Count.", "answer": "70"}]},
    "dapo-math": {"train": [DAPO]},
    "mbpp": {"train": [MBPP], "test": [MBPP]},
    "humaneval+": {"test": [HUMANEVAL]},
    "livecodebench-v6": {"train": [livecodebench(), livecodebench(contest_date="2024-09-01T00:00:00")]},
}  # fmt: skip


def write_hub_folder(folder, benchmark: str):
    """The parquet files of a local copy of a hub repository."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in LAYOUTS[benchmark].items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")
    return folder
