"""What a failed test is told as: the words of an online judge, for the prompt of the teacher.

A hidden test is named by its number and kind of failure only; its input and expected output are not shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from reward_fns.codetests import AssertTest, CallTest, StdinTest, Test
from reward_fns.sandbox.base import Outcome

_LIMIT = 800
_TITLES = {
    "time": "Time Limit Exceeded",
    "output": "Output Limit Exceeded",
    "error": "Runtime Error",
    "answer": "Wrong Answer",
}


@dataclass(frozen=True)
class CaseResult:
    """One test's result; ``kind`` is "" when it passed, else ``time``, ``output``, ``error`` or ``answer``."""

    test: Test
    passed: bool
    kind: str
    got: str = ""
    detail: str = ""
    outcome: Outcome | None = None


def describe(result: CaseResult, number: int, total: int) -> str:
    """The feedback for the first failing test."""
    lines = [f"{_TITLES[result.kind]} on test {number} of {total}."]
    error = _error(result.outcome) if result.kind == "error" else ""
    if result.kind == "error":
        lines.append(error or result.detail or "The program ended abnormally.")
    if not result.test.public:
        return "\n".join([*lines, "(a hidden test)"])
    test = result.test
    if isinstance(test, StdinTest):
        lines.append(f"Input:\n{_cut(test.stdin)}")
        if result.kind == "answer":
            lines.append(f"Output:\n{_cut(result.got)}\nExpected:\n{_cut(test.expected)}")
    elif isinstance(test, CallTest):
        lines.append(f"Input: {_cut(', '.join(map(repr, test.args)))}")
        if result.kind == "answer":
            lines.append(f"Output: {_cut(result.got)}\nExpected: {_cut(repr(test.expected))}")
    elif isinstance(test, AssertTest):
        lines += [
            text for text in (f"Failed: {_cut(result.detail)}" if result.detail else "", _cut(result.got)) if text
        ]
    return "\n".join(lines)


def _error(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    text = outcome.stderr.decode("utf-8", "replace").strip()
    if text:
        return text[-_LIMIT:]
    if outcome.exit < 0:
        return f"The program was killed by signal {-outcome.exit}."
    return f"The program exited with status {outcome.exit}." if outcome.exit else ""


def _cut(text: str) -> str:
    text = text.rstrip("\n")
    return text if len(text) <= _LIMIT else text[:_LIMIT] + " ..."
