"""No answer is right to two questions that have nothing in common: such a one would be right everywhere."""

import pytest

from reward_fns import compute_score

QUESTIONS = [
    "\\mathbb{R}", "\\frac{17}{3}", "\\sqrt{7}+1", "x^3-2", "(3,-8)", "[2,9)", "\\{4,11\\}", "Evelyn", "7:35", "x>6",
    "\\begin{pmatrix}2&5\\\\3&7\\end{pmatrix}", "-41", "2+3i", "y=3x-8", "(-\\infty,2)\\cup(5,\\infty)", "6, -13",
    "\\infty", "\\emptyset", "x=4,y=-9", "13\\%", "\\$19", "120_8", "23^\\circ", "f(x)=x^2+7", "\\{x : x > 8\\}",
    "5\\text{ kg}", "2:9",
]  # fmt: skip
STRANGE = [
    "\\mathbb{Z}", "\\text{all integers}", "\\mathbb{R}\\setminus\\{1\\}", "x \\in \\mathbb{C}", "\\approx 3", "\\pm 8",
    "or", "\\cup", "x \\in \\mathbb{R}", "\\text{all real numbers}", "\\{\\mathbb{R}\\}", "x = x", "\\neq",
]  # fmt: skip
REALS = {"x \\in \\mathbb{R}", "\\text{all real numbers}", "\\{\\mathbb{R}\\}"}


@pytest.mark.parametrize("gold", QUESTIONS)
def test_no_answer_is_right_to_two_questions(gold):
    answers = [*QUESTIONS, *STRANGE]
    right = [answer for answer in answers if compute_score("math", f"\\boxed{{{answer}}}", gold)["score"]]
    assert set(right) - (REALS if gold == "\\mathbb{R}" else set()) == {gold}
