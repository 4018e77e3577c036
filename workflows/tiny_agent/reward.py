"""The verdict: the right answer, and calls from which it could be known; the config's reward function."""

from __future__ import annotations

import re
from typing import Any

from srpo_verl.core import Turn, turns_from_json
from workflows.tiny.task import ANSWER_MARK
from workflows.tiny_agent.task import ARGUMENT, TOOL


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **kwargs: Any
) -> dict[str, Any]:
    """1 if the last turn says the answer, no call has failed, and the calculator's last answer is that answer.

    Args:
        extra_info: `srpo_turns`, the rollout's turns as JSON, which our agent loop worker adds.
    """
    turns = turns_from_json((extra_info or {})["srpo_turns"])
    problem = _problem(turns, str(ground_truth))
    formed = not any(turn.failed for turn in turns)
    return {"score": float(not problem), "acc": float(not problem), "format_ok": float(formed), "feedback": problem}


def _problem(turns: tuple[Turn, ...], gold: str) -> str:
    """What is wrong with a rollout, "" if nothing is."""
    results = [turn for turn in turns if turn.role == "tool"]
    if not results:
        return f"Call the {TOOL}: nobody knows these sums by heart."
    if any(turn.failed for turn in results):
        return f"A call failed: {TOOL} takes the argument {ARGUMENT}."
    last = turns[-1]
    answer = re.fullmatch(rf"{re.escape(ANSWER_MARK)}(\d)", last.content.strip()) if last.role == "assistant" else None
    if answer is None:
        return f"The last turn must be {ANSWER_MARK}and a digit."
    if answer[1] != results[-1].content:
        return f"The {TOOL} said {results[-1].content}, the answer is {answer[1]}."
    return "" if answer[1] == gold else "The calls were not those that the question asks for."
