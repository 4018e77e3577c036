"""The rules of SDPO's graders (its ``verl/utils/reward_score/feedback``), for ``mode="paper"``.

They are lenient here and harsh there, and are kept because published numbers were made with them. Each says what it
accepts; docs/rewards.md lists the few differences that remain.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections import Counter
from typing import Any

MATH_SECONDS = 5.0  # for reading and comparing one answer
_MATH_TAIL = 100  # characters at the end of a reply in which the box must stand
_OPTION = re.compile(r"\b(A|B|C|D)\b")
_ACTION = re.compile(r"Action:\s*(\w+)")
_INPUT = re.compile(r"Action Input:\s*(?=\{)")


def answer_tag(solution: str) -> str:
    """Multiple choice: the text after the last ``<answer>`` (all of it without one) up to ``</answer>``, stripped."""
    return solution.rsplit("<answer>", 1)[-1].split("</answer>", 1)[0].strip()


def last_option(solution: str) -> str:
    """GPQA: the last of A, B, C, D that stands as a word, whatever its case; else the whole text."""
    found = _OPTION.findall(solution.upper())
    return (found[-1] if found else solution.strip().strip(".")).rstrip(".").rstrip("/")


def last_box(solution: str) -> str:
    r"""Math: the content of the last ``\boxed{}`` in the last 100 characters; "" when there is none."""
    tail = solution[-_MATH_TAIL:]
    start = tail.rfind("\\boxed{")
    depth = 0
    for index in range(start, len(tail)) if start >= 0 else ():
        depth += (tail[index] == "{") - (tail[index] == "}")
        if tail[index] == "}" and depth == 0:
            return tail[start + len("\\boxed{") : index]
    return ""


def same_by_math_verify(gold: str, pred: str) -> bool:
    """What math-verify says to two texts. Runs in a worker process, which bounds it instead of math-verify's alarms."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own alarms are off
    try:
        gold_read, pred_read = parse(gold, parsing_timeout=None), parse(pred, parsing_timeout=None)
        return bool(verify(gold_read, pred_read, timeout_seconds=None))
    except Exception:  # noqa: BLE001 - SDPO: ignore any error of parsing or verification
        return False


def actions(text: str) -> Counter[str]:
    """Tool use: the words after ``Action:``, as a multiset."""
    return Counter(_ACTION.findall(text))


def merged_inputs(text: str) -> dict[str, Any]:
    """Tool use: all ``Action Input: {...}`` up to the first closing brace, merged; what is no JSON is left out."""
    merged: dict[str, Any] = {}
    position = 0
    while match := _INPUT.search(text, position):
        end = text.find("}", match.end())
        if end < 0:
            break
        with contextlib.suppress(ValueError, RecursionError):  # such as a nested object, cut at its first brace
            merged.update(json.loads(text[match.end() : end + 1]))
        position = end + 1
    return merged


def same_calls(solution: str, gold: list[Any]) -> bool:
    """Tool use: the multiset of tools and the merged arguments are the gold ones."""
    wanted: dict[str, Any] = {}
    for row in gold:
        arguments = row["Action_Input"]
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError:
                arguments = {}
        wanted.update(arguments or {})
    return actions(solution) == Counter(row["Action"] for row in gold) and merged_inputs(solution) == wanted
