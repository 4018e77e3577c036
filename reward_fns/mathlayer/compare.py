r"""Compare a gold answer with a prediction, structure by structure. Runs in a worker process (it may be slow).

Rules, in short: tuples, intervals and matrices in order and with their brackets; lists, sets and unions in any order;
an equation in a box gives the value it ends with only if every other side is a bare variable or has the same value, so
``x = 5`` and ``2 + 3 = 5`` give 5 and ``1 = 2`` gives nothing; two equations are equal when they say the same thing.
"""

from __future__ import annotations

import re

from reward_fns.mathlayer import symbolic
from reward_fns.mathlayer.exact import read_number, same_number
from reward_fns.mathlayer.shapes import Shape, parse_shape

_VARIABLE = re.compile(
    r"\\?[A-Za-z]+(?:_\{?\w+\}?)?'?(?:\s*\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\))?|\\(?:angle|text\s*\{)[^=<>]*"
)
_BASE = re.compile(r"\(?([0-9A-Fa-f]+)\)?_\{?(?:\\text\{)?(\w+?)\}*")
_FLIP = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


def compare(gold: str, pred: str) -> str:
    """``same``, ``different``, or ``bad gold`` when the gold answer itself cannot be read."""
    try:
        gold_shape = parse_shape(gold)
        if not _readable(gold_shape):
            return "bad gold"
    except ValueError:
        return "bad gold"
    try:
        return "same" if same(gold_shape, parse_shape(pred)) else "different"
    except (ValueError, RecursionError, MemoryError, OverflowError):
        return "different"


def _readable(shape: Shape) -> bool:
    if shape.kind == "words" or read_number(shape.text) is not None or _BASE.fullmatch(shape.text):
        return True
    if shape.items:
        return all(_readable(item) for item in shape.items)
    return shape.kind == "set" or symbolic.parse(shape.text) is not None


def same(gold: Shape, pred: Shape) -> bool:
    """Whether two structures are the same answer."""
    if gold.kind == "words" or pred.kind == "words":
        letter = len(gold.text) == 1  # a choice, with or without its brackets
        return (gold.kind == pred.kind or letter) and gold.text == pred.text
    gold_number, pred_number = read_number(gold.text), read_number(pred.text)
    if gold_number is not None and pred_number is not None:
        return same_number(gold_number, pred_number)
    if gold.kind == "relation" or pred.kind == "relation":
        return _same_relation(gold, pred)
    if gold.kind in ("list", "set") or pred.kind in ("list", "set"):
        return _same_list(gold, pred)
    if gold.kind != pred.kind:
        return False
    if gold.kind == "union":
        return _same_unordered(gold.items, pred.items)
    if gold.kind == "leaf":
        return _same_leaf(gold.text, pred.text)
    return gold.tag == pred.tag and len(gold.items) == len(pred.items) and all(map(_in_order, gold.items, pred.items))


def _in_order(gold: Shape, pred: Shape) -> bool:
    """Like :func:`same`, for parts whose own parts are ordered (rows of a matrix)."""
    if gold.kind == pred.kind == "list":
        return len(gold.items) == len(pred.items) and all(map(same, gold.items, pred.items))
    return same(gold, pred)


def _same_list(gold: Shape, pred: Shape) -> bool:
    if gold.kind == "seq" and pred.kind == "list":  # a pair written without its brackets, in order
        return len(gold.items) == len(pred.items) and all(map(same, gold.items, pred.items))
    if "leaf" in (gold.kind, pred.kind) and "," in gold.text and "," in pred.text:
        gold, pred = (Shape("list", s.text, tuple(map(parse_shape, s.text.split(",")))) for s in (gold, pred))
    kinds = {gold.kind, pred.kind}
    if kinds & {"seq", "union", "matrix"}:
        return False
    return _same_unordered(gold.items or (gold,) * (gold.kind == "leaf"), pred.items or (pred,) * (pred.kind == "leaf"))


def _same_unordered(gold: tuple[Shape, ...], pred: tuple[Shape, ...]) -> bool:
    """Every part of one is a part of the other; repeats do not matter."""
    if len(gold) * len(pred) > 400:
        raise ValueError("too many parts")
    table = [[same(g, p) for p in pred] for g in gold]
    return all(map(any, table)) and all(any(row[i] for row in table) for i in range(len(pred)))


