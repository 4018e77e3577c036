"""The verdicts on a question's answers, ready for the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from workflows.evaluate.engine import Answer
from workflows.reward_call import ask


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
    reply = ask(
        reward,
        source=row["data_source"],
        answer=answer.text,
        gold=row["reward_model"]["ground_truth"],
        extra=row.get("extra_info"),
    )
    format_ok = reply.info.get("format_ok")
    return {
        "score": reply.score,
        "acc": reply.info.get("acc", reply.score),
        "format_ok": None if format_ok is None else float(format_ok),
        "pred": str(reply.info.get("pred", "")),
        "infra_error": bool(reply.why),
        "error": reply.why,
    }
