"""Units, counted things and number words behind a number.

A letter in a formula is a variable, so ``5x`` and ``5 n`` have no unit; ``5 cm``, ``5 eggs`` and ``5\\text{ m}`` have
one. A missing unit is right, another one is wrong, a number word multiplies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

SCALES: dict[str, int] = {
    "dozen": 12, "dozens": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9,
    "trillion": 10**12, "\u5341": 10, "\u767e": 100, "\u5343": 10**3, "\u4e07": 10**4, "\u842c": 10**4,
    "\u767e\u4e07": 10**6, "\u5343\u4e07": 10**7, "\u4ebf": 10**8, "\u5104": 10**8, "\u6253": 12,
}  # fmt: skip
_ALIASES = {
    "centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "millimetre": "mm", "meter": "m", "metre": "m",
    "kilometer": "km", "kilometre": "km", "foot": "ft", "feet": "ft", "inch": "in", "inche": "in", "yard": "yd",
    "mile": "mi", "gram": "g", "kilogram": "kg", "milligram": "mg", "pound": "lb", "lbs": "lb", "ounce": "oz",
    "second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h", "liter": "l", "litre": "l",
    "milliliter": "ml", "millilitre": "ml", "dollar": "usd", "buck": "usd", "\u7f8e\u5143": "usd", "cent": "cent",
    "deg": "degree", "\u5ea6": "degree", "percentage": "percent", "mph": "mi/h", "kph": "km/h", "sq": "square",
    "euro": "eur", "gbp": "lb", "yen": "yuan", "rmb": "yuan", "cny": "yuan", "jpy": "yuan", "\u5143": "yuan",
    "rupee": "\u20b9",
    "people": "person", "men": "man", "women": "woman", "children": "child", "days": "day", "units": "unit",
}  # fmt: skip
_LETTERS = frozenset("mgshlLNJWVAKCFT")  # units of one letter, where they are marked as text
_SHORT_LIST = """
    cm mm km nm ft yd mi in lb lbs oz kg mg ml mL dL kL hr hrs sec min ms mph kph rpm usd USD eur EUR gbp GBP rmb
    RMB Hz kHz MHz GHz kW kWh MB GB TB kB am pm AM PM deg rad mol kJ kN Pa kPa atm eV day man men cup egg car box
    bag cat dog cow hen pen pig toy kid way fox bus jar can cap hat top row set sq cu ton cent ways days cups eggs
    cars cats dogs hens pens pigs toys kids rows sets bags jars cans hats caps
"""
_SHORT = frozenset(_SHORT_LIST.split())
#: The names of currency signs that have one; "pounds" and the sign of the yen each mean two things.
CURRENCIES = {
    "$": "usd", "\u20ac": "eur", "\\euro": "eur", "\u00a3": "lb", "\\pounds": "lb", "\u00a5": "yuan", "\uffe5": "yuan",
}  # fmt: skip
_MATH_WORDS_LIST = """
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp lim max min gcd lcm mod sqrt pi alpha
    beta gamma delta theta lambda infinity infty choose times cdot over
"""
_MATH_WORDS = frozenset(_MATH_WORDS_LIST.split())
_NOT_UNITS_LIST = """
    approximately approx about around roughly nearly almost
    or and not is isn are was than if when unless to but either neither nor wrong incorrect maybe perhaps possibly
    plus minus with where for any all true false no mod modulo base
"""
_NOT_UNITS = frozenset(_NOT_UNITS_LIST.split())
_OPERATIONS = frozenset({"squared", "cubed", "factorial"})  # unless they follow a unit
_WORD = re.compile(r"[A-Za-z\u4e00-\u9fff]+")
_TEXT = re.compile(r"\\text\s?\{([^{}]*)\}")


@dataclass(frozen=True)
class Unit:
    """What stands behind a number: a factor, and the thing measured or counted ("" for none)."""

    scale: Fraction = Fraction(1)
    name: str = ""
    percent: bool = False


def read_unit(text: str) -> Unit | None:
    """The unit that ``text`` is, None when it is something else (a variable, another answer, a remark)."""
    marked = "\\text" in text
    plain = _TEXT.sub(r" \1 ", text).replace("\\", " ").strip()
    words = _WORD.findall(plain)
    rest = _WORD.sub("", plain)
    if not words or len(words) > 12 or not re.fullmatch(r"[\s./(){}'-]*(?:\^[\s{]*-?\d[\s}]*)?[\s./(){}'-]*", rest):
        return None
    if words[0].lower() in _OPERATIONS or any(word.lower() in _NOT_UNITS or word in _MATH_WORDS for word in words):
        return None
    chinese = bool(re.fullmatch(r"[\u4e00-\u9fff]+", words[0]))
    if not marked and not chinese and not _is_unit_word(words[0], len(words) > 1 and "/" in rest):
        return None
    if marked and len(words[0]) == 1 and words[0] not in _LETTERS:
        return None
    scale = Fraction(1)
    while words and words[0].lower() in SCALES:
        scale *= SCALES[words.pop(0).lower()]
    if words and chinese:
        factor = next((w for w in sorted(SCALES, key=len, reverse=True) if words[0].startswith(w)), "")
        scale, words[0] = scale * SCALES.get(factor, 1), words[0][len(factor) :]
    words = [word for word in words if word]
    percent = bool(words) and words[0].lower() in ("percent", "pct")
    power = re.search(r"\^[\s{]*(-?\d)", rest)
    return Unit(scale, "" if percent else _name(words, power.group(1) if power else "", "/" in rest), percent)


def _is_unit_word(word: str, fraction: bool) -> bool:
    if word in _SHORT or word.lower() in SCALES or (fraction and word in _LETTERS):
        return True
    return len(word) >= 4 and bool(re.search(r"[aeiouyAEIOUY]", word)) and word[1:].islower()


def _name(words: list[str], power: str, slash: bool) -> str:
    """A unit in one spelling: short form, singular, powers as digits."""
    names = [_singular(word) for word in words]
    for prefix, digit in (("square", "2"), ("cubic", "3")):
        if prefix in names and len(names) > 1:
            names.remove(prefix)
            power = digit
    if names == ["unit"] or names == ["square"]:
        return ""
    return " ".join(names).replace(" per ", "/").replace(" ", "/" if slash else " ") + power


def _singular(word: str) -> str:
    word = word if len(word) == 1 else word.lower()
    word = _ALIASES.get(word, word)
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    return _ALIASES.get(word, word)


def same_unit(left: str, right: str) -> bool:
    """Whether two units do not contradict each other: equal, one missing, or one said with more words."""
    if not left or not right or left == right:
        return True
    short, long = sorted((left, right), key=len)
    if short == "degree":
        return long.startswith(("degree", "c", "C", "f", "F"))
    more = long[len(short) :].lstrip()
    return long.startswith(short) and more.startswith(("/", "a ", "per ", "each", "of ", "in ", "altogether", "total"))
