"""Which scores of a grader can be trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["PROBLEMS", "checked_verdict"]

# What can be wrong with a verdict; the names of the metrics srpo/bad_score/...
PROBLEMS = ("missing", "not_a_number", "not_finite", "out_of_range")


def checked_verdict(
    score: Any, info: Mapping[str, Any] | None, *, allowed: Sequence[float] | None
) -> tuple[float, dict[str, Any], str]:
    """A score that can be computed with, and what was wrong with the one that came.

    Args:
        score: what the grader gave; a number (also of numpy, or a tensor with one element) if all is well.
        info: the grader's other values; `acc`, if it is there, is a verdict too.
        allowed: least and greatest score, None for any finite number.

    Returns:
        `(score, info, problem)`: a finite float, 0 if there is a problem; a copy of `info` in which an unusable `acc`
        is 0 and, if there is a problem, `infra_error` is 1, so that the rollout counts nowhere; one of `PROBLEMS`, or
        "" if all is well.
    """
    info = dict(info or {})
    value, problem = _number(score)
    if not problem and allowed is not None and not allowed[0] <= value <= allowed[1]:
        problem = "out_of_range"
    if info.get("acc") is None:
        info.pop("acc", None)  # the score is the verdict
    else:
        info["acc"], wrong = _number(info["acc"])
        problem = problem or wrong
    if problem:
        value = 0.0
        info["infra_error"] = 1.0
    return value, info, problem


def _number(value: Any) -> tuple[float, str]:
    """`value` as a finite float and "", or 0 and what is wrong with it."""
    if value is None:
        return 0.0, "missing"
    if isinstance(value, str | bytes):
        return 0.0, "not_a_number"  # "1" would be a number to float(), and a mistake of the grader all the same
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return 0.0, "not_a_number"
    return (number, "") if math.isfinite(number) else (0.0, "not_finite")
