r"""Find the answer in a completion.

Order: text after the last ``</think>`` only; then the later of the last ``\boxed{}`` (balanced braces) and the last
``#### x`` line; then the last "Answer: x" or "the answer is x"; then, if the whole reply holds exactly one number, that
number. Several candidates with no marker are no answer. Boxes joined by a comma, "or" or "and" are one answer with
several parts, so that offering two values for one does not score.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\boxed\s+(?=[^\s{])")
_HASH = re.compile(r"####[ \t]*(.+)")
_PHRASE = re.compile(
    r"(?:\b(?:final\s+)?answer\b\s*(?:\*\*)?\s*(?:is|are|:|=)\s*(?:\*\*)?\s*:?)[ \t]*(?P<answer>[^\n]+)", re.IGNORECASE
)
_NUMBER = re.compile(r"(?<![\w.,])[-+\u2212]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?(?![\w]|\.\d)")
_JOIN = re.compile(r"[\s$.,;:]*(?:\\?,|;|/|\bor\b|\band\b|\\text\{\s*(?:or|and)\s*\})[\s$]*", re.IGNORECASE)
_MAX_JOINED = 12


@dataclass(frozen=True)
class Extracted:
    """An answer as text, and how it was found: ``box``, ``hash``, ``phrase``, ``plain`` or ``none``."""

    text: str
    kind: str

    @property
    def marked(self) -> bool:
        return self.kind in ("box", "hash", "phrase")


NOTHING = Extracted("", "none")


def extract(solution: str) -> Extracted:
    """The answer of a completion, or :data:`NOTHING`."""
    text = solution.rsplit("</think>", 1)[-1]
    box_at = text.rfind("\\boxed")
    hash_at = text.rfind("####")
    if box_at < 0:
        box_at = text.rfind("\\fbox")
    if hash_at > box_at:
        match = _HASH.match(text, hash_at)
        return Extracted(match.group(1).strip(), "hash") if match else NOTHING
    if box_at >= 0:
        boxed = last_boxes(text)
        return Extracted(boxed, "box") if boxed else NOTHING
    phrases = list(_PHRASE.finditer(text))
    if phrases:
        return Extracted(_trim_sentence(phrases[-1].group("answer")), "phrase")
    numbers = _NUMBER.findall(text[-20000:])
    return Extracted(numbers[0], "plain") if len(numbers) == 1 else NOTHING


def last_integer(solution: str) -> Extracted:
    """The last number of a reply, when it is an integer (for models too small to follow a format)."""
    numbers = re.findall(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?", solution.replace("\u2212", "-")[-20000:])
    if not numbers:
        return NOTHING
    return Extracted(numbers[-1].replace(",", ""), "plain")


def last_boxes(text: str) -> str:
    r"""The content of the last ``\boxed{}``; with those joined to it by a comma, "or" or "and", separated by commas.

    "" when the last box is not closed.
    """
    boxes: list[tuple[int, int, str]] = []
    for match in reversed(list(_BOX.finditer(text))):
        read = _box_content(text, match.end())
        if read is None:
            break
        content, end = read
        if boxes and (end > boxes[-1][0] or not _JOIN.fullmatch(text, end, boxes[-1][0])):
            break
        boxes.append((match.start(), end, content.strip()))
        if len(boxes) == _MAX_JOINED:
            break
    return ", ".join(content for _, _, content in reversed(boxes))


def _box_content(text: str, start: int) -> tuple[str, int] | None:
    if not text.startswith("{", start):
        match = re.compile(r"[^\s$.,;]+").match(text, start)
        return (match.group(), match.end()) if match else None
    end = matching_brace(text, start)
    return (text[start + 1 : end], end + 1) if end is not None else None


def matching_brace(text: str, start: int) -> int | None:
    """The index of the brace that closes the one at ``start``; escaped braces do not count. None when unclosed."""
    depth = 0
    position = start
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 2
            continue
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return position
        position += 1
    return None


def _trim_sentence(text: str) -> str:
    """The answer part of a sentence: up to the first full stop that ends it."""
    text = re.split(r"(?<=[^\d\s])\.(?:\s|$)|(?<=\d)\.(?:\s+\D|\s*$)", text.strip(), maxsplit=1)[0]
    return text.strip().strip("*").strip()
