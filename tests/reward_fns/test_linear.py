"""Reading a completion takes time in proportion to its length, whatever it holds.

Python's own steps are counted (bytecode instructions, and lengths that functions written in C are called on are bounded
by the text); patterns are measured in CPU time at two sizes, where a quadratic one would take eight times as much more.
"""

import sys
import time

import pytest

from reward_fns import paper
from reward_fns.graders.math import quick
from reward_fns.graders.mcq import read_letter
from reward_fns.graders.tooluse import read_calls
from reward_fns.mathlayer.extract import extract, last_integer
from reward_fns.programs import extract_program

TEXTS = {
    "blank lines after a marker": lambda n: "The final answer" + "\n" * n,
    "blanks after a marker": lambda n: "The answer is" + " " * n + "\n" + "5",
    "markers": lambda n: "the answer is " * (n // 14),
    "markers in lines": lambda n: "The final answer:\n" * (n // 18),
    "half a marker": lambda n: "answer to " * (n // 10),
    "headings": lambda n: "#### x\n" * (n // 7),
    "hashes": lambda n: "#" * n,
    "heading of blanks": lambda n: "####" + " " * n,
    "open boxes": lambda n: "\\boxed{" * (n // 7),
    "closed boxes": lambda n: "\\boxed{1} or " * (n // 13),
    "box of blanks": lambda n: "\\boxed" + " " * n + "5",
    "box of braces": lambda n: "\\boxed{" + "{" * (n // 2) + "}" * (n // 2),
    "box of backslashes": lambda n: "\\boxed{" + "\\" * n,
    "dollars": lambda n: "The answer is " + "$" * n,
    "stars": lambda n: "The answer is " + "*" * n,
    "backticks": lambda n: "Answer: " + "`" * n,
    "fence of blanks": lambda n: "```python" + " " * n + "x`\n",
    "fences": lambda n: "```\n" * (n // 4),
    "long fence": lambda n: "`" * n + "\ncode",
    "fences that grow": lambda n: "\n".join("`" * k for k in range(3, int((2 * n) ** 0.5))),
    "program of blanks": lambda n: "```python\n" + " " * n + "\n```",
    "program of defs": lambda n: "```python\n" + "def g(x): pass\n" * (n // 15) + "```",
    "open tags": lambda n: "<answer>" * (n // 8),
    "tags": lambda n: "<answer>A</answer>" * (n // 18),
    "tag of blanks": lambda n: "<answer>" + " " * n + "A</answer>",
    "blanks between tags": lambda n: "<answer>A</answer>" + " " * n + "<answer>B</answer>",
    "thoughts": lambda n: "<think></think>" * (n // 15),
    "open thoughts": lambda n: "<think>" * (n // 7),
    "action of blanks": lambda n: "Action: x" + " " * n + "y",
    "blanks before an action": lambda n: " " * n + "Action: x",
    "actions": lambda n: "Action: f\n" * (n // 10),
    "calls": lambda n: 'Action: f\nAction Input: {"a": 1}\n' * (n // 32),
    "open inputs": lambda n: "Action Input: {" * (n // 15),
    "deep input": lambda n: "Action: f\nAction Input: " + '{"a":' * (n // 5),
    "lines of blanks": lambda n: (" " * 99 + "\n") * (n // 100),
    "blank lines": lambda n: "\n" * n,
    "digits": lambda n: "7" * n + "x",
    "numbers": lambda n: "7 " * (n // 2),
    "thousands": lambda n: "7" + ",777" * (n // 4) + "x",
    "commas": lambda n: "," * n,
    "words": lambda n: "or not " * (n // 7),
    "letters": lambda n: "A " * (n // 2),
    "Chinese": lambda n: "\u7b54\u6848" * (n // 2),
    "surrogates": lambda n: "\ud800" * n,
    "open brackets": lambda n: "\\boxed{" + "(" * n + "}",
    "powers": lambda n: "\\boxed{" + "2^" * (n // 2) + "}",
    "text commands": lambda n: "\\boxed{" + "\\text{" * (n // 6) + "}" * (n // 6) + "}",
}


def read_math(text):
    found = extract(text)
    return quick("\\sqrt{7}+x", found.text) if found.text else None


READERS = {
    "math": read_math,
    "last integer": last_integer,
    "choice": lambda text: read_letter(text, "ABCD"),
    "calls": read_calls,
    "program": extract_program,
    "function": lambda text: extract_program(text, {"f", "g2"}),
    "paper choice": lambda text: (paper.answer_tag(text), paper.last_option(text), paper.last_box(text)),
    "paper calls": lambda text: (paper.actions(text), paper.merged_inputs(text)),
}


def cpu(reader, text):
    """The least of three measurements of this thread's CPU time."""
    times = []
    for _ in range(3):
        start = time.thread_time()
        reader(text)
        times.append(time.thread_time() - start)
    return min(times)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", TEXTS)
def test_cpu_time_is_linear(name, reader):
    small, large = 16_000, 128_000  # characters; the larger is what 32k tokens have
    before = cpu(READERS[reader], TEXTS[name](small))
    after = cpu(READERS[reader], TEXTS[name](large))
    assert after < 3 * 8 * max(before, 0.001)
    assert after < 0.5  # at most 0.1 where it was measured


def instructions(reader, text):
    """How many bytecode instructions a call executes."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += event == "opcode"
        return trace

    old = sys.gettrace()
    sys.settrace(trace)
    try:
        reader(text)
    finally:
        sys.settrace(old)
    return count


@pytest.mark.parametrize("reader", READERS)
def test_steps_are_linear(reader):
    for name, text in TEXTS.items():
        before, after = (instructions(READERS[reader], text(size)) for size in (1_000, 4_000))
        assert after <= 6 * before + 2_000, name
