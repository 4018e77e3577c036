r"""Equality of two expressions, with math-verify's LaTeX parser and numeric evaluation. Runs in a worker process.

Two expressions are equal when they agree to 20 digits at several points (complex arithmetic, both signs of every
variable). That needs no ``simplify``, whose running time nobody can bound, and does not round ``1/2004!`` to
``1/2006!``. A decimal is equal to a closed form it is the correct rounding of, from six places on.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from typing import Any

from reward_fns.mathlayer.exact import normal_unit, read_number

DIGITS = 20
MAX_LENGTH = 1000
_POINTS = (
    ("0.7310585", "1.3"),
    ("1.6180339", "0.41"),
    ("-0.5772156", "-1.7"),
    ("2.2360679", "0.83"),
    ("-1.2020569", "3"),
)
_UNIT = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s*\{\s*([^{}]*)\}(?:\^\{?-?\d\}?)?\s*$")
_GREEK = {"\u03b1": r"\alpha ", "\u03b2": r"\beta ", "\u03b3": r"\gamma ", "\u03b8": r"\theta "}
_PLAIN: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"(?<![\\a-zA-Z])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\u221a\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\u221a\s*(\d+|[a-z])"), r"\\sqrt{\1}"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\^\(([^()]*)\)"), r"^{\1}"),
    (re.compile(r"\*|\u00d7|\u00b7"), r"\\cdot "),
    (re.compile(r"(?<![\\a-zA-Z])(pi|sin|cos|tan|log|ln|sec|csc|cot|arcsin|arccos|arctan)(?![a-zA-Z])"), r"\\\1 "),
    (re.compile(r"\u03c0"), r"\\pi "),
    (re.compile(r"[\u03b1\u03b2\u03b3\u03b8]"), lambda m: _GREEK[m.group()]),
    (re.compile(r"(?<![\\a-zA-Z])(?:infinity|infty|inf|oo)(?![a-zA-Z])|\u221e"), r"\\infty "),
    (re.compile(r"\u00b2"), "^2"),
    (re.compile(r"\u00b3"), "^3"),
)
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*(?:\^\s*\{?\s*\\circ\s*\}?|\u00b0)")


def normal_latex(text: str) -> str:
    """Plain-text notation (``sqrt(2)``, ``x**2``, Unicode) as LaTeX; degrees in sines and the like as radians."""
    for pattern, replacement in _PLAIN:
        text = pattern.sub(replacement, text)
    if _TRIG.search(text):
        return _DEGREES.sub(r"{(\\frac{\1 \\cdot \\pi}{180})}", text)
    return re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\u00b0", "", text)


def split_unit(text: str) -> tuple[str, str]:
    """The expression and its trailing ``\\text{unit}`` in one spelling ("" when there is none)."""
    match = _UNIT.search(text)
    if not match or not text[: match.start()].strip():
        return text, ""
    unit = normal_unit(text[match.start() :])
    return text[: match.start()], "" if unit.replace("square", "").replace("cubic", "") == "unit" else unit


@functools.lru_cache(maxsize=256)
def parse(text: str) -> Any | None:
    """``text`` as a sympy expression, or None when it cannot be read."""
    from latex2sympy2_extended import latex2sympy  # the parser math-verify is built on

    text, _ = split_unit(text)
    text = normal_latex(text).strip()
    if not text or len(text) > MAX_LENGTH or not text.isascii():
        return None
    try:
        value = latex2sympy(text)
    except RecursionError:
        return None
    except Exception:  # noqa: BLE001 - the parser raises bare Exception; unreadable is an answer here
        return _parse_with_math_verify(text)
    return value if _is_expression(value) else None


def _parse_with_math_verify(text: str) -> Any | None:
    from math_verify import LatexExtractionConfig
    from math_verify import parse as math_verify_parse

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we bound its running time ourselves
    found = math_verify_parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None)
    return found[0] if found and _is_expression(found[0]) else None


def _is_expression(value: Any) -> bool:
    import sympy

    return isinstance(value, sympy.Expr)


def same(gold: str, pred: str) -> bool:
    """Whether two expressions have the same value for all values of their variables."""
    gold_unit, pred_unit = split_unit(gold)[1], split_unit(pred)[1]
    if gold_unit and pred_unit and gold_unit != pred_unit:
        return False
    left, right = parse(gold), parse(pred)
    if left is None or right is None:
        return re.sub(r"\s", "", gold) == re.sub(r"\s", "", pred)
    if left == right:
        return True
    left, right = _imaginary(left, right)
    gold_number, pred_number = read_number(gold), read_number(pred)
    if pred_number is not None and pred_number.places >= 6:
        return _close(left, right, pred_number.places)
    if gold_number is not None and gold_number.places >= 2:
        return _close(left, right, gold_number.places)
    return _agree(left, right)


def _imaginary(left: Any, right: Any) -> tuple[Any, Any]:
    """Read the letter ``i`` as the imaginary unit where no other letter stands beside it."""
    import sympy

    symbols = {str(symbol) for symbol in left.free_symbols | right.free_symbols}
    if "i" in symbols and len(symbols) == 1:
        unit = dict.fromkeys(left.free_symbols | right.free_symbols, sympy.I)
        return left.subs(unit), right.subs(unit)
    return left, right


def _values(expression: Any, symbols: list[Any], shift: int) -> Any:
    import sympy

    first, step = _POINTS[shift]
    point = {s: sympy.Rational(first) + sympy.Rational(step) * k for k, s in enumerate(symbols)}
    value = expression.evalf(DIGITS + 10, subs=point) if point else expression.evalf(DIGITS + 10)
    return value if value.is_number else None


def _agree(left: Any, right: Any) -> bool:
    import sympy

    tiny = sympy.Float(10) ** -60  # what is left of an exact zero
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    compared = 0
    for shift in range(len(_POINTS) if symbols else 1):
        a, b = _values(left, symbols, shift), _values(right, symbols, shift)
        if a is None or b is None or not (a.is_finite and b.is_finite):
            if symbols and a == b:
                continue
            return a is not None and a == b
        if abs(a - b) > abs(a) * sympy.Float(10) ** -DIGITS + (tiny if a == 0 or b == 0 else 0):
            return False
        compared += 1
    return compared > 0


def _close(left: Any, right: Any, places: int) -> bool:
    import sympy

    if left.free_symbols or right.free_symbols:
        return _agree(left, right)
    difference = abs((left - right).evalf(DIGITS + 10))
    return bool(
        difference.is_number
        and difference.is_finite
        and difference <= sympy.Rational(1, 2) * sympy.Rational(10) ** -places
    )


def same_up_to_factor(gold: list[str], pred: list[str]) -> int:
    """For statements ``a ? b`` and ``c ? d``: the sign of ``(a-b)/(c-d)`` if that is constant, else 0."""
    sides: list[Any] = [parse(text) for text in (*gold, *pred)]
    if any(side is None for side in sides):
        return 0
    left, right = sides[0] - sides[1], sides[2] - sides[3]
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    if not symbols or left.free_symbols != right.free_symbols:
        return 0
    ratios = []
    for shift in range(len(_POINTS)):
        a, b = _values(left, symbols, shift), _values(right, symbols, shift)
        if a is None or b is None or not (a.is_finite and b.is_finite) or a == 0 or b == 0:
            continue
        ratios.append(a / b)
    if len(ratios) < 2 or any(abs(ratio - ratios[0]) > abs(ratios[0]) / 10**15 for ratio in ratios):
        return 0
    return 1 if ratios[0].is_positive else -1
