r"""Exact reading of numbers: integers, decimals, fractions, mixed numbers, scientific notation, percentages, units.

No computer algebra: whatever this cannot read is left to the next layer. Numbers are :class:`fractions.Fraction`, so
``0.5`` equals ``\frac{1}{2}`` and no rounding is involved.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_NUMBER = 400  # characters; beyond this a "number" is not an answer

_SPACES = re.compile(r"\\[,;:! ]|\\q?quad|~|\\thinspace|\u00a0|\u202f")
_WRAPPERS = re.compile(r"^\s*(?:\$\$?|\\\(|\\\[)(.*?)(?:\$\$?|\\\)|\\\])\s*[.,]?\s*$", re.DOTALL)
_DIGITS = r"(?:\d{1,3}(?:(?:,|\{,\})\d{3})+|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)"
_SCI = re.compile(rf"([+-]?{_DECIMAL})(?:[eE]([+-]?\d{{1,3}})|(?:\\times|\\cdot|\*|x)10\^\{{?([+-]?\d{{1,3}})\}}?)?")
_FRAC = re.compile(
    rf"([+-]?)(\d{{1,9}}(?=\\frac|\+|\s))?[+\s]*"
    rf"(?:\\frac(?:\{{([+-]?{_DECIMAL})\}}|(\d))(?:\{{([+-]?{_DECIMAL})\}}|(\d))|\(?({_DECIMAL})/([+-]?{_DECIMAL})\)?)"
)
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)\\overline\{(\d+)\}")
_UNIT = re.compile(
    r"^(?P<number>[^A-Za-z]*?[\d}])[\s-]*"
    r"(?P<unit>(?:\\(?:text|mathrm|textbf|mbox|rm)\s*\{[^{}]*\}|[A-Za-z][A-Za-z./\s]*)(?:\^\{?-?[23]\}?)?)\.?$"
)
_UNIT_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mbox|rm)\s*\{([^{}]*)\}")


@dataclass(frozen=True)
class Number:
    """A number as read: its value, whether it was written with ``%``, its unit, and its decimal places (-1: exact)."""

    value: Fraction
    percent: bool = False
    unit: str = ""
    places: int = -1


def tidy(text: str) -> str:
    """``text`` without math delimiters, spacing commands, bold, outer ``\\text{}`` and a trailing full stop."""
    text = text.strip().strip("*").strip()
    for _ in range(3):
        match = _WRAPPERS.match(text)
        if not match or "$" in match.group(1):
            break
        text = match.group(1).strip()
    text = text.replace("\u2212", "-").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = text.replace("\\cfrac", "\\frac").replace("\\displaystyle", "").replace("\\left", "").replace("\\right", "")
    text = _SPACES.sub(" ", text)
    return text.strip().rstrip(".;").strip()


def read_number(text: str) -> Number | None:
    """``text`` as a number, or None when it is not plainly one."""
    text = tidy(text)
    if not text or len(text) > MAX_NUMBER:
        return None
    unit = ""
    match = _UNIT.match(text)
    if match and not re.fullmatch(r"[eE]", match.group("unit").strip()):
        unit = normal_unit(match.group("unit"))
        text = match.group("number").strip()
    degree = re.sub(r"\^\{?\\circ\}?|\\degree|\u00b0", "", text)
    if degree != text:
        text, unit = degree.strip(), unit or "degree"
    text = re.sub(r"^([+-]?)\s*(?:\\?\$|\u20ac|\u00a3)\s*", r"\1", text)
    text = re.sub(r"\\?\$$", "", text).strip()
    percent = text.endswith("%")
    if percent:
        text = text.rstrip("%").rstrip("\\").strip()
    value, places = _value(text)
    return None if value is None else Number(value, percent, unit, places)


def normal_unit(text: str) -> str:
    """A unit or counted thing in one spelling: lower case, no spaces, singular."""
    text = _UNIT_TEXT.sub(r"\1", text).strip().strip(".").lower()
    text = re.sub(r"[\s{}\\]", "", text)
    return text[:-1] if len(text) > 3 and text.endswith("s") else text


def same_number(gold: Number, pred: Number) -> bool:
    """Whether a prediction names the gold number.

    A percentage is right as written or by value; two units that differ are wrong, a missing one is not; a gold decimal
    with at least two places is matched by an exact value that rounds to it.
    """
    if gold.unit and pred.unit and gold.unit != pred.unit:
        return False
    options = {pred.value, pred.value / 100} if pred.percent else {pred.value}
    targets = {gold.value, gold.value / 100} if gold.percent else {gold.value}
    if options & targets:
        return not (pred.percent and gold.percent and gold.value != pred.value)
    if gold.places >= 2 and (pred.places < 0 or pred.places > gold.places) and not (gold.percent or pred.percent):
        return abs(pred.value - gold.value) <= Fraction(1, 2 * 10**gold.places)
    if pred.places >= 6 and gold.places < 0:  # a decimal of a fraction, to six places or more
        return abs(pred.value - gold.value) <= Fraction(1, 2 * 10**pred.places)
    return False


def _value(text: str) -> tuple[Fraction | None, int]:
    """The value of a bare number and its decimal places (-1 for integers and fractions)."""
    if not text.isascii():  # digits of other scripts
        return None, -1
    compact = re.sub(r"\s+", "", text)
    repeating = _REPEATING.fullmatch(compact)
    if repeating:
        return _repeating(*repeating.groups()), -1
    if compact.startswith("(") and compact.endswith(")") and compact.count("(") == 1:
        compact = compact[1:-1]
    match = _SCI.fullmatch(compact) if not re.search(r"\d\s+\d", text) else None
    if match:
        digits = re.sub(r"[,{}]", "", match.group(1))
        exponent = int(match.group(2) or match.group(3) or 0)
        places = len(digits.partition(".")[2]) - exponent if "." in digits else -1
        return Fraction(digits) * Fraction(10) ** exponent, max(places, -1) if places != 0 else -1
    match = _FRAC.fullmatch(re.sub(r"\s*/\s*", "/", text.strip())) or _FRAC.fullmatch(compact)
    if not match or ("/" in compact and re.search(r"\d\s+\d", text) and not match.group(2)):
        return None, -1
    sign, whole = match.group(1), match.group(2)
    top = match.group(3) or match.group(4) or match.group(7)
    bottom = match.group(5) or match.group(6) or match.group(8)
    top, bottom = (re.sub(r"[,{}]", "", part) for part in (top, bottom))
    if Fraction(bottom) == 0 or (whole and top.startswith("-")):
        return None, -1
    value = Fraction(top) / Fraction(bottom) + int(whole or 0)
    return (-value if sign == "-" else value), -1


def _repeating(sign: str, whole: str, head: str, cycle: str) -> Fraction:
    """The value of a decimal whose last digits repeat for ever."""
    value = Fraction(int((whole + head) or 0) + Fraction(int(cycle), 10 ** len(cycle) - 1)) / 10 ** len(head)
    return -value if sign == "-" else value
