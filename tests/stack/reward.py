"""Verdicts that a random model gets right about half of the time, or in a fixed order; and graders that fail."""

import math
import time
import zlib
from collections import Counter


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    correct = float(zlib.crc32(solution_str.encode()) % 2)
    return {
        "score": correct,
        "acc": correct,
        "format_ok": 1.0,
        "feedback": "" if correct else "The checksum is odd.",
        "infra_error": 0.0,
    }


_seen = Counter()


def in_trls_form(completions, index, **columns):
    """A function as TRL has them: of four answers to a row the one that is graded first is right, whatever it says."""
    _seen.update(index)
    return [float(_seen[row] % 4 == 1) for row in index]


def never_right(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    return {**compute_score(data_source, solution_str, ground_truth), "score": 0.0, "acc": 0.0}


def always_right(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    return {**compute_score(data_source, solution_str, ground_truth), "score": 1.0, "acc": 1.0}


def sometimes_undecided(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    result = compute_score(data_source, solution_str, ground_truth)
    return {**result, "infra_error": float(zlib.crc32(solution_str.encode()) % 4 == 1)}


def raising(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    raise RuntimeError("this grader is broken")


_graded = 0


def stuck(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """Answers for the first step's 16 rollouts and never again."""
    global _graded
    _graded += 1
    if _graded > 16:
        time.sleep(10_000)
    return compute_score(data_source, solution_str, ground_truth)


_odd = 0


def odd_verdicts(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """Every kind of verdict that cannot be used in turn, each followed by a good one."""
    good = compute_score(data_source, solution_str, ground_truth)
    kinds = [
        None,
        math.nan,
        math.inf,
        "1",
        b"1",
        [1.0],
        -3.0,
        2.5,
        {"acc": 1.0},
        {**good, "score": None},
        {**good, "acc": "yes"},
    ]
    global _odd
    _odd += 1
    return good if _odd % 2 else kinds[_odd // 2 % len(kinds)]
