r"""The outer structure of an answer: list, tuple, interval, set, union, matrix, ratio, equation, words, expression.

Structure is compared by our own rules, because a computer algebra parser guesses (``(1,2)`` an interval, ``1=2`` true
of ``2``, "4 or 5" right for 4). Only the leaves are given to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from reward_fns.mathlayer.notation import tidy
from reward_fns.mathlayer.prose import value_of_sentence
from reward_fns.mathlayer.units import read_unit

MAX_ITEMS = 64

_WORDS = re.compile(r"\\(?:text|operatorname)\s*\{([^{}]*)\}")
_JOINERS = re.compile(
    r"\\text\{\s*(?:or|and)\s*\}|\b(?:or|and)\b|\\(?:lor|land|vee|wedge)(?![a-zA-Z])|;|[\u6216\u548c]"
)
_OR = re.compile(r"\bor\b|\\(?:lor|vee)|\u6216")
_COMMA = re.compile(r",(?!\d{3}(?!\d))|,(?=\s)")
_MATRIX = re.compile(
    r"\\begin\{([bpvBV]?(?:small)?matrix|array)\}(?:\s*\{[lcr| ]*\})?((?:(?!\\end\{).)*)\\end\{\1\}", re.DOTALL
)
_ROW = re.compile(r"\\\\(?:\s?\[\d{1,3}(?:\.\d{1,3})?\s?[a-z]{2}\])?|\\cr(?![a-zA-Z])")
_RELATION = re.compile(r"\\(?:leq?|geq?|neq?|lt|gt|in)(?![a-zA-Z])|[=<>]=?")
_RELATION_NAMES = {
    "\\leq": "<=", "\\le": "<=", "\\geq": ">=", "\\ge": ">=", "\\lt": "<", "\\gt": ">", "\\neq": "!=", "\\ne": "!=",
    "\\in": "in", "==": "=",
}  # fmt: skip
_APPROX = re.compile(r"\\(?:approx|doteq|simeq|thickapprox)(?![a-zA-Z])")
_CUP = re.compile(r"\\cup(?![a-zA-Z])")
_COLON = re.compile(r":")
_SUCH_THAT = re.compile(r"\\mid(?![a-zA-Z])|\||:")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*(?:\\text\s?\{)?\s*([aApP]\.?\s?[mM]\.?)?\s*\}?")
_ENVIRONMENT = re.compile(r"\\begin\{|\\end\{")
_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True)
class Shape:
    """One node: ``kind`` is ``list``, ``seq`` (brackets in ``tag``), ``set``, ``union``, ``matrix`` (rows as ``list``),
    ``ratio``, ``clock``, ``guess``, ``relation`` (operators in ``tag``), ``words`` or ``leaf``; ``text`` is the source
    of this node. A list joined by "or" has the tag ``or``."""

    kind: str
    text: str
    items: tuple[Shape, ...] = ()
    tag: str = ""


def parse_shape(text: str, depth: int = 0) -> Shape:
    """The structure of ``text``; a ``ValueError`` when it is nested or listed beyond reason."""
    if depth > 6:
        raise ValueError("nested too deeply")
    text = tidy(text)
    words = read_words(text)
    if words:
        return Shape("words", words)
    text = value_of_sentence(text)
    approximate = split_top(text, _APPROX)
    if len(approximate) > 1:
        if not approximate[0].strip() and "." not in approximate[1]:
            return Shape("guess", text)  # about 5 is not 5; a decimal is a rounded value anyway
        text = approximate[0].strip() or approximate[1].strip()
    clock = _CLOCK.fullmatch(text)
    if clock:
        half = (clock.group(4) or "").replace(".", "").replace(" ", "").lower()
        return Shape("clock", f"{int(clock.group(1))}:{clock.group(2)}:{clock.group(3) or '00'}", tag=half)
    matrix = _MATRIX.fullmatch(text) or _MATRIX.fullmatch(text[1:-1].strip())
    if matrix:
        rows = [row for row in _ROW.split(matrix.group(2)) if row.replace("\\hline", "").strip()]
        cells = tuple(_many("list", row, row.split("&"), depth) for row in rows[:MAX_ITEMS])
        bars = matrix.group(1)[0] in "vV" or text.startswith("|")
        return Shape("matrix", text, cells, "v" if bars else "m")
    joined = split_top(text, _JOINERS)
    parts = [part for piece in joined for part in split_top(piece, re.compile(",")) if part.strip()]
    if len(joined) > 1 and parts:
        return _many("list", text, parts, depth, "or" if _OR.search(text) else "and")
    return _unjoined(text, depth)


def _unjoined(text: str, depth: int) -> Shape:
    pieces = [piece for piece in split_top(text, _COMMA) if piece.strip()]
    if len(pieces) > 1:
        return _many("list", text, pieces, depth)
    unions = split_top(text, _CUP)
    if len(unions) > 1:
        return _many("union", text, unions, depth)
    operators = [_RELATION_NAMES.get(m, m) for m in _tops(text, _RELATION)]
    if operators:
        sides = split_top(text, _RELATION)
        if all(side.strip() for side in sides):
            return _many("relation", text, sides, depth, " ".join(operators))
    ratio = split_top(text, _COLON)
    if len(ratio) > 1 and all(piece.strip() for piece in ratio):
        return _many("ratio", text, ratio, depth)
    return _bracketed(text, depth)


def _bracketed(text: str, depth: int) -> Shape:
    if text.startswith("\\{") and text.endswith("\\}") and _closes_at_end(text[1:-2] + "}"):
        inner = text[2:-2]
        condition = split_top(inner, _SUCH_THAT)
        if len(condition) == 2 and re.fullmatch(r"\s*\\?[A-Za-z]+(?:\s*\\in\s*\\mathbb\{R\})?\s*", condition[0]):
            return parse_shape(condition[1], depth + 1)
        return _many("set", text, split_top(inner, re.compile(",")) if inner.strip() else [], depth)
    if len(text) > 2 and text[0] in "([" and text[-1] in ")]" and _closes_at_end(text):
        pieces = split_top(text[1:-1], re.compile(","))
        if len(pieces) > 1:
            return _many("seq", text, pieces, depth, text[0] + text[-1])
        if text[0] == "(" and text[-1] == ")":
            return parse_shape(text[1:-1], depth + 1)
    if re.search(r"\\pm|\\mp", text):
        upper = re.sub(r"\\pm(?![a-zA-Z])", "+", text).replace("\\mp", "-")
        lower = re.sub(r"\\pm(?![a-zA-Z])", "-", text).replace("\\mp", "+")
        return Shape("list", text, (Shape("leaf", upper.lstrip("+ ")), Shape("leaf", lower)))
    return Shape("leaf", text)


def _many(kind: str, text: str, pieces: list[str], depth: int, tag: str = "") -> Shape:
    if len(pieces) > MAX_ITEMS:
        raise ValueError(f"more than {MAX_ITEMS} parts")
    return Shape(kind, text, tuple(parse_shape(piece, depth + 1) for piece in pieces), tag)


def read_words(text: str) -> str:
    """``text`` in lower case when it is a word answer (a name, "even", a choice letter), else ""."""
    plain = _WORDS.sub(r" \1 ", text).strip()
    choice = re.fullmatch(r"\(?\s*([A-Z])\s*\)?[.:]?", plain)
    if choice and ("text" in text or ")" in text):
        return choice.group(1)
    plain = re.sub(r"\s+", " ", plain).strip(" .")
    if re.fullmatch(r"[A-Za-z\u4e00-\u9fff][A-Za-z\u4e00-\u9fff' -]*[A-Za-z\u4e00-\u9fff]", plain) and not _OR.search(
        plain
    ):
        if re.search(r"\band\b", plain):
            return ""
        if "text" not in text and len(plain) <= 3 and " " not in plain and plain.lower() not in _SHORT_WORDS:
            return ""  # xy is a product
        if "text" not in text and all(len(word) == 1 for word in plain.split()):
            return ""  # and so is x y
        plain = re.sub(r"^(?:the answer is|answer is|it is|this is)\s+", "", plain.lower())
        plain = re.sub(r"^(?:the|a|an)\s+", "", plain)
        return _SAME_WORDS.get(plain, plain)
    return ""


_SHORT_WORDS = frozenset({"yes", "no", "odd", "red", "sun", "mon", "tue", "wed", "thu", "fri", "sat", "all", "one"})
_SAME_WORDS = {
    "no solutions": "no solution", "empty set": "no solution", "no real solution": "no solution",
    "no real solutions": "no solution",
    "does not exist": "undefined", "dne": "undefined", "all reals": "all real numbers", "true": "true",
}  # fmt: skip


def split_top(text: str, separator: re.Pattern[str]) -> list[str]:
    """``text`` split where ``separator`` matches outside all brackets and environments."""
    pieces, last = [], 0
    for start, end in _top_spans(text, separator):
        pieces.append(text[last:start])
        last = end
    return [*pieces, text[last:]]


def _tops(text: str, pattern: re.Pattern[str]) -> list[str]:
    return [text[start:end] for start, end in _top_spans(text, pattern)]


def _top_spans(text: str, pattern: re.Pattern[str]) -> list[tuple[int, int]]:
    edges = {m.start(): (1 if m.group()[1] == "b" else -1) for m in _ENVIRONMENT.finditer(text)}
    depths, depth = [], 0
    for index, char in enumerate(text):
        depth += edges.get(index, 0)
        depth -= char in _CLOSE
        depths.append(depth)
        depth += char in _OPEN
    return [match.span() for match in pattern.finditer(text) if depths[match.start()] <= 0]


def _closes_at_end(text: str) -> bool:
    """Whether the bracket that opens ``text`` is closed by its last character."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSE)
        if depth == 0:
            return index == len(text) - 1
    return False


def strip_unit(text: str) -> tuple[str, str]:
    """An expression and the name of the unit behind it ("" when there is none)."""
    match = re.search(r"\s*\\text\s?\{[^{}]*\}(?:\s?\^\s?\{?-?\d\}?)?\s*$", text)
    if not match or not text[: match.start()].strip():
        return text, ""
    unit = read_unit(text[match.start() :])
    if unit is None or unit.scale != 1 or unit.percent:
        return text, ""
    return text[: match.start()], unit.name
