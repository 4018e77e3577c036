r"""Compare a gold answer with a prediction, structure by structure. Runs in a worker process (it may be slow).

Rules, in short: tuples, intervals, ratios and matrices in order and with their brackets; lists, sets and unions in any
order; the clock as it is written; equations as in :mod:`reward_fns.mathlayer.relations`; single expressions by value.
"""

from __future__ import annotations

import re

from reward_fns.mathlayer import symbolic
from reward_fns.mathlayer.exact import read_number, same_number
from reward_fns.mathlayer.notation import tidy
from reward_fns.mathlayer.relations import is_name, same_reals, same_relation
from reward_fns.mathlayer.shapes import Shape, parse_shape

_VARIABLE = re.compile(r"([A-Za-z])(?:_\{?(\d{1,2})\}?)?")
_BASE = re.compile(r"\(?([0-9A-F]*\d[0-9A-F]*)\)?_\s?\{?(?:\\text\s?\{)?\s?(\d{1,2}|[a-z]{3,8})\s?\}*")

_CHOICE = re.compile(r"(?:\\text\s?\{)?\s*\(?([A-F])\)[.:]?\s*\}?\s*((?:[-+\d$]|\\frac|\\sqrt).*)", re.DOTALL)


def compare(gold: str, pred: str) -> str:
    """``same``, ``different``, or ``bad gold`` when the gold answer itself cannot be read."""
    try:
        gold_shape = parse_shape(tidy(gold).removeprefix("\\approx"))
        if not _readable(gold_shape):
            return "bad gold"
    except ValueError:
        return "bad gold"
    try:
        readings = [pred, *choice_and_value(pred)]
        return "same" if any(same(gold_shape, parse_shape(reading)) for reading in readings) else "different"
    except Exception:  # noqa: BLE001 - the gold can be read, so whatever the algebra stumbles over is the answer's
        return "different"


def choice_and_value(text: str) -> tuple[str, ...]:
    r"""Both halves of a choice with its value, such as ``\textbf{(D)} 12``; nothing for anything else."""
    match = _CHOICE.fullmatch(tidy(text))
    return (f"({match.group(1)})", match.group(2)) if match else ()


def _readable(shape: Shape) -> bool:
    if shape.kind in ("words", "clock") or read_number(shape.text) is not None or _BASE.fullmatch(shape.text):
        return True
    if shape.items:
        return all(_readable(item) for item in shape.items)
    return shape.kind == "set" or shape.text == "\\mathbb{R}" or symbolic.parse(shape.text) is not None


def same(gold: Shape, pred: Shape) -> bool:
    """Whether two structures are the same answer."""
    if gold.kind == "words" or pred.kind == "words":
        return _same_words(gold, pred)
    if gold.kind == "clock" or pred.kind == "clock":
        return (
            gold.kind == pred.kind and gold.text == pred.text and (gold.tag == pred.tag or not pred.tag or not gold.tag)
        )
    gold_number, pred_number = read_number(gold.text), read_number(pred.text)
    if gold_number is not None and pred_number is not None:
        return same_number(gold_number, pred_number)
    if gold.kind == "relation" or pred.kind == "relation":
        return same_relation(gold, pred, same)
    if "union" in (gold.kind, pred.kind) or (gold.text == "\\mathbb{R}") != (pred.text == "\\mathbb{R}"):
        if gold.kind == pred.kind == "union" and _same_unordered(gold.items, pred.items):
            return True
        return same_reals(gold, pred, same)
    if gold.kind in ("list", "set") or pred.kind in ("list", "set"):
        return _same_list(gold, pred)
    if gold.kind != pred.kind:
        return False
    if gold.kind == "leaf":
        return _same_leaf(gold.text, pred.text)
    return gold.tag == pred.tag and len(gold.items) == len(pred.items) and all(map(_in_order, gold.items, pred.items))


def _same_words(gold: Shape, pred: Shape) -> bool:
    if gold.kind == pred.kind:
        return gold.text == pred.text
    words, other = (gold, pred) if gold.kind == "words" else (pred, gold)
    if words.text == "no solution" and other.kind == "set" and not other.items:
        return True
    if words.text in ("all real numbers", "real numbers"):
        return same_reals(gold, pred, same)
    return len(gold.text) == 1 and gold.text == pred.text.strip("() ")  # a choice, with or without its brackets


def _in_order(gold: Shape, pred: Shape) -> bool:
    """Like :func:`same`, for parts whose own parts are ordered (rows of a matrix)."""
    if gold.kind == pred.kind == "list":
        return len(gold.items) == len(pred.items) and all(map(same, gold.items, pred.items))
    return same(gold, pred)


def _same_list(gold: Shape, pred: Shape) -> bool:
    if gold.kind == "seq" and (values := _values_by_name(pred)):
        return same(gold, values)
    if pred.kind in ("seq", "list") and not _values_by_name(pred) and (values := _values_by_name(gold)):
        return same(values, pred)
    if gold.kind == "set" and len(gold.items) == 1 and pred.kind != "set":
        return same(gold.items[0], pred)
    if pred.kind == "set" and len(pred.items) == 1 and gold.kind != "set":
        return same(gold, pred.items[0])
    if gold.kind == "seq" and pred.kind == "list" and pred.tag != "or":  # a pair without its brackets, in order
        in_order = len(gold.items) == len(pred.items) and all(map(same, gold.items, pred.items))
        return in_order or same_reals(gold, pred, same)
    if "leaf" in (gold.kind, pred.kind) and "," in gold.text and "," in pred.text:
        gold, pred = (Shape("list", s.text, tuple(map(parse_shape, s.text.split(",")))) for s in (gold, pred))
    kinds = {gold.kind, pred.kind}
    if kinds & {"seq", "union", "matrix", "ratio"}:
        return same_reals(gold, pred, same)
    if gold.kind == pred.kind == "list" and same_reals(gold, pred, same):
        return True
    return _same_unordered(*(shape.items if shape.kind in ("list", "set") else (shape,) for shape in (gold, pred)))


def _values_by_name(shape: Shape) -> Shape | None:
    """``x = 1, y = 2`` as the pair of its values, None for anything else.

    Names that follow each other in the alphabet, or differ in their index, give the order; others stand as written.
    """
    if shape.kind != "list" or shape.tag == "or" or any(item.tag != "=" for item in shape.items):
        return None
    pairs = {item.items[0].text.strip(): item.items[1] for item in shape.items}
    if len(pairs) < len(shape.items) or not all(is_name(item.items[0]) for item in shape.items):
        return None
    names = [_VARIABLE.fullmatch(name) for name in pairs]
    keys = [(name.group(1), int(name.group(2) or 0)) for name in names if name]
    letters = sorted({ord(letter) for letter, _ in keys})
    values = list(pairs.values())
    if len(keys) == len(pairs) and letters == list(range(letters[0], letters[0] + len(letters))):
        values = [values[place] for place in sorted(range(len(keys)), key=keys.__getitem__)]
    return Shape("seq", shape.text, tuple(values), "()")


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
