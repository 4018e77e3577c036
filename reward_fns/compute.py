"""``compute_score``: the one function verl calls."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any

from reward_fns import registry
from reward_fns.options import Options, parse_options, warn_ignored
from reward_fns.result import BadGroundTruth, BadSettings, GraderUnavailable, make_result
from reward_fns.workers.pool import TimedOut, call_in_worker

logger = logging.getLogger(__name__)
_complaints: Counter[str] = Counter()
_COMPLAINTS_PER_SOURCE = 3


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: dict[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Grade one completion; safe to call from any thread.

    Args:
        data_source: which grader; an unknown one raises, with the known names.
        solution_str: the completion, as decoded.
        ground_truth: the gold answer or the tests; its form depends on the grader (docs/rewards.md).
        extra_info: the row's further columns.
        kwargs: the run's ``reward_kwargs``, see :class:`reward_fns.options.Options`.

    Returns:
        The result dictionary, always with the keys :data:`reward_fns.RESULT_KEYS` and those that graders declared.
        ``infra_error`` is 1 when no verdict could be had; ``score`` is then 0 and means nothing. What a completion
        causes is its own fault: an error that a plain one does not meet in its place scores 0 and is no infra error.
    """
    start = time.perf_counter()
    options = parse_options(kwargs)
    grader = registry.find(data_source)
    extras = registry.extra_keys()
    if not isinstance(solution_str, str):
        raise TypeError(f"solution_str must be text, not {type(solution_str).__name__}")
    data_source = str(data_source)  # of verl's batch it comes as numpy's
    arguments = (grader, data_source, ground_truth, dict(extra_info or {}), options)
    try:
        result = make_result(_call(solution_str, *arguments), extras)
    except BadSettings:
        raise
    except GraderUnavailable as error:
        _complain(data_source, error)
        result = _undecided(error, extras)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a defect of grader or row, or a completion that provokes it
        _complain(data_source, error, trace=not isinstance(error, BadGroundTruth | TimedOut))
        infra = isinstance(error, BadGroundTruth) or not _grades_a_plain_one(extras, *arguments)
        wrong = {"score": 0, "format_ok": 0, "timed_out": isinstance(error, TimedOut)}
        result = _undecided(error, extras) if infra else make_result(wrong, extras)
    if not options.feedback:
        result["feedback"] = ""
    result["grade_seconds"] = time.perf_counter() - start
    return result


def _undecided(error: BaseException, extras: dict[str, float]) -> dict[str, Any]:
    said = f"{type(error).__name__}: {error}"
    late = error.timed_out if isinstance(error, GraderUnavailable) else isinstance(error, TimedOut)
    return make_result({"score": 0, "format_ok": 0, "infra_error": 1, "error": said, "timed_out": late}, extras)


def _grades_a_plain_one(extras: dict[str, float], *arguments: Any) -> bool:
    """Whether the grader has verdicts on plain completions for the same row: then the one it failed on is to blame."""
    try:
        for solution in ("", "0"):
            make_result(_call(solution, *arguments), extras)
    except (Exception, SystemExit):  # noqa: BLE001 - whatever it is, it does not need the completion
        return False
    return True


def _call(
    solution: str,
    grader: registry.Grader,
    source: str,
    ground_truth: Any,
    extra_info: dict[str, Any],
    options: Options,
) -> Any:
    if grader.builtin:
        if options.user:
            warn_ignored(grader.name, tuple(sorted(options.user)))
        return grader.load()(solution, ground_truth, {"data_source": source, **extra_info}, options)
    if grader.deadline is None:
        return grader.load()(solution, ground_truth, extra_info, **options.user)
    function = grader.load()
    target = f"{function.__module__}:{function.__qualname__}"
    return call_in_worker(target, [solution, ground_truth, extra_info], options.user, deadline=grader.deadline)


def _complain(source: str, error: BaseException, trace: bool = False) -> None:
    """Log the first few failures of a source in full, then every hundredth."""
    _complaints[source] += 1
    count = _complaints[source]
    if count <= _COMPLAINTS_PER_SOURCE or count % 100 == 0:
        logger.error(
            "no verdict for a %r completion (number %d): %s: %s", source, count, type(error).__name__, error,
            exc_info=error if trace else None,
        )  # fmt: skip
