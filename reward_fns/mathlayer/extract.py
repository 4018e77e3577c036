r"""Find the answer in a completion.

Only the text after thinking counts. Then, in this order: the last ``\boxed{}`` or, when it comes later and reads as an
answer, the last ``#### x`` line; the last "Answer: x" or "the answer is x"; the only number of the reply. Several
candidates with no marker are no answer. Boxes joined by a comma, "or", "and" or space alone are one answer with several
parts, so that offering two values for one does not score.

Every step is linear in the length of the text: no pattern has an unbounded repetition that another can start inside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from reward_fns.mathlayer.exact import read_number
from reward_fns.mathlayer.notation import matching_brace
from reward_fns.mathlayer.prose import first_answer

_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,8}(?=\{)|\\boxed\s{1,8}(?=[^\s{])")
_BARE_BOX = re.compile(r"[^\s$.,;]{1,200}")
_HASH = re.compile(r"(?<!#)####(?!#)[ \t]{0,8}([^\n]*)")
_MARKER = re.compile(
    r"\banswer\b(?:\s{1,3}(?:to|for|of)\s[^\n.:=]{1,24}?)?[\s*_`]{0,4}(?:\b(?:is|are|equals)\b|[:=\uff1a])[\s*_:]{0,4}"
    r"|\u7b54\u6848[\s*]{0,3}(?:[:\uff1a\u662f\u4e3a]|\u5e94\u4e3a)[\s*:\uff1a]{0,4}"
    r"|\bfinal answer\b[ \t*_#:]{0,6}\n",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.,])[-+\u2212]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?(?![\w]|\.\d)")
_DENIAL = re.compile(r"\bnot\b|n['\u2019]t\b|\bnever\b|\bthan\b|\bleast\b|\bmost\b", re.IGNORECASE)
_INTEGER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?")
_JOIN = re.compile(
    r"[\s$.,;:*&()/~\u3001\uff0c\uff1b]|\\[()\[\],;:! ]|\\\\|\\q?quad|\\(?:text|mathrm)\s?\{|\}"
    r"|\\(?:lor|vee|land|wedge)|\b(?:or|and|also|possibly|maybe|alternatively|else|either|oder|und)\b|[\u6216\u548c\u53ca\u4e0e]|\u6216\u8005",
    re.IGNORECASE,
)
_MAX_JOINED = 12
_MAX_GAP = 60
_TAIL = 20_000  # characters at the end of a reply in which a lone number is looked for
_MAX_ANSWER = 2000


@dataclass(frozen=True)
class Extracted:
    """An answer as text, and how it was found: ``box``, ``hash``, ``phrase``, ``plain`` or ``none``."""

    text: str
    kind: str

    @property
    def marked(self) -> bool:
        return self.kind in ("box", "hash", "phrase")


NOTHING = Extracted("", "none")


def after_thinking(solution: str) -> str:
    """The part of a completion that is addressed to the reader; thinking that does not end is none of it."""
    text = solution.rsplit("</think>", 1)[-1]
    return text.split("<think>", 1)[0] if "<think>" in text else text


def extract(solution: str) -> Extracted:
    """The answer of a completion, or :data:`NOTHING`."""
    text = after_thinking(solution)
    box_at = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    hashed, hash_at = _last_hash(text, box_at)
    if hashed and hash_at > box_at:
        return Extracted(hashed, "hash")
    if box_at >= 0:
        boxed = last_boxes(text)
        return Extracted(boxed, "box") if boxed else NOTHING
    phrase = _last_phrase(text)
    if phrase:
        return Extracted(phrase, "phrase")
    numbers = list(_NUMBER.finditer(text[-_TAIL:]))
    if len(numbers) != 1 or _DENIAL.search(text[-_TAIL:][max(0, numbers[0].start() - 40) : numbers[0].start()]):
        return NOTHING
    return Extracted(numbers[0].group(), "plain")


def last_integer(solution: str) -> Extracted:
    """The last number of a reply, when it is an integer (for models too small to follow a format)."""
    numbers = _INTEGER.findall(solution[-_TAIL:].replace("\u2212", "-"))
    if not numbers:
        return NOTHING
    return Extracted(numbers[-1].replace(",", ""), "plain")


def _last_hash(text: str, box_at: int) -> tuple[str, int]:
    """The last ``#### x`` and its place. Beside a box or another such line, a heading of words is no answer."""
    words, words_at = "", -1
    for match in reversed(list(_HASH.finditer(text))[-50:]):
        line = match.group(1)[:_MAX_ANSWER].strip()
        found = first_answer(line)
        if found and (read_number(found) is not None or line.lstrip("*").startswith(("$", "\\("))):
            return found, match.start()
        if found and not words:
            words, words_at = found, match.start()
    if box_at >= 0 or _MARKER.search(text):
        return "", -1
    return words, words_at


def _last_phrase(text: str) -> str:
    """What the last marker that is followed by an answer announces."""
    for match in reversed(list(_MARKER.finditer(text))[-50:]):
        found = first_answer(text[match.end() : match.end() + _MAX_ANSWER])
        if found:
            return found
    return ""


def last_boxes(text: str) -> str:
    r"""The content of the last ``\boxed{}``; with those joined to it, separated by commas.

    "" when the last box is not closed; an empty one is none.
    """
    boxes: list[tuple[int, int, str]] = []
    for match in reversed(list(_BOX.finditer(text))):
        read = _box_content(text, match.end())
        if read is None:
            break
        content, end = read
        if not content.strip():  # such as in "give it as \\boxed{}"
            continue
        if boxes and (end > boxes[-1][0] or not _joined(text, end, boxes[-1][0])):
            break
        boxes.append((match.start(), end, content.strip()))
        if len(boxes) == _MAX_JOINED:
            break
    return ", ".join(content for _, _, content in reversed(boxes))


def _joined(text: str, start: int, end: int) -> bool:
    """Whether the text between two boxes holds nothing but what joins two answers."""
    gap = text[start:end]
    if len(gap) > _MAX_GAP:
        return False
    left = _JOIN.sub("", gap)
    return not left or (bool(re.search(r"\bor\b", gap)) and "\n" not in gap and not re.search(r"\brather\b", gap))


def _box_content(text: str, start: int) -> tuple[str, int] | None:
    if not text.startswith("{", start):
        match = _BARE_BOX.match(text, start)
        return (match.group(), match.end()) if match else None
    end = matching_brace(text, start)
    return (text[start + 1 : end], end + 1) if end is not None else None
