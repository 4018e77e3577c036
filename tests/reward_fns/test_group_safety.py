# ruff: noqa: E501 - programs as text
"""No completion takes itself out of its group: whatever it provokes scores 0 and is no infra error.

The attacks go through the same door as honest answers; after each, an honest answer to the same row scores.
"""

import json

import pytest

from reward_fns import compute_score, registry
from reward_fns.graders import math as math_grader
from reward_fns.result import GraderUnavailable

FORGED = [
    '{"value":{"c":[]}}',
    '{"value":{"c":["1"]}}',
    '{"value":{"c":{}}}',
    '{"value":{"F":["1","0"]}}',
    '{"value":{"F":["zz","1"]}}',
    '{"value":{"D":"sNaN"}}',
    '{"value":{"D":"one"}}',
    '{"value":{"r":["a","b","c"]}}',
    '{"value":{"m":[1,2]}}',
    '{"value":{"d":[[1]]}}',
    '{"value":{"d":[[{"s":[]},1]]}}',
    '{"value":{"s":[[1]]}}',
    '{"value":{"i":5}}',
    '{"value":{"f":"x"}}',
    '{"value":{"o":5}}',
    '{"value":{"b":"0"}}',
    '{"value":{"t":5}}',
    '{"value":{"zz":[]}}',
    '{"value":{"t":[1],"s":[1]}}',
    '{"value":1,"args":[{"c":[]}]}',
    '{"value":1,"args":5}',
    '{"value":1,"value":5}',
    '{"passed":true}',
    "[]",
    "",
    "\\xff\\xfe",
    "[" * 5000,
]
FUNCTION = json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [5]})
ASSERTS = json.dumps({"test_list": ["assert f(1) == 5"]})


@pytest.mark.parametrize("tests", [FUNCTION, ASSERTS], ids=["call", "assert"])
@pytest.mark.parametrize("frame", FORGED)
def test_a_forged_reply_is_wrong(frame, tests):
    data = frame.encode().decode("unicode_escape").encode("latin-1")
    program = f"import os, struct\ndef f(x):\n    d = {data!r}\n    os.write(4, struct.pack('>I', len(d)) + d)\n    os._exit(0)"
    result = compute_score("code", f"```python\n{program}\n```", tests)
    assert (result["score"], result["infra_error"]) == (0.0, 0.0)
    assert compute_score("code", "```python\ndef f(x): return 5\n```", tests)["score"] == 1.0


VALUES = {
    "huge integer key": "{10**5000: 1}",
    "huge integer": "10**50000",
    "huge fraction": "__import__('fractions').Fraction(10**40000, 3)",
    "huge decimal": "__import__('decimal').Decimal('1e999999')",
    "signalling nan": "__import__('decimal').Decimal('sNaN')",
    "endless iterator": "__import__('itertools').count()",
    "generator that raises": "(1 // 0 for _ in range(3))",
    "deep list": "__import__('functools').reduce(lambda a, _: [a], range(500), 1)",
    "cycle": "(lambda a: (a.append(a), a)[1])([])",
    "lone surrogate": "'\\ud800'",
    "colliding set": "{(2**61 - 1) * k for k in range(1, 400)}",
    "colliding keys": "{(2**61 - 1) * k: k for k in range(1, 400)}",
    "nan keys": "{float('nan'): 1 for _ in range(5)}",
    "unhashable in a tuple key": "{(1, 2): [3]}",
}


@pytest.mark.parametrize("tests", [
    FUNCTION,
    ASSERTS,
    json.dumps({"test_list": ["assert sorted(f(1)) == [5]"]}),
    json.dumps({"test_list": ["assert f(f(1)) == 5"]}),
    json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [{"a": 1}]}),
], ids=["call", "assert", "sorted", "handed on", "dict"])  # fmt: skip
@pytest.mark.parametrize("name", VALUES)
def test_a_strange_value_is_wrong(name, tests):
    result = compute_score("code", f"```python\ndef f(x): return {VALUES[name]}\n```", tests)
    assert (result["score"], result["infra_error"]) == (0.0, 0.0)


