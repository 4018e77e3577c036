"""The owner's reading of values that a program returned (see :mod:`reward_fns.sandbox.codec` for their form).

Nothing is executed and nothing can be made to take long: sizes are bounded, and a set or dict of many values with the
same hash, which would take quadratic time to build, is refused here and for every process behind this one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from reward_fns.strictjson import JSONProblem, loads

REL_TOL = 1e-9
ABS_TOL = 1e-12
_MAX_EQUAL_HASHES = 50
_MAX_RATIO_DIGITS = 20_000
_MAX_DECIMAL = 10_000


class Opaque:
    """A returned object with no plain value; equal to nothing, not even to itself."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return f"<{self.text[:200]}>"

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__


def parse_reply(raw: bytes, max_chars: int) -> dict[str, Any]:
    """The reply as JSON with the keys ``value`` and perhaps ``args``; raises :class:`JSONProblem`."""
    try:
        reply = loads(raw.decode(), max_chars=max_chars)
    except UnicodeDecodeError as error:
        raise JSONProblem(f"not UTF-8: {error}") from None
    if not isinstance(reply, dict) or not {"value"} <= reply.keys() <= {"value", "args"}:
        raise JSONProblem("not a reply")
    if not isinstance(reply.get("args", []), list):
        raise JSONProblem("args is not a list")
    return reply


def decode(value: Any) -> Any:
    """The plain Python value of tagged JSON; raises :class:`JSONProblem` when the tagging is wrong.

    Ranges, iterators, deques and views of a dict come back as opaque: no JSON value equals them.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise JSONProblem("a tag must stand alone")
    tag, inner = next(iter(value.items()))
    try:
        return _decode_tag(tag, inner)
    except (TypeError, ValueError, ArithmeticError, LookupError, InvalidOperation) as error:
        raise JSONProblem(f"malformed value: {type(error).__name__}") from None


def _decode_tag(tag: str, inner: Any) -> Any:
    if tag == "i":
        return int(_text(inner), 16)
    if tag == "f":
        return float(_text(inner))
    if tag == "o":
        return Opaque(_text(inner))
    if tag == "b":
        return bytes.fromhex(_text(inner))
    if tag == "D":
        number = Decimal(_text(inner)[:_MAX_DECIMAL])
        return Opaque("signalling NaN") if number.is_snan() else number
    if tag == "d":
        pairs = [(decode(key), decode(item)) for key, item in _pairs(inner)]
        _check_hashes([key for key, _ in pairs])
        return dict(pairs)
    if tag == "c":
        real, imaginary = _list(inner)
        return complex(float(_text(real)), float(_text(imaginary)))
    if tag == "F":
        top, bottom = _list(inner)
        if len(_text(top)) + len(_text(bottom)) > _MAX_RATIO_DIGITS:
            raise JSONProblem("a fraction of too many digits")
        return Fraction(int(top, 16), int(bottom, 16))
    items = [decode(item) for item in _list(inner)]
    if tag == "t":
        return tuple(items)
    if tag in ("s", "z", "k"):
        _check_hashes(items)
        return frozenset(items) if tag == "z" else set(items)
    if tag == "m":
        _check_hashes([key for key, _ in items])
    if tag == "r":
        return Opaque(repr(range(*items)))
    if tag in ("q", "n", "v", "m"):
        return Opaque(f"{ {'q': 'deque', 'n': 'iterator', 'v': 'values', 'm': 'items'}[tag] } of {len(items)} items")
    raise KeyError(tag)


def _check_hashes(keys: list[Hashable]) -> None:
    """Refuse what would be slow to put into a set: Python's numbers collide by design of their author."""
    most = max(Counter(map(hash, keys)).values(), default=0)
    if most > _MAX_EQUAL_HASHES:
        raise JSONProblem(f"{most} keys with the same hash")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("expected a list")
    return value


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    return [(key, item) for key, item in _list(value)]


def same_value(expected: Any, got: Any) -> bool:
    """Whether a returned value is the expected one of a JSON test.

    A tuple stands for a list (JSON has no tuples); a float may differ from an expected float in the tenth digit, and
    not at all from an expected integer; ``True`` is not ``1``; dictionary keys may be the text of what they are (JSON
    has only text keys).
    """
    if isinstance(expected, bool) or isinstance(got, bool) or expected is None or got is None:
        return expected is got
    if isinstance(expected, int | float) and isinstance(got, int | float | Fraction | Decimal):
        return _same_number(expected, got)
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple):
        return len(expected) == len(got) and all(map(same_value, expected, got))
    if isinstance(expected, dict) and isinstance(got, dict):
        if len(expected) != len(got):
            return False
        if expected.keys() != got.keys():
            got = {_key(key): item for key, item in got.items()}
        return expected.keys() == got.keys() and all(same_value(item, got[key]) for key, item in expected.items())
    return isinstance(expected, str) and isinstance(got, str) and expected == got


def _key(key: Any) -> str:
    """A key as JSON text; integers of thousands of digits have none."""
    if isinstance(key, int) and abs(key) >= 10**400:
        return hex(key)
    return key if isinstance(key, str) else str(key)


def _same_number(expected: float, got: float | Fraction | Decimal) -> bool:
    if expected == got:
        return True
    if isinstance(expected, int) or not isinstance(got, int | float):
        return False
    try:
        got = float(got)
    except OverflowError:
        return False
    if math.isnan(expected):
        return math.isnan(got)
    return math.isclose(expected, got, rel_tol=REL_TOL, abs_tol=ABS_TOL)
