"""Tool use (ToolAlpaca): ``Action:`` / ``Action Input:`` blocks against a JSON list of ``{Action, Action_Input}``.

strict: blocks are read in order, each input as one complete JSON object (nested objects, braces in strings), and belong
to the ``Action:`` line above them. The tools must be called in the gold order; calls of the same tool may come in any
order among themselves. Arguments are compared as JSON values: ``true`` is not ``1``, ``"3"`` is not ``3``, ``1.0`` is
``1``. A gold call marked ``[Optional]`` may be left out.

Only what follows the thinking counts. paper: SDPO's rule (:mod:`reward_fns.paper`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from reward_fns import paper
from reward_fns.mathlayer.extract import after_thinking
from reward_fns.options import Options
from reward_fns.result import BadGroundTruth
from reward_fns.strictjson import JSONProblem, decode_at, loads, same_json

_ACTION = re.compile(r"^[ \t]{0,40}\*{0,2}Action:\*{0,2}[ \t]{0,40}(?P<name>\S[^\n]*)$", re.MULTILINE)
_INPUT = re.compile(r"\s*\*{0,2}Action[ _]Input:\*{0,2}\s*(?:```(?:json)?\s*)?")
_SECOND_INPUT = re.compile(r"^[ \t]{0,40}\*{0,2}Action[ _]Input:", re.MULTILINE)
_SECOND_OBJECT = re.compile(r"[ \t]*(?:,|or\b)?[ \t]*\{")
_OPTIONAL = "[Optional]"


@dataclass(frozen=True)
class Call:
    """One tool call."""

    name: str
    arguments: Any
    optional: bool = False


def grade(solution: str, ground_truth: Any, extra_info: dict[str, Any], options: Options) -> dict[str, Any]:
    """Grade one completion against the gold calls ``ground_truth`` (a JSON list, as text or decoded)."""
    gold = gold_calls(ground_truth)
    if options.mode == "paper":
        return _paper(solution, ground_truth)
    calls, problem = read_calls(solution)
    if not problem:
        problem = difference(calls, gold)
        right, formed = not problem, True
    else:
        right, formed = False, False
    pred = json.dumps([[call.name, call.arguments] for call in calls], ensure_ascii=False)
    return {"score": right, "acc": right, "format_ok": formed, "pred": pred, "feedback": problem}


def gold_calls(ground_truth: Any) -> list[Call]:
    """The gold calls of a row; an error that says what is wrong with them."""
    try:
        rows = loads(ground_truth) if isinstance(ground_truth, str) else list(ground_truth)
        calls = []
        for row in rows:
            arguments = row["Action_Input"]
            arguments = loads(arguments) if isinstance(arguments, str) else arguments
            if not isinstance(arguments, dict):
                raise TypeError("Action_Input is not an object")
            name = str(row["Action"]).strip()
            calls.append(Call(name.removeprefix(_OPTIONAL).strip(), arguments, name.startswith(_OPTIONAL)))
    except (JSONProblem, KeyError, TypeError) as error:
        raise BadGroundTruth(
            f"the gold of a tool-use row must be a JSON list of {{'Action', 'Action_Input'}}: {error!r}"
        ) from None
    if not calls or all(call.optional for call in calls):
        raise BadGroundTruth("the gold of a tool-use row holds no required call, so that saying nothing would pass")
    return calls


def read_calls(solution: str) -> tuple[list[Call], str]:
    """The calls of a completion, and what is wrong with their form ("" if nothing)."""
    text = after_thinking(solution)
    calls: list[Call] = []
    position = 0
    while match := _ACTION.search(text, position):
        head = _INPUT.match(text, match.end())
        name = match.group("name").strip(" \t\r`*")
        if not head:
            return calls, f"The line after 'Action: {name}' must be 'Action Input:' with a JSON object."
        try:
            arguments, position = decode_at(text, head.end())
        except JSONProblem as error:
            return calls, f"The Action Input of {name} is not valid JSON: {error}"
        if not isinstance(arguments, dict):
            return calls, f"The Action Input of {name} must be a JSON object."
        following = _ACTION.search(text, position)
        end = following.start() if following else len(text)
        if _SECOND_OBJECT.match(text, position) or _SECOND_INPUT.search(text, position, end):
            return calls, f"The call of {name} has two inputs; give it one."
        calls.append(Call(name, arguments))
    if not calls:
        return calls, "No call found: write 'Action: <tool>' and, on the next line, 'Action Input: <JSON object>'."
    return calls, ""


def difference(calls: list[Call], gold: list[Call]) -> str:
    """What distinguishes the calls from the gold ones ("" when they agree)."""
    if len(calls) < len(gold):
        gold = gold if not any(call.optional for call in gold) else [call for call in gold if not call.optional]
    names = [call.name.removeprefix(_OPTIONAL).strip() for call in calls]
    if len(calls) != len(gold):
        return f"{len(calls)} calls were made where {len(gold)} are needed."
    for index, (name, target) in enumerate(zip(names, gold, strict=True), 1):
        if name != target.name:
            return f"Call {index} uses the wrong tool: {name}."
    left = list(gold)
    for index, (name, call) in enumerate(zip(names, calls, strict=True), 1):
        same_tool = [target for target in left if target.name == name]
        match = next((t for t in same_tool if same_json(call.arguments, t.arguments)), None)
        if match is None:
            return f"Call {index} ({name}) has wrong arguments{_which(call.arguments, same_tool)}."
        left.remove(match)
    return ""


def _which(arguments: dict[str, Any], targets: list[Call]) -> str:
    if len(targets) != 1:
        return ""
    gold = targets[0].arguments
    keys = [k for k in {**arguments, **gold} if k not in gold or k not in arguments]
    keys = keys or [k for k in gold if not same_json(arguments[k], gold[k])]
    return f" (look at {', '.join(sorted(map(str, keys))[:5])})"


def _paper(solution: str, ground_truth: Any) -> dict[str, Any]:
    right = paper.same_calls(solution, json.loads(ground_truth) if isinstance(ground_truth, str) else ground_truth)
    pred = json.dumps(paper.merged_inputs(solution), ensure_ascii=False)
    return {"score": right, "acc": right, "format_ok": bool(paper.actions(solution)), "pred": pred}


def render_gold(ground_truth: Any, extra_info: dict[str, Any]) -> str:
    """A completion that makes the gold calls (used to check data)."""
    calls = gold_calls(ground_truth)
    return "\n".join(f"Action: {call.name}\nAction Input: {json.dumps(call.arguments)}" for call in calls)
