"""What a grader returns, and the one dictionary shape that leaves ``compute_score``.

verl stacks the dictionaries of a batch key by key and takes the keys of the first row, so every sample of every data
source has the same keys. All of them are floats (they are averaged into metrics), except ``feedback``, ``pred`` and
``error``.
"""

from __future__ import annotations

import math
import reprlib
from numbers import Real
from typing import Any

#: Every key of a result, with its neutral value and its meaning in docs/rewards.md.
DEFAULTS: dict[str, Any] = {
    "score": 0.0,  # the reward
    "acc": 0.0,  # 1 when the answer is right, whatever shaping `score` carries
    "format_ok": 0.0,  # 1 when the answer was given in the form that was asked for
    "feedback": "",  # text for the teacher, "" when there is none
    "pred": "",  # the answer as it was read, for logs and majority votes
    "infra_error": 0.0,  # 1 when the grader could not decide: not a wrong answer, to be left out of group statistics
    "error": "",  # why it could not, "" when it did
    "timed_out": 0.0,  # 1 when a deadline was hit (the completion's own, or the grader's)
    "grade_seconds": 0.0,  # wall time of this verdict, queueing included
    "tests_passed": 0.0,  # code only
    "tests_total": 0.0,  # code only
    "isolation": 0.0,  # code only: 1 = processes and limits, 2 = namespaces, 3 = remote sandbox
}
RESULT_KEYS: tuple[str, ...] = tuple(DEFAULTS)
_TEXT_KEYS = ("feedback", "pred", "error")
_MAX_TEXT = 4000


class GraderUnavailable(RuntimeError):
    """Raised by a grader that cannot decide (sandbox down, worker dead): becomes ``infra_error``, never "wrong"."""

    def __init__(self, message: str, *, timed_out: bool = False):
        super().__init__(message)
        self.timed_out = timed_out


class BadGroundTruth(ValueError):
    """The gold answer or the tests of a row cannot be used: an error of the data, never a pass and never "wrong"."""


class BadSettings(ValueError):
    """The run's settings cannot work here: stops the run instead of grading every answer as undecided."""


def clean_text(text: str, limit: int = _MAX_TEXT) -> str:
    """``text`` cut to ``limit`` characters, free of NUL and of lone surrogates (they break tokenisers and Parquet)."""
    text = text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def plain(value: Any) -> Any:
    """Numbers and lists for those of numpy or torch, as ``default`` of ``json.dumps``."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON, which is how a grader with a deadline gets and gives values")


def make_result(value: Any, extras: dict[str, float] | None = None) -> dict[str, Any]:
    """The full result dictionary from what a grader returned: a bool, a number (also of numpy), or a dictionary with
    ``score``.

    ``acc`` is 1 when ``score`` is at least 1 unless given, ``format_ok`` is 1 unless given. ``extras`` are the extra
    keys that graders declared at registration, with their neutral values.
    """
    if getattr(value, "ndim", None) == 0:
        value = plain(value)
    if isinstance(value, Real):
        value = {"score": value}
    if not isinstance(value, dict) or "score" not in value:
        raise TypeError(f"a grader must return a number or a dict with 'score', not {reprlib.repr(value)}")
    result = {**DEFAULTS, "format_ok": 1.0, **(extras or {})}
    unknown = [key for key in value if key not in result]
    if unknown:
        raise KeyError(
            f"the grader returned undeclared keys {unknown}: declare them with register(..., extras={{name: 0.0}}), "
            "since verl needs the same keys for every sample"
        )
    result.update(value)
    if "acc" not in value:
        result["acc"] = float(result["score"]) >= 1.0
    for key, item in result.items():
        if key in _TEXT_KEYS:
            result[key] = clean_text("" if item is None else str(item))
            continue
        result[key] = float(item)
        if not math.isfinite(result[key]):
            raise ValueError(f"the grader returned {key}={item!r}; it must be a finite number")
    return result
