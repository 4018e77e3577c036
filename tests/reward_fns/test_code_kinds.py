# ruff: noqa: E501 - programs as text
"""Kinds of programs that graders judge wrongly: correct ones by the conventions of their data set, and wrong ones."""

import json

import pytest

from reward_fns import compute_score
from reward_fns.outputs import same_output
from reward_fns.programs import extract_program


def stdin(*pairs):
    return json.dumps([{"input": given, "output": expected, "testtype": "stdin"} for given, expected in pairs])


def functional(name, *pairs):
    cases = [{"input": given, "output": expected, "testtype": "functional"} for given, expected in pairs]
    return json.dumps({"fn_name": name, "public_test_cases": cases})


def asserts(*lines):
    return json.dumps({"test_list": list(lines)})


LINES = stdin(("3\n", "3\n"), ("5\n", "5\n"))
COUNT = functional("f", ("[3,1,3]", "2"))
PROMPT = {
    "prompt": "from typing import List\nimport math\n\n\ndef area(r: float) -> float:\n    '''Area.'''\n",
    "entry_point": "area",
    "test": "def check(candidate):\n    assert abs(candidate(1) - 3.14159) < 1e-3\n",
}
HUMAN = json.dumps(PROMPT)

PROGRAMS = [
    ("exit", "livecodebench", LINES, "n = input()\nprint(n)\nexit()", 1),
    ("exit", "livecodebench", LINES, "import sys\nprint(input())\nsys.exit(0)", 1),
    ("exit", "livecodebench", LINES, "def main():\n    print(input())\n    quit(0)\nmain()", 1),
    ("exit", "livecodebench", LINES, "print(input())\nexit(1)", 0),
    ("exit", "livecodebench", LINES, "print(input())\nexit('no')", 0),
    ("exit", "mbpp", asserts("assert f(1) == 1"), "def f(x):\n    exit()", 0),
    ("imports", "livecodebench", COUNT, "class Solution:\n    def f(self, a: List[int]) -> int:\n        return len(set(a))", 1),
    ("imports", "livecodebench", COUNT, "class Solution:\n    def f(self, a):\n        return len(Counter(a))", 1),
    ("imports", "livecodebench", COUNT, "class Solution:\n    def f(self, a):\n        d = defaultdict(int)\n        for x in a:\n            d[x] += 1\n        return len(d)", 1),
    ("imports", "livecodebench", COUNT, "class Solution:\n    def f(self, a):\n        return int(math.sqrt(4)) if inf > 0 else 0", 1),
    ("imports", "livecodebench", COUNT, "class Solution:\n    def f(self, a):\n        h = []\n        heappush(h, 2)\n        return heapq.heappop(h)", 1),
    ("imports", "livecodebench", COUNT, "class Solution:\n    @lru_cache(None)\n    def g(self, n):\n        return n\n    def f(self, a):\n        return self.g(2)", 1),
    ("imports", "livecodebench", COUNT, "class Solution:\n    def f(self, a):\n        return bisect_left([1, 2, 3], 3)", 1),
    ("imports", "livecodebench", COUNT, "class Solution:\n    def f(self, a):\n        return reduce(lambda x, y: x + y, [1, 1])", 1),
    ("imports", "livecodebench", COUNT, "class Solution:\n    def f(self, a):\n        return pow(2, 1, 5)", 1),
    ("imports", "livecodebench", COUNT, "from datetime import datetime\nclass Solution:\n    def f(self, a):\n        return datetime(2, 1, 1).year", 1),
    ("imports", "livecodebench", stdin(("9\n", "3\n")), "print(int(math.sqrt(int(input()))))", 1),
    ("imports", "livecodebench", stdin(("9\n", "9\n")), "print(sys.stdin.readline().strip())", 1),
    ("imports", "apps", json.dumps({"fn_name": "f", "inputs": [[4]], "outputs": [2]}), "def f(x):\n    return math.isqrt(x)", 1),
    ("imports", "taco", json.dumps({"inputs": ["4\n"], "outputs": ["2\n"]}), "print(math.isqrt(int(input())))", 1),
    ("imports", "mbpp", asserts("assert f(4) == 2"), "def f(x):\n    return math.isqrt(x)", 0),
    ("imports", "livecodebench", COUNT, "class Solution:\n    def f(self, a):\n        return numpy.array(a)", 0),
    ("iterator", "mbpp", asserts("assert list(f(3)) == [0, 1, 2]"), "def f(n):\n    return (i for i in range(n))", 1),
    ("iterator", "mbpp", asserts("assert list(f(3)) == [0, 1, 2]"), "def f(n):\n    for i in range(n):\n        yield i", 1),
    ("iterator", "mbpp", asserts("assert set(f(3)) == {0, 1, 2}"), "import itertools\ndef f(n):\n    return itertools.chain(range(n))", 1),
    ("iterator", "mbpp", asserts("assert next(f(3)) == 0"), "import itertools\ndef f(n):\n    return itertools.count()", 1),
    ("iterator", "mbpp", asserts("assert list(f(3)) == [2, 1, 0]"), "def f(n):\n    return reversed(range(n))", 1),
    ("iterator", "mbpp", asserts("assert f(3) == range(3)"), "def f(n):\n    return range(n)", 1),
    ("iterator", "mbpp", asserts("assert len(f(3)) == 3"), "def f(n):\n    return range(n)", 1),
    ("iterator", "mbpp", asserts("assert f(3) == [0, 1, 2]"), "def f(n):\n    return range(n)", 0),
    ("iterator", "mbpp", asserts("assert list(f(3)) == [0, 1]"), "def f(n):\n    return iter(range(n))", 0),
    ("iterator", "mbpp", asserts("assert sorted(f({'b': 1, 'a': 2})) == ['a', 'b']"), "def f(d):\n    return d.keys()", 1),
    ("iterator", "mbpp", asserts("assert sum(f({'b': 1, 'a': 2})) == 3"), "def f(d):\n    return d.values()", 1),
    ("iterator", "mbpp", asserts("assert dict(f({'b': 1})) == {'b': 1}"), "def f(d):\n    return d.items()", 1),
    ("iterator", "mbpp", asserts("assert dict(enumerate('ab')) == dict(f('ab'))"), "def f(s):\n    return enumerate(s)", 1),
    ("container", "mbpp", asserts("assert list(f([1, 2])) == [2, 1]"), "from collections import deque\ndef f(a):\n    return deque(reversed(a))", 1),
    ("container", "mbpp", asserts("assert f(1)[0] == 1"), "from collections import deque\ndef f(a):\n    return deque([a])", 1),
    ("container", "mbpp", asserts("assert f(1) == [1]"), "from collections import deque\ndef f(a):\n    return deque([a])", 0),
    ("container", "mbpp", asserts("assert f('aab') == {'a': 2, 'b': 1}"), "from collections import defaultdict\ndef f(s):\n    d = defaultdict(int)\n    for c in s:\n        d[c] += 1\n    return d", 1),
    ("number", "mbpp", asserts("assert f(1, 4) == 0.25"), "from fractions import Fraction\ndef f(a, b):\n    return Fraction(a, b)", 1),
    ("number", "mbpp", asserts("assert f(1, 4) == 0.25"), "from decimal import Decimal\ndef f(a, b):\n    return Decimal(a) / Decimal(b)", 1),
    ("number", "mbpp", asserts("assert float(f(1, 4)) == 0.25"), "from decimal import Decimal\ndef f(a, b):\n    return Decimal(a) / Decimal(b)", 1),
    ("number", "mbpp", asserts("assert f(1, 4) == 0.25"), "from fractions import Fraction\ndef f(a, b):\n    return Fraction(b, a)", 0),
    ("number", "livecodebench", functional("f", ("1", "0.25")), "from fractions import Fraction\nclass Solution:\n    def f(self, a):\n        return Fraction(a, 4)", 1),
    ("number", "apps", json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [10**15]}), "def f(x):\n    return 1e15 + 1", 0),
    ("number", "apps", json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [10**15]}), "def f(x):\n    return 1e15", 1),
    ("number", "apps", json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [0.3]}), "def f(x):\n    return 0.1 + 0.2", 1),
    ("number", "apps", json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [1]}), "def f(x):\n    return True", 0),
    ("wrapping", "apps", json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [[7]]}), "def f(x):\n    return 7", 1),
    ("wrapping", "apps", json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [[7]]}), "def f(x):\n    return [7]", 1),
    ("wrapping", "apps", json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [[7]]}), "def f(x):\n    return [[7]]", 0),
    ("wrapping", "apps", json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [[7, 8]]}), "def f(x):\n    return 7", 0),
    ("keys", "apps", json.dumps({"fn_name": "f", "inputs": [[{"1": 2}]], "outputs": [[2]]}), "def f(d):\n    return d[1]", 1),
    ("keys", "apps", json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [{"1": 2}]}), "def f(x):\n    return {1: 2}", 1),
    ("future", "humaneval", HUMAN, "from __future__ import annotations\ndef area(r: Unknown):\n    return 3.14159 * r * r", 1),
    ("future", "humaneval", HUMAN, "def area(r: float) -> float:\n    return math.pi * r * r", 1),
    ("future", "humaneval", HUMAN, "def area(r: float) -> float:\n    return 2 * math.pi * r", 0),
    ("mark", "livecodebench", LINES, "\ufeffprint(input())", 1),
    ("lines", "livecodebench", LINES, "print(input(), end='\\r\\n')", 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "source", "tests", "program", "right"), PROGRAMS, ids=[f"{i}-{row[0]}" for i, row in enumerate(PROGRAMS)]
)
def test_program(kind, source, tests, program, right):
    result = compute_score(source, f"Here:\n\n```python\n{program}\n```\n", tests)
    assert (result["score"], result["infra_error"]) == (right, 0.0), kind


