"""Code: correct programs score whatever of the standard library they use; wrong ones do not; feedback; data errors."""

import json

import pytest

from reward_fns import compute_score
from reward_fns.codetests import read_tests
from reward_fns.graders.code import extract_program, same_output
from reward_fns.result import BadGroundTruth


def block(code):
    return f"Here it is.\n```python\n{code}\n```\n"


def stdin_tests(*pairs, **more):
    return json.dumps({"inputs": [a for a, _ in pairs], "outputs": [b for _, b in pairs], **more})


ADD = stdin_tests(("1 2\n", "3"), ("10 -4\n", "6\n"))

PROGRAMS = {
    "plain": "print(sum(map(int, input().split())))",
    "sys.stdin": "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
    "stdin buffer": "import sys\na, b = map(int, sys.stdin.buffer.readline().split())\nsys.stdout.write(f'{a + b}\\n')",
    "open(0)": "print(sum(map(int, open(0).read().split())))",
    "os.read": "import os\nos.write(1, str(sum(map(int, os.read(0, 100).split()))).encode())",
    "main guard": "def main():\n    print(sum(map(int, input().split())))\nif __name__ == '__main__':\n    main()",
    "sys.exit(0)": "import sys\nprint(sum(map(int, input().split())))\nsys.exit(0)",
    "exit()": "print(sum(map(int, input().split())))\nimport sys; sys.exit()",
    "except ValueError": "try:\n    int('x')\nexcept ValueError:\n    print(sum(map(int, input().split())))",
    "super and divmod": (
        "class A:\n    def f(self, x): return divmod(x, 1)[0]\n"
        "class B(A):\n    def f(self, x): return super().f(x)\nprint(B().f(sum(map(int, input().split()))))"
    ),
    "big thread": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**27)\n"
        "def depth(n): return 0 if n == 0 else 1 + depth(n - 1)\n"
        "def main():\n    a, b = map(int, input().split()); print(a + b + depth(50000) - 50000)\n"
        "threading.Thread(target=main).start()"
    ),
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10**6)\ndef depth(n): return 0 if n == 0 else 1 + depth(n - 1)\n"
        "a, b = map(int, input().split())\nprint(a + b + depth(20000) - 20000)"
    ),
    "temporary file": (
        "import tempfile, os\nwith tempfile.NamedTemporaryFile('w+') as f:\n    f.write(input()); f.flush()\n"
        "    print(sum(map(int, open(f.name).read().split())))"
    ),
    "subprocess": (
        "import subprocess, sys\n"
        "print(subprocess.run([sys.executable, '-c', 'print(sum(map(int, input().split())))'], "
        "input=input(), text=True, capture_output=True, check=True).stdout.strip())"
    ),
    "multiprocessing": (
        "import multiprocessing as m\ndef add(p): return sum(p)\n"
        "if __name__ == '__main__':\n    with m.Pool(2) as p: print(p.map(add, [tuple(map(int, input().split()))])[0])"
    ),
    "thread pool": (
        "from concurrent.futures import ThreadPoolExecutor\na, b = map(int, input().split())\n"
        "with ThreadPoolExecutor(8) as p: print(sum(p.map(int, [a, b])))"
    ),
    "asyncio": (
        "import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    print(sum(map(int, input().split())))\n"
        "asyncio.run(main())"
    ),
    "signal alarm": (
        "import signal\nsignal.signal(signal.SIGALRM, lambda *a: None); signal.alarm(1)\n"
        "print(sum(map(int, input().split())))\nsignal.alarm(0)"
    ),
    "atexit prints": "import atexit\ns = sum(map(int, input().split()))\natexit.register(print, s)",
    "dataclass and pickle": (
        "import pickle\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\n    b: int\n"
        "p = pickle.loads(pickle.dumps(P(*map(int, input().split()))))\nprint(p.a + p.b)"
    ),
    "many modules": (
        "import decimal, fractions, statistics, itertools, bisect, heapq, array, struct, zlib, hashlib, random, re\n"
        "import datetime, calendar, textwrap, string, operator, functools, collections, copy, enum, typing, json, csv\n"
        "import sqlite3, io, contextlib, uuid, secrets, platform, locale, unicodedata, zoneinfo, ipaddress, ast, dis\n"
        "print(functools.reduce(operator.add, map(int, input().split())))"
    ),
    "sqlite": (
        "import sqlite3\nc = sqlite3.connect(':memory:')\na, b = map(int, input().split())\n"
        "print(c.execute('select ?+?', (a, b)).fetchone()[0])"
    ),
    "exec in the program": "exec('print(sum(map(int, input().split())))')",
    "prints a float": "a, b = map(int, input().split())\nprint(float(a + b))",
    "trailing blanks": "print(sum(map(int, input().split())), end='  \\n\\n')",
    "CRLF source": "a, b = map(int, input().split())\r\nprint(a + b)\r\n",
    "input past the end": "t = input()\ntry:\n    input()\nexcept EOFError:\n    print(sum(map(int, t.split())))",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_correct_programs_score(name, isolation):
    result = compute_score("apps", block(PROGRAMS[name]), ADD, sandbox=isolation)
    assert (result["score"], result["infra_error"], result["feedback"]) == (1.0, 0.0, "")
    assert (result["tests_passed"], result["tests_total"]) == (2.0, 2.0)
    assert result["isolation"] == (2.0 if isolation["isolation"] == "namespaces" else 1.0)