def _same_leaf(gold: str, pred: str) -> bool:
    bases = _BASE.fullmatch(gold.strip()), _BASE.fullmatch(pred.strip())
    if bases[0] or (bases[1] and not re.search(r"[a-z]", pred)):
        digits = [
            (m.group(1) if m else re.sub(r"\s", "", t)).lstrip("0") for m, t in zip(bases, (gold, pred), strict=True)
        ]
        other_base = bases[0] and bases[1] and bases[0].group(2) != bases[1].group(2)
        return digits[0] == digits[1] and not other_base
    return symbolic.same(gold, pred)


def _is_variable(shape: Shape) -> bool:
    return bool(_VARIABLE.fullmatch(shape.text.strip())) and shape.text.strip() not in ("e", "i", "\\pi", "\\infty")


def _same_relation(gold: Shape, pred: Shape) -> bool:
    if gold.kind != "relation":
        gold, pred, flipped = pred, gold, True
    else:
        flipped = False
    if pred.kind != "relation":  # one side is an equation (or x in S), the other a value
        return _value_of_relation(gold, pred, pred_is_relation=flipped)
    operators = gold.tag.split()
    if "in" in operators + pred.tag.split():
        return gold.tag == pred.tag and all(map(same, gold.items, pred.items))
    if len(gold.items) != len(pred.items):
        return False
    if len(gold.items) == 2:
        return _same_statement(gold.items, gold.tag, pred.items, pred.tag)
    forward = gold.tag == pred.tag and all(map(same, gold.items, pred.items))
    mirrored = " ".join(_FLIP[o] for o in reversed(operators))
    return forward or (mirrored == pred.tag and all(map(same, gold.items, pred.items[::-1])))


def _same_statement(gold: tuple[Shape, ...], operator: str, pred: tuple[Shape, ...], pred_operator: str) -> bool:
    if _is_variable(gold[0]) and operator == pred_operator == "=":
        for this, other in (pred, pred[::-1]):
            if this.text.strip() == gold[0].text.strip():
                return same(gold[1], other)
    sign = symbolic.same_up_to_factor([s.text for s in gold], [s.text for s in pred])
    if sign == 0:
        return False
    return (pred_operator if sign > 0 else _FLIP[pred_operator]) == operator


def _value_of_relation(relation: Shape, value: Shape, pred_is_relation: bool) -> bool:
    operators = set(relation.tag.split())
    if operators == {"in"} and len(relation.items) == 2 and _is_variable(relation.items[0]):
        return same(relation.items[1], value)
    if operators <= {"<", ">", "<=", ">="}:
        interval = _as_interval(relation)
        return interval is not None and same(*((value, interval) if pred_is_relation else (interval, value)))
    if operators != {"="}:
        return False
    sides = [side for side in relation.items if not _is_variable(side)]
    if not sides or (len(sides) == len(relation.items) and not pred_is_relation):
        return False
    return all(same(value, side) if pred_is_relation else same(side, value) for side in sides)


def _as_interval(relation: Shape) -> Shape | None:
    """``x > 5`` and ``1 < x \\le 3`` as intervals."""
    items, operators = list(relation.items), relation.tag.split()
    if operators[0][0] == ">":
        items, operators = items[::-1], [_FLIP[o] for o in reversed(operators)]
    if any(o[0] == ">" for o in operators):
        return None
    if len(items) == 3 and _is_variable(items[1]):
        low, high = items[0], items[2]
        tag = ("(" if operators[0] == "<" else "[") + (")" if operators[1] == "<" else "]")
    elif len(items) == 2 and _is_variable(items[0]):
        low, high, tag = Shape("leaf", "-\\infty"), items[1], "(" + (")" if operators[0] == "<" else "]")
    elif len(items) == 2 and _is_variable(items[1]):
        low, high, tag = items[0], Shape("leaf", "\\infty"), ("(" if operators[0] == "<" else "[") + ")"
    else:
        return None
    return Shape("seq", relation.text, (low, high), tag)
