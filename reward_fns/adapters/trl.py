"""Reward functions in TRL's form, as they are: ``(prompts, completions, **columns) -> list of float or None``::

    reward.custom_reward_function.path=pkg://reward_fns.adapters.trl
    '+reward.custom_reward_function.reward_kwargs.functions=["my_rewards:accuracy","my_rewards:brevity"]'
    '+reward.custom_reward_function.reward_kwargs.weights=[1.0,0.2]'

Each function gets lists of one row: ``completions`` as TRL has them for chats (a list with one assistant message;
``conversational=false``: the text), and as columns the row's ``extra_info``, ``data_source``, and the gold answer under
the names ``ground_truth``, ``solution`` and ``answer`` where ``extra_info`` has none of that name. ``prompts`` is there
if ``extra_info`` has a ``prompt``. The score is the weighted sum, as in ``GRPOConfig.reward_weights``; ``acc``, by
which rollouts are routed, is the value of the first function alone.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any

from reward_fns.result import BadSettings, make_result

#: What TRL's trainers pass besides the columns of a row, and a reward worker does not have.
_OF_THE_TRAINER = ("completion_ids", "trainer_state", "log_extra", "log_metric", "environments")


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: dict[str, Any] | None = None,
    *,
    functions: Sequence[str],
    weights: Sequence[float] | None = None,
    conversational: bool = True,
    **unused: Any,
) -> dict[str, Any]:
    """The result dictionary (:data:`reward_fns.RESULT_KEYS`), with the value of each function under ``trl/<name>``.

    A function that returns None for a row has nothing to say about it and counts as 0; all of them: ``infra_error``.

    Raises:
        BadSettings: a function that cannot be imported or needs a column that the row lacks, or another number of
            weights than of functions.
        TypeError, ValueError: a function that does not return one number or None.
    """
    start = time.perf_counter()
    if not functions or (weights is not None and len(weights) != len(functions)):
        raise BadSettings(f"{len(functions)} functions and {len(weights or ())} weights: name as many, at least one")
    completion = [{"role": "assistant", "content": solution_str}] if conversational else solution_str
    row = {"solution": ground_truth, "answer": ground_truth, "ground_truth": ground_truth, "data_source": data_source}
    row.update(extra_info or {})
    columns = {name: [value] for name, value in row.items() if name != "prompt"}
    if "prompt" in row:
        columns["prompts"] = [row["prompt"]]
    values = [_value(place, [completion], columns) for place in functions]
    told = {f"trl/{place.rpartition(':')[2]}": value or 0.0 for place, value in zip(functions, values, strict=True)}
    undecided = all(value is None for value in values)
    score = sum(
        weight * (value or 0.0) for weight, value in zip(weights or [1.0] * len(values), values, strict=True)
    )  # fmt: skip
    result = make_result(
        {"score": score, "acc": values[0] or 0.0, "format_ok": not undecided, "infra_error": undecided, **told}, told
    )
    return {**result, "grade_seconds": time.perf_counter() - start}


def _value(place: str, completions: list[Any], columns: dict[str, list[Any]]) -> float | None:
    """What one function says about the one row."""
    function = _imported(place)
    try:
        inspect.signature(function).bind(completions=completions, **columns)
    except TypeError as error:
        lacking = [name for name in _OF_THE_TRAINER if name in str(error)]
        reason = (
            f"only TRL's own trainer has {', '.join(lacking)}"
            if lacking
            else f"the row has {', '.join(sorted(columns))}; further columns come from extra_info"
        )
        raise BadSettings(f"{place} cannot be called for this row ({error}): {reason}") from error
    values = function(completions=completions, **columns)
    if inspect.isawaitable(values):
        values = asyncio.run(_awaited(values))
    if hasattr(values, "tolist"):  # an array or tensor
        values = values.tolist()
    if not isinstance(values, Sequence) or len(values) != 1:
        raise TypeError(f"{place} must return a list with one number or None per completion, not {values!r}")
    return None if values[0] is None else float(values[0])


async def _awaited(values: Any) -> Any:
    return await values


@functools.cache
def _imported(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadSettings(f"functions: {place!r} cannot be imported as module:function: {error}") from error
    if not callable(function):
        raise BadSettings(f"functions: {place!r} is a {type(function).__name__}, not a function")
    return function
