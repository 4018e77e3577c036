r"""What an equation or inequality in a box says: the value behind a name, a statement, a set of real numbers.

``x = 5``, ``f(2) = 5``, ``m+n = 73``, ``|AB| = 5`` and ``2 + 3 = 5`` give the value they end with; ``2x = 5`` and
``x^2 = 5`` do not, because their left side is neither a name nor a number, and ``1 = 2`` gives nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

from reward_fns.mathlayer import symbolic
from reward_fns.mathlayer.exact import read_number
from reward_fns.mathlayer.shapes import Shape, parse_shape

Same = Callable[[Shape, Shape], bool]
Reals = tuple[str, list[Shape]]  # the variable ("" for none) and the intervals
_LETTER = (
    r"(?:\\?(?!sqrt|frac|infty|pi(?![a-zA-Z]))[A-Za-z]+|\\(?:overline|bar|hat|vec|widehat|tilde)\s?\{?[A-Za-z]+\}?)"
)
_INDEX = r"(?:_(?:\{[^{}]{1,20}\}|\\?\w+)|'|\^\*)*"
_ARGUMENT = r"(?:\s?\((?:[^()]|\([^()]*\)){1,40}\))"
_NAME = re.compile(
    rf"{_LETTER}{_INDEX}(?:\^\{{-1\}}|\^\{{\(\d\)\}}|\^\{{?[2-9]\}}?(?=\s?\\?[({{A-Za-z]))?{_INDEX}{_ARGUMENT}?"
)
_MARKS = re.compile(
    r"\\(?:m?angle|triangle|measuredangle|text\s?\{|Pr|sup|inf|deg|dim|Var|Cov|overrightarrow|mathbb\{[EP]\}|frac\{d)[^=<>]*"
    r"|\|\s?(?:\\overline\s?\{)?[A-Z]{1,3}\}?\s?\||\\?\|\s?\\?[a-z]+(?:[-+]\\?[a-z]+)?\s?\\?\||m\s?\\angle[^=<>]*|\[\s?[A-Z]{3,6}\s?\]|#\s?[A-Z]"
)
_EVALUATED = re.compile(r"\\(?:sum|int|prod|log|lg|ln|lim|max|min|gcd|lcm|det|sin|cos|tan|exp)(?![a-zA-Z]).*")
_SUM = re.compile(rf"[-+]?\s?{_LETTER}{_INDEX}(?:\s?[-+]\s?{_LETTER}{_INDEX})+")
_PRODUCT = re.compile(
    r"[A-Za-z](?:\s?(?:\\cdot\s?|\\times\s?)?[A-Za-z]){1,4}|\\frac\{?[A-Za-z]{1,3}\}?\{?[A-Za-z]{1,3}\}?|[a-zA-Z]/[a-zA-Z]"
)
_CONSTANTS = frozenset(("e", "i", "\\pi", "\\infty", "pi"))
_FLIP = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
_ENDLESS = (Shape("leaf", "-\\infty"), Shape("leaf", "\\infty"))


def is_name(shape: Shape) -> bool:
    """Whether a side of an equation only names a quantity."""
    text = shape.text.strip()
    if shape.kind == "seq":
        return all(map(is_name, shape.items))
    if shape.kind == "words":
        return True
    if shape.kind in ("list", "set", "ratio", "matrix"):
        return bool(shape.items) and all(map(is_name, shape.items))
    if text in _CONSTANTS or len(text) > 120:
        return False
    if _EVALUATED.fullmatch(text):
        return not _has_value(text)
    return any(pattern.fullmatch(text) for pattern in (_NAME, _MARKS, _SUM, _PRODUCT))


def _has_value(text: str) -> bool:
    """Whether an expression can be worked out, so that an equation with it is true or false."""
    from sympy.core.function import AppliedUndef

    value = symbolic.parse(text)
    if value is None or text.startswith(("\\gcd", "\\lcm", "\\max", "\\min", "\\det")):
        return bool(re.search(r"\d", text)) and not re.search(r"[a-zA-Z]", re.sub(r"\\[a-z]{2,4}(?![a-z])", "", text))
    return not value.free_symbols and not value.atoms(AppliedUndef)


def _same_name(left: Shape, right: Shape) -> bool:
    return is_name(left) and is_name(right) and left.text.replace(" ", "") == right.text.replace(" ", "")


def same_relation(gold: Shape, pred: Shape, same: Same) -> bool:
    """Whether two answers, at least one of them an equation or inequality, are the same."""
    if gold.kind == pred.kind == "relation":
        return _both(gold, pred, same) or same_reals(gold, pred, same)
    if gold.kind == "relation":
        return _value(gold, pred, same, gold_is_relation=True) or same_reals(gold, pred, same)
    return _value(pred, gold, same, gold_is_relation=False) or same_reals(gold, pred, same)


def _both(gold: Shape, pred: Shape, same: Same) -> bool:
    operators = gold.tag.split()
    if "in" in operators + pred.tag.split():
        return gold.tag == pred.tag and all(map(same, gold.items, pred.items))
    if set(operators) == {"="} == set(pred.tag.split()) and _same_name(gold.items[0], pred.items[0]):
        return all(same(gold.items[-1], side) for side in pred.items[1:])
    if len(gold.items) != len(pred.items):
        return False
    if len(gold.items) == 2:
        return _statement(gold, pred, same)
    forward = gold.tag == pred.tag and all(map(same, gold.items, pred.items))
    mirrored = " ".join(_FLIP[o] for o in reversed(operators))
    return forward or (mirrored == pred.tag and all(map(same, gold.items, pred.items[::-1])))


def _statement(gold: Shape, pred: Shape, same: Same) -> bool:
    if gold.tag == pred.tag == "=" and is_name(gold.items[0]):
        for this, other in (pred.items, pred.items[::-1]):
            if this.text.strip() == gold.items[0].text.strip():
                return same(gold.items[1], other)
    sign = symbolic.same_up_to_factor([s.text for s in gold.items], [s.text for s in pred.items])
    if sign == 0:
        return False
    return (pred.tag if sign > 0 else _FLIP[pred.tag]) == gold.tag


def _value(relation: Shape, value: Shape, same: Same, gold_is_relation: bool) -> bool:
    """Whether an equation (or membership) states a value."""

    def equal(side: Shape) -> bool:
        return same(side, value) if gold_is_relation else same(value, side)

    operators = set(relation.tag.split())
    if operators == {"in"}:
        return len(relation.items) == 2 and is_name(relation.items[0]) and equal(relation.items[1])
    if operators != {"="}:
        return False
    sides = [side for side in relation.items if not is_name(side)]
    if not sides and len(relation.items) == 2:  # one name for another: y = x
        return equal(relation.items[1])
    if not sides or (len(sides) == len(relation.items) and gold_is_relation):
        return False
    return all(map(equal, sides))


def same_reals(gold: Shape, pred: Shape, same: Same) -> bool:
    """Whether two answers are the same set of real numbers, written as intervals, unions or inequalities.

    Two inequalities with a comma between them may mean "and" or "or".
    """
    if pred.kind == "list" and pred.tag == "" and all(item.kind == "relation" for item in pred.items):
        either = Shape("list", pred.text, pred.items, "or")
        return _same_sets(_reals(gold), _reals(pred), same) or _same_sets(_reals(gold), _reals(either), same)
    return _same_sets(_reals(gold), _reals(pred), same)


def _same_sets(left: Reals | None, right: Reals | None, same: Same) -> bool:
    if left is None or right is None or len(left[1]) != len(right[1]):
        return False
    if left[0] and right[0] and left[0] != right[0]:
        return False
    rest = list(right[1])
    for interval in left[1]:
        match = next((other for other in rest if _same_interval(interval, other, same)), None)
        if match is None:
            return False
        rest.remove(match)
    return True


def _same_interval(left: Shape, right: Shape, same: Same) -> bool:
    return left.tag == right.tag and all(map(same, left.items, right.items))


def _interval(low: Shape, high: Shape, tag: str) -> Shape:
    return Shape("seq", "", (low, high), tag)


def _reals(shape: Shape) -> Reals | None:
    """The variable ("" for none) and the intervals of a set of real numbers, None when it is none."""
    if shape.kind == "seq":
        return ("", [shape]) if len(shape.items) == 2 and shape.tag != "" else None
    if (shape.kind == "leaf" and shape.text.strip() == "\\mathbb{R}") or (
        shape.kind == "words" and shape.text in ("all real numbers", "real numbers")
    ):
        return "", [_interval(*_ENDLESS, "()")]
    if shape.kind == "relation":
        return _reals_of_relation(shape)
    if shape.kind == "leaf" and "\\setminus" in shape.text:
        return _without_points(shape.text)
    if shape.kind == "union" or (shape.kind == "list" and shape.tag == "or"):
        parts = [_reals(item) for item in shape.items]
        known = [part for part in parts if part is not None]
        names = {name for name, _ in known if name}
        if len(known) < len(parts) or len(names) > 1:
            return None
        return "".join(names), [interval for _, intervals in known for interval in intervals]
    if shape.kind == "list" and len(shape.items) == 2 and all(item.kind == "relation" for item in shape.items):
        return _intersection(shape)
    return None


def _without_points(text: str) -> Reals | None:
    """The real numbers without some points."""
    whole, _, points = text.partition("\\setminus")
    shape = parse_shape(points)
    numbers = sorted((number.value, item) for item in shape.items if (number := read_number(item.text)))
    if whole.strip() != "\\mathbb{R}" or shape.kind != "set" or not numbers or len(numbers) < len(shape.items):
        return None
    ends = [_ENDLESS[0], *(item for _, item in numbers), _ENDLESS[1]]
    return "", [_interval(low, high, "()") for low, high in itertools.pairwise(ends)]


def _intersection(shape: Shape) -> Reals | None:
    """``x > 2`` and ``x < 3`` as one interval."""
    parts = [_reals_of_relation(item) for item in shape.items]
    if any(part is None or len(part[1]) != 1 for part in parts):
        return None
    (name, (first,)), (other, (second,)) = parts  # type: ignore[misc]
    if name != other:
        return None
    for low, high in ((first, second), (second, first)):
        if low.items[1] == _ENDLESS[1] and high.items[0] == _ENDLESS[0]:
            return name, [_interval(low.items[0], high.items[1], low.tag[0] + high.tag[1])]
    return None


def _reals_of_relation(relation: Shape) -> Reals | None:
    items, operators = list(relation.items), relation.tag.split()
    if operators == ["in"] and is_name(items[0]):
        inner = _reals(items[1])
        return (items[0].text.strip(), inner[1]) if inner else None
    if operators == ["!="] and is_name(items[0]):
        return items[0].text.strip(), [_interval(_ENDLESS[0], items[1], "()"), _interval(items[1], _ENDLESS[1], "()")]
    if not operators or operators[0][0] not in "<>":
        return None
    far = re.fullmatch(r"\|\s?(\\?[A-Za-z]+)\s?\|", items[0].text.strip())
    if far and len(items) == 2 and operators[0][0] == ">":
        low, high = ("(", ")") if operators[0] == ">" else ("[", "]")
        left = _interval(_ENDLESS[0], Shape("leaf", f"-({items[1].text})"), "(" + high)
        return far.group(1), [left, _interval(items[1], _ENDLESS[1], low + ")")]
    if operators[0][0] == ">":
        items, operators = items[::-1], [_FLIP[o] for o in reversed(operators)]
    if any(o[0] != "<" for o in operators):
        return None
    if len(items) == 3 and is_name(items[1]):
        tag = ("(" if operators[0] == "<" else "[") + (")" if operators[1] == "<" else "]")
        return items[1].text.strip(), [_interval(items[0], items[2], tag)]
    bars = re.fullmatch(r"\|\s?(\\?[A-Za-z]+)\s?\|", items[0].text.strip())
    if len(items) == 2 and bars and relation.tag[0] == "<":
        tag = "()" if operators[0] == "<" else "[]"
        return bars.group(1), [_interval(Shape("leaf", f"-({items[1].text})"), items[1], tag)]
    if len(items) == 2 and is_name(items[0]):
        return items[0].text.strip(), [_interval(_ENDLESS[0], items[1], "(" + (")" if operators[0] == "<" else "]"))]
    if len(items) == 2 and is_name(items[1]):
        return items[1].text.strip(), [_interval(items[0], _ENDLESS[1], ("(" if operators[0] == "<" else "[") + ")")]
    return None