WRONG = {
    "wrong answer": ("print(0)", "Wrong Answer", 0),
    "right by chance once": ("print(3)", "Wrong Answer", 1),
    "no output": ("pass", "Wrong Answer", 0),
    "raises": ("raise ValueError('boom')", "boom", 0),
    "syntax error": ("print(", "SyntaxError", 0),
    "non-zero exit": ("print(sum(map(int, input().split())))\nraise SystemExit(1)", "Runtime Error", 0),
    "extra output": ("print('result:', sum(map(int, input().split())))", "Wrong Answer", 0),
    "loops": ("while True: pass", "Time Limit", 0),
    "sleeps": ("import time\ntime.sleep(100)", "Time Limit", 0),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_programs_do_not(name, isolation):
    code, feedback, passed = WRONG[name]
    result = compute_score("apps", block(code), ADD, sandbox={**isolation, "cpu_seconds": 1})
    assert (result["score"], result["acc"], result["infra_error"]) == (0.0, 0.0, 0.0)
    assert feedback in result["feedback"]
    assert result["tests_passed"] == passed
    assert result["timed_out"] == float("Time" in feedback)


FUNCTION_TESTS = {
    "MBPP": json.dumps({"test_list": ["assert f([3, 1, 2]) == [1, 2, 3]", "assert f([]) == []"]}),
    "HumanEval": {
        "prompt": "def f(xs):\n    '''Sort.'''\n",
        "entry_point": "f",
        "test": "def check(candidate):\n    assert candidate([3, 1, 2]) == [1, 2, 3]\n    assert candidate([]) == []\n",
    },
    "HumanEval+ loops": {
        "prompt": "def f(xs):\n    '''Sort.'''\n",
        "entry_point": "f",
        "test": (
            "inputs = [[[n, 1, n // 2]] for n in range(2, 200)]\n"
            "def check(candidate):\n    for i in inputs:\n        assert candidate(*i) == sorted(i[0]), i\n"
        ),
    },
    "LiveCodeBench": json.dumps(
        [{"input": "[3, 1, 2]", "output": "[1, 2, 3]", "testtype": "functional", "fn_name": "f"}]
    ),
    "APPS call": json.dumps({"fn_name": "f", "inputs": [[[3, 1, 2]]], "outputs": [[[1, 2, 3]]]}),
    "plain asserts": "assert f([3, 1, 2]) == [1, 2, 3]\nassert f([1]) == [1]",
}


@pytest.mark.parametrize("shape", FUNCTION_TESTS)
def test_function_tests(shape, isolation):
    tests = FUNCTION_TESTS[shape]
    right = [
        "def f(xs):\n    return sorted(xs)",
        "def f(xs):\n    xs.sort()\n    print('debug')\n    return xs",
        "class Mine(list):\n    pass\ndef f(xs):\n    return Mine(sorted(xs))",
        "from functools import lru_cache\n@lru_cache\ndef g(t): return sorted(t)\ndef f(xs): return list(g(tuple(xs)))",
    ]
    for code in right:
        result = compute_score("code", block(code), tests, sandbox=isolation)
        assert (result["score"], result["infra_error"]) == (1.0, 0.0), (code, result["feedback"])
    for code in ("def f(xs):\n    return xs", "def g(xs):\n    return sorted(xs)", "def f(xs):\n    raise KeyError(1)"):
        result = compute_score("code", block(code), tests, sandbox=isolation)
        assert (result["score"], result["infra_error"]) == (0.0, 0.0), code
        assert result["feedback"]


def test_solution_class_and_values(isolation):
    tests = json.dumps({"fn_name": "go", "inputs": [[[1, 2], {"a": 1}]], "outputs": [[[3, {"a": 0.3}, None, True]]]})
    good = "class Solution:\n    def go(self, xs, d):\n        return [sum(xs), {'a': 0.1 + 0.2}, None, True]"
    assert compute_score("code", block(good), tests, sandbox=isolation)["score"] == 1.0
    for wrong in ("True", "None", "[3, {'a': 0.3}, None, 1]", "[3, {'a': 0.31}, None, True]", "object()"):
        bad = f"class Solution:\n    def go(self, xs, d):\n        return {wrong}"
        assert compute_score("code", block(bad), tests, sandbox=isolation)["score"] == 0.0, wrong


def test_every_plain_type_travels_both_ways(isolation):
    value = "[None, True, 2**80, -1.5, float('inf'), 's\\ud800', b'b', (1,), {1: 'a', (2,): {3}}, {frozenset({4})}, 1j]"
    tests = {"test_list": [f"v = {value}\nassert f(v) == v"], "entry_point": "f"}
    assert compute_score("mbpp", block("def f(x): return x"), tests, sandbox=isolation)["score"] == 1.0
    same = f"def f(x):\n    assert x == {value}\n    return {value}"
    assert compute_score("mbpp", block(same), tests, sandbox=isolation)["score"] == 1.0


def test_a_test_that_looks_at_changed_arguments(isolation):
    tests = {"test_list": ["x = [2, 1]\nassert f(x) is None\nassert x == [1, 2]"]}
    assert compute_score("mbpp", block("def f(x): x.sort()"), tests, sandbox=isolation)["score"] == 1.0
    assert compute_score("mbpp", block("def f(x): sorted(x)"), tests, sandbox=isolation)["score"] == 0.0


def test_helpers_of_the_test_do_not_come_from_the_answer(isolation):
    tests = {
        "prompt": "import math\ndef near(a, b):\n    return abs(a - b) < 1e-6\ndef f(x):\n    '''Root.'''\n",
        "entry_point": "f",
        "test": "def check(candidate):\n    assert near(candidate(2), math.sqrt(2))\n",
    }
    cheat = "def near(a, b):\n    return True\ndef f(x):\n    return 0"
    assert compute_score("humaneval", block(cheat), tests, sandbox=isolation)["score"] == 0.0
    honest = "def f(x):\n    return math.sqrt(x)"  # the prompt imported math
    assert compute_score("humaneval", block(honest), tests, sandbox=isolation)["score"] == 1.0


def test_feedback_shows_public_cases_and_hides_hidden_ones(isolation):
    tests = stdin_tests(("1 2\n", "3"), ("SECRET-INPUT 4\n", "SECRET-OUTPUT"), public=1)
    shown = compute_score("apps", block("print(4)"), tests, sandbox=isolation)["feedback"]
    assert "Input:\n1 2" in shown
    assert "Output:\n4" in shown
    assert "Expected:\n3" in shown
    hidden = compute_score("apps", block("print(3)"), tests, sandbox=isolation)["feedback"]
    assert "hidden" in hidden
    assert "SECRET" not in hidden


def test_partial_credit_runs_all_tests(isolation):
    tests = stdin_tests(("1 2\n", "3"), ("1 3\n", "4"), ("2 1\n", "3"))
    result = compute_score("apps", block("print(3)"), tests, partial=True, sandbox=isolation)
    assert result["score"] == pytest.approx(2 / 3)
    assert (result["acc"], result["tests_passed"]) == (0.0, 2.0)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "[]",
        "{}",
        "{",
        '{"inputs": [], "outputs": []}',
        '{"inputs": ["1"], "outputs": []}',
        '{"test_list": []}',
        '{"test_list": ["assert f(1) == g(1)"]}',
        '{"test_list": ["assert f("]}',
        '{"test": "def check(candidate): pass", "entry_point": "f"}',
        '{"public_test_cases": []}',
        '[{"input": "1", "output": "1", "testtype": "functional"}]',
    ],
)
def test_unusable_tests_are_an_error_never_a_pass(bad):
    with pytest.raises(BadGroundTruth):
        read_tests(bad)
    result = compute_score("code", block("print(1)"), bad)
    assert (result["score"], result["infra_error"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\na\n```", "a"),
        ("```\na\n```", "a"),
        ("```py\na\n```\nthen\n```python\nb\n```", "b"),
        ("```python\na\n```\noutput:\n```\n3\n```", "a"),
        ("```python\na\n```\n```text\nb\n```", "a"),
        ("```python\na", ""),
        ("```python\na\n```\n```python\nb", "a"),
        ("````python\n```\na\n````", "```\na"),
        ("~~~python\na\n~~~", "a"),
        ("\ufeff```python\na\n```", "a"),
        ("```python\r\na\r\nb\r\n```\r\n", "a\nb"),
        ("```python\nwrong\n```</think>```python\na\n```", "a"),
        ("  ```python\n  a\n  ```", "a"),
        ("def f():\n    return 1", "def f():\n    return 1"),
        ("I cannot do this.", ""),
        ("", ""),
        ("```python\n\n```", ""),
        ("```python\n" + "a" * 300_000 + "\n```", ""),
    ],
)
def test_extraction(text, program):
    assert extract_program(text) == program


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        ("3", "3\n", True),
        ("1 2\n3", "1 2 \n3\n\n", True),
        ("1 2\n3", "1\n2 3", False),
        ("0.5", "0.5000000000001", True),
        ("0.5", "0.5001", False),
        ("1", "1.0", True),
        ("12345678901234567890", "12345678901234567891", False),
        ("YES", "yes", False),
        ("", "", True),
        ("", "x", False),
        ("nan", "NaN", False),
        ("1", "\u0661", False),
        ("1_000.0", "1000.0", False),
        ("inf", "1e999", False),
    ],
)
def test_output_comparison(expected, got, same):
    assert same_output(expected, got) is same
