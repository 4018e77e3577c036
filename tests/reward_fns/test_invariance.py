r"""Properties: no style makes a wrong answer right, and none of the listed styles makes a right answer wrong."""

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reward_fns import compute_score

#: Ways to write an answer; ``{}`` is the answer in LaTeX.
STYLES = [
    "\\boxed{{{}}}",
    "\\boxed{{ {} }}",
    "\\boxed{{\n{}\n}}",
    "\\boxed{{{}.}}",
    "\\boxed{{{{{}}}}}",
    "\\boxed{{${}$}}",
    "\\boxed{{\\displaystyle {}}}",
    "\\boxed{{\\boxed{{{}}}}}",
    "\\boxed{{\\mathbf{{{}}}}}",
    "\\boxed{{\\left({}\\right)}}",
    "\\boxed{{x = {}}}",
    "\\boxed{{f(2) = {}}}",
    "\\boxed{{{}\\,\\text{{cm}}}}",
    "\\boxed{{\\text{{The answer is }} {}}}",
    "$$\\boxed{{{}}}$$",
    "**Final Answer**\n\\[\\boxed{{{}}}\\]",
    "<think>maybe \\boxed{{3}}</think>\nSo \\boxed{{{}}}",
    "First \\boxed{{3}}. No, that is wrong.\n\nSo \\boxed{{{}}}",
    "\\boxed{{{}}}\n\n#### Check\nfine",
    "The answer is ${}$.",
    "The final answer is $${}$$",
    "Answer: ${}$",
    "Final Answer: The final answer is ${}$. I hope it is correct.",
    "The answer is \\({}\\), which is what was asked.",
    "#### ${}$",
    "\\boxed{{{}}}<|im_end|>",
]

integers = st.integers(-(10**6), 10**6)
fractions = st.fractions(min_value=-1000, max_value=1000, max_denominator=1000)
roots = st.tuples(st.integers(1, 99), st.sampled_from([2, 3, 5, 6, 7, 10, 11]))


def latex(value):
    if isinstance(value, tuple):
        return f"{value[0]}\\sqrt{{{value[1]}}}"
    value = Fraction(value)
    if value.denominator == 1:
        return str(value)
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


values = st.one_of(integers, fractions, roots)


@given(values, st.sampled_from(STYLES))
@settings(max_examples=300, deadline=None)
def test_no_style_makes_a_right_answer_wrong(value, style):
    result = compute_score("math", style.format(latex(value)), latex(value))
    assert (result["score"], result["infra_error"]) == (1.0, 0.0)


@given(values, values, st.sampled_from(STYLES))
@settings(max_examples=300, deadline=None)
def test_no_style_makes_a_wrong_answer_right(value, gold, style):
    assume(value != gold)
    result = compute_score("math", style.format(latex(value)), latex(gold))
    assert (result["score"], result["infra_error"]) == (0.0, 0.0)


decoration = st.text(alphabet=" \n\t$*`{}()[]\\.,;:~#_", max_size=12)


@given(integers, integers, decoration, decoration)
@settings(max_examples=300, deadline=None)
def test_no_decoration_makes_a_wrong_integer_right(value, gold, left, right):
    assume(str(abs(gold)) not in str(abs(value)) and str(abs(value)) not in str(abs(gold)))
    for reply in (
        f"\\boxed{{{left}{value}{right}}}",
        f"{left}\\boxed{{{value}}}{right}",
        f"The answer is {left}{value}{right}",
    ):
        assert compute_score("math", reply, str(gold))["score"] == 0.0


@given(
    integers, integers, st.sampled_from([" or ", ", ", " / ", "\\quad", " \\text{ or } ", "; ", " \u6216 ", " and "])
)
@settings(max_examples=200, deadline=None)
def test_two_values_are_never_right_for_one(value, gold, joiner):
    assume(value != gold and abs(value) != 1 and value != 0 and gold != 0)
    for first, second in ((value, gold), (gold, value)):
        inside = f"\\boxed{{{first}{joiner}{second}}}"
        beside = f"\\boxed{{{first}}}{joiner}\\boxed{{{second}}}"
        assert [compute_score("math", reply, str(gold))["score"] for reply in (inside, beside)] == [0.0, 0.0]


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"), st.text(alphabet=" \n-|/,;()*", max_size=20))
@settings(max_examples=300, deadline=None)
def test_two_letters_are_never_right_for_one(first, second, gap):
    reply = f"<answer>{first}</answer>{gap}<answer>{second}</answer>"
    result = compute_score("sciknoweval", reply, second, {"options": "ABCD"})
    assert result["score"] == float(first == second)


@given(st.text(max_size=300), st.sampled_from(["math", "sciknoweval", "tooluse", "code"]))
@settings(max_examples=300, deadline=None)
def test_no_text_is_an_infra_error(text, source):
    gold = {
        "math": "7",
        "sciknoweval": "B",
        "tooluse": '[{"Action": "f", "Action_Input": "{}"}]',
        "code": "assert f(1) == 2",
    }
    for reply in (text, f"\\boxed{{{text}}}", f"<answer>{text}</answer>", f"Action: f\nAction Input: {text}"):
        assert compute_score(source, reply, gold[source], sandbox={"cpu_seconds": 1})["infra_error"] == 0.0


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_read(style):
    assert compute_score("math", style.format("12"), "12")["score"] == 1.0
