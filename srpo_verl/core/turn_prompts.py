"""The teacher's prompt that shows a sibling's turns: its calls, and what the tools answered.

Two forms. `text`: with labels, inside the last user message, where a demonstration of one answer stands too.
`conversation`: as the messages they were, by the chat template, between the question and the question asked again.

All that model or environment wrote is spliced in as plain text, tool names and arguments included: none of it can
become a control token or a turn of its own. What does not fit is shortened where it is least missed: the middles of the
longest tool results first, then the earlier turns, whole, from the first on. The last turn, which has the answer, is
kept, at last from its beginning on less and less of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

from .prompts import PromptParts, TeacherPrompt, first_tokens, last_tokens, strip_thinking, visible_answer
from .template import control_ids, holds_controls, marked_template, plain_text_ids
from .turns import Turn, turns_of

__all__ = ["DEMONSTRATIONS", "TurnPrompt", "check_conversation_template"]

DEMONSTRATIONS = ("text", "conversation")
ABOVE = "(the conversation above)"
CUT = " [...] "
# Tokens of a tool result that are left before earlier turns are dropped for it.
FLOOR = 64
_LABELS = {"assistant": "Assistant: ", "tool": "Result: ", "user": "User: "}


@dataclass(frozen=True)
class Slot:
    """A text to insert: of which turn, whether its middle may go, whether it is a string inside JSON."""

    text: str
    turn: int
    result: bool = False
    inside_json: bool = False


@dataclass(frozen=True)
class TurnPrompt:
    """A conversation and the turns to show in it; `of` makes it.

    Attributes:
        parts: the conversation, with a place where a text is shown.
        turns: from the first assistant's turn on.
        conversation: as messages of the chat template, instead of as text.
    """

    parts: PromptParts
    turns: tuple[Turn, ...]
    conversation: bool = False

    @classmethod
    def of(
        cls, parts: PromptParts, turns: Sequence[Turn], *, demonstration: str = "text", remove_thinking: bool = True
    ) -> TurnPrompt:
        """A prompt that shows `turns` where `parts` inserts its only text.

        Args:
            demonstration: one of `DEMONSTRATIONS`.
            remove_thinking: drop `<think>...</think>` of every turn; of the last one only if something else is left.

        Raises:
            ValueError: no turn of the assistant, or another form of demonstration.
        """
        if demonstration not in DEMONSTRATIONS:
            raise ValueError(f"demonstration={demonstration!r} is not one of {', '.join(DEMONSTRATIONS)}.")
        own = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
        if not own:
            raise ValueError("there is no turn of the assistant to show.")
        shown = list(turns[own[0] :])
        if remove_thinking:
            for index, turn in enumerate(shown):
                if turn.role == "assistant":
                    visible = visible_answer if index + own[0] == own[-1] and not turn.calls else strip_thinking
                    shown[index] = replace(turn, content=visible(turn.content))
        return cls(parts, tuple(shown), demonstration == "conversation")

    def whole(self) -> list[dict[str, Any]]:
        """The messages with everything in them."""
        return self.messages(0, [slot.text for slot in self.slots(0)])

    def slots(self, first: int) -> list[Slot]:
        """The texts to insert if the turns from `first` on are shown."""
        found: list[Slot] = []

        def note(text: str, turn: int, **kind: bool) -> str:
            if text:
                found.append(Slot(text, turn, **kind))
            return text

        self._build(first, note)
        return found

    def messages(self, first: int, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The messages that show the turns from `first` on, with these texts in place of those of `slots`."""
        rest = iter(texts)
        return self._build(first, lambda text, turn, **kind: next(rest) if text else text)

    def _build(self, first: int, put: Callable[..., str]) -> list[dict[str, Any]]:
        numbered = list(enumerate(self.turns))[first:]
        if not self.conversation:
            return self.parts.messages([_as_text(numbered, put)])
        asked_again = self.parts.messages([ABOVE])
        before = [dict(message) for message in self.parts.conversation]
        return [*before, *_as_messages(numbered, put), asked_again[self.parts.last_user]]

    def fitted(
        self, tokenizer: Any, ids: list[int], max_length: int, kwargs: Mapping[str, Any]
    ) -> TeacherPrompt | None:
        """`ids`, the whole prompt, if they will do; else what is shown is shortened, None if nothing of it fits.

        Raises:
            ValueError: a chat template that does not render each text exactly once.
        """
        pieces, order = self._template(tokenizer, 0, kwargs)
        scaffold = _encoded(tokenizer, pieces)
        # As messages, texts also stand between the template's tags of calls and results.
        controls = control_ids(tokenizer, ending=[*chain(*scaffold)] if self.conversation else scaffold[-1])
        if len(ids) <= max_length and not holds_controls(ids, scaffold, controls):
            return TeacherPrompt(ids)
        cut = plain_text_ids(tokenizer, CUT, controls)
        total = 0
        for first in self._starts():
            pieces, order = self._template(tokenizer, first, kwargs)
            scaffold, slots = _encoded(tokenizer, pieces), self.slots(first)
            texts = [_spliced_text(slots[n], pieces[place]) for place, n in enumerate(order)]
            slots = [slots[n] for n in order]
            tokens = [plain_text_ids(tokenizer, text, controls) for text in texts]
            total = total or sum(map(len, tokens))
            last_chance = first == self._starts()[-1]
            budget = max_length - sum(map(len, scaffold))
            kept = _shortened(tokenizer, slots, tokens, budget, cut, from_beginning=last_chance)
            if kept is None:
                continue
            found = list(scaffold[0])
            for piece, following in zip(kept, scaffold[1:], strict=True):
                found += piece + following
            dropped = total - sum(map(len, kept))
            return TeacherPrompt(
                found,
                truncated=dropped > 0,
                dropped_tokens=max(dropped, 0),
                kept_tokens=total - max(dropped, 0),
                spliced=True,
                dropped_turns=first and sum(turn.role == "assistant" for turn in self.turns[:first]),
                shortened_results=sum(
                    slot.result and len(a) < len(b) for slot, a, b in zip(slots, kept, tokens, strict=True)
                ),
            )
        return None

    def _starts(self) -> list[int]:
        """Where what is shown may begin: at a turn of the assistant."""
        return [index for index, turn in enumerate(self.turns) if turn.role == "assistant"]

    def _template(self, tokenizer: Any, first: int, kwargs: Mapping[str, Any]) -> tuple[list[str], list[int]]:
        count = len(self.slots(first))
        return marked_template(tokenizer, lambda marks: self.messages(first, marks), count, kwargs)


