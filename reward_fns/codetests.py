"""The tests of a code row, from the shapes in which data sets give them.

======================  ==========================================================================================
data set                ``ground_truth`` (JSON text or the object)
======================  ==========================================================================================
APPS, CodeContests,     ``{"inputs": [...], "outputs": [...]}``, with ``"fn_name"`` for function calls (each input a
TACO                    list of arguments; each output the value, or a list that holds it)
LiveCodeBench           ``[{"input", "output", "testtype": "stdin" | "functional"}, ...]``, or
                        ``{"public_test_cases", "private_test_cases", "fn_name"}``; arguments are JSON, one per line
MBPP                    ``{"test_list": ["assert ...", ...]}``, with ``"test_setup_code"`` / ``"test_imports"``
HumanEval(+)            ``{"test": "def check(candidate): ...", "entry_point": "f", "prompt": "..."}``
plain asserts           ``"assert f(1) == 2"``
======================  ==========================================================================================

``time_limit`` (seconds of CPU per test) may stand beside any of them. Tests without any case are an error of the data.
docs/rewards.md lists where the verdicts differ from those of the data sets' own harnesses.
"""

from __future__ import annotations

import ast
import builtins
import json
from dataclasses import dataclass
from typing import Any

from reward_fns.result import BadGroundTruth


@dataclass(frozen=True)
class StdinTest:
    """A whole program: ``stdin`` in, ``expected`` on stdout."""

    stdin: str
    expected: str
    public: bool = True


@dataclass(frozen=True)
class CallTest:
    """One call of ``name``."""

    name: str
    args: list[Any]
    expected: Any
    public: bool = True
    wrapped: bool = False
    """The row gives the value in a list of one, and does not say whether the list belongs to it."""


@dataclass(frozen=True)
class AssertTest:
    """Test code that calls ``names`` of the answer; ``setup`` runs before it, in the tests' process."""

    code: str
    names: list[str]
    setup: str = ""
    public: bool = True


Test = StdinTest | CallTest | AssertTest


@dataclass(frozen=True)
class TestSuite:
    """All tests of a row, the public ones first."""

    __test__ = False

    tests: list[Test]
    cpu_seconds: float | None = None
    prelude: str = ""
    """Code the answer may rely on, run before it: the prompt's imports and helpers, or what the harness imports."""

    @property
    def names(self) -> set[str]:
        """The functions that the answer must define; none for whole programs."""
        named = {test.name for test in self.tests if isinstance(test, CallTest)}
        return named.union(*(test.names for test in self.tests if isinstance(test, AssertTest)))


#: What the harnesses of LiveCodeBench, APPS and TACO import for the answer, in LiveCodeBench's order: built-in names
#: win over those of modules, and ``typing`` over both.
HARNESS_IMPORTS = "\n".join(
    [
        *(f"from {name} import *" for name in (
            "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics",
            "itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing",
        )),
        "import string, re, datetime, collections, heapq, bisect, copy, math, random, itertools, functools, operator",
        "import io, sys, json, time, fractions, statistics",
        "sys.setrecursionlimit(50000)",
    ]
)  # fmt: skip


def read_tests(ground_truth: Any) -> TestSuite:
    """The tests of a row; :class:`BadGroundTruth` says what is wrong with them."""
    data = ground_truth
    if isinstance(data, str):
        text = data.strip()
        if text[:1] in ("{", "["):
            try:
                data = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise BadGroundTruth(f"the tests are not JSON: {error}") from None
        else:
            data = {"test_list": [text]} if text else {}
    elif hasattr(data, "tolist"):
        data = data.tolist()
    if isinstance(data, list):
        data = {"test_list": data} if data and isinstance(data[0], str) else {"public_test_cases": data}
    if not isinstance(data, dict):
        raise BadGroundTruth(f"the tests must be a JSON object or list, not {type(data).__name__}")
    tests, prelude = _read(data)
    if not tests:
        raise BadGroundTruth("the row has no tests; with none, everything would pass")
    limit = data.get("time_limit")
    tests.sort(key=lambda test: not test.public)
    return TestSuite(tests, float(limit) if limit else None, prelude)


def _read(data: dict[str, Any]) -> tuple[list[Test], str]:
    if "test" in data and "entry_point" in data:
        return _human_eval(data)
    if data.get("test_list") is not None:
        return _asserts(data), ""
    if data.get("inputs") is not None:
        return _apps(data), HARNESS_IMPORTS
    if data.get("public_test_cases") is not None or data.get("private_test_cases") is not None:
        return _livecodebench(data), HARNESS_IMPORTS
    raise BadGroundTruth(
        "no tests found: give inputs/outputs, test_list, test with entry_point, or public_test_cases "
        f"(the row has {sorted(data) or 'nothing'})"
    )


