"""The owner's reading of values that a program returned: exact types, and nothing executed.

A reply is tagged JSON. ``null``, booleans, strings, small integers and lists stand for themselves; then there are
``{"i": hex}`` big integer, ``{"f": text}`` float, ``{"t": [...]}`` tuple, ``{"d": [[key, value], ...]}`` dict,
``{"s": [...]}`` set, ``{"z": [...]}`` frozenset, ``{"b": hex}`` bytes, ``{"c": [re, im]}`` complex, and ``{"o": text}``
for anything else, which equals nothing.
"""

from __future__ import annotations

import math
from typing import Any

from reward_fns.strictjson import JSONProblem, loads

REL_TOL = 1e-9
ABS_TOL = 1e-12


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
    """The plain Python value of tagged JSON; raises :class:`JSONProblem` when the tagging is wrong."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise JSONProblem("a tag must stand alone")
    tag, inner = next(iter(value.items()))
    try:
        return _decode_tag(tag, inner)
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        raise JSONProblem(f"malformed value: {error}") from None


def _decode_tag(tag: str, inner: Any) -> Any:
    if tag == "i":
        return int(inner, 16)
    if tag == "f":
        return float(_text(inner))
    if tag == "t":
        return tuple(decode(item) for item in _list(inner))
    if tag == "d":
        return {decode(key): decode(item) for key, item in _list(inner)}
    if tag == "s":
        return {decode(item) for item in _list(inner)}
    if tag == "z":
        return frozenset(decode(item) for item in _list(inner))
    if tag == "b":
        return bytes.fromhex(inner)
    if tag == "c":
        return complex(float(_text(inner[0])), float(_text(inner[1])))
    if tag == "o":
        return Opaque(_text(inner))
    raise KeyError(tag)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("expected a list")
    return value


def encode(value: Any) -> Any:
    """Tagged JSON of a plain Python value (the inputs of a test)."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -(2**53) < value < 2**53 else {"i": hex(value)}
    if isinstance(value, float):
        return {"f": repr(value)}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, tuple):
        return {"t": [encode(item) for item in value]}
    if isinstance(value, dict):
        return {"d": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, set | frozenset):
        return {"z" if isinstance(value, frozenset) else "s": [encode(item) for item in value]}
    if isinstance(value, bytes):
        return {"b": value.hex()}
    raise TypeError(f"a test input of type {type(value).__name__} cannot be passed")


def same_value(expected: Any, got: Any) -> bool:
    """Whether a returned value is the expected one of a JSON test.

    A tuple stands for a list (JSON has no tuples); floats agree to nine digits; ``True`` is not ``1``; dictionary keys
    may be the text of what they are (JSON has only text keys).
    """
    if isinstance(expected, bool) or isinstance(got, bool) or expected is None or got is None:
        return expected is got
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return _same_number(expected, got)
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple):
        return len(expected) == len(got) and all(map(same_value, expected, got))
    if isinstance(expected, dict) and isinstance(got, dict):
        if len(expected) != len(got):
            return False
        if expected.keys() != got.keys():
            got = {key if isinstance(key, str) else str(key): item for key, item in got.items()}
        return expected.keys() == got.keys() and all(same_value(item, got[key]) for key, item in expected.items())
    return type(expected) is type(got) and bool(expected == got)


def _same_number(expected: float, got: float) -> bool:
    if isinstance(expected, int) and isinstance(got, int):
        return expected == got
    try:
        expected, got = float(expected), float(got)
    except OverflowError:
        return False
    if math.isnan(expected):
        return math.isnan(got)
    return expected == got or math.isclose(expected, got, rel_tol=REL_TOL, abs_tol=ABS_TOL)
