"""Whether what a program printed is what was expected."""

from __future__ import annotations

import math
import re
from fractions import Fraction

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_MAX_NUMBER = 400
_REL_TOL, _ABS_TOL = 1e-9, 1e-12


def same_output(expected: str, got: str) -> bool:
    """Line by line, by tokens; blank lines and spaces around tokens do not count.

    Tokens are text, except where one of the two is a decimal number: then an expected integer is matched by its exact
    value (``1.0`` is ``1``), an expected decimal by one that differs by at most 1e-9 of it.
    """
    left, right = ([line.split() for line in text.strip().splitlines()] for text in (expected, got))
    if left == right:
        return True
    left, right = ([line for line in lines if line] for lines in (left, right))
    if len(left) != len(right):
        return False
    return all(len(a) == len(b) and all(map(_same_token, a, b)) for a, b in zip(left, right, strict=True))


def _same_token(expected: str, got: str) -> bool:
    if expected == got:
        return True
    if len(expected) > _MAX_NUMBER or len(got) > _MAX_NUMBER or not _decimal(expected + got):
        return False
    if not _NUMBER.fullmatch(expected) or not _NUMBER.fullmatch(got):
        return False
    if not _decimal(expected):
        return Fraction(expected) == Fraction(got)
    return math.isclose(float(expected), float(got), rel_tol=_REL_TOL, abs_tol=_ABS_TOL)


def _decimal(text: str) -> bool:
    return "." in text or "e" in text or "E" in text
