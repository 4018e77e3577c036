r"""Answers inside sentences: what "72, which is the total" or "Janet makes 18 dollars" says.

A careful reader takes the one value that a sentence states, and takes none when the sentence hedges, denies or bounds
it ("not 5", "at least 5", "about 5", "5 or 6").
"""

from __future__ import annotations

import re

_MATH = re.compile(
    r"\$\$(.{1,600}?)\$\$|\$(?!\s)([^$\n]{1,600}?)(?<![\\\s])\$|\\\((.{1,600}?)\\\)|\\\[(.{1,600}?)\\\]", re.DOTALL
)
_MARKED = re.compile(r"\*\*([^*\n]{1,300})\*\*|`([^`\n]{1,300})`")
_JOINER = re.compile(
    r"\s{0,3}(?:,\s{0,3}(?:or|and)?|\(?\b(?:or|and)\b|[;\u6216\u548c\uff0c]|\\text\{\s?(?:or|and)\s?\})\s{0,3}"
)
_SENTENCE = re.compile(r"(?<=[^\d\s])\.(?=\s|$)|(?<=\d)\.(?=\s+\D|\s*$)|\u3002|\n")
_REMARK = re.compile(
    r",\s+(?!(?:or|and)\b)(?=[a-z]{2,})|\s\(?(?:because|since|which|as|where|so|given|i\.e\.|making|for a total)\b"
    r"|\s--?\s(?=[a-z])"
)
_ASIDE = re.compile(
    r"(?:therefore|thus|hence|so|then|indeed|clearly|simply|just|actually|now|given by|equal to|as follows)\b"
    r"[\s,:]*",
    re.IGNORECASE,
)
_REPEAT = re.compile(
    r"(?:(?:the|my|our|final|correct|answer|result|value)\s{1,3}){1,4}(?:is|=|:)\s{0,3}[:=]?\s{0,3}|(?:final\s)?answer\s?[:\uff1a]\s{0,3}",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(
    r"(?:correct|right|wrong|verified|consistent|reasonable|below|above|shown|unique|valid|in the|confirmed)\b",
    re.IGNORECASE,
)
_DOUBT_LIST = """
    not no never isn aren least most more less fewer than about approximately approx around roughly nearly almost
    over under between below above half twice double triple minus negative plus up to or either neither nor if
    unless except impossible cannot maybe perhaps possibly probably might could wrong incorrect without all every
    any exceed exceeds greater smaller only when squared cubed square cube root
"""
_DOUBT = frozenset(_DOUBT_LIST.split())
_LEAD = re.compile(r"(?:[A-Za-z][A-Za-z'\u2019-]*[,:]?\s+){1,25}(?=[-+\d\\$(\[.])")
_KEPT = frozenset({"sin", "cos", "tan", "log", "ln", "exp", "sqrt", "max", "min", "gcd", "lcm", "lim"})


def first_answer(text: str) -> str:
    """The answer a text begins with: its leading formulas with what joins them, else its first sentence."""
    text = text.lstrip(" \t\n:*_=#")
    text = _ASIDE.sub("", text, count=1) if _ASIDE.match(text) else text
    repeat = _REPEAT.match(text)
    if repeat:
        text = text[repeat.end() :].lstrip(" *:")
    if _NO_ANSWER.match(text):
        return ""
    parts: list[str] = []
    position = 0
    while len(parts) < 12:
        match = _MATH.match(text, position) or _MARKED.match(text, position)
        if not match:
            break
        parts.append(next(group for group in match.groups() if group is not None).strip().strip("$"))
        joiner = _JOINER.match(text, match.end())
        position = joiner.end() if joiner else match.end()
        if not joiner:
            break
    if parts:
        rest = text[position:]
        hedge = re.match(r"\(?(?:or|maybe|perhaps)\b", rest.lstrip()) or (
            joiner and re.match(r"[-\d]", rest) and " or " in text
        )
        return f"{parts[0]} or {rest[:100]}" if hedge else _with_unit(", ".join(parts), rest, bool(parts[1:]))
    sentence = _SENTENCE.split(text, maxsplit=1)[0]
    remark = _REMARK.search(sentence)
    if remark and re.search(r"\d|\\|^[A-Z][a-z]*$", sentence[: remark.start()]):
        sentence = sentence[: remark.start()]
    return sentence.strip().rstrip(",;:").strip("*").replace("**", "").strip()


def _with_unit(answer: str, rest: str, several: bool) -> str:
    r"""A formula with the scale or the percent sign that follows it outside the dollars."""
    unit = re.match(r"\s?(?:\\?%|percent\b|million\b|billion\b|thousand\b|hundred\b|dozen\b)", rest)
    return f"{answer} {unit.group().strip()}" if unit and not several else answer


def value_of_sentence(text: str) -> str:
    """``text`` without the words that lead to its one value; unchanged when there are none, or when they cast doubt."""
    plain = re.sub(r"\\text\s?\{([^{}]*)\}", r" \1 ", text).strip()
    lead = _LEAD.match(plain)
    if not lead:
        return text
    words = re.findall(r"[A-Za-z]+", lead.group())
    if {word.lower() for word in words} & _DOUBT or set(words) & _KEPT or not any(len(word) >= 3 for word in words):
        return text
    rest = plain[lead.end() :].strip()
    return rest if not re.search(r"\b(?:or|not|than|if)\b", rest) else text
