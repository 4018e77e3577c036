r"""Exact reading of numbers: integers, decimals, fractions, mixed numbers, scientific notation, percentages, units.

No computer algebra: whatever this cannot read is left to the next layer. Numbers are :class:`fractions.Fraction`, so
``0.5`` equals ``\frac{1}{2}`` and no rounding is involved.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from reward_fns.mathlayer.notation import tidy
from reward_fns.mathlayer.units import CURRENCIES, read_unit, same_unit

MAX_NUMBER = 400  # characters; beyond this a "number" is not an answer

_DIGITS = r"(?:\d{1,3}(?:(?:,|\{,\})\d{3})+|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)"
_SCI = re.compile(rf"([+-]?{_DECIMAL})(?:[eE]([+-]?\d{{1,3}})|(?:\\times|\\cdot|\*|x)10\^\{{?([+-]?\d{{1,3}})\}}?)?")
_FRAC = re.compile(
    rf"([+-]?)(\d{{1,9}}(?=\\frac|\+|\s))?[+\s]?"
    rf"(?:\\frac(?:\{{([+-]?{_DECIMAL})\}}|(\d))(?:\{{([+-]?{_DECIMAL})\}}|(\d))|\(?({_DECIMAL})/([+-]?{_DECIMAL})\)?)"
)
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)\\overline\{(\d+)\}")
_TAIL = re.compile(r"[\d})]\s*-?\s*(?=\\text|[A-Za-z\u4e00-\u9fff])")
_DEGREE = re.compile(r"\s*\^\s?\\circ\s*(?:(?:\\text\s?\{)?\s*([CF])\s*\}?)?$")
_SIGN = r"(?:US\s?)?\\?(\$)|([\u00a3\u00a5\uffe5\u20a0-\u20cf]|\\euro(?![a-z])|\\pounds(?![a-z]))"
_CURRENCY = re.compile(rf"^([+-]?)\s*(?:{_SIGN})\s*|\s*(?:{_SIGN})$")


@dataclass(frozen=True)
class Number:
    """A number as read: its value, whether it was written with ``%``, its unit, and its decimal places (-1: exact)."""

    value: Fraction
    percent: bool = False
    unit: str = ""
    places: int = -1


def read_number(text: str) -> Number | None:
    """``text`` as a number, or None when it is not plainly one."""
    if len(text) > 2 * MAX_NUMBER:
        return None
    text = tidy(text)
    if not text or len(text) > MAX_NUMBER:
        return None
    unit, scale, percent = "", Fraction(1), False
    degree = _DEGREE.search(text)
    if degree:
        text, unit = text[: degree.start()], "degree" + (" " + degree.group(1).lower() if degree.group(1) else "")
    else:
        tail = _TAIL.search(text)
        found = read_unit(text[tail.end() :]) if tail else None
        if tail and found:
            text, unit, scale, percent = text[: tail.start() + 1], found.name, found.scale, found.percent
    currency = _CURRENCY.search(text)
    if currency:
        text = f"{currency.group(1) or ''}{text[: currency.start()]}{text[currency.end() :]}".strip()
        sign = next(filter(None, currency.groups()[1:]))
        unit = unit or CURRENCIES.get(sign, sign)
    if text.endswith("%"):
        percent, text = True, text.rstrip("%").rstrip("\\").strip()
    value, places = _value(text)
    if value is None:
        return None
    return Number(value * scale, percent, unit, places if scale == 1 else -1)


def same_number(gold: Number, pred: Number) -> bool:
    """Whether a prediction names the gold number.

    A percentage is right as written or by value; two units that differ are wrong, a missing one is not; a gold decimal
    with at least two places is matched by an exact value that rounds to it.
    """
    if not same_unit(gold.unit, pred.unit):
        return False
    options = {pred.value, pred.value / 100} if pred.percent else {pred.value}
    targets = {gold.value, gold.value / 100} if gold.percent else {gold.value}
    if options & targets:
        return not (pred.percent and gold.percent and gold.value != pred.value)
    if gold.places >= 2 and (pred.places < 0 or pred.places > gold.places) and not (gold.percent or pred.percent):
        return abs(pred.value - gold.value) <= Fraction(1, 2 * 10**gold.places)
    if pred.places >= 6 and gold.places < 0 and gold.value.denominator > 1:  # a decimal of a fraction
        return abs(pred.value - gold.value) <= Fraction(1, 2 * 10**pred.places)
    return False


def _value(text: str) -> tuple[Fraction | None, int]:
    """The value of a bare number and its decimal places (-1 for integers and fractions)."""
    if not text.isascii() or re.search(r",\s", text):  # digits of other scripts; two numbers
        return None, -1
    if re.fullmatch(r"[+-]?\d{1,3}(?: \d{3})+", text):  # thousands parted by spaces
        text = text.replace(" ", "")
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