def fenced(*blocks):
    return "\n\nThen:\n\n".join(f"```python\n{block}\n```" for block in blocks)


SOLVE, USAGE = "def f(x):\n    return x + 1", "# Example usage\nprint(f(3))"
READ, SHOW = "n = int(input())\nprint(n)", "# for 3 it prints\nprint(3)"


@pytest.mark.parametrize(
    ("text", "names", "program"),
    [
        (fenced(SOLVE, USAGE), {"f"}, SOLVE),
        (fenced("def f(x):\n    return 0", SOLVE), {"f"}, SOLVE),
        (fenced(SOLVE, "assert f(1) == 2\nassert f(2) == 3"), {"f"}, SOLVE),
        (fenced("class Solution:\n    def f(self, x):\n        return x", "Solution().f(1)"), {"f"}, "class Solution:\n    def f(self, x):\n        return x"),
        (fenced("f = lambda x: x + 1", USAGE), {"f"}, "f = lambda x: x + 1"),
        (fenced("def g(x):\n    return 1", USAGE), {"f"}, USAGE),
        (fenced(READ, SHOW), (), READ),
        (fenced("print(1)", "print(2)"), (), "print(2)"),
        (fenced("import sys\nprint(sys.stdin.read())", SHOW), (), "import sys\nprint(sys.stdin.read())"),
        (fenced(READ) + "\n```\n3\n```", (), READ),
        ("\ufeff" + fenced(READ), (), READ),
        ("```python\n\ufeffprint(1)\n```", (), "print(1)"),
        ("<think>\n" + fenced("print(1)") + "\n</think>\n" + fenced("print(2)"), (), "print(2)"),
        ("<think>\n" + fenced("print(1)"), (), ""),
        ("```python\nprint(1)", (), ""),
        ("1. First:\n   ```python\n   def f(x):\n\n       return x\n   ```", {"f"}, "def f(x):\n\n    return x"),
        ("1. First:\n   ```python\ndef f(x):\n    return x\n   ```", {"f"}, "def f(x):\n    return x"),
    ],
)  # fmt: skip
def test_the_block_that_is_the_answer(text, names, program):
    assert extract_program(text, names) == program


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        ("1000000000000", "1000000000000.0", True),
        ("1000000000000", "1000000000001.0", False),
        ("1000000000000", "1e12", True),
        ("3", "2.9999999999", False),
        ("3", "3.00", True),
        ("0.333333333", "0.3333333333", True),
        ("0.33", "0.34", False),
        ("1.5", "1.5000000001", True),
        ("123456789012345678", "123456789012345679", False),
        ("123456789012345678", "123456789012345680.0", False),
        ("1e5", "100000", True),
        ("nan", "0.0", False),
        ("01", "1", False),
        ("\u0661", "1.0", False),
    ],
)
def test_numbers_in_outputs(expected, got, same):
    assert same_output(expected, got) is same


def test_right_output_of_any_length():
    size = 5 << 20
    tests = json.dumps({"inputs": [str(size)], "outputs": ["7" * size]})
    right = compute_score("code", "```python\nprint('7' * int(input()))\n```", tests)
    assert (right["score"], right["infra_error"]) == (1.0, 0.0)
    wrong = compute_score("code", "```python\nprint('8' * int(input()))\n```", tests)
    assert (wrong["score"], wrong["infra_error"]) == (0.0, 0.0)
    endless = compute_score("code", "```python\nwhile True: print('7' * 10**6)\n```", tests)
    assert (endless["score"], endless["infra_error"]) == (0.0, 0.0)
