"""A rollout of several turns: what the model wrote, the tools it called, what they answered. Text only.

The form is that of chat messages, so that any agent loop can give it:

    {"role": "assistant", "content": "Let me see.", "tool_calls": [{"name": "add", "arguments": {"a": 1}}]}
    {"role": "tool", "content": "no argument b", "failed": true}
    {"role": "assistant", "content": "..."}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .template import without_lone_surrogates

__all__ = ["Call", "Turn", "failed_calls", "turns_from_json", "turns_of", "turns_to_json"]

ROLES = ("assistant", "tool", "user")


class BadTurns(ValueError):
    """Turns of another form."""


@dataclass(frozen=True)
class Call:
    """A tool call; `arguments` is what stood there as JSON, or the text itself where it was no object."""

    name: str
    arguments: Mapping[str, Any] | str

    @property
    def arguments_text(self) -> str:
        """The arguments as the model would write them."""
        if isinstance(self.arguments, str):
            return self.arguments
        return json.dumps(self.arguments, ensure_ascii=False)


@dataclass(frozen=True)
class Turn:
    """One message of a rollout.

    Attributes:
        role: `assistant`, `tool`, or `user` for an environment that answers as one.
        content: without control tokens and without the calls.
        calls: of an assistant's turn.
        failed: of a tool's turn, whether the call failed.
    """

    role: str
    content: str
    calls: tuple[Call, ...] = ()
    failed: bool = False


def turns_of(messages: Iterable[Mapping[str, Any]]) -> tuple[Turn, ...]:
    """Turns out of chat messages; calls bare or in OpenAI's form (`{"function": {"name", "arguments"}}`).

    Lone surrogates, which tokenizers refuse, are replaced. Of a content in parts the texts are kept.

    Raises:
        BadTurns: a message of another form.
    """
    return tuple(_turn(index, without_lone_surrogates(message)) for index, message in enumerate(messages))


def _turn(index: int, message: Any) -> Turn:
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        found = message.get("role") if isinstance(message, Mapping) else type(message).__name__
        raise BadTurns(f"turn {index} of a rollout must be a message of {', '.join(ROLES)}, not of {found!r}.")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content if isinstance(part, Mapping))
    if not isinstance(content or "", str):
        raise BadTurns(f"the content of turn {index} of a rollout is a {type(content).__name__}, not a text.")
    calls = tuple(_call(index, call) for call in message.get("tool_calls") or ())
    return Turn(message["role"], content or "", calls, bool(message.get("failed", False)))


def _call(index: int, call: Any) -> Call:
    given = call.get("function", call) if isinstance(call, Mapping) else None
    name, arguments = (given.get("name"), given.get("arguments")) if isinstance(given, Mapping) else (None, None)
    if not isinstance(name, str) or not isinstance(arguments, Mapping | str):
        raise BadTurns(f"a call in turn {index} of a rollout needs a name and arguments (an object or a text).")
    return Call(name, arguments)


def turns_to_json(turns: Sequence[Turn]) -> str:
    """The turns as one text; ASCII, so that any text survives."""
    rows = []
    for turn in turns:
        row: dict[str, Any] = {"role": turn.role, "content": turn.content}
        if turn.calls:
            row["tool_calls"] = [{"name": call.name, "arguments": call.arguments} for call in turn.calls]
        if turn.failed:
            row["failed"] = True
        rows.append(row)
    return json.dumps(rows)


def turns_from_json(text: str) -> tuple[Turn, ...]:
    """What `turns_to_json` wrote. Raises ValueError for anything else."""
    return turns_of(json.loads(text))


def failed_calls(turns: Sequence[Turn], *, limit: int = 2000) -> str | None:
    """What the environment said to calls that failed, turn by turn; None if none did.

    Args:
        limit: characters of a call and of an answer that are kept, of each the end.
    """
    lines = []
    number = 0
    pending: list[Call] = []
    for turn in turns:
        if turn.role == "assistant":
            number += 1
            pending = list(turn.calls)
            continue
        # Answers come in the order of the calls.
        call = pending.pop(0) if turn.role == "tool" and pending else None
        if turn.failed:
            asked = f", {call.name}({call.arguments_text[-limit:]})" if call else ""
            lines.append(f"Turn {number}{asked}: {turn.content[-limit:]}")
    return "\n".join(lines) or None
