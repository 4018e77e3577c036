"""``mode="paper"``: the verdicts of SDPO's graders, as its code gives them, for GPQA and math.

Multiple choice and tool use have their tables beside those of the strict mode.
"""

import pytest

from reward_fns import compute_score


@pytest.mark.parametrize(
    ("reply", "pred"),
    [
        ("A", "A"),
        ("The answer is B.", "B"),
        ("a) or c)", "C"),  # case is folded, and the last letter counts
        ("C, because A is wrong", "A"),  # even the article or a mention
        ("<answer>D</answer>", "D"),
        ("It is a pity", "A"),
        ("option E", "option E"),  # no letter: the whole text
        ("D/", "D"),
        (" none. ", "none"),
        ("", ""),
        ("B1", "B1"),  # not a word of its own
        ("_B_", "_B_"),
    ],
)
def test_gpqa(reply, pred):
    for key in "ABCD":
        result = compute_score("gpqa", reply, key, mode="paper")
        assert (result["score"], result["pred"]) == (float(pred == key), pred.strip())


@pytest.mark.parametrize(
    ("reply", "gold", "right"),
    [
        ("\\boxed{5}", "5", 1),
        ("\\boxed{5}" + "." * 91, "5", 1),
        ("\\boxed{5}" + "." * 95, "5", 0),  # only the last 100 characters are read
        ("The answer is 5", "5", 0),  # only a box counts
        ("#### 5", "5", 0),
        ("\\fbox{5}", "5", 0),
        ("\\boxed {5}", "5", 0),
        ("\\boxed{4} \\boxed{5}", "5", 1),
        ("\\boxed{5} \\boxed{4", "5", 0),
        ("\\boxed{\\frac12}", "\\frac{1}{2}", 0),  # math-verify reads a text without dollars as plain text
        ("\\boxed{$\\frac12$}", "$\\frac{1}{2}$", 1),
        ("\\boxed{0.5}", "1/2", 1),
        ("\\boxed{x=5}", "5", 1),  # it takes the last number
        ("\\boxed{4 or 5}", "5", 1),
        ("\\boxed{6 or 5}", "6", 0),
        ("<think>\\boxed{5}", "5", 1),  # thinking counts
        ("\\boxed{}", "5", 0),
    ],
)
def test_math(reply, gold, right):
    result = compute_score("math", reply, gold, mode="paper")
    assert (result["score"], result["infra_error"]) == (right, 0.0)


def test_a_slow_answer_is_wrong():
    result = compute_score("math", "\\boxed{$9^{9^{9^{9}}}$}", "$9^{9^{9}}$", mode="paper")
    assert (result["score"], result["infra_error"]) == (0.0, 0.0)