def test_the_tests_hand_on_more_than_a_reply_may_hold():
    tests = json.dumps({"test_list": ["assert f(f(f(1) * 3) * 3) == 5"]})
    program = "def f(x):\n    return 'a' * 3_000_000 if isinstance(x, int) else x"
    result = compute_score("code", f"```python\n{program}\n```", tests)
    assert (result["score"], result["infra_error"]) == (0.0, 0.0)


MATH = [
    "\\cos\\frac{1}{0}", "\\cot 0", "\\csc 0", "\\frac{x}{0}", "0^{0^{0}}", "\\log_1 5", "\\log_0 0", "\\sqrt[0]{2}",
    "\\infty-\\infty", "\\frac{\\infty}{\\infty}", "0\\cdot\\infty", "\\binom{-1}{-1}", "(-1)!", "\\int", "\\sum_{n=1}",
    "\\lim_{x\\to 0}\\frac{\\sin x}{x}+\\begin{pmatrix}1\\end{pmatrix}", "\\begin{pmatrix}1&2\\\\3\\end{pmatrix}",
    "\\frac{d}{dx}", "x_{x_{x}}", "\\{\\{\\}\\}", "((,))", "[,]", "1" * 500, "0." + "3" * 300, "1e999", "9" * 390 + "e999",
    "5\\text{" + "a" * 500 + "}", "\\boxed{\\boxed{}}", "\\ud800", "\x00", "\u0665", "\\mathrm{}", "\\text{}", "{}", "$", "\\",
    "5:5:5:5", "x\\in", "=", "==5", "<<5", "\\pm", "\\over", "\\choose", "a \\over b \\over c", "{{{{5", "5}}}}",
    "\\frac{5}{", "\\sqrt", "\\bar{5}", "0.\\bar{}", "\\overline{}", "^", "_", "5_", "_5", "|", "||", "(" * 39, "\\left(\\right)",
]  # fmt: skip


@pytest.mark.parametrize("gold", ["7", "y=2x+1", "\\sqrt{7}+x", "\\{7,8\\}", "(7,8)", "\\text{seven}"])
def test_a_strange_formula_is_wrong(gold):
    for answer in MATH:
        result = compute_score("math", f"\\boxed{{{answer}}}", gold)
        assert (result["score"], result["infra_error"]) == (0.0, 0.0), answer


def test_an_error_that_only_one_completion_provokes_is_its_own(monkeypatch):
    extract = math_grader.extract

    def fails_on_this(solution):
        if "provoke" in solution:
            raise RuntimeError("a defect")
        return extract(solution)

    monkeypatch.setattr(math_grader, "extract", fails_on_this)
    result = compute_score("math", "provoke \\boxed{5}", "5")
    assert (result["score"], result["infra_error"]) == (0.0, 0.0)
    monkeypatch.setattr(math_grader, "extract", lambda solution: 1 // 0)
    assert compute_score("math", "\\boxed{5}", "5")["infra_error"] == 1.0


def test_the_same_holds_for_a_grader_of_ones_own():
    @registry.register("own_fault_test")
    def grader(solution, ground_truth, extra_info):
        if solution == "down":
            raise GraderUnavailable("the service is away")
        return float(int(solution or 0) == int(ground_truth))

    try:
        verdicts = {text: compute_score("own_fault_test", text, "3") for text in ("3", "4", "three", "down")}
        assert {text: (v["score"], v["infra_error"]) for text, v in verdicts.items()} == {
            "3": (1.0, 0.0),
            "4": (0.0, 0.0),
            "three": (0.0, 0.0),
            "down": (0.0, 1.0),
        }
        assert compute_score("own_fault_test", "3", "not a number")["infra_error"] == 1.0
    finally:
        registry.unregister("own_fault_test")
