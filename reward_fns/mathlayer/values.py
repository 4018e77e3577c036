"""The values of sympy expressions: exactly where they are rational, else to hundreds of digits; bounded in size.

Nothing is simplified, since nobody can bound how long that takes. Closed forms are compared as fractions when they are
rational and otherwise to 50 digits more than their own length; expressions with variables at several points, wherever
both sides are real there (at all points, in complex numbers, if that leaves too few).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

#: Numbers with more digits than this are equal only when they are written alike.
MAX_DIGITS = 100_000
_MOST_DIGITS = 3000  # of a value that is not rational
_VARIABLE_DIGITS = 80
_SLOW_DIGITS = 20  # of sums, integrals and limits
_MAX_TERMS = 100_000
_POINTS = (
    ("0.7310585", "1.3"), ("1.6180339", "0.41"), ("2.2360679", "0.83"), ("0.2071067", "0.57"),
    ("-0.5772156", "-1.7"), ("-1.2020569", "3"), ("0.1234567", "-0.9"),
)  # fmt: skip
_NEEDED = 3


class TooLarge(ValueError):
    """A number whose digits nobody would write down."""


def digits_bound(expression: Any) -> float:
    """A bound on ``|log10 |value||``, above and below, of an expression and all its parts (letters count as 1)."""
    import sympy

    if expression.is_Rational:
        return math.log10(max(abs(int(expression.p)), int(expression.q)))
    if expression.is_Float:
        return abs(math.log10(abs(expression) + 1e-300)) if expression else 1.0
    if not expression.args:
        return 1.0
    if isinstance(expression, sympy.Sum | sympy.Product):
        for limits in expression.limits:
            if len(limits) == 3 and all(bound.is_number and bound.is_finite for bound in limits[1:]):
                ends = [max(digits_bound(bound), 0) for bound in limits[1:]]
                if max(ends) > 12 or abs(limits[2].evalf(15) - limits[1].evalf(15)) > _MAX_TERMS:
                    raise TooLarge
    parts = [digits_bound(part) for part in expression.args if isinstance(part, sympy.Basic)]
    size = _size(expression, parts)
    if size > MAX_DIGITS:
        raise TooLarge
    return size


def _size(expression: Any, parts: list[float]) -> float:
    import sympy

    if expression.is_Add:
        return max(parts) + math.log10(len(parts))
    if expression.is_Mul:
        return sum(parts)
    if expression.is_Pow:
        exponent = expression.exp
        factor = float(abs(exponent)) if exponent.is_Rational and parts[1] < 15 else 10 ** min(parts[1], 15)
        return parts[0] * factor
    if isinstance(expression, sympy.exp):
        return 0.435 * 10 ** min(parts[0], 15)
    if isinstance(expression, sympy.factorial | sympy.gamma):
        return parts[0] * 10 ** min(parts[0], 15)
    if isinstance(expression, sympy.binomial):
        return min(parts[0] * 10 ** min(parts[1], 15), 0.302 * 10 ** min(parts[0], 15))
    return max(parts)


def rational(expression: Any) -> Fraction | None:
    """The exact value, None when it is not put together from rational numbers."""
    import sympy

    if expression.is_Rational:
        return Fraction(int(expression.p), int(expression.q))
    if not expression.args or expression.free_symbols:
        return None
    if not (expression.is_Add or expression.is_Mul or expression.is_Pow) and not isinstance(
        expression, sympy.factorial | sympy.binomial
    ):
        return None
    parts = [rational(part) for part in expression.args]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if expression.is_Add:
        return sum(known, Fraction(0))
    if expression.is_Mul:
        return math.prod(known, start=Fraction(1))
    whole = [int(part) if part.denominator == 1 else None for part in known]
    if expression.is_Pow:
        return known[0] ** whole[1] if whole[1] is not None and (known[0] or whole[1] > 0) else None
    if any(part is None or part < 0 for part in whole):
        return None
    integers = [part for part in whole if part is not None]
    return Fraction(math.factorial(integers[0]) if len(integers) == 1 else math.comb(*integers))


def agree(left: Any, right: Any) -> bool:
    """Whether two expressions have the same value wherever both are defined."""
    import sympy
    from sympy.core.function import AppliedUndef

    left, right = (e.replace(lambda p: isinstance(p, AppliedUndef), _stand_in) for e in (left, right))
    try:
        size = max(digits_bound(left), digits_bound(right))
    except TooLarge:
        return False
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    slow = left.has(sympy.Sum, sympy.Integral, sympy.Product, sympy.Limit, sympy.Derivative)
    slow = slow or right.has(sympy.Sum, sympy.Integral, sympy.Product, sympy.Limit, sympy.Derivative)
    if symbols:
        return _agree_at_points(left, right, symbols, _SLOW_DIGITS if slow else _VARIABLE_DIGITS)
    exact = rational(left), rational(right)
    if exact[0] is not None and exact[1] is not None:
        return exact[0] == exact[1]
    digits = _SLOW_DIGITS if slow else 50 + int(min(size, _MOST_DIGITS))
    return _close_values(_value(left, {}, digits), _value(right, {}, digits), digits)


def _stand_in(call: Any) -> Any:
    import sympy

    return sympy.Symbol(f"value_of_{call}")


def _agree_at_points(left: Any, right: Any, symbols: list[Any], digits: int) -> bool:
    import sympy

    real = not (left.has(sympy.I) or right.has(sympy.I))
    for only_real in (True, False) if real else (False,):
        compared = 0
        for number in range(len(_POINTS)):
            point = _point(symbols, number)
            if only_real and not (_defined(left, point) and _defined(right, point)):
                continue
            a, b = _value(left, point, digits), _value(right, point, digits)
            if a is None or b is None:
                continue
            if not _close_values(a, b, digits):
                return False
            compared += 1
        if compared >= _NEEDED:
            return True
    return False


def _point(symbols: list[Any], number: int) -> dict[Any, Any]:
    import sympy

    first, step = _POINTS[number]
    return {symbol: sympy.Rational(first) + sympy.Rational(step) * k for k, symbol in enumerate(symbols)}


def _defined(expression: Any, point: dict[Any, Any]) -> bool:
    """Whether all roots and logarithms of an expression are of positive numbers at a point."""
    import sympy

    for part in sympy.preorder_traversal(expression):
        inner = None
        if getattr(part, "is_Pow", False) and not part.exp.is_Integer:
            inner = part.base
        elif isinstance(part, sympy.log):
            inner = part.args[0]
        if inner is not None and inner.free_symbols:
            value = inner.evalf(15, subs=point)
            if not (value.is_number and value.is_extended_real and value > 0):
                return False
    return True


def _value(expression: Any, point: dict[Any, Any], digits: int) -> Any:
    """The value as a number, None when there is none."""
    value = expression.evalf(digits + 10, subs=point) if point else expression.evalf(digits + 10)
    return value if value.is_number and value.is_finite else None


def _close_values(a: Any, b: Any, digits: int) -> bool:
    import sympy

    if a is None or b is None:
        return False
    tiny = sympy.Float(10) ** -(3 * digits)  # what is left of an exact zero
    return bool(abs(a - b) <= abs(a) * sympy.Float(10) ** -digits + (tiny if a == 0 or b == 0 else 0))


def close(left: Any, right: Any, places: int) -> bool:
    """Whether two closed forms agree to so many decimal places; expressions with variables agree as they are."""
    import sympy

    if left.free_symbols or right.free_symbols:
        return agree(left, right)
    try:
        digits = 30 + int(min(max(digits_bound(left), digits_bound(right)), _MOST_DIGITS))
    except TooLarge:
        return False
    difference = abs((left - right).evalf(digits))
    if not (difference.is_number and difference.is_finite):
        return False
    return bool(difference <= sympy.Rational(1, 2) * sympy.Rational(10) ** -places)


def constant_ratio(left: Any, right: Any) -> int:
    """The sign of ``left / right`` if that is the same number everywhere, else 0."""
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    if not symbols or left.free_symbols != right.free_symbols:
        return 0
    try:
        digits_bound(left), digits_bound(right)
    except TooLarge:
        return 0
    ratios = []
    for number in range(len(_POINTS)):
        point = _point(symbols, number)
        a, b = _value(left, point, 40), _value(right, point, 40)
        if a is None or b is None or a == 0 or b == 0:
            continue
        ratios.append(a / b)
    if len(ratios) < 2 or any(abs(ratio - ratios[0]) > abs(ratios[0]) / 10**35 for ratio in ratios):
        return 0
    return 1 if ratios[0].is_positive else -1
