"""Multiple choice (SciKnowEval, GPQA): ``<answer>X</answer>`` against a letter.

strict: the last closed tag holds one letter, perhaps in brackets, bold or followed by a full stop, and it is one of the
options. Tags that follow each other directly with different letters are hedging and score nothing. An unclosed tag,
no tag, or a letter with other text around it is no answer.

Only what follows the thinking counts. paper: SDPO's rules, one for GPQA and one for the rest (:mod:`reward_fns.paper`).
"""

from __future__ import annotations

import re
from typing import Any

from reward_fns import paper
from reward_fns.mathlayer.extract import after_thinking
from reward_fns.options import Options
from reward_fns.result import BadGroundTruth

_DECORATION = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf)|[\s*_$'\"`()\[\]{}.:]")
_OPEN, _CLOSE = "<answer>", "</answer>"
_JOINERS = frozenset({"or", "and", "und", "oder", "also", "maybe", "perhaps", "possibly", "alternatively"})
_HEDGE = 60  # characters between two tags in which words of correction are looked for


def grade(solution: str, ground_truth: Any, extra_info: dict[str, Any], options: Options) -> dict[str, Any]:
    """Grade one completion against the key letter ``ground_truth``."""
    key = str(ground_truth).strip()
    if not re.fullmatch(r"[A-Za-z]", key):
        raise BadGroundTruth(f"the key of a multiple-choice row must be one letter, not {ground_truth!r}")
    if options.mode == "paper":
        return _paper(solution, key, gpqa=str(extra_info.get("data_source", "")).startswith("gpqa"))
    letters = option_letters(extra_info)
    if key.upper() not in letters:
        raise BadGroundTruth(f"the key {key!r} is not among the options {letters}")
    pred, problem = read_letter(solution, letters)
    right = pred == key.upper()
    return {"score": right, "acc": right, "format_ok": bool(pred), "pred": pred, "feedback": problem}


def option_letters(extra_info: dict[str, Any]) -> str:
    """The letters a row allows: from ``extra_info['options']`` (letters, or the list or dict of options), else A-J."""
    given = extra_info.get("options")
    if given is None or len(given) == 0:
        return "ABCDEFGHIJ"
    if isinstance(given, dict):
        return "".join(str(letter).strip().upper() for letter in given)
    if isinstance(given, str):
        return given.upper()
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(given)]


def read_letter(solution: str, letters: str) -> tuple[str, str]:
    """The letter that was answered ("" if none), and what is wrong with the form ("" if nothing)."""
    text = after_thinking(solution)
    tags = _tags(text)
    if not tags:
        return "", "No answer found: give the letter of one option as <answer>X</answer>."
    if text.lower().rfind(_OPEN) > tags[-1][0]:
        return "", "The last <answer> tag is not closed with </answer>."
    found = [_letter(text[start + len(_OPEN) : end - len(_CLOSE)]) for start, end in tags]
    for (_, end), (start, _), left, right in zip(tags, tags[1:], found, found[1:], strict=False):
        if left and right and left != right and _hedges(text[end:start]):
            return "", "Several different answers were given; give one."
    if not found[-1]:
        return "", "The answer tag must hold the letter of one option and nothing else."
    if found[-1] not in letters:
        return "", f"{found[-1]} is not one of the options {', '.join(letters)}."
    return found[-1], ""


def _tags(text: str) -> list[tuple[int, int]]:
    """Where each closed tag begins and ends; a tag that opens again before it is closed begins there."""
    lower = text.lower()
    tags, position = [], 0
    while (end := lower.find(_CLOSE, position)) >= 0:
        start = lower.rfind(_OPEN, position, end)
        position = end + len(_CLOSE)
        if start >= 0:
            tags.append((start, position))
    return tags


def _hedges(gap: str) -> bool:
    """Whether the text between two answers says nothing that would take the first one back."""
    return len(gap) <= _HEDGE and not set(re.findall(r"[^\W\d_]+", gap.lower())) - _JOINERS


def _letter(text: str) -> str:
    """The letter that is left without brackets, bold and punctuation; "" when anything else is."""
    text = text.strip()
    left = _DECORATION.sub("", text) if len(text) < 100 else ""
    return left.upper() if re.fullmatch(r"[A-Za-z]", left) else ""


def _paper(solution: str, key: str, gpqa: bool) -> dict[str, Any]:
    pred = paper.last_option(solution) if gpqa else paper.answer_tag(solution)
    right = pred == key
    formed = pred in ("A", "B", "C", "D") if gpqa else _OPEN in solution
    return {"score": right, "acc": right, "format_ok": formed, "pred": pred}


def render_gold(ground_truth: Any, extra_info: dict[str, Any]) -> str:
    """A completion that gives the key (used to check data)."""
    return f"<answer>\n{ground_truth}\n</answer>"
