"""Multiple choice: strict reading of the tag, SDPO's quirks in paper mode, the published rows."""

import re

import pytest

from reward_fns import compute_score
from tests.patience import PROCESS

STRICT = [
    ("<answer>A</answer>", 1.0, 1.0, "plain"),
    ("<reasoning>B is close</reasoning>\n<answer>\nA\n</answer>\n", 1.0, 1.0, "the asked form"),
    ("<answer>a</answer>", 1.0, 1.0, "lower case"),
    ("<answer>(A)</answer>", 1.0, 1.0, "brackets"),
    ("<answer>**A**</answer>", 1.0, 1.0, "bold"),
    ("<answer>A.</answer>", 1.0, 1.0, "full stop"),
    ("<answer>\\boxed{A}</answer>", 1.0, 1.0, "boxed"),
    ("Format: <answer>B</answer>. Now I think about it. <answer>A</answer>", 1.0, 1.0, "the last tag counts"),
    ("<answer>B</answer>", 0.0, 1.0, "wrong letter"),
    ("A", 0.0, 0.0, "no tags"),
    ("the answer is A", 0.0, 0.0, "no tags"),
    ("<answer>A", 0.0, 0.0, "unclosed"),
    ("<answer>B</answer> no, <answer>A", 0.0, 0.0, "the last tag is unclosed"),
    ("<answer>A, B, C, D</answer>", 0.0, 0.0, "all letters listed"),
    ("<answer>A B C D</answer>", 0.0, 0.0, "all letters listed"),
    ("<answer>ABCD</answer>", 0.0, 0.0, "all letters listed"),
    ("<answer>D</answer><answer>C</answer><answer>B</answer><answer>A</answer>", 0.0, 0.0, "a tag per letter"),
    ("<answer>B</answer> or <answer>A</answer>", 0.0, 0.0, "two answers"),
    ("<answer>A or B</answer>", 0.0, 0.0, "two answers"),
    ("<answer>Z</answer>", 0.0, 0.0, "outside the options"),
    ("<answer></answer>", 0.0, 0.0, "empty"),
    ("<answer>not A</answer>", 0.0, 0.0, "words"),
    ("<answer><answer>A</answer></answer>", 1.0, 1.0, "nested tags hold one letter"),
    ("<answer>" + "(" * 90 + "A</answer>", 1.0, 1.0, "odd but one letter"),
    ("<answer>" * 20000, 0.0, 0.0, "many open tags"),
    ("<answer>" + " " * 200000 + "A</answer>", 1.0, 1.0, "much space"),
    ("<answer>\u0410</answer>", 0.0, 0.0, "a Cyrillic look-alike"),
    ("<answer>A\x00</answer>", 0.0, 0.0, "NUL"),
    ("<think><answer>A</answer></think>", 0.0, 0.0, "an answer only in the thinking"),
    ("<think><answer>A</answer></think>So B.", 0.0, 0.0, "an answer only in the thinking"),
    ("<think><answer>A</answer></think><answer>B</answer>", 0.0, 1.0, "thinking is not the answer"),
    ("<think><answer>B</answer></think><answer>A</answer>", 1.0, 1.0, "thinking is not the answer"),
    ("<think>so <answer>A</answer>", 0.0, 0.0, "thinking that does not end"),
    ("<answer>B</answer> - <answer>A</answer>", 0.0, 0.0, "two answers with a dash"),
    ("<answer>B</answer>\n---\n<answer>A</answer>", 0.0, 0.0, "two answers with a rule"),
    ("<answer>B</answer> | (<answer>A</answer>)", 0.0, 0.0, "two answers with a bar"),
    ("<answer>B</answer> or possibly <answer>A</answer>", 0.0, 0.0, "two answers with a hedge"),
    ("1. <answer>B</answer>\n2. <answer>A</answer>", 0.0, 0.0, "a numbered list of answers"),
    ("<answer>B</answer> Wait, no: <answer>A</answer>", 1.0, 1.0, "taken back"),
    ("<answer>A</answer> - <answer>A</answer>", 1.0, 1.0, "the same answer twice"),
    ("<answer>$A$</answer>", 1.0, 1.0, "dollars"),
    ("<answer>{A}</answer>", 1.0, 1.0, "braces"),
    ("<answer>'A'</answer>", 1.0, 1.0, "quotes"),
    ("<ANSWER>A</ANSWER>", 1.0, 1.0, "the tag in capitals"),
    ("<answer>A</answer>\ud800", 1.0, 1.0, "a lone surrogate elsewhere"),
]


@pytest.mark.timeout(PROCESS)
@pytest.mark.parametrize(
    ("solution", "score", "form", "why"), STRICT, ids=[f"{i}-{c[3]}" for i, c in enumerate(STRICT)]
)
def test_strict(solution, score, form, why):
    result = compute_score("sciknoweval", solution, "A", {"options": "ABCD"})
    assert (result["score"], result["format_ok"], result["infra_error"]) == (score, form, 0.0), why


@pytest.mark.parametrize(
    ("solution", "score"),
    [
        ("<answer>A</answer>", 1.0),
        ("<answer> A\n</answer>", 1.0),
        ("<answer>A", 1.0),  # unclosed: up to the end
        ("A", 1.0),  # no tag: the whole text
        (" A\n", 1.0),
        ("<answer>B</answer><answer>A</answer>", 1.0),  # the last tag
        ("<answer>a</answer>", 0.0),
        ("<answer>(A)</answer>", 0.0),
        ("<answer>A.</answer>", 0.0),
        ("the answer is A", 0.0),
        ("<answer>A</answer><answer>", 0.0),
    ],
)
def test_paper_mode_has_the_quirks_of_sdpo(solution, score):
    assert compute_score("sciknoweval", solution, "A", mode="paper")["score"] == score


def test_options_of_a_row_bound_the_letters():
    for options in ("AB", ["yes", "no"], {"A": "yes", "B": "no"}):
        assert compute_score("gpqa_diamond", "<answer>C</answer>", "A", {"options": options})["format_ok"] == 0.0
        assert compute_score("gpqa_diamond", "<answer>B</answer>", "B", {"options": options})["score"] == 1.0
        assert compute_score("gpqa_diamond", "<answer>C</answer>", "C", {"options": options})["infra_error"] == 1.0


@pytest.mark.parametrize("subject", ["biology", "chemistry", "material"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_published_rows(published_rows, subject, split):
    items = published_rows(f"sciknoweval/{subject}/{split}.json")
    assert items
    for row in items:
        letters = "".join(re.findall(r"(?m)^([A-Z]):", row["prompt"]))
        for letter in letters:
            text = f"<reasoning>\n...\n</reasoning>\n<answer>\n{letter}\n</answer>"
            result = compute_score("sciknoweval", text, row["answer"], {"options": letters})
            assert result["score"] == float(letter == row["answer"]), row["idx"]
