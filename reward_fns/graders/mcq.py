"""Multiple choice (SciKnowEval, GPQA): ``<answer>X</answer>`` against a letter.

strict: the last closed tag holds one letter, perhaps in brackets, bold or followed by a full stop, and it is one of the
options. Tags that follow each other directly with different letters are hedging and score nothing. An unclosed tag,
no tag, or a letter with other text around it is no answer.

paper: SDPO's rule. The text after the last ``<answer>`` up to the next ``</answer>``, stripped, equal to the key; the
whole text when there is no tag.
"""

from __future__ import annotations

import re
from typing import Any

from reward_fns.options import Options
from reward_fns.result import BadGroundTruth

_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)
_LETTER = re.compile(r"(?:\*\*|\\boxed\{|\\text\{|[(\[])*\s*([A-Za-z])\s*(?:[)\]}]|\*\*)*\s*[.:]?\s*(?:\*\*)?")
_HEDGE_GAP = re.compile(r"[\s,;/|]*(?:or|and|und|oder)?[\s,;/|]*", re.IGNORECASE)


def grade(solution: str, ground_truth: Any, extra_info: dict[str, Any], options: Options) -> dict[str, Any]:
    """Grade one completion against the key letter ``ground_truth``."""
    key = str(ground_truth).strip()
    if not re.fullmatch(r"[A-Za-z]", key):
        raise BadGroundTruth(f"the key of a multiple-choice row must be one letter, not {ground_truth!r}")
    if options.mode == "paper":
        return _paper(solution, key)
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
    tags = list(_TAG.finditer(solution))
    if not tags:
        return "", "No answer found: give the letter of one option as <answer>X</answer>."
    if solution.lower().rfind("<answer>") > tags[-1].start():
        return "", "The last <answer> tag is not closed with </answer>."
    found = [_letter(tag.group(1)) for tag in tags]
    for before, after, left, right in zip(tags, tags[1:], found, found[1:], strict=False):
        if left != right and _HEDGE_GAP.fullmatch(solution[before.end() : after.start()]):
            return "", "Several different answers were given; give one."
    if not found[-1]:
        return "", "The answer tag must hold the letter of one option and nothing else."
    if found[-1] not in letters:
        return "", f"{found[-1]} is not one of the options {', '.join(letters)}."
    return found[-1], ""


def _letter(text: str) -> str:
    text = text.strip()
    match = _LETTER.fullmatch(text) if len(text) < 100 else None
    return match.group(1).upper() if match else ""


def _paper(solution: str, key: str) -> dict[str, Any]:
    tagged = "<answer>" in solution
    pred = solution.rsplit("<answer>", 1)[-1].split("</answer>", 1)[0].strip() if tagged else solution.strip()
    right = pred == key
    return {"score": right, "acc": right, "format_ok": tagged, "pred": pred}


def render_gold(ground_truth: Any, extra_info: dict[str, Any]) -> str:
    """A completion that gives the key (used to check data)."""
    return f"<answer>\n{ground_truth}\n</answer>"