def _apps(data: dict[str, Any]) -> list[Test]:
    inputs, outputs = list(data["inputs"]), list(data.get("outputs", []))
    if len(inputs) != len(outputs):
        raise BadGroundTruth(f"{len(inputs)} inputs but {len(outputs)} outputs")
    public = int(data.get("public", len(inputs)))
    name = data.get("fn_name")
    tests: list[Test] = []
    for index, (given, expected) in enumerate(zip(inputs, outputs, strict=True)):
        if name:
            args = _arguments(given) if isinstance(given, str) else [_integer_keys(item) for item in given]
            value = _json(expected) if isinstance(expected, str) and isinstance(given, str) else expected
            wrapped = not isinstance(given, str) and isinstance(value, list) and len(value) == 1
            tests.append(CallTest(str(name), args, value[0] if wrapped else value, index < public, wrapped))
        else:
            tests.append(StdinTest(_lines(given), _lines(expected), index < public))
    return tests


def _integer_keys(value: Any) -> Any:
    """A dict whose keys are all integers, which JSON can only write as text, with integers again (as APPS does)."""
    if isinstance(value, dict) and value and all(str(key).lstrip("-").isdecimal() for key in value):
        return {int(key): item for key, item in value.items()}
    return value


def _livecodebench(data: dict[str, Any]) -> list[Test]:
    tests: list[Test] = []
    for key, public in (("public_test_cases", True), ("private_test_cases", False)):
        cases = data.get(key) or []
        cases = _json(cases) if isinstance(cases, str) else cases
        for case in cases:
            try:
                given, expected = case["input"], case["output"]
            except (KeyError, TypeError):
                raise BadGroundTruth(f"a test case must have input and output: {str(case)[:100]}") from None
            if case.get("testtype", "stdin") == "functional":
                name = data.get("fn_name") or case.get("fn_name") or (case.get("metadata") or {}).get("func_name")
                if not name:
                    raise BadGroundTruth("functional tests need fn_name")
                tests.append(CallTest(str(name), _arguments(given), _json(expected), public))
            else:
                tests.append(StdinTest(_lines(given), _lines(expected), public))
    return tests


def _asserts(data: dict[str, Any]) -> list[Test]:
    setup = "\n".join([*(data.get("test_imports") or []), data.get("test_setup_code") or ""]).strip()
    codes = [str(code) for code in data["test_list"] if str(code).strip()]
    names = [str(data["entry_point"])] if data.get("entry_point") else sorted(_free_names("\n".join(codes), setup))
    if codes and len(names) != 1:
        raise BadGroundTruth(
            f"the asserts use the names {names or 'of no function'}; give entry_point, and define the other names in "
            "test_setup_code (what decides a verdict must not come from the answer)"
        )
    public = int(data.get("public", len(codes)))
    return [AssertTest(code, names, setup, index < public) for index, code in enumerate(codes)]


def _human_eval(data: dict[str, Any]) -> tuple[list[Test], str]:
    entry, prompt = str(data["entry_point"]), str(data.get("prompt") or "")
    code = f"{data['test']}\n\ncheck({entry})\n"
    missing = _free_names(code, prompt) - {entry}
    if missing:
        raise BadGroundTruth(f"the test uses {sorted(missing)}, which nothing defines; give the row's prompt")
    if "assert" not in str(data["test"]):
        raise BadGroundTruth("the test asserts nothing, so that everything would pass")
    public = bool(data.get("public", True))
    return [AssertTest(code, [entry], prompt, public)], _definitions(prompt, entry)


def _definitions(prompt: str, entry: str) -> str:
    """The prompt without the function to write: imports and helpers the answer may use."""
    try:
        tree = ast.parse(prompt)
    except SyntaxError:
        return ""
    tree.body = [node for node in tree.body if getattr(node, "name", None) != entry]
    return ast.unparse(tree)


def _free_names(code: str, setup: str) -> set[str]:
    """Names that ``code`` reads and neither it, ``setup`` nor Python defines."""
    try:
        trees = [ast.parse(code), ast.parse(setup)]
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BadGroundTruth(f"the test code does not parse: {error}") from None
    read: set[str] = set()
    bound = set(dir(builtins))
    for index, tree in enumerate(trees):
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                if not isinstance(node.ctx, ast.Load):
                    bound.add(node.id)
                elif index == 0:
                    read.add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                bound.add(node.name)
            elif isinstance(node, ast.alias):
                bound.add((node.asname or node.name).split(".")[0])
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.ExceptHandler) and node.name:
                bound.add(node.name)
    return read - bound


def _arguments(text: Any) -> list[Any]:
    """LiveCodeBench's arguments: one JSON value per line."""
    if not isinstance(text, str):
        return list(text)
    return [_json(line) for line in text.split("\n") if line.strip()]


def _json(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadGroundTruth(f"a test value is not JSON: {text[:100]!r} ({error})") from None


def _lines(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)
