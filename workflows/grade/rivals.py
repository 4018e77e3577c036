"""Other graders as they are, each behind one function that a killable worker calls.

verl's default runs programs without a sandbox, so it is asked about anything but code.
"""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any


def verl_default(source: str, solution: str, gold: Any, extra: dict[str, Any]) -> float | None:
    """`verl.utils.reward_score.default_compute_score`; None for a data source that it does not know."""
    from verl.utils.reward_score import default_compute_score

    with contextlib.redirect_stdout(io.StringIO()):
        try:
            result = default_compute_score(source, solution, gold, extra)
        except NotImplementedError:
            return None
    score = result["score"] if isinstance(result, dict) else result
    return float(score > 0)  # math_dapo gives -1 for wrong


def math_verify_alone(solution: str, gold: str) -> float:
    """math-verify as its documentation shows it, on the whole completion; its alarms are off, the worker is killed."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    gold = gold.rsplit("####", 1)[-1].strip()
    return float(
        verify(parse(f"${gold}$", parsing_timeout=None), parse(solution, parsing_timeout=None), timeout_seconds=None)
    )
