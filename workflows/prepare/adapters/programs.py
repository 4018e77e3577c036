"""Programs: MBPP, HumanEval+, LiveCodeBench v6.

The reference solution goes to `extra_info.reference`, where the data check looks for it; a policy never sees it.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import random
import zlib
from collections.abc import Sequence
from typing import Any

from workflows.prepare.adapters.benchmark import Benchmark, HubSplit, PrepareError, Published, Question, Row

FENCE = "Put the program in one ```python block."
# SDPO's window of LiveCodeBench v6.
FIRST_DAY, DAY_AFTER = "2025-02-01", "2025-05-01"


def mbpp(row: Row, split: str) -> Question:
    """The task with its asserts, as the benchmark gives them to a model."""
    tests = list(row["test_list"])
    shown = "\n".join(tests)
    prompt = f"{row['text'].strip()}\nYour code should satisfy these tests:\n{shown}\n\n{FENCE}"
    gold = {"test_list": tests, "test_setup_code": row.get("test_setup_code") or ""}
    return Question(prompt, json.dumps(gold), index=row.get("task_id"), extra={"reference": row["code"]})


def humaneval(row: Row, split: str) -> Question:
    """A function to complete; the reference solution is its body alone."""
    prompt = f"Complete this function.\n\n```python\n{row['prompt'].strip()}\n```\n\nRepeat it in full. {FENCE}"
    gold = {key: row[key] for key in ("test", "entry_point", "prompt")}
    return Question(prompt, json.dumps(gold), extra={"reference": row["canonical_solution"]})


def livecodebench(row: Row, split: str) -> Question:
    """Training sees a random half of a problem's tests, all of them public; testing uses its private ones."""
    public, private = read_cases(row["public_test_cases"]), read_cases(row["private_test_cases"])
    if split == "train":
        cases = [*public, *private]
        half = random.Random(row["question_id"]).sample(cases, max(1, len(cases) // 2)) if cases else []
        tests: dict[str, Any] = {"public_test_cases": half, "private_test_cases": []}
    else:
        tests = {"public_test_cases": [], "private_test_cases": private}
    metadata = json.loads(row["metadata"]) if row["metadata"] else {}
    tests["fn_name"] = metadata.get("func_name")
    if row["starter_code"]:
        form = f"Use this starter code:\n```python\n{row['starter_code'].rstrip()}\n```\n"
    else:
        form = "Read the input from standard input and write the answer to standard output.\n"
    prompt = f"{row['question_content'].strip()}\n\n{form}{FENCE}"
    return Question(prompt, json.dumps(tests), extra={"question_id": row["question_id"]})


def read_cases(text: str | None) -> list[dict[str, Any]]:
    """Test cases: JSON, or JSON that was pickled as one text, compressed with zlib and written in base64."""
    if not text:
        return []
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        inner = _TextOnly(io.BytesIO(zlib.decompress(base64.b64decode(text)))).load()
        return json.loads(inner)
    except (ValueError, TypeError, EOFError, zlib.error, binascii.Error, pickle.UnpicklingError) as error:
        raise PrepareError(f"test cases that are neither JSON nor packed JSON: {error}") from None


class _TextOnly(pickle.Unpickler):
    """A pickle of plain text needs no class or function, so none is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants {module}.{name}; a text does not")


def _same_rows(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {"train": list(rows), "test": list(rows)}


BENCHMARKS = [
    Benchmark(
        name="mbpp",
        data_source="mbpp",
        ability="code",
        adapt=mbpp,
        columns=("text", "code", "test_list"),
        hub={split: HubSplit("google-research-datasets/mbpp", split, config="full") for split in ("train", "test")},
        published={"train": Published(374), "test": Published(500)},
    ),
    Benchmark(
        name="humaneval+",
        data_source="humanevalplus",
        ability="code",
        adapt=humaneval,
        columns=("prompt", "canonical_solution", "entry_point", "test"),
        hub={"test": HubSplit("evalplus/humanevalplus", "test")},
        published={"test": Published(164)},
    ),
    Benchmark(
        name="livecodebench-v6",
        data_source="livecodebench",
        ability="code",
        adapt=livecodebench,
        columns=(
            "question_content",
            "question_id",
            "contest_date",
            "starter_code",
            "public_test_cases",
            "private_test_cases",
            "metadata",
        ),
        # The rows that release v6 added; the repository's loading script is one that `datasets` no longer runs.
        hub={
            "all": HubSplit("json", "train", data_files="hf://datasets/livecodebench/code_generation_lite/test6.jsonl")
        },
        pool=_same_rows,
        select=lambda row: FIRST_DAY <= str(row["contest_date"]) < DAY_AFTER,
        published={"train": Published(131), "test": Published(131)},
    ),
]
