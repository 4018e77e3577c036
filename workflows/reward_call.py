"""A reward function of verl's form, asked about one answer outside a run."""

from __future__ import annotations

import asyncio
import inspect
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward_fns.registry import UnknownDataSource
from reward_fns.result import BadSettings
from srpo_verl.base.imports import how_to_find
from srpo_verl.core.verdicts import checked_verdict

DEFAULT = "pkg://reward_fns"


@dataclass(frozen=True)
class Reply:
    """A verdict as a run would take it, or why there is none.

    Attributes:
        score: a finite number; it means nothing where there is no verdict.
        info: what the function gave beside it; `acc`, if it is there, is a finite float.
        why: why there is no verdict; "" where there is one.
    """

    score: float
    info: Mapping[str, Any]
    why: str = ""


def load_reward(path: str, name: str = "compute_score", kwargs: Mapping[str, Any] | None = None) -> Callable[..., Any]:
    """What verl's `reward.custom_reward_function.{path,name,reward_kwargs}` would call.

    Raises:
        ValueError: it cannot be imported, or is nothing that can be called.
    """
    from verl.utils.import_utils import load_extern_object

    try:
        function: Any = load_extern_object(path, name)
    except (Exception, SystemExit) as error:
        cause = error.__cause__ or error  # of a file verl says only that it failed
        module = path.removeprefix("pkg://").replace("/", ".")
        why = f"({type(cause).__name__}: {cause}){how_to_find(module, cause)}"
        raise ValueError(f"the reward {name} of {path} cannot be imported {why}") from error
    if not callable(function):
        raise ValueError(f"the reward {name} of {path} is no function but {reprlib.repr(function)}")  # noqa: TRY004
    extra = dict(kwargs or {})
    if inspect.iscoroutinefunction(function):
        return lambda **arguments: asyncio.run(function(**arguments, **extra))
    return lambda **arguments: function(**arguments, **extra)


def ask(
    reward: Callable[..., Any],
    *,
    source: str,
    answer: str,
    gold: Any,
    extra: Mapping[str, Any] | None,
    allowed: Sequence[float] | None = None,
) -> Reply:
    """What a reward function says to one answer; what it raises, and a score that is none, is no verdict.

    Args:
        extra: the row's `extra_info`; the function gets a copy.
        allowed: least and greatest score (`srpo.score_range`), None for any finite number.

    Raises:
        BadSettings, UnknownDataSource: by the function, which cannot grade here at all.
    """
    try:
        result = reward(data_source=source, solution_str=answer, ground_truth=gold, extra_info=dict(extra or {}))
    except (BadSettings, UnknownDataSource):
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's function may raise anything; a run would too
        return Reply(0.0, {}, f"the function raises {type(error).__name__}: {error}")
    given = result if isinstance(result, dict) else {"score": result}
    score, info, problem = checked_verdict(given.get("score"), given, allowed=allowed)
    why = ""
    if given.get("infra_error"):  # the function's own reason comes first, also where it gives no score
        why = str(given.get("error") or "the gold answer or the sandbox cannot be used")
    elif problem:
        why = f"its score is {problem.replace('_', ' ')}: {reprlib.repr(result)}"
    return Reply(score, info, why)
