"""reasoning_gym's data sets by their own scorers: data source ``reasoning_gym/<data set>``.

The ground truth is the whole entry (question, answer, metadata) as a Python literal: the scorers tell a tuple from a
list, and JSON does not. What stands in the last closed ``<answer>`` tag after the thinking is scored; ``score`` is the
scorer's number in [0, 1], which for many data sets is more than 0 for a wrong answer; ``acc`` is 1 only at 1.

Some scorers parse the answer with functions that evaluate it (``sympy.parse_expr``): they run in worker processes that
are killed at their deadline, but not in a sandbox.
"""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from typing import Any

from reward_fns.mathlayer.extract import after_thinking
from reward_fns.options import Options
from reward_fns.result import BadGroundTruth, BadSettings
from reward_fns.workers.pool import TimedOut, shared_pool

PREFIX = "reasoning_gym/"
INSTALL = "reasoning_gym is not installed: pip install reasoning-gym"
#: CPU seconds of one scoring, the first of a data set included, which builds it.
_DEADLINE = 10.0
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)


def grade(solution: str, ground_truth: Any, extra_info: dict[str, Any], options: Options) -> dict[str, Any]:
    """Grade one completion for the entry ``ground_truth``, the literal of a dict."""
    if not find_spec("reasoning_gym"):
        raise BadSettings(INSTALL)
    read_entry(ground_truth)
    found = _ANSWER.findall(after_thinking(solution))
    if not found:
        return {"score": 0, "format_ok": 0, "feedback": "No <answer> tag was found."}
    answer = found[-1].strip()
    name = str(extra_info["data_source"]).removeprefix(PREFIX)
    try:
        pool = shared_pool("reward_fns.graders.reasoning_gym_scores")
        target = "reward_fns.graders.reasoning_gym_scores:score"
        score = pool.call(target, [name, answer, ground_truth], deadline=_DEADLINE)
    except TimedOut:
        return {"score": 0, "pred": answer, "timed_out": 1}
    return {"score": score, "pred": answer}


def read_entry(ground_truth: Any) -> dict[str, Any]:
    """The entry of a row. Raises BadGroundTruth."""
    try:
        entry = ast.literal_eval(ground_truth)
        if entry["question"] and "answer" in entry and "metadata" in entry:
            return entry
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError) as error:
        raise BadGroundTruth(f"not the literal of a reasoning_gym entry: {type(error).__name__}: {error}") from error
    raise BadGroundTruth("the entry has no question")


def render_gold(ground_truth: Any, extra_info: dict[str, Any]) -> str | None:
    """A completion with the entry's answer; None where the data set has no single one."""
    answer = read_entry(ground_truth)["answer"]
    return None if answer is None else f"<answer>\n{answer}\n</answer>"
