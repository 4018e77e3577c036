"""The verdict on one answer: `reward_fns.compute_score`, or any reward function of verl's form."""

from __future__ import annotations

import asyncio
import inspect
import reprlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reward_fns.registry import UnknownDataSource
from reward_fns.result import BadSettings
from srpo_verl.base.imports import how_to_find
from srpo_verl.core.verdicts import checked_verdict
from workflows.evaluate.engine import Answer

DEFAULT = "pkg://reward_fns"


def load_reward(path: str, name: str = "compute_score", kwargs: Mapping[str, Any] | None = None) -> Callable[..., Any]:
    """What verl's `reward.custom_reward_function.{path,name,reward_kwargs}` would call.

    Raises:
        ValueError: it cannot be imported.
    """
    from verl.utils.import_utils import load_extern_object

    try:
        function: Any = load_extern_object(path, name)
    except (ImportError, AttributeError, FileNotFoundError, RuntimeError) as error:
        module = path.removeprefix("pkg://").replace("/", ".")
        why = f"({error}){how_to_find(module, error)}"
        raise ValueError(f"the reward {name} of {path} cannot be imported {why}") from error
    extra = dict(kwargs or {})
    if inspect.iscoroutinefunction(function):
        return lambda **arguments: asyncio.run(function(**arguments, **extra))
    return lambda **arguments: function(**arguments, **extra)


def grade(
    reward: Callable[..., Any], row: Mapping[str, Any], answers: Sequence[Answer], executor: ThreadPoolExecutor
) -> list[dict[str, Any]]:
    """One sample per answer: the answer and its verdict, ready for JSON.

    Keys: text, tokens, truncated, score, acc, format_ok (None where the reward function does not say), pred,
    infra_error (no verdict; also where the function raises, or its score is none), error (why).

    Raises:
        BadSettings, UnknownDataSource: by the function, which cannot grade these rows at all.
    """
    verdicts = executor.map(lambda answer: _verdict(reward, row, answer), answers)
    return [
        {"text": answer.text, "tokens": answer.tokens, "truncated": answer.truncated, **verdict}
        for answer, verdict in zip(answers, verdicts, strict=True)
    ]


def _verdict(reward: Callable[..., Any], row: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    try:
        result = reward(
            data_source=row["data_source"],
            solution_str=answer.text,
            ground_truth=row["reward_model"]["ground_truth"],
            extra_info=dict(row.get("extra_info") or {}),
        )
    except (BadSettings, UnknownDataSource):
        raise
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything, and the answers were dear
        result = {"score": 0.0, "infra_error": True, "error": f"{type(error).__name__}: {error}"}
    given = result if isinstance(result, dict) else {"score": result}
    score, found, problem = checked_verdict(given.get("score"), given, allowed=None)
    why = f"{problem.replace('_', ' ')}: the reward gives {reprlib.repr(result)}" if problem else found.get("error")
    return {
        "score": score,
        "acc": found.get("acc", score),
        "format_ok": float(found["format_ok"]) if found.get("format_ok") is not None else None,
        "pred": str(found.get("pred", "")),
        "infra_error": bool(found.get("infra_error", False)),
        "error": str(why or ""),
    }
