"""Math answers: GSM8K, MATH, AIME, DAPO-math and the like.

Extraction and exact comparison run here, in microseconds; whatever needs algebra runs in a worker process under a
deadline. A completion that is too slow to compare is wrong (and counted in ``timed_out``): being slow must not take a
rollout out of its group. paper: SDPO's rule (:mod:`reward_fns.paper`): the last box of the last 100 characters, equal
to the gold text or, to math-verify, in value.
"""

from __future__ import annotations

from typing import Any

from reward_fns import paper
from reward_fns.mathlayer.exact import MAX_NUMBER, read_number, same_number
from reward_fns.mathlayer.extract import extract, last_integer
from reward_fns.mathlayer.notation import tidy
from reward_fns.mathlayer.shapes import read_words
from reward_fns.options import Options
from reward_fns.result import BadGroundTruth, GraderUnavailable
from reward_fns.workers.pool import Died, Failed, TimedOut, shared_pool

#: Sources (or values of ``extra_info['answer_style']``) whose answer is the last integer of the reply.
LAST_INTEGER = frozenset({"smollm2_arithmetic", "last_integer"})
_PRELOAD = "math_verify,reward_fns.mathlayer.warm"
_MAX_ANSWER = 600
_MAX_NESTING = 40
_MAX_TOWER = 2  # powers of powers; no answer of a contest has more, and their evaluation never ends


def grade(solution: str, ground_truth: Any, extra_info: dict[str, Any], options: Options) -> dict[str, Any]:
    """Grade one completion against the gold answer ``ground_truth``."""
    gold = gold_answer(ground_truth)
    loose = _is_loose(extra_info)
    if options.mode == "paper" and not loose:
        return _paper(solution, gold)
    found = last_integer(solution) if loose else extract(solution)
    if not found.text:
        feedback = "No final answer found: give exactly one, as \\boxed{answer}."
        return {"score": 0, "format_ok": 0, "feedback": feedback}
    verdict = judge(gold, found.text, options.deadline)
    feedback = ""
    if verdict == "timed out":
        feedback = "The final answer is too complicated to check; simplify it."
    elif verdict != "same":
        feedback = f"The final answer {found.text[:200]} is not correct."
    right = verdict == "same"
    return {
        "score": right,
        "acc": right,
        "format_ok": found.marked or loose,
        "pred": found.text,
        "feedback": feedback,
        "timed_out": verdict == "timed out",
    }


def _paper(solution: str, gold: str) -> dict[str, Any]:
    pred = paper.last_box(solution)
    right, late = pred == gold, False
    if pred and not right:
        try:
            pool = shared_pool(_PRELOAD, memory_mb=2048)
            right = pool.call("reward_fns.paper:same_by_math_verify", [gold, pred], deadline=paper.MATH_SECONDS)
        except (TimedOut, Died, Failed) as error:
            late = isinstance(error, TimedOut)
    feedback = "" if pred else "No boxed answer found at the end: give it as \\boxed{answer}."
    return {
        "score": right,
        "acc": right,
        "format_ok": bool(pred),
        "pred": pred,
        "feedback": feedback,
        "timed_out": late,
    }


def gold_answer(ground_truth: Any) -> str:
    """The gold answer as text; a GSM8K solution gives what follows its ``####``."""
    gold = str(ground_truth).rsplit("####", 1)[-1].strip()
    if "\\boxed" in gold:
        gold = extract(gold).text
    if not gold:
        raise BadGroundTruth(f"the gold answer is empty: {ground_truth!r}")
    return gold


def judge(gold: str, pred: str, deadline: float) -> str:
    """``same``, ``different`` or ``timed out``."""
    verdict = quick(gold, pred)
    if verdict is not None:
        return "same" if verdict else "different"
    return compare_in_worker(gold, pred, deadline)


def compare_in_worker(gold: str, pred: str, deadline: float) -> str:
    """:func:`reward_fns.mathlayer.compare.compare` in a worker; ``same``, ``different`` or ``timed out``."""
    pool = shared_pool(_PRELOAD, memory_mb=2048)
    try:
        answer = pool.call("reward_fns.mathlayer.compare:compare", [gold, pred], deadline=deadline)
    except TimedOut:
        return "timed out"
    except Died:
        return "different"  # it killed two fresh processes: the answer's doing
    except Failed as error:
        if pred != gold and compare_in_worker(gold, gold, deadline) == "same":
            return "different"  # the gold answer is well, so it is the other one
        raise GraderUnavailable(f"comparing {pred[:100]!r} with {gold[:100]!r} failed: {error}") from None
    if answer == "bad gold":
        raise BadGroundTruth(f"the gold answer {gold!r} cannot be read; see python -m reward_fns.check")
    return answer


def quick(gold: str, pred: str) -> bool | None:
    """The verdict when it needs no algebra, else None."""
    if len(pred) > _MAX_ANSWER + 2 * len(gold) or _nesting(pred) > _MAX_NESTING + _nesting(gold):
        return False
    if tidy(gold) == tidy(pred):
        return True
    if _tower(pred) > max(_MAX_TOWER, _tower(gold)):
        return False
    gold_number = read_number(gold) if len(gold) < MAX_NUMBER else None
    pred_number = read_number(pred)
    if gold_number is not None and pred_number is not None and not ("," in gold and "," in pred):
        return same_number(gold_number, pred_number)
    gold_words = read_words(tidy(gold))
    pred_words = read_words(tidy(pred))
    if len(gold_words) > 1 and len(pred_words) > 1:
        return gold_words == pred_words
    return None


def _nesting(text: str) -> int:
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _tower(text: str) -> int:
    """How many exponents stand in one another."""
    highest, exponents, was_power = 0, [], False
    for char in text:
        if char == "{":
            exponents.append(was_power)
        elif char == "}" and exponents:
            exponents.pop()
        elif char == "^":
            highest = max(highest, 1 + sum(exponents))
        was_power = char == "^" or (was_power and char == " ")
    return highest


def render_gold(ground_truth: Any, extra_info: dict[str, Any]) -> str:
    """A completion that gives the gold answer (used to check data)."""
    return f"{gold_answer(ground_truth)}" if _is_loose(extra_info) else f"\\boxed{{{gold_answer(ground_truth)}}}"


def _is_loose(extra_info: dict[str, Any]) -> bool:
    return extra_info.get("answer_style", extra_info.get("data_source")) in LAST_INTEGER


def gold_problem(ground_truth: Any, deadline: float) -> str:
    """Why a gold answer cannot be compared with anything but its own spelling ("" when it can)."""
    gold = gold_answer(ground_truth)
    if read_number(gold) is not None or read_words(tidy(gold)):
        return ""
    verdict = compare_in_worker(gold, gold, deadline)
    return "" if verdict == "same" else f"compared with itself, {gold[:100]!r} is: {verdict}"
