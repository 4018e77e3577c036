"""Math answers: GSM8K, MATH, AIME, DAPO-math and the like."""

from __future__ import annotations

from typing import Any

from reward_fns.mathlayer.exact import read_number, same_number, tidy
from reward_fns.mathlayer.extract import Extracted, extract, last_integer
from reward_fns.options import Options
from reward_fns.result import BadGroundTruth

#: Sources (or values of ``extra_info['answer_style']``) whose answer is the last integer of the reply.
LAST_INTEGER = frozenset({"smollm2_arithmetic", "last_integer"})


def grade(solution: str, ground_truth: Any, extra_info: dict[str, Any], options: Options) -> dict[str, Any]:
    """Grade one completion against the gold answer ``ground_truth``."""
    gold = str(ground_truth).strip()
    if not gold:
        raise BadGroundTruth("the gold answer is empty")
    loose = extra_info.get("answer_style", extra_info.get("data_source")) in LAST_INTEGER
    found = last_integer(solution) if loose else extract(solution)
    if not found.text:
        feedback = "No final answer found: give exactly one, as \\boxed{answer}."
        return {"score": 0, "format_ok": 0, "feedback": feedback}
    right = same_answer(gold, found)
    return {"score": right, "acc": right, "format_ok": found.marked or loose, "pred": found.text}


def same_answer(gold: str, found: Extracted) -> bool:
    gold_number, pred_number = read_number(gold), read_number(found.text)
    if gold_number is not None and pred_number is not None:
        return same_number(gold_number, pred_number)
    return tidy(gold) == tidy(found.text)
