"""Text put into a rendered chat template as plain text, whatever it contains.

A demonstration is model output: it may hold "<|im_end|>\\n<|im_start|>assistant", by accident or because a reward could
be gained by it. Tokenised together with the template, such a string would become the real control tokens.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from jinja2 import TemplateError

__all__ = [
    "control_ids",
    "holds_controls",
    "marked_template",
    "plain_text_ids",
    "render_ids",
    "split_template",
    "without_lone_surrogates",
]

Messages = list[dict[str, Any]]


def render_ids(
    tokenizer: Any, conversations: Sequence[Messages], template_kwargs: Mapping[str, Any]
) -> list[list[int]]:
    """Token ids of the rendered conversations with the generation prompt."""
    if not conversations:
        return []
    try:
        ids = _apply(tokenizer, list(conversations), template_kwargs, tokenize=True)
    except TemplateError:
        # The template refuses one of them, and is asked about each.
        ids = [_apply_from_a_user(tokenizer, one, template_kwargs, tokenize=True) for one in conversations]
    return [list(row) for row in ids]


def _apply(
    tokenizer: Any, conversations: Any, kwargs: Mapping[str, Any], *, tokenize: bool, prompt: bool = True
) -> Any:
    options = {"return_dict": False} if tokenize else {}
    return tokenizer.apply_chat_template(
        conversations, add_generation_prompt=prompt, tokenize=tokenize, **options, **kwargs
    )


def _apply_from_a_user(tokenizer: Any, conversation: Messages, kwargs: Mapping[str, Any], *, tokenize: bool) -> Any:
    """What the template makes of a conversation; of one that it refuses, what it adds to an empty user message.

    As verl renders the student's prompt (`verl.utils.tokenizer.chat_template.apply_chat_template`), for templates that
    take no system message at the beginning.

    Raises:
        TemplateError: the template's own, if it refuses that too.
    """
    try:
        return _apply(tokenizer, conversation, kwargs, tokenize=tokenize)
    except TemplateError as error:
        empty = [{"role": "user", "content": [{"type": "text", "text": ""}]}]
        try:
            start = _apply(tokenizer, empty, kwargs, tokenize=tokenize, prompt=False)
            return _apply(tokenizer, [*empty, *conversation], kwargs, tokenize=tokenize)[len(start) :]
        except (TemplateError, TypeError):
            raise error from None


def split_template(
    tokenizer: Any, build: Callable[[list[str]], Messages], count: int, template_kwargs: Mapping[str, Any]
) -> list[list[int]]:
    """Token ids of the template around `count` inserted texts: count + 1 pieces.

    Args:
        build: makes the conversation from the texts to insert; called with placeholders.

    Raises:
        ValueError: the template does not reproduce a placeholder exactly once, in order.
    """
    pieces, order = marked_template(tokenizer, build, count, template_kwargs)
    if order != list(range(count)):
        raise ValueError(f"the chat template of {type(tokenizer).__name__} changes the order of the inserted texts.")
    return [_encode(tokenizer, piece) for piece in pieces]


def marked_template(
    tokenizer: Any, build: Callable[[list[str]], Messages], count: int, template_kwargs: Mapping[str, Any]
) -> tuple[list[str], list[int]]:
    """What the template renders around `count` inserted texts: count + 1 pieces, and which text stands at each place.

    Args:
        build: makes the conversation from the texts to insert; called with placeholders.

    Raises:
        ValueError: the template does not reproduce a placeholder exactly once.
    """
    # Digits only, so that templates that change case or trim leave them alone; hashed, so that no question holds them.
    bare = repr(build([""] * count)).encode("utf-8", "backslashreplace")
    marks = [str(int.from_bytes(hashlib.sha256(bare + i.to_bytes(4)).digest())) for i in range(count)]
    rest = _apply_from_a_user(tokenizer, build(marks), template_kwargs, tokenize=False)
    for mark in marks:
        if rest.count(mark) != 1:
            raise ValueError(
                f"the chat template of {type(tokenizer).__name__} renders an inserted text {rest.count(mark)} "
                "times or changes it, so there is no telling where a demonstration stands in the prompt; "
                "use a chat template that renders the content of messages once and as it is."
            )
    order = sorted(range(count), key=lambda number: rest.index(marks[number]))
    pieces = []
    for number in order:
        before, rest = rest.split(marks[number])
        pieces.append(before)
    return [*pieces, rest], order


def control_ids(tokenizer: Any, ending: Sequence[int]) -> set[int]:
    """Ids that inserted text must not produce: special tokens, and the added tokens the template ends a turn with.

    Some tokenizers do not mark their turn markers as special; `ending`, the template's ids after the inserted text,
    gives those away. The unknown token is not one of them: odd characters may yield it, and it changes no structure.
    """
    added = tokenizer.added_tokens_decoder
    special = {token_id for token_id, token in added.items() if token.special} | set(tokenizer.all_special_ids)
    return (special | (set(ending) & set(added))) - {tokenizer.unk_token_id}


def holds_controls(ids: Sequence[int], scaffold: Sequence[Sequence[int]], controls: set[int]) -> bool:
    """Whether a whole prompt has other control tokens than its template: they come from the inserted text."""
    allowed = Counter(token_id for piece in scaffold for token_id in piece if token_id in controls)
    return Counter(token_id for token_id in ids if token_id in controls) != allowed


def plain_text_ids(tokenizer: Any, text: str, controls: set[int]) -> list[int]:
    """Token ids of `text` without any of `controls`.

    Raises:
        ValueError: the tokenizer yields a control token even for a piece of text that does not spell one.
    """
    ids = _encode(tokenizer, text)
    if controls.isdisjoint(ids):
        return ids
    ids = _encode(tokenizer, text, split_special_tokens=True)
    if controls.isdisjoint(ids):
        return ids
    # Added tokens that are not marked special are matched even so: break their spelling after the first character.
    vocabulary = tokenizer.added_tokens_decoder
    spellings = [str(vocabulary[i]) for i in controls if i in vocabulary and len(str(vocabulary[i])) > 1]
    cuts = {0, len(text)}
    for spelling in spellings:
        start = text.find(spelling)
        while start >= 0:
            cuts.add(start + 1)
            start = text.find(spelling, start + 1)
    edges = sorted(cuts)
    ids = []
    for start, end in pairwise(edges):
        ids += _encode(tokenizer, text[start:end], split_special_tokens=True)
    if not controls.isdisjoint(ids):
        found = tokenizer.convert_ids_to_tokens(sorted(controls & set(ids)))
        raise ValueError(f"the tokenizer turns plain text into the control tokens {found}; it cannot be used safely.")
    return ids


def without_lone_surrogates(value: Any) -> Any:
    """The same text, or messages, with half surrogate pairs replaced by U+FFFD: tokenizers refuse them."""
    if isinstance(value, str):
        # UTF-16 joins the pairs that belong together and leaves the lone halves as decoding errors.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, Mapping):
        return {without_lone_surrogates(key): without_lone_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_lone_surrogates(item) for item in value]
    return value


def _encode(tokenizer: Any, text: str, **kwargs: Any) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, **kwargs)["input_ids"]) if text else []