def check_conversation_template(tokenizer: Any, chat_template_kwargs: Mapping[str, Any]) -> None:
    """Raise ValueError if the chat template cannot show calls and results as a conversation."""
    ask = PromptParts.of([{"role": "user", "content": "?"}], [("{text}", "")])
    turns: list[dict[str, Any]] = [
        {"role": "assistant", "content": "a", "tool_calls": [{"name": "tool", "arguments": {"key": "value"}}]},
        {"role": "tool", "content": "result"},
        {"role": "assistant", "content": "b"},
    ]
    prompt = TurnPrompt.of(ask, turns_of(turns), demonstration="conversation")
    try:
        prompt._template(tokenizer, 0, chat_template_kwargs)
    except Exception as error:
        raise ValueError(
            "the model's chat template cannot show tool calls and results as a conversation "
            f"({type(error).__name__}: {error}): set srpo.teacher.demonstration=text"
        ) from error


def _as_text(turns: Sequence[tuple[int, Turn]], put: Callable[..., str]) -> str:
    lines = []
    for number, turn in turns:
        if turn.content:
            # A single answer needs no label.
            label = _LABELS[turn.role] if len(turns) > 1 else ""
            lines.append(label + put(turn.content, number, result=turn.role != "assistant"))
        elif turn.role != "assistant":
            lines.append(_LABELS[turn.role].strip())
        lines += [f"Call: {put(f'{call.name} {call.arguments_text}', number)}" for call in turn.calls]
    return "\n".join(lines)


def _as_messages(turns: Sequence[tuple[int, Turn]], put: Callable[..., str]) -> Iterator[dict[str, Any]]:
    for number, turn in turns:
        content = put(turn.content, number, result=turn.role != "assistant")
        message: dict[str, Any] = {"role": turn.role, "content": content}
        calls = []
        for call in turn.calls:
            name = put(call.name, number)
            arguments = _strings(call.arguments, partial(put, turn=number, inside_json=True))
            calls.append({"type": "function", "function": {"name": name, "arguments": arguments}})
        yield {**message, "tool_calls": calls} if calls else message


def _strings(value: Any, put: Callable[[str], str]) -> Any:
    """The same JSON with each string in it, keys too, as `put` gives it."""
    if isinstance(value, str):
        return put(value)
    if isinstance(value, Mapping):
        return {put(str(key)): _strings(item, put) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strings(item, put) for item in value]
    return value


def _spliced_text(slot: Slot, before: str) -> str:
    """A string inside JSON is escaped where the template has put it in quotes."""
    if slot.inside_json and before.endswith('"'):
        return json.dumps(slot.text, ensure_ascii=False)[1:-1]
    return slot.text


def _encoded(tokenizer: Any, pieces: Sequence[str]) -> list[list[int]]:
    return [list(tokenizer(piece, add_special_tokens=False)["input_ids"]) if piece else [] for piece in pieces]


def _shortened(
    tokenizer: Any,
    slots: Sequence[Slot],
    tokens: Sequence[list[int]],
    budget: int,
    cut: list[int],
    *,
    from_beginning: bool,
) -> list[list[int]] | None:
    """The tokens of each slot, at most `budget` in all; None if results alone cannot make the room.

    Args:
        from_beginning: whether the first text of the model's may lose its beginning, as the last resort.
    """
    lengths = [len(ids) for ids in tokens]
    results = [n for n, slot in enumerate(slots) if slot.result]
    room = budget - sum(length for n, length in enumerate(lengths) if n not in set(results))
    most = _cap([lengths[n] for n in results], room)
    own = [n for n in range(len(slots)) if n not in set(results) and not slots[n].inside_json]
    kept = list(tokens)
    if most < FLOOR and sum(lengths[n] for n in results) > max(room, 0):
        if not from_beginning or not own:
            return None
        most = FLOOR
    for n in results:
        kept[n] = _without_middle(tokenizer, tokens[n], most, cut)
    excess = sum(map(len, kept)) - budget
    if excess > 0:
        longest = max(own, key=lambda n: len(kept[n]), default=None)
        if longest is None or len(kept[longest]) <= excess:
            return None
        kept[longest] = last_tokens(tokenizer, kept[longest], len(kept[longest]) - excess)
        if not kept[longest]:
            return None
    return kept


def _cap(lengths: Sequence[int], room: int) -> int:
    """The greatest c with sum(min(length, c)) <= room; 0 if there is none."""
    low, high = 0, max([*lengths, 0])
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(min(n, middle) for n in lengths) <= room else (low, middle - 1)
    return low


def _without_middle(tokenizer: Any, ids: list[int], most: int, cut: list[int]) -> list[int]:
    """At most `most` of the ids: their beginning, a sign, their end."""
    if len(ids) <= most:
        return ids
    rest = max(most - len(cut), 0)
    head = first_tokens(tokenizer, ids, rest - rest // 2)
    return [*head, *cut, *last_tokens(tokenizer, ids, rest // 2)][:most]
