"""Rows as SDPO's repository publishes them, the same for all its benchmarks.

JSON lines with `idx`, `kind` (mcq, tooluse, code, ...), `dataset`, `prompt`, `description`, `system`, `answer`, and
`tests`.
"""

from __future__ import annotations

import re

from workflows.prepare.adapters.benchmark import PrepareError, Question, Row

COLUMNS = ("kind", "dataset", "prompt", "answer")
_LETTERS = "ABCDEFGHIJ"


def recognised(row: Row) -> bool:
    """Whether the row has this layout."""
    return all(name in row for name in COLUMNS)


def adapt(row: Row, split: str) -> Question:
    """The question as it is written there; code is graded by its `tests`, everything else by its `answer`."""
    gold = row.get("tests") if row["kind"] == "code" else row["answer"]
    if not isinstance(row["prompt"], str) or not isinstance(gold, str):
        raise PrepareError("prompt and answer must be texts")
    options = {"options": option_letters(row["prompt"])} if row["kind"] == "mcq" else {}
    return Question(row["prompt"], gold, system=row.get("system"), index=row.get("idx"), extra=options)


def option_letters(prompt: str) -> str:
    """The letters of the options: lines that begin with "A: ", "B: " and so on, in this order, after the question."""
    found = ""
    position = prompt.rfind("\nA: ")
    for letter in _LETTERS:
        match = re.compile(rf"^{letter}: ", re.MULTILINE).search(prompt, max(position, 0))
        if match is None:
            break
        found, position = found + letter, match.end()
    return found
