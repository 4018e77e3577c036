"""The teacher's prompt: the question together with a correct solution or feedback (SDPO, arXiv 2601.20802).

The teacher is the model itself, shown what it could not know when it answered. It generates nothing: the student's
response is appended to this prompt and re-scored.

A right-truncated teacher prompt loses its last instruction and the assistant header, and then scores the response
under a prompt nobody would write. So here question, instruction and header are never cut; the inserted text shrinks.
That text comes from a model or an environment: it is spliced in as plain text and cannot close the user's turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from .template import (
    control_ids,
    holds_controls,
    plain_text_ids,
    render_ids,
    split_template,
    without_lone_surrogates,
)

__all__ = [
    "SECTIONS",
    "TEMPLATE",
    "BadMessages",
    "PromptParts",
    "TeacherPrompt",
    "strip_thinking",
    "teacher_messages",
    "teacher_prompt_ids",
    "visible_answer",
]

TEMPLATE = "{prompt}{information}\n\nCorrectly solve the original question."
"""The last user message that the teacher sees (SDPO); {information} stands for the sections."""
SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "sibling": "\nCorrect solution:\n\n{text}",
        "feedback": "\nThe following is feedback from your unsuccessful earlier attempt:\n\n{text}",
        "tool_feedback": "\nThese calls of your unsuccessful earlier attempt failed:\n\n{text}",
    }
)
"""How what a provider gives stands in it."""


class BadMessages(ValueError):
    """A row of the data whose conversation cannot be extended."""


@dataclass(frozen=True)
class TeacherPrompt:
    """A tokenised teacher prompt.

    Attributes:
        input_ids: token ids up to and including the generation prompt.
        truncated: whether the inserted text had to be shortened.
        dropped_tokens: how many of its tokens were dropped.
        kept_tokens: how many of its tokens remain, at least one; None when all of it is there.
        spliced: whether the inserted text was tokenised apart from the template (too long, or it held special tokens).
        dropped_turns: how many turns of the model's are left out of a demonstration of several.
        shortened_results: how many of its tool results have lost their middle.
    """

    input_ids: list[int]
    truncated: bool = False
    dropped_tokens: int = 0
    kept_tokens: int | None = None
    spliced: bool = False
    dropped_turns: int = 0
    shortened_results: int = 0


def strip_thinking(text: str) -> str:
    """Remove `<think>...</think>` and the blank space behind it.

    A leading part without its opening tag (the tag may have been part of the prompt) that ends in `</think>` is removed
    too. An opening tag that is never closed is left alone. Linear in the length of the text.
    """
    opening, closing = "<think>", "</think>"
    first, *others = text.split(closing)
    *thoughts, rest = [first, *(piece.lstrip() for piece in others)]
    # Each piece before a closing tag is visible up to its opening tag; without one, all of it is thinking.
    visible = [piece[: piece.index(opening)] for piece in thoughts if opening in piece]
    return "".join(visible) + rest


def visible_answer(text: str) -> str:
    """`strip_thinking`; an answer that is nothing but thinking is kept whole, or there would be nothing to show."""
    visible = strip_thinking(text)
    return visible if visible.strip() else text


def teacher_messages(
    messages: Iterable[Mapping[str, Any]],
    information: Sequence[tuple[str, str]],
    *,
    template: str = TEMPLATE,
    system_prompt: str | None = None,
) -> list[dict[str, Any]]:
    """The conversation the teacher sees: the last user message is extended, every other message is kept as it is.

        {prompt}\\nCorrect solution:\\n\\n{demonstration}\\n\\nCorrectly solve the original question.

    Arguments and errors as of `PromptParts.of`; nothing is replaced in the texts.

    Returns:
        New dicts; the input is not changed.
    """
    parts = PromptParts.of(messages, information, template=template, system_prompt=system_prompt)
    return parts.whole()


@dataclass(frozen=True)
class PromptParts:
    """A conversation and the texts to insert into its last user message; `of` makes and checks it."""

    conversation: list[dict[str, Any]]
    last_user: int
    # What stands around the texts to insert: one more than there are texts.
    frame: tuple[str, ...]
    inserted: list[str]

    @classmethod
    def of(
        cls,
        messages: Iterable[Mapping[str, Any]],
        information: Sequence[tuple[str, str]],
        *,
        template: str = TEMPLATE,
        system_prompt: str | None = None,
    ) -> PromptParts:
        """Lone surrogates, which tokenizers refuse, are replaced.

        Args:
            messages: `[{"role": ..., "content": ...}, ...]`, a list or an array as in a row of the data.
            information: pairs of a section (see `SECTIONS`) and the text for it.
            template: with {prompt} and {information}, each once, in this order. Other braces are text.
            system_prompt: takes the place of the system message; None keeps what is there.

        Raises:
            BadMessages: messages that are not a list of dicts with role and content, no user message, a user message
                that is not a text.
            ValueError: no information, information that is not a text, or a template or section without its places.
        """
        conversation, last_user = _check_messages(messages)
        if system_prompt is not None:
            if conversation[0]["role"] == "system":
                conversation[0]["content"] = system_prompt
            else:
                conversation.insert(0, {"role": "system", "content": system_prompt})
                last_user += 1
        conversation = without_lone_surrogates(conversation)
        _check_information(information)
        start, rest = _split(template, "{prompt}")
        before, after = _split(rest, "{information}")
        frame = [start + conversation[last_user]["content"] + before]
        for section, _ in information:
            head, foot = _split(section, "{text}")
            frame[-1] += head
            frame.append(foot)
        frame[-1] += after
        return cls(conversation, last_user, tuple(frame), [without_lone_surrogates(text) for _, text in information])

    def whole(self) -> list[dict[str, Any]]:
        """The conversation with all of the texts."""
        return self.messages(self.inserted)

    def messages(self, inserted: Sequence[str]) -> list[dict[str, Any]]:
        """The conversation with these texts in place of `self.inserted`."""
        # Concatenation, not str.format: braces in the question or in a solution are text.
        content = self.frame[0] + "".join(map("".join, zip(inserted, self.frame[1:], strict=True)))
        return [
            {**message, "content": content} if index == self.last_user else dict(message)
            for index, message in enumerate(self.conversation)
        ]

    def fitted(
        self, tokenizer: Any, ids: list[int], max_length: int, kwargs: Mapping[str, Any]
    ) -> TeacherPrompt | None:
        """`ids`, the whole prompt, if they will do; else pieces of it."""
        scaffold = split_template(tokenizer, self.messages, len(self.inserted), kwargs)
        controls = control_ids(tokenizer, ending=scaffold[-1])
        if len(ids) <= max_length and not holds_controls(ids, scaffold, controls):
            return TeacherPrompt(ids)

        first, *others = [plain_text_ids(tokenizer, text, controls) for text in self.inserted]
        budget = max_length - sum(map(len, scaffold)) - sum(map(len, others))
        kept = last_tokens(tokenizer, first, max(budget, 0))
        if budget < 0 or (first and not kept):
            return None
        ids = list(scaffold[0])
        for piece, following in zip([kept, *others], scaffold[1:], strict=True):
            ids += piece + following
        dropped = len(first) - len(kept)
        return TeacherPrompt(ids, truncated=dropped > 0, dropped_tokens=dropped, kept_tokens=len(kept), spliced=True)


class Fittable(Protocol):
    """A prompt that can be made to fit: `PromptParts`, `TurnPrompt`."""

    def whole(self) -> list[dict[str, Any]]:
        """The messages with all that is to be shown."""

    def fitted(
        self, tokenizer: Any, ids: list[int], max_length: int, kwargs: Mapping[str, Any]
    ) -> TeacherPrompt | None:
        """`ids`, the rendered whole, or pieces of it, at most `max_length` tokens; None if that cannot be."""


def teacher_prompt_ids(
    tokenizer: Any,
    prompts: Sequence[Fittable],
    *,
    max_length: int,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[TeacherPrompt | None]:
    """Token ids of teacher prompts, generation prompt included, at most `max_length` of them each.

    If everything fits and the inserted text spells no control tokens, these are exactly the ids of
    `apply_chat_template(parts.whole(), add_generation_prompt=True)`. Otherwise the template is rendered around
    a placeholder, and the inserted text is tokenised apart, as plain text, and put in its place, shortened if it must
    be. What is kept of it is its END: there stand the final answer of a solution and the error of a trace.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template. It gets all prompts in one call, which a fast one
            spreads over the processor's cores.
        prompts: of `PromptParts` the first text is what shrinks; what shrinks of a `TurnPrompt` is said there.
        max_length: the most tokens a prompt may have.
        chat_template_kwargs: passed to the chat template, for instance `{"enable_thinking": False}`.

    Returns:
        `TeacherPrompt` per prompt, or None if the prompt does not fit with any of the text that may shrink.

    Raises:
        ValueError: a tokenizer without a chat template; a chat template that changes the user's text so much that the
            place to insert cannot be found.
    """
    kwargs = dict(chat_template_kwargs or {})
    whole = render_ids(tokenizer, [parts.whole() for parts in prompts], kwargs)
    return [parts.fitted(tokenizer, ids, max_length, kwargs) for parts, ids in zip(prompts, whole, strict=True)]


def last_tokens(tokenizer: Any, ids: list[int], budget: int) -> list[int]:
    """The last `budget` ids, less what a cut through a UTF-8 character leaves of it (at most three tokens)."""
    if len(ids) <= budget:
        return ids
    kept = ids[len(ids) - budget :]
    for _ in range(3):
        if not kept or not tokenizer.decode(kept[:4]).startswith("\ufffd"):
            break
        kept = kept[1:]
    return kept


def first_tokens(tokenizer: Any, ids: list[int], budget: int) -> list[int]:
    """The first `budget` ids, less what a cut through a UTF-8 character leaves of it (at most three tokens)."""
    if len(ids) <= budget:
        return ids
    kept = ids[:budget]
    for _ in range(3):
        if not kept or not tokenizer.decode(kept[-4:]).endswith("\ufffd"):
            break
        kept = kept[:-1]
    return kept


def _check_messages(messages: Iterable[Any]) -> tuple[list[dict[str, Any]], int]:
    """Copies of the messages, and the index of the last user message."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise BadMessages(
            f"messages must be a list of {{'role', 'content'}} dicts, not a {type(messages).__name__}; "
            "a plain text prompt has to be wrapped as a user message."
        )
    conversation = []
    last_user = -1
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            name = type(message).__name__
            raise BadMessages(f"message {index} is a {name}, not a dict with 'role' and 'content'.")
        missing = [key for key in ("role", "content") if key not in message]
        if missing:
            lacks = " and no ".join(map(repr, missing))
            raise BadMessages(f"message {index} has no {lacks}; it has {sorted(map(str, message))}.")
        if message["role"] == "user":
            last_user = index
        conversation.append(dict(message))
    if last_user < 0:
        raise BadMessages("messages contain no user message; the teacher's text is added to the last one.")
    content = conversation[last_user]["content"]
    if not isinstance(content, str):
        raise BadMessages(
            f"the content of message {last_user} (the last user message) is a {type(content).__name__}; "
            "only text can be extended, multimodal parts are not supported."
        )
    return conversation, last_user


def _check_information(information: Sequence[tuple[str, str]]) -> None:
    if not information:
        raise ValueError("nothing to show is given, no demonstration and no feedback: then there is no teacher prompt.")
    if wrong := [type(text).__name__ for _, text in information if not isinstance(text, str)]:
        raise ValueError(f"what the teacher is shown must be a text, not a {wrong[0]}.")


def _split(text: str, place: str) -> tuple[str, str]:
    if text.count(place) != 1:
        raise ValueError(f"a teacher's template must hold {place} once: {text!r} has it {text.count(place)} times.")
    before, _, after = text.partition(place)
    return before, after
