"""Single-turn environments of Prime Intellect's `verifiers` by their rubrics: data source ``verifiers/<environment>``.

The ground truth is JSON: ``env_args``, with which the environment is loaded, and ``input``, the row of its data set.
``score`` is the rubric's weighted sum, whatever its range; ``acc``, by which rollouts are routed, is the value of the
first function whose weight is above 0. As in verifiers, a function that raises counts 0.

An environment is code of somebody else's and sets the signal handlers of its process: it lives in worker processes that
are killed at their deadline, but not in a sandbox.
"""

from __future__ import annotations

import json
import re
from importlib import metadata
from typing import Any

from reward_fns.options import Options
from reward_fns.result import BadGroundTruth, BadSettings, GraderUnavailable
from reward_fns.workers.pool import Died, Failed, TimedOut, shared_pool

PREFIX = "verifiers/"
_OLDEST, _END = (0, 2, 0), (0, 4, 0)
INSTALL = "pip install --no-deps 'verifiers>=0.2,<0.4' and what it imports (docs/rewards.md)"
#: CPU seconds of one scoring, the first in a process included, which loads the environment and its data.
_DEADLINE = 30.0
_WORKER = "reward_fns.graders.verifiers_scores"


def unusable() -> str | None:
    """Why no environment can be loaded here, in a sentence; None if one can."""
    try:
        version = metadata.version("verifiers")
    except metadata.PackageNotFoundError:
        return f"verifiers is not installed: {INSTALL}"
    if not _OLDEST <= tuple(map(int, re.findall(r"\d+", version)[:3])) < _END:
        return (
            f"verifiers {version} is installed, and SingleTurnEnv and Rubric as they are read here are those of "
            f"0.2 and 0.3 (later versions have tasksets and harnesses in their place): {INSTALL}"
        )
    return None


def grade(solution: str, ground_truth: Any, extra_info: dict[str, Any], options: Options) -> dict[str, Any]:
    """Grade one completion for the row ``ground_truth``."""
    row = read_row(ground_truth)
    try:
        return _in_worker("score", extra_info, solution, row)
    except TimedOut:
        try:
            _in_worker("score", extra_info, "", row)
        except TimedOut as error:  # it is not the completion that is slow
            raise GraderUnavailable(
                f"{extra_info['data_source']} takes more than {_DEADLINE:g} s to load and to score nothing",
                timed_out=True,
            ) from error
        return {"score": 0, "timed_out": 1}


def read_row(ground_truth: Any) -> str:
    """The row of an environment, as it stands. Raises BadGroundTruth."""
    try:
        row = json.loads(ground_truth)
        if isinstance(row["env_args"], dict) and row["input"]["prompt"]:
            return ground_truth
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadGroundTruth(f"not a row that srpo prepare wrote: {type(error).__name__}: {error}") from error
    raise BadGroundTruth("not a row that srpo prepare wrote: env_args or input.prompt is missing")


def render_gold(ground_truth: Any, extra_info: dict[str, Any]) -> str | None:
    """A completion that the rubric finds right, made of the row's ``answer``; None where no form of it is."""
    row = read_row(ground_truth)
    try:
        return _in_worker("gold", extra_info, row)
    except (TimedOut, Died, Failed, GraderUnavailable) as error:
        raise BadGroundTruth(f"the environment cannot score the row's answer: {error}") from error


def _in_worker(function: str, extra_info: dict[str, Any], *arguments: str) -> Any:
    """The answer of a worker process. Raises BadSettings for an environment that cannot be graded at all."""
    if reason := unusable():
        raise BadSettings(reason)
    name = str(extra_info["data_source"]).removeprefix(PREFIX)
    try:
        return shared_pool(_WORKER).call(f"{_WORKER}:{function}", [name, *arguments], deadline=_DEADLINE)
    except Failed as error:
        if str(error).startswith(BadSettings.__name__):
            raise BadSettings(str(error).partition(": ")[2]) from error
        raise
