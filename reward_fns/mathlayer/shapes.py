r"""The outer structure of an answer: list, tuple, interval, set, union, matrix, equation, words, or one expression.

Structure is compared by our own rules, because a computer algebra parser guesses (``(1,2)`` an interval, ``1=2`` true
of ``2``, "4 or 5" right for 4). Only the leaves are given to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from reward_fns.mathlayer.exact import tidy

MAX_ITEMS = 64

_WORDS = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox|mathbf|operatorname)\s*\{([^{}]*)\}")
_JOINERS = re.compile(r"\\text\{\s*(?:or|and)\s*\}|\b(?:or|and)\b|\\(?:lor|land|vee|wedge)(?![a-zA-Z])|;")
_MATRIX = re.compile(r"\\begin\{([bpvBV]?matrix|array)\}(?:\{[lcr|]*\})?(.*?)\\end\{\1\}", re.DOTALL)
_RELATION = re.compile(r"\\(?:leq?|geq?|neq?|lt|gt|in)(?![a-zA-Z])|[=<>\u2264\u2265\u2260\u2208]")
_RELATION_NAMES = {
    "\\leq": "<=", "\\le": "<=", "\u2264": "<=", "\\geq": ">=", "\\ge": ">=", "\u2265": ">=", "\\lt": "<", "\\gt": ">",
    "\\neq": "!=", "\\ne": "!=", "\u2260": "!=", "\\in": "in", "\u2208": "in",
}  # fmt: skip
_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True)
class Shape:
    """One node: ``kind`` is ``list``, ``seq`` (brackets in ``tag``), ``set``, ``union``, ``matrix`` (rows as ``list``),
    ``relation`` (operators in ``tag``), ``words`` or ``leaf``; ``text`` is the source of this node."""

    kind: str
    text: str
    items: tuple[Shape, ...] = ()
    tag: str = ""


def parse_shape(text: str, depth: int = 0) -> Shape:
    """The structure of ``text``; a ``ValueError`` when it is nested or listed beyond reason."""
    if depth > 6:
        raise ValueError("nested too deeply")
    text = tidy(text).replace("\\lbrace", "\\{").replace("\\rbrace", "\\}").strip()
    words = read_words(text)
    if words:
        return Shape("words", words)
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        rows = [row for row in re.split(r"\\\\", matrix.group(2)) if row.strip()]
        cells = tuple(_many("list", row, row.split("&"), depth) for row in rows[:MAX_ITEMS])
        return Shape("matrix", text, cells, "v" if matrix.group(1)[0] in "vV" else "m")
    joined = split_top(text, _JOINERS)
    if len(joined) > 1:
        parts = [part for piece in joined for part in split_top(piece, re.compile(","))]
        return _many("list", text, [part for part in parts if part.strip()], depth)
    pieces = split_top(text, re.compile(r",(?!\d{3}(?!\d))|,(?=\s)"))
    if len(pieces) > 1:
        return _many("list", text, pieces, depth)
    unions = split_top(text, re.compile(r"\\cup(?![a-zA-Z])|\u222a"))
    if len(unions) > 1:
        return _many("union", text, unions, depth)
    operators = [_RELATION_NAMES.get(m, m) for m in _tops(text, _RELATION)]
    if operators:
        return _many("relation", text, split_top(text, _RELATION), depth, " ".join(operators))
    return _bracketed(text, depth)


def _bracketed(text: str, depth: int) -> Shape:
    if text.startswith("\\{") and text.endswith("\\}") and _closes_at_end(text[1:-2] + "}"):
        inner = text[2:-2]
        return _many("set", text, split_top(inner, re.compile(",")) if inner.strip() else [], depth)
    if len(text) > 2 and text[0] in "([" and text[-1] in ")]" and _closes_at_end(text, mixed=True):
        pieces = split_top(text[1:-1], re.compile(","))
        if len(pieces) > 1:
            return _many("seq", text, pieces, depth, text[0] + text[-1])
        if text[0] == "(" and text[-1] == ")":
            return parse_shape(text[1:-1], depth + 1)
    if re.search(r"\\pm|\\mp|\u00b1", text):
        upper = re.sub(r"\\pm(?![a-zA-Z])|\u00b1", "+", text).replace("\\mp", "-")
        lower = re.sub(r"\\pm(?![a-zA-Z])|\u00b1", "-", text).replace("\\mp", "+")
        return Shape("list", text, (Shape("leaf", upper.lstrip("+ ")), Shape("leaf", lower)))
    return Shape("leaf", text)


def _many(kind: str, text: str, pieces: list[str], depth: int, tag: str = "") -> Shape:
    if len(pieces) > MAX_ITEMS:
        raise ValueError(f"more than {MAX_ITEMS} parts")
    return Shape(kind, text, tuple(parse_shape(piece, depth + 1) for piece in pieces), tag)


def read_words(text: str) -> str:
    """``text`` in lower case when it is a word answer (a name, "even", a choice letter), else ""."""
    plain = _WORDS.sub(r"\1", text).strip()
    choice = re.fullmatch(r"\(?([A-Z])\)?[.:]?", plain)
    if choice and ("text" in text or "(" in text or "mathrm" in text or "mathbf" in text):
        return choice.group(1)
    plain = re.sub(r"\s+", " ", plain).strip(" .")
    if re.fullmatch(r"[A-Za-z][A-Za-z' -]*[A-Za-z]", plain) and not re.search(r"\b(?:or|and)\b", plain):
        if plain == text and len(plain) <= 3 and not re.search(r"\s", plain) and plain.lower() not in _SHORT_WORDS:
            return ""  # xy is a product
        return re.sub(r"^(?:the|a|an)\s+", "", plain.lower())
    return ""


_SHORT_WORDS = frozenset({"yes", "no", "odd", "red", "sun", "mon", "tue", "wed", "thu", "fri", "sat", "all", "one"})


def split_top(text: str, separator: re.Pattern[str]) -> list[str]:
    """``text`` split where ``separator`` matches outside all brackets."""
    pieces, last = [], 0
    for start, end in _top_spans(text, separator):
        pieces.append(text[last:start])
        last = end
    return [*pieces, text[last:]]


def _tops(text: str, pattern: re.Pattern[str]) -> list[str]:
    return [text[start:end] for start, end in _top_spans(text, pattern)]


def _top_spans(text: str, pattern: re.Pattern[str]) -> list[tuple[int, int]]:
    depths, depth = [], 0
    for char in text:
        depth -= char in _CLOSE
        depths.append(depth)
        depth += char in _OPEN
    return [match.span() for match in pattern.finditer(text) if depths[match.start()] <= 0]


def _closes_at_end(text: str, mixed: bool = False) -> bool:
    """Whether the bracket that opens ``text`` is closed by its last character."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSE)
        if depth == 0:
            return index == len(text) - 1
    return False
