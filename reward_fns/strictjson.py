"""JSON from an untrusted source: no duplicate keys, no NaN, bounded depth and size, and comparison by exact type."""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_CHARS = 8_000_000
MAX_DEPTH = 150
_SPACE = re.compile(r"[ \t\r\n]*")


class JSONProblem(ValueError):
    """The text is not JSON this project accepts; the message says why."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise JSONProblem("an object has the same key twice")
    return result


def _no_constant(name: str) -> Any:
    raise JSONProblem(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JSONProblem("a number is out of range")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)


def decode_at(text: str, position: int = 0, max_chars: int = MAX_CHARS) -> tuple[Any, int]:
    """The JSON value that starts at ``position``, and the index after it."""
    if len(text) - position > max_chars:
        raise JSONProblem(f"longer than {max_chars} characters")
    position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
    try:
        value, end = _DECODER.raw_decode(text, position)
    except JSONProblem:
        raise
    except RecursionError:
        raise JSONProblem("nested too deeply") from None
    except ValueError as error:  # JSONDecodeError, and integers of too many digits
        raise JSONProblem(getattr(error, "msg", None) or "a number has too many digits") from None
    if not _shallow(value):
        raise JSONProblem("nested too deeply")
    return value, end


def loads(text: str, max_chars: int = MAX_CHARS) -> Any:
    """The one JSON value that ``text`` is."""
    value, end = decode_at(text, 0, max_chars)
    if _SPACE.match(text, end).end() != len(text):  # type: ignore[union-attr]
        raise JSONProblem("text after the value")
    return value


def _shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return True
    return False


def same_json(left: Any, right: Any) -> bool:
    """Equality of two JSON values: ``true`` is not ``1``; ``1`` and ``1.0`` are the same number."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_json(value, right[key]) for key, value in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    return left == right
