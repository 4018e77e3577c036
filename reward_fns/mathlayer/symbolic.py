r"""Equality of two expressions, read by math-verify's LaTeX parser. Runs in a worker process.

Two expressions are equal when they have the same value wherever both are defined; see
:mod:`reward_fns.mathlayer.values`. Upper and lower case are different letters, primes and indices belong to a name.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from typing import Any

from reward_fns.mathlayer import values
from reward_fns.mathlayer.exact import read_number
from reward_fns.mathlayer.notation import matching_brace, tidy
from reward_fns.mathlayer.shapes import strip_unit
from reward_fns.mathlayer.units import same_unit

MAX_LENGTH = 1000
_FUNCTIONS = "pi|sin|cos|tan|log|ln|sec|csc|cot|arcsin|arccos|arctan|sinh|cosh|tanh|exp|max|min|gcd|lcm"
_PLAIN: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\*"), r"\\cdot "),
    (re.compile(rf"(?<![\\a-zA-Z])({_FUNCTIONS})(?![a-zA-Z])"), r"\\\1 "),
    (re.compile(r"(?<![\\a-zA-Z])(?:infinity|infty|inf|oo)(?![a-zA-Z])"), r"\\infty "),
    (re.compile(r"(\\sqrt\s?\[[^\[\]]{1,20}\])\s?(\d+|[a-zA-Z](?![a-zA-Z]))"), r"\1{\2}"),
    (re.compile(r"\\sqrt\s(?=\d)(\d+)|\\sqrt\s([a-zA-Z])(?![a-zA-Z])"), r"\\sqrt{\1\2}"),
    (re.compile(r"([A-Za-z])('+)"), lambda m: f"{m.group(1)}_{{p{len(m.group(2))}}}"),
    # The parser takes gamma for a function or a constant.
    (re.compile(r"\\([gG])amma(?![a-zA-Z])(?!\s?\()(?:\s?_\s?\{?(\w+)\}?)?"), r"\\xi_{\1amma\2}"),
    (re.compile(r"\\lg(?![a-zA-Z])"), r"\\log_{10} "),
    (re.compile(r"\\(?:mathrm|operatorname)\{([a-zA-Z]+)\}"), r"\\\1"),
)
_TWO_ARGUMENTS = re.compile(r"\\(?:frac|binom)(?![a-zA-Z])")
_ARGUMENT = re.compile(r"\s?(\{|\\[a-zA-Z]+|\w)")
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*(?:\^\s*\{?\s*\\circ\s*\}?)")


def normal_latex(text: str) -> str:
    """Plain-text notation (``sqrt(2)``, ``x**2``, ``exp(2)``) as LaTeX; degrees in sines and the like as radians."""
    text = _braced_arguments(_bracketed_arguments(re.sub(r"\\[dt]binom(?![a-zA-Z])", r"\\binom", text)))
    for pattern, replacement in _PLAIN:
        text = pattern.sub(replacement, text)
    if _TRIG.search(text):
        return _DEGREES.sub(r"{(\\frac{\1 \\cdot \\pi}{180})}", text)
    return re.sub(r"\^\s*\{?\s*\\circ\s*\}?", "", text)


def _bracketed_arguments(text: str) -> str:
    """``sqrt(...)`` and ``^(...)`` with braces for their brackets."""
    for _ in range(20):
        match = re.search(r"(?<![\\a-zA-Z])sqrt\s?\(|\\sqrt\s?\(|\^\s?\(", text)
        if not match:
            break
        depth, end = 0, None
        for index in range(match.end() - 1, len(text)):
            depth += (text[index] == "(") - (text[index] == ")")
            if depth == 0:
                end = index
                break
        if end is None:
            break
        head = "^" if match.group()[0] == "^" else "\\sqrt"
        text = f"{text[: match.start()]}{head}{{{text[match.end() : end]}}}{text[end + 1 :]}"
    return text


def _braced_arguments(text: str) -> str:
    r"""``\frac1x`` and ``\binom52`` with their braces."""
    position = 0
    while match := _TWO_ARGUMENTS.search(text, position):
        position = match.end()
        for _ in range(2):
            token = _ARGUMENT.match(text, position)
            end = matching_brace(text, token.end() - 1) if token and token.group(1) == "{" else None
            if token is None or (token.group(1) == "{" and end is None):
                return text
            if end is None:
                text = f"{text[:position]}{{{token.group(1)}}}{text[token.end() :]}"
                position += len(token.group(1)) + 2
            else:
                position = end + 1
        position = match.end()  # there may be another one inside
    return text


@functools.lru_cache(maxsize=256)
def parse(text: str) -> Any | None:
    """``text`` as a sympy expression, or None when it cannot be read."""
    import sympy
    from latex2sympy2_extended import latex2sympy  # the parser math-verify is built on
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig

    text, _ = strip_unit(tidy(text))
    number = read_number(text)
    if number is not None and not number.percent:
        return sympy.Rational(number.value)
    text = normal_latex(text).strip()
    if (
        not text
        or len(text) > MAX_LENGTH
        or not text.isascii()
        or re.search(r"\\text|\\[lc]?dots|\b(?:or|and|not)\b|:", text)
    ):
        return None
    try:
        value = latex2sympy(text, conversion_config=ConversionConfig(lowercase_symbols=False))
    except RecursionError:
        return None
    except Exception:  # noqa: BLE001 - the parser raises bare Exception; unreadable is an answer here
        return _parse_with_math_verify(text)
    return value if _is_expression(value) else None


def _parse_with_math_verify(text: str) -> Any | None:
    from math_verify import LatexExtractionConfig
    from math_verify import parse as math_verify_parse

    if re.search(r"[A-Z]", re.sub(r"\\[A-Za-z]+", "", text)):
        return None  # it folds the case of letters
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we bound its running time ourselves
    found = math_verify_parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None)
    return found[0] if found and _is_expression(found[0]) else None


def _is_expression(value: Any) -> bool:
    import sympy

    return isinstance(value, sympy.Expr) and not value.has(sympy.nan, sympy.zoo)


def same(gold: str, pred: str) -> bool:
    """Whether two expressions have the same value wherever both are defined; ``i`` may be the imaginary unit."""
    import sympy

    gold_unit, pred_unit = strip_unit(tidy(gold))[1], strip_unit(tidy(pred))[1]
    if not same_unit(gold_unit, pred_unit):
        return False
    left, right = parse(gold), parse(pred)
    if left is None or right is None:
        return _letters(gold) == _letters(pred)
    if left == right:
        return True
    if _agree(left, right, gold, pred):
        return True
    imaginary = sympy.Symbol("i")
    if imaginary not in left.free_symbols | right.free_symbols:
        return False
    return _agree(left.subs(imaginary, sympy.I), right.subs(imaginary, sympy.I), gold, pred)


def _agree(left: Any, right: Any, gold: str, pred: str) -> bool:
    """By value; by as many places as a decimal has, where one of the two is a decimal with enough of them."""
    gold_number, pred_number = read_number(gold), read_number(pred)
    if pred_number is not None and pred_number.places >= 6:
        return values.close(left, right, pred_number.places)
    if gold_number is not None and gold_number.places >= 2:
        return values.close(left, right, gold_number.places)
    return values.agree(left, right)


def _letters(text: str) -> str:
    return re.sub(r"\s", "", tidy(text))


def same_up_to_factor(gold: list[str], pred: list[str]) -> int:
    """For statements ``a ? b`` and ``c ? d``: the sign of ``(a-b)/(c-d)`` if that is constant, else 0."""
    sides: list[Any] = [parse(text) for text in (*gold, *pred)]
    if any(side is None for side in sides):
        return 0
    return values.constant_ratio(sides[0] - sides[1], sides[2] - sides[3])
