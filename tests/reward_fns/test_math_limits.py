"""Math under attack and under load: deadlines, threads, unusable gold, and properties of the exact layer."""

import contextlib
import threading
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_fns import compute_score
from reward_fns.mathlayer.exact import read_number, same_number
from reward_fns.mathlayer.extract import extract
from reward_fns.mathlayer.shapes import parse_shape
from tests.patience import PROCESS

HOSTILE = {
    "power tower": "9^{9^{9^{9^{9}}}}",
    "power tower of e": "e^{e^{e^{e^{e^{9}}}}}",
    "huge factorial": "(10^{9})!",
    "factorial of a factorial": "((9!)!)!",
    "endless sum": "\\sum_{n=1}^{10^{15}} \\frac{1}{n^n}",
    "slow sum": "\\sum_{n=1}^{\\infty} \\frac{\\sin n}{n^{1.001}}",
    "endless product": "\\prod_{n=1}^{10^{15}} n",
    "hard integral": "\\int_0^1 x^{x^{x^{x}}} \\sin(x^{99}) dx",
    "hard limit": "\\lim_{x \\to 0} \\frac{\\sin(\\tan x) - \\tan(\\sin x)}{x^7}",
    "large binomial": "\\binom{10^{12}}{10^{11}}",
    "30 brackets": "(" * 30 + "x" + ")" * 30,
    "3000 brackets": "(" * 3000 + "x" + ")" * 3000,
    "nested fractions": "\\frac{1}{" * 35 + "2" + "}" * 35,
    "nested roots": "\\sqrt{" * 35 + "2" + "}" * 35,
    "long sum": "+".join(f"x_{{{i}}}^{{{i}}}" for i in range(60)),
    "large power expanded": "(x+y+z+w)^{10000}",
    "500 signs": "-" * 500 + "1",
    "many commas": "1," * 250,
    "many relations": "x<" * 250 + "1",
    "many unions": "(0,1)\\cup" * 60,
    "repeated plus-minus": "\\pm" * 100,
    "backslashes": "\\" * 500,
    "open braces": "{" * 500,
    "percent signs": "%" * 500,
    "unit of one letter each": "1" + " a" * 250,
    "spaces": "1" + " " * 500 + "2 x",
    "dollar signs": "$" * 500,
}


@pytest.mark.timeout(PROCESS)
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("gold", ["17", "\\sqrt{2}+x"])
def test_hostile_answers_cost_little_and_are_wrong(name, gold):
    start = time.thread_time()  # the worker's own time is the deadline
    result = compute_score("math", f"\\boxed{{{HOSTILE[name]}}}", gold, deadline=0.5)
    assert (result["score"], result["infra_error"]) == (0.0, 0.0)
    assert time.thread_time() - start < 5
    assert compute_score("math", "\\boxed{\\sqrt{2}+x}", "x+\\sqrt{2}")["score"] == 1.0


@pytest.mark.timeout(PROCESS)
def test_from_threads_with_slow_answers_between():
    """math-verify's own time-out raises in threads, which silently zeroes every score; here it must not matter."""
    verdicts = {}

    def work(number):
        slow = number % 8 == 0
        answer = HOSTILE["slow sum"] if slow else f"\\sqrt{{{number * number}}}+y"
        verdicts[number] = (compute_score("math", f"\\boxed{{{answer}}}", f"y+{number}", deadline=0.5), float(not slow))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(verdicts) == 32
    assert all(result["score"] == expected for result, expected in verdicts.values())
    assert any(result["timed_out"] for result, _ in verdicts.values())


@pytest.mark.parametrize("gold", ["", " ", "\\boxed{", "{x", "\\oplus\\frac{x}{}"])
def test_unusable_gold_is_no_verdict(gold):
    for answer in ("1", "x+1", ""):
        result = compute_score("math", f"\\boxed{{{answer}}}", gold)
        assert result["score"] == 0.0
        assert result["infra_error"] == 1.0 or not answer


numbers = st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=10**6)


@given(numbers)
def test_a_number_equals_itself_in_every_notation(value):
    gold = read_number(f"{value.numerator}/{value.denominator}")
    sign = "-" if value < 0 else ""
    notations = [
        f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}",
        f"${value}$",
        f"{value} ",
        f"{value}.",
    ]
    if value.denominator == 1:
        notations += [f"{value.numerator:,}", f"{value.numerator}.0", f"{value.numerator}\\text{{ apples}}"]
    for text in notations:
        pred = read_number(text)
        assert pred is not None, text
        assert pred.value == value
        assert same_number(gold, pred)


@given(numbers, numbers)
def test_different_exact_numbers_differ(left, right):
    verdict = same_number(read_number(str(left)), read_number(str(right)))
    assert verdict == (left == right)


@given(st.text(alphabet="\\{}()[]$,.0123456789abcdefghijklmnopqrstuvwxyz +-*/^_=<>%", max_size=200))
@settings(max_examples=500)
def test_extraction_and_reading_never_raise_and_take_no_time(text):
    start = time.thread_time()
    for candidate in (text, f"\\boxed{{{text}}}", f"#### {text}", f"The answer is {text}"):
        found = extract(candidate)
        number = read_number(found.text)
        assert number is None or isinstance(number.value, Fraction)
    with contextlib.suppress(ValueError):  # nested or listed beyond reason
        parse_shape(text)
    assert time.thread_time() - start < 1
